"""How a school's users are written: requests, records, and how a row goes into a record that is there already."""

from dataclasses import asdict, dataclass
from typing import Any, Final
from urllib.parse import quote

import orjson

from bulkusers.models import Existing, Lists, Request, User, email_key
from bulkusers.profile import Profile

Json = dict[str, Any]

SCALARS: Final = ("first_name", "last_name", "department", "external_id", "status")
LISTS: Final = ("products", "roles", "secondary_departments")


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
        return template.format(school=quote(self.school, safe=""), email=quote(email, safe=""))

    def record(self, user: User) -> Json:
        """Return a user as the API writes it; what the row leaves blank is left out."""
        names = self.profile.fields
        record: Json = {names.email: user.email}
        for column in SCALARS:
            if value := self.value(user, column):
                record[getattr(names, column)] = value
        for column in LISTS:
            if values := getattr(user, column):
                record[getattr(names, column)] = list(values)
        record.setdefault(names.products, [])  # required of every record; none are left to one who has gone
        return record

    def value(self, user: User, column: str) -> str:
        """Return one single-valued cell in the API's words."""
        value: str = getattr(user, column)
        if column == "status" and value:
            value = getattr(self.profile.values, value)
        return value

    def create(self, user: User) -> Request:
        """Return the request that creates a user; the API mails the user unless told not to."""
        body = self.record(user) | {self.profile.fields.no_mail: not self.notify}
        return Request("POST", self.path(self.profile.paths.create), orjson.dumps(body))

    def read(self, email: str) -> Request:
        """Return the request for one user's record."""
        return Request("GET", self.path(self.profile.paths.user, email))

    def replace(self, email: str, record: Json) -> Request:
        """Return the request that puts a whole record in the place of a user's present one."""
        return Request("PUT", self.path(self.profile.paths.user, email), orjson.dumps(record))


def merge(found: Json, user: User, rules: Rules) -> Json | None:
    """Return a present record with the row's values put in, all else as it came; None where a list is no list.

    A blank cell keeps what is there. Lists only grow unless they are to be replaced, and keep their order.
    """
    names = rules.profile.fields
    merged = dict(found)
    for column in SCALARS:
        if value := rules.value(user, column):
            merged[getattr(names, column)] = value
    for column in LISTS:
        wanted = list(getattr(user, column))
        present = found.get(getattr(names, column)) or []
        if not isinstance(present, list) or not all(isinstance(item, str) for item in present):
            return None
        if rules.lists is Lists.ADD:
            wanted = present + [item for item in wanted if item not in present]
        if wanted and set(wanted) != set(present):
            merged[getattr(names, column)] = wanted
    return merged


def is_only(found: Json, user: User, rules: Rules) -> bool:
    """Tell whether a record says no more of a user than its row does; the API's own fields do not count."""
    said = rules.record(user)
    return not any(found.get(name) for name in asdict(rules.profile.fields).values() if name not in said)


def holds(found: Json, sent: Json, rules: Rules) -> bool:
    """Tell whether a record holds every value that was sent; the API may order lists as it likes."""
    for name, value in sent.items():
        present = found.get(name)
        if name == rules.profile.fields.email:
            continue  # whoever found the record has compared it
        if isinstance(value, list) and isinstance(present, list | None):
            if sorted(map(str, value)) != sorted(map(str, present or [])):
                return False
        elif present != value:
            return False
    return True


def same_email(one: object, other: str) -> bool:
    """Compare e-mails as the API is assumed to."""
    return isinstance(one, str) and email_key(one) == email_key(other)
