"""How a school's users are written: requests, records, and how a row goes into a record that is there already."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import BinaryIO, Final
from urllib.parse import quote, urlencode

import orjson

from bulkusers.columns import clean
from bulkusers.models import Existing, Json, Lists, Request, User, email_key
from bulkusers.profile import Profile

SCALARS: Final = ("first_name", "last_name", "department", "external_id", "status")
LISTS: Final = ("products", "roles", "secondary_departments")
NOTHING: Final[tuple[object, ...]] = (None, "", [], {})  # ways to say that a field has no value


@dataclass(frozen=True, slots=True)
class Rules:
    """How users are placed at one school."""

    profile: Profile
    school: str
    existing: Existing = Existing.MERGE
    lists: Lists = Lists.ADD
    notify: bool = False
    retries: int = 5  # of a write whose answer is lost

    def path(self, template: str, email: str = "") -> str:
        """Fill a path of the profile in; an e-mail stays one segment whatever is in it (RFC 3986 2.1)."""
        if email in {".", ".."}:  # the two segments that encoding cannot tame (RFC 3986 5.2.4)
            raise ValueError("no e-mail address, and not a name for a record")
        return template.format(school=_quote_school(self.school), email=quote(email, safe="") if email else "")

    def record(self, user: User) -> Json:
        """Return a user as the API writes it; what the row leaves blank is left out."""
        names = self.profile.fields
        cells = (
            (names.email, user.email),
            (names.first_name, user.first_name),
            (names.last_name, user.last_name),
            (names.department, user.department),
            (names.external_id, user.external_id),
            (names.status, self.value(user, "status")),
            (names.products, list(user.products)),
            (names.roles, list(user.roles)),
            (names.secondary_departments, list(user.secondary_departments)),
        )
        record: Json = {name: value for name, value in cells if value}
        record.setdefault(names.products, [])  # required of every record; none are left to one who has gone
        return record

    def value(self, user: User, column: str) -> str:
        """Return one single-valued cell in the API's words."""
        value: str = getattr(user, column)
        if column == "status" and value:
            value = getattr(self.profile.values, value)
        return value

    def create(self, record: Json) -> Request:
        """Return the request that creates a user; the API mails the user unless told not to."""
        body = record | {self.profile.fields.no_mail: not self.notify}
        return Request("POST", self.path(self.profile.paths.create), orjson.dumps(body))

    def create_anew(self, record: Json) -> Request:
        """Return the request that creates a user who was there before, from the record; nobody gets a mail."""
        body = {name: value for name, value in record.items() if name not in self.profile.records.own}
        return Request(
            "POST", self.path(self.profile.paths.create), orjson.dumps(body | {self.profile.fields.no_mail: True})
        )

    def read(self, email: str) -> Request:
        """Return the request for one user's record."""
        return Request("GET", self.path(self.profile.paths.user, email))

    def read_all(self, into: BinaryIO, page: int = 1, limit: int = 0) -> Request:
        """Return the request for all users, or for one page of so many of them; the answer goes `into` a file."""
        path = self.path(self.profile.paths.users)
        if page > 1:
            names = self.profile.records
            path += "?" + urlencode({names.page: page, names.limit: limit})
        return Request("GET", path, into=into)

    def delete(self, email: str) -> Request:
        """Return the request that deletes a user."""
        return Request("DELETE", self.path(self.profile.paths.user, email))

    def replace(self, email: str, record: Json) -> Request:
        """Return the request that puts a whole record in the place of a user's present one."""
        return Request("PUT", self.path(self.profile.paths.user, email), orjson.dumps(record))


@lru_cache(maxsize=1)
def _quote_school(school: str) -> str:
    return quote(school, safe="")


def change(found: Json, user: User, rules: Rules) -> tuple[Json, tuple[str, ...]] | None:
    """Return what takes a present record's place, and the names of the fields that differ; None if that cannot be said.

    What the API keeps itself is no difference, nor is the order of a list or another way to say "nothing".
    """
    record = rules.record(user) if rules.existing is Existing.OVERWRITE else merge(found, user, rules)
    if record is None:
        return None
    ours = (name for name in dict.fromkeys([*found, *record]) if name not in rules.profile.records.own)
    return record, tuple(name for name in ours if not is_same(name, found, record, rules))


def is_same(name: str, found: Json, record: Json, rules: Rules) -> bool:
    """Tell whether two records have the same in a field."""
    one, other = found.get(name), record.get(name)
    if name == rules.profile.fields.email:
        return same_email(one, str(other))
    return is_alike(one, other)


def is_alike(one: object, other: object) -> bool:
    """Compare two values of a field: the API may order lists as it likes, and say "nothing" as it likes."""
    if isinstance(one, list) and isinstance(other, list):
        return sorted(map(str, one)) == sorted(map(str, other))
    return one == other or (one in NOTHING and other in NOTHING)


def loses(before: Json, after: Json, changed: Iterable[str]) -> bool:
    """Tell whether a record loses a value, without getting another one for it, in the fields that change."""
    return any(_loses(before.get(name), after.get(name)) for name in changed)


def _loses(old: object, new: object) -> bool:
    if isinstance(old, list):
        left = new if isinstance(new, list) else ()
        return any(value not in left for value in old)
    return new in NOTHING and old not in NOTHING


def merge(found: Json, user: User, rules: Rules) -> Json | None:
    """Return a present record with the row's values put in, all else as it came; None where a list is no list.

    A blank cell keeps what is there, whatever it is, and so does a value that differs only in blanks around it, which
    no file can hold. Lists only grow unless they are to be replaced, and keep their order.
    """
    names = rules.profile.fields
    merged = dict(found)
    for column in SCALARS:
        name = getattr(names, column)
        if (value := rules.value(user, column)) and value != _clean(found.get(name)):
            merged[name] = value
    for column in LISTS:
        name = getattr(names, column)
        wanted = list(getattr(user, column))
        if not wanted:
            continue
        present = found.get(name) or []
        if not isinstance(present, list) or not all(isinstance(item, str) for item in present):
            return None
        known = {clean(item) for item in present}
        if rules.lists is Lists.ADD:
            wanted = present + [item for item in wanted if item not in known]
        if set(map(clean, wanted)) != known:
            merged[name] = wanted
    return merged


def _clean(value: object) -> object:
    return clean(value) if isinstance(value, str) else value


def is_exactly(found: Json, sent: Json, rules: Rules) -> bool:
    """Tell whether a record holds what was sent and nothing besides, but for what the API keeps itself."""
    own = rules.profile.records.own
    more = (value for name, value in found.items() if name not in sent and name not in own)
    return holds(found, sent, rules) and all(value in NOTHING for value in more)


def is_same_record(one: Json, other: Json, rules: Rules) -> bool:
    """Tell whether two records say the same, but for what the API keeps itself."""
    own = rules.profile.records.own
    return all(name in own or is_same(name, one, other, rules) for name in {**one, **other})


def holds(found: Json, sent: Json, rules: Rules) -> bool:
    """Tell whether a record holds every value that was sent, but for what the API keeps itself."""
    return all(is_same(name, found, sent, rules) for name in sent if name not in rules.profile.records.own)


def same_email(one: object, other: str) -> bool:
    """Compare e-mails as the API is assumed to."""
    return one == other or (isinstance(one, str) and email_key(one) == email_key(other))
