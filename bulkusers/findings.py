"""What can be said of a token, a list and records by looking at them: pure, and without a word of anybody's data."""

import base64
import binascii
import difflib
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from bulkusers.cells import split_values
from bulkusers.columns import COLUMNS, Column, clean, header_key
from bulkusers.models import Json, email_key
from bulkusers.profile import Profile
from bulkusers.rules import LISTS, NOTHING, SCALARS

SHOWN: Final = 5  # words or ids that a finding names
WORD: Final = re.compile(r"[\w.:-]{1,40}", re.ASCII)  # what is surely no person's name
CLOSE: Final = 0.75  # difflib's ratio: `departmentId` has 0.91 of department, `notes` 0.67 of roles


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


Line = tuple[str, str, str | list[str]]
"""One line of an API profile: its table, its key, its value."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at, and what to do about it."""

    level: Level
    check: str  # stable, for scripts: "token"
    message: str  # one line
    hint: str = ""
    profile: tuple[Line, ...] = ()  # what to write into the API profile


def toml_lines(lines: Iterable[Line]) -> Iterator[str]:
    """Yield lines as an API profile has them, each table once."""
    tables: dict[str, dict[str, str | list[str]]] = {}
    for table, key, value in lines:
        tables.setdefault(table, {})[key] = value
    for table, values in tables.items():
        yield f"[{table}]"
        for key, value in values.items():
            # JSON's texts and lists of texts are TOML's, too
            yield f"{key} = {json.dumps(value, ensure_ascii=False)}"


def judge_token(token: str, email: str, now: float) -> Finding:
    """Say what a token tells of itself, if it is one that does; `now` in seconds since 1970. (RFC 7519)."""
    said = _read_claims(token)
    if said is None:
        return Finding(
            Level.OK, "token", "the token is accepted; it does not tell whose it is, nor until when it lives"
        )
    words = ["the token is accepted"]
    whose = said.get("email")
    if isinstance(whose, str) and email and email_key(whose) != email_key(email):
        return Finding(
            Level.WARNING,
            "token",
            "the token is accepted, and is another account's than the e-mail that is configured",
            "bulkusers login gets one for that e-mail; or take the e-mail out of the configuration",
        )
    if isinstance(whose, str):
        words.append("it is the configured e-mail's" if email else "no e-mail is configured to compare it with")
    else:
        words.append("it does not tell whose it is")
    hours = hours_left(token, now)
    if hours is not None:
        words.append(f"it lives for {hours:.0f} more hours" if hours >= 1 else "it dies within the hour")
        if hours < 1:
            hint = "get a new one before a long run: bulkusers login"
            return Finding(Level.WARNING, "token", "; ".join(words), hint)
    return Finding(Level.OK, "token", "; ".join(words))


def hours_left(token: str, now: float) -> float | None:
    """Return how long a token lives by its own date, less than nothing if it is dead; None where it does not tell."""
    end = (_read_claims(token) or {}).get("exp")
    return (end - now) / 3600 if isinstance(end, int | float) and not isinstance(end, bool) else None


def _read_claims(token: str) -> Json | None:
    """Return what a JWT says, unverified; None where it is none."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        said = json.loads(base64.b64decode(parts[1] + "=" * (-len(parts[1]) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


def find_lists(said: object) -> tuple[list[str], list[str]]:
    """Return the members of an object that hold a list of records, and those that hold a number."""
    if not isinstance(said, dict):
        return [], []
    lists = [name for name, value in said.items() if isinstance(value, list)]
    counts = [name for name, value in said.items() if isinstance(value, int) and not isinstance(value, bool)]
    return lists, counts


def find_alike(column: Column, name: str, there: Collection[str]) -> list[str]:
    """Return the fields of records that may be what the profile calls by another name, the likeliest first."""
    keys = {header_key(each): each for each in there}
    meant = [header_key(each) for each in (name, column.field, column.title, *column.synonyms)]
    alike = [keys[each] for each in meant if each in keys]
    for each in meant:
        alike += [keys[near] for near in difflib.get_close_matches(each, keys, n=2, cutoff=CLOSE)]
    return list(dict.fromkeys(alike))


def find_shape(said: object, profile: Profile) -> Iterator[Line]:
    """Yield what the API profile would have to say for an answer to be a list of users."""
    records = profile.records
    lists, counts = find_lists(said)
    uncounted = bool(counts) and not set(counts) & set(records.counts)
    if isinstance(said, dict) and (records.data in said or len(lists) == 1):
        if records.data not in said:
            yield "records", "data", lists[0]
        if uncounted:
            yield "records", "counts", counts[:1]
    first = _first_record(said, lists)
    name = profile.fields.email
    if first and name not in first:
        column = next(column for column in COLUMNS if column.field == "email")
        alike = find_alike(column, name, first)
        alike += [key for key, value in first.items() if isinstance(value, str) and "@" in value]
        if alike:
            yield "fields", "email", alike[0]


def _first_record(said: object, lists: list[str]) -> Json | None:
    """Return the first thing in an answer that may be a user's record."""
    if isinstance(said, dict):
        said = said[lists[0]] if lists else list(said.values())
    first = said[0] if isinstance(said, list) and said else None
    return first if isinstance(first, dict) else None


class Survey:
    """What all records of a school have in common; takes one after another."""

    def __init__(self, profile: Profile) -> None:
        self.users = 0
        self._profile = profile
        self._fields: Counter[str] = Counter()  # records that have a field
        self._odd: Counter[str] = Counter()  # records in which a column's field is of another kind than it should be
        self._values: dict[str, Counter[str]] = {
            column: Counter() for column in ("products", "roles", "departments", "status")
        }

    def __call__(self, record: Json) -> None:
        """Take one record into account."""
        names = self._profile.fields
        self.users += 1
        self._fields.update(record.keys())
        for column in LISTS:
            value = record.get(getattr(names, column)) or []
            if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
                self._odd[column] += 1
                continue
            group = "departments" if column == "secondary_departments" else column
            self._values[group].update(dict.fromkeys(value, 1))
        for column in SCALARS:
            value = record.get(getattr(names, column))
            if isinstance(value, str):
                if column in {"department", "status"} and clean(value):
                    self._values["departments" if column == "department" else column][value] += 1
            elif value not in NOTHING:
                self._odd[column] += 1

    def judge_fields(self) -> Iterator[Finding]:
        """Say whether the records have the fields that the profile names."""
        names = self._profile.fields
        used = {getattr(names, column.field) for column in COLUMNS} | set(self._profile.records.own)
        free = [name for name in self._fields if name not in used]
        fine = True
        for column in COLUMNS:
            name = getattr(names, column.field)
            if self._fields[name]:
                continue
            fine = False
            alike = [each for each in find_alike(column, name, free) if WORD.fullmatch(each)]
            if alike:
                free.remove(alike[0])  # it is not two things at once
                yield Finding(
                    Level.PROBLEM,
                    "fields",
                    f"no record has {name!r}, which the API profile says is {column.title}",
                    f"the records have {' and '.join(map(repr, alike[:2]))}: if that is it, say so in the API profile",
                    (("fields", column.field, alike[0]),),
                )
            else:
                required = column.required and column.field != "products"
                yield Finding(
                    Level.PROBLEM if required else Level.WARNING,
                    "fields",
                    f"no record has {name!r}, which the API profile says is {column.title}",
                    f"nobody has a value there, or it has another name: `fields.{column.field}` in the API profile",
                )
        for column in COLUMNS:
            if odd := self._odd[column.field]:
                fine = False
                kind = "a list of texts" if column.several else "a text"
                yield Finding(
                    Level.WARNING,
                    "fields",
                    f"{odd:,} of {self.users:,} records have a {getattr(names, column.field)!r} that is not {kind}",
                    f"leave {column.title} blank for these users, or correct them in the web app",
                )
        if fine:
            yield Finding(Level.OK, "fields", "the records have every field that the API profile names")

    def judge_ids(self, check: str, known: Collection[str]) -> Finding:
        """Say whether the roles or departments that users have are among those of the school."""
        values = self._values[check]
        strange = [value for value in values if value not in known]
        if not strange:
            return Finding(Level.OK, check, f"{check}: the school lists {len(known):,}, and all that users have")
        return Finding(
            Level.WARNING,
            check,
            f"{check}: users have {len(strange):,} that the school does not list{_name(strange)}",
            "they may have been deleted, or be names instead of ids; the file needs ids",
        )

    def judge_words(self) -> Iterator[Finding]:
        """Say whether statuses and products are those of the profile."""
        yield self._judge_status()
        values, known = self._values["products"], self._profile.values.products
        strange = [value for value in values if value not in known]
        if strange:
            words = [value for value in strange if WORD.fullmatch(value) and split_values(value) == (value,)]
            yield Finding(
                Level.WARNING,
                "products",
                f"users have {len(strange):,} products that the API profile does not know{_name(strange)}",
                "a row with one of them is rejected until the API profile knows it",
                (("values", "products", [*known, *words]),) if words else (),
            )
        else:
            yield Finding(Level.OK, "products", "users have no product that the API profile does not know")

    def _judge_status(self) -> Finding:
        values, words = self._values["status"], self._profile.values
        known = {"active": words.active, "inactive": words.inactive}
        strange = [value for value in values if value not in known.values()]
        lines: list[Line] = []
        for key, word in known.items():
            spelled = [value for value in strange if value.strip().casefold() in {key, word.casefold()}]
            if spelled and not values[word]:
                lines.append(("values", key, spelled[0]))
        if lines:
            return Finding(
                Level.PROBLEM,
                "status",
                f"the API writes statuses otherwise than the API profile{_name([str(line[2]) for line in lines])}",
                "say so in the API profile, else a run would write words that the API does not use",
                tuple(lines),
            )
        if strange:
            count = sum(values[value] for value in strange)
            return Finding(
                Level.WARNING,
                "status",
                f"{count:,} users have a status that is neither active nor inactive{_name(strange)}",
                "leave Status blank for them: a run keeps it. If one of the words means active or inactive, "
                "`values.active` or `values.inactive` in the API profile should say so",
            )
        return Finding(Level.OK, "status", "users are active or inactive, in the words of the API profile")


def _name(values: Iterable[str]) -> str:
    """Name the first few values, if they are surely no person's data."""
    words = [value for value in values if WORD.fullmatch(value)]
    more = ", …" if len(words) > SHOWN else ""
    return f": {', '.join(words[:SHOWN])}{more}" if words else ""
