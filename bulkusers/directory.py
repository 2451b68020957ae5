"""A school's roles and departments, and which ids of a file are not among them."""

from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Final

from bulkusers.answers import Wish, ask, json_of
from bulkusers.meaning import Meaning, classify
from bulkusers.models import Outcome, Request, Response, User
from bulkusers.rules import Rules

SHOWN_ROWS: Final = 5
KINDS: Final = {"roles": "role", "department": "department", "secondary_departments": "department"}


@dataclass(frozen=True, slots=True)
class Directory:
    """What a school has: names and whether they are in use, by id; None where that could not be read."""

    roles: Mapping[str, tuple[str, bool]] | None
    departments: Mapping[str, tuple[str, bool]] | None

    def of(self, kind: str) -> Mapping[str, tuple[str, bool]] | None:
        """Return the roles or the departments."""
        return self.roles if kind == "role" else self.departments


@dataclass(slots=True)
class Stranger:
    """An id in a file that the school does not have, or no longer uses."""

    kind: str  # "role" or "department"
    id: str
    inactive: bool
    suggestion: str  # the id that was perhaps meant
    count: int = 0
    rows: list[int] = field(default_factory=list)  # the first few


def read_directory(rules: Rules) -> Generator[Wish, Response, Directory]:
    """Read a school's roles and departments; what cannot be read is left out, for nothing depends on it."""
    paths = rules.profile.paths
    roles = yield from _read_entries(rules, paths.roles, "roles")
    departments = yield from _read_entries(rules, (paths.departments,), "departments")
    return Directory(roles, departments)


def _read_entries(
    rules: Rules, templates: Iterable[str], name: str
) -> Generator[Wish, Response, Mapping[str, tuple[str, bool]] | None]:
    for template in templates:
        request = Request("GET", rules.path(template))
        answer = yield from ask(request)
        if classify(request, answer, rules.profile) is Meaning.DONE:
            return read_entries(json_of(answer), name)
    return None


def read_entries(document: object, name: str) -> Mapping[str, tuple[str, bool]] | None:
    """Return the entries of a document in any of the shapes that they come in; None if it is none of them.

    An object by id or a list, as it is or wrapped in its own name or in `data`.
    """
    if isinstance(document, dict):
        inner = next((document[key] for key in (name, "data") if isinstance(document.get(key), dict | list)), document)
        document = list(inner.items()) if isinstance(inner, dict) else inner
    if not isinstance(document, list):
        return None
    pairs = [each if isinstance(each, tuple) else (None, each) for each in document]
    if not all(isinstance(entry, dict) for _, entry in pairs):
        return None
    entries = {}
    for key, entry in pairs:
        called = str(entry.get("displayName") or entry.get("name") or "")
        active = str(entry.get("status", "")).casefold() != "inactive"
        entries[str(key if key is not None else entry.get("id", entry.get("_id")))] = (called, active)
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
            stranger.count += 1
            if len(stranger.rows) < SHOWN_ROWS:
                stranger.rows.append(row)

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


def _suggest(key: str, known: Mapping[str, tuple[str, bool]]) -> str:
    """Return the id that was perhaps meant: by its name, which people write instead, or by its looks."""
    by_name = {name.casefold(): each for each, (name, _) in known.items() if name}
    if key.casefold() in by_name:
        return by_name[key.casefold()]
    spellings = by_name | {each.casefold(): each for each in known}
    near = get_close_matches(key.casefold(), spellings, n=1, cutoff=0.7)
    return spellings[near[0]] if near else ""
