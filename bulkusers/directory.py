"""A school's roles and departments, and which ids of a file are not among them."""

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Final

from bulkusers.answers import Wish, ask, json_of
from bulkusers.meaning import Meaning, classify
from bulkusers.models import Outcome, Request, Response, Rows, User
from bulkusers.rules import Rules

KINDS: Final = {"roles": "role", "department": "department", "secondary_departments": "department"}

Entry = tuple[str, bool]
"""What a role or department is called, and whether it is in use."""


@dataclass(frozen=True, slots=True)
class Directory:
    """What a school has, by id; None where that could not be read."""

    roles: dict[str, Entry] | None
    departments: dict[str, Entry] | None

    def of(self, kind: str) -> dict[str, Entry] | None:
        """Return the roles or the departments."""
        return self.roles if kind == "role" else self.departments


@dataclass(slots=True)
class Stranger(Rows):
    """An id in a file that the school does not have, or no longer uses."""

    kind: str  # "role" or "department"
    id: str
    inactive: bool
    suggestion: str  # the id that was perhaps meant
    count: int = 0
    rows: list[int] = field(default_factory=list)


def read_directory(rules: Rules) -> Generator[Wish, Response, Directory]:
    """Read a school's roles and departments; what cannot be read is left out, for nothing depends on it."""
    paths = rules.profile.paths
    roles = yield from _read_entries(rules, paths.roles, "roles")
    departments = yield from _read_entries(rules, (paths.departments,), "departments")
    return Directory(roles, departments)


def _read_entries(
    rules: Rules, templates: Iterable[str], name: str
) -> Generator[Wish, Response, dict[str, Entry] | None]:
    for template in templates:
        request = Request("GET", rules.path(template))
        answer = yield from ask(request)
        meaning = classify(request, answer, rules.profile)
        if meaning is not Meaning.NOT_FOUND:
            return read_entries(json_of(answer), name) if meaning is Meaning.DONE else None
    return None


def read_entries(document: object, name: str) -> dict[str, Entry] | None:
    """Return the records of a document, by every id that they have; None if it is no document of records.

    An object by id or a list, as it is or wrapped in its own name, in `data`, or in the only member that is a list.
    """
    if isinstance(document, dict):
        inner = [value for value in document.values() if isinstance(value, dict | list)]
        only = inner[0] if len(inner) == 1 and isinstance(inner[0], list) and inner[0] else document
        named = (document[key] for key in (name, "data") if isinstance(document.get(key), dict | list))
        document = next(named, only)
    if not isinstance(document, dict | list):
        return None
    records = document if isinstance(document, list) else list(document.values())
    if not all(isinstance(record, dict) for record in records):
        return None
    keys = document if isinstance(document, dict) else [None] * len(records)
    entries: dict[str, Entry] = {}
    for key, record in zip(keys, records, strict=True):
        called = str(record.get("displayName") or record.get("name") or "")
        active = str(record.get("status", "")).casefold() != "inactive"
        for each in (key, record.get("id"), record.get("_id")):
            if isinstance(each, str | int):
                entries.setdefault(str(each), (called, active))
    return entries


class Strangers:
    """Finds the ids of a file that are none of the school's; takes one user after another."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._found: dict[tuple[str, str], Stranger | None] = {}  # None: the school has it

    def watch(self, items: Iterable[User | Outcome]) -> Iterator[User | Outcome]:
        """Yield the items as they come, and look at those that are users."""
        for item in items:
            if not isinstance(item, Outcome):
                self(item)
            yield item

    def __call__(self, user: User) -> None:
        """Look at one user's ids."""
        seen = set()
        for column, kind in KINDS.items():
            value = getattr(user, column)
            for each in (value,) if isinstance(value, str) else value:
                if each and (kind, each) not in seen:
                    seen.add((kind, each))
                    self._count(kind, each, user.row)

    def _count(self, kind: str, key: str, row: int) -> None:
        if (kind, key) not in self._found:
            self._found[kind, key] = self._judge(kind, key)
        stranger = self._found[kind, key]
        if stranger is not None:
            stranger.add(row)

    def _judge(self, kind: str, key: str) -> Stranger | None:
        known = self._directory.of(kind)
        if known is None:
            return None
        if key in known:
            return None if known[key][1] else Stranger(kind, key, inactive=True, suggestion="")
        return Stranger(kind, key, inactive=False, suggestion=_suggest(key, known))

    def __iter__(self) -> Iterator[Stranger]:
        """Yield what was found, the most frequent first."""
        found = (stranger for stranger in self._found.values() if stranger is not None)
        return iter(sorted(found, key=lambda stranger: -stranger.count))


def _suggest(key: str, known: dict[str, Entry]) -> str:
    """Return the id that was perhaps meant: by its name, which people write instead, or by its looks."""
    by_name = {name.casefold(): each for each, (name, _) in reversed(known.items()) if name}  # the first id of several
    if key.casefold() in by_name:
        return by_name[key.casefold()]
    spellings = by_name | {each.casefold(): each for each in known}
    near = get_close_matches(key.casefold(), spellings, n=1, cutoff=0.7)
    return spellings[near[0]] if near else ""
