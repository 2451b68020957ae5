"""The API profile: every assumption about Coursedog's API, read from `profile.toml`, overridable line by line."""

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Final

from bulkusers.errors import SettingsError

EXCLUSIVE: Final = (
    ("created", "exists"),
    ("created", "maybe_exists"),
    ("exists", "maybe_exists"),
    ("found", "not_found"),
    ("replaced", "not_found"),
    ("deleted", "not_found"),
)
"""Statuses that one request cannot be answered with for both reasons."""

NOT_OF_USERS: Final = {"no_mail", "error"}  # fields of a request and of an answer

DEFAULTS: Final = Path(__file__).with_name("profile.toml")


@dataclass(frozen=True, slots=True)
class Login:
    """How a token is got."""

    path: str
    email: str
    password: tuple[str, ...]
    token: str


@dataclass(frozen=True, slots=True)
class Paths:
    """Where things are, below the base URL."""

    create: str
    user: str
    users: str
    roles: tuple[str, ...]
    departments: str


@dataclass(frozen=True, slots=True)
class Statuses:
    """Which HTTP statuses mean what."""

    created: tuple[int, ...]
    replaced: tuple[int, ...]
    found: tuple[int, ...]
    not_found: tuple[int, ...]
    exists: tuple[int, ...]
    maybe_exists: tuple[int, ...]
    deleted: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Fields:
    """What a user's record calls each column."""

    email: str
    first_name: str
    last_name: str
    products: str
    roles: str
    department: str
    secondary_departments: str
    external_id: str
    status: str
    no_mail: str
    error: str


@dataclass(frozen=True, slots=True)
class Records:
    """How a list of records comes, and what the API writes into each by itself."""

    data: str
    counts: tuple[str, ...]
    page: str
    limit: str
    own: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Values:
    """Words that the API expects in certain fields."""

    products: tuple[str, ...]
    active: str
    inactive: str


@dataclass(frozen=True, slots=True)
class Profile:
    """Everything that is known or assumed about the API, one table of `profile.toml` each."""

    hosts: Mapping[str, str]
    login: Login
    paths: Paths
    statuses: Statuses
    fields: Fields
    records: Records
    values: Values


def load_profile(path: Path | None = None) -> Profile:
    """Return the built-in profile, with the parts that the TOML file at `path` says otherwise.

    Raises:
        SettingsError: the file cannot be read, or says something that the profile has no place for, or that would
            send people's data to the wrong place.

    """
    tables = tomllib.loads(DEFAULTS.read_text(encoding="utf-8"))
    if path is not None:
        _overlay(tables, path)
        _check(tables, path)
    return Profile(
        hosts=tables["hosts"],
        login=Login(**_frozen(tables["login"])),
        paths=Paths(**_frozen(tables["paths"])),
        statuses=Statuses(**_frozen(tables["statuses"])),
        fields=Fields(**_frozen(tables["fields"])),
        records=Records(**_frozen(tables["records"])),
        values=Values(**_frozen(tables["values"])),
    )


def _check(tables: dict[str, dict[str, Any]], path: Path) -> None:
    """Refuse a profile whose parts do not go together."""
    for key, value in tables["paths"].items():
        for template in [value] if isinstance(value, str) else value:
            _check_template(path, f"paths.{key}", template, is_user=key == "user")
    _check_template(path, "login.path", tables["login"]["path"], is_user=False)
    # a status may mean something for a create and something else for a read
    pairs = {"fields": combinations(tables["fields"], 2), "statuses": EXCLUSIVE, "values": [("active", "inactive")]}
    for name, keys in pairs.items():
        for one, other in keys:
            if both := _items(tables[name][one]) & _items(tables[name][other]):
                raise SettingsError(f"{path}: {name}.{one} and {name}.{other} are both {min(both)!r}")
    own = set(tables["records"]["own"])
    for key, field in tables["fields"].items():
        if field in own and key not in NOT_OF_USERS:
            raise SettingsError(
                f"{path}: records.own and fields.{key} both name {field!r}",
                hint="what the API keeps itself is no difference to a user: changes of it are called unchanged",
            )


def _items(value: Any) -> set[Any]:  # noqa: ANN401 - a word, or a list of words or statuses
    return set(value) if isinstance(value, list) else {value}


def _check_template(path: Path, where: str, template: str, *, is_user: bool) -> None:
    try:
        filled = template.format(school="s", email="e")
    except (LookupError, ValueError, AttributeError, TypeError):
        filled = ""
    # of what a request line may hold
    is_path = re.fullmatch("[!-~]+", filled) and re.fullmatch(r"(/[^/?#\\]+)+", filled)
    if not is_path or {".", ".."} & set(filled.split("/")):
        raise SettingsError(
            f"{path}: {where} is no path below the base URL: {template!r}",
            hint="it starts with /, may hold {school} and {email}, and has blanks and letters beyond ASCII as %XX",
        )
    if ("{email}" in template) is not is_user:
        raise SettingsError(f"{path}: {where} must {'' if is_user else 'not '}hold {{email}}: {template!r}")


def _frozen(table: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}


def _overlay(tables: dict[str, dict[str, Any]], path: Path) -> None:
    try:
        overrides = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SettingsError(f"cannot read the API profile {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"the API profile {path} is not TOML: {error}") from None
    for name, table in overrides.items():
        if name not in tables or not isinstance(table, dict):
            raise _unknown(path, name, tables)
        for key, value in table.items():
            where = f"{name}.{key}"
            if key not in tables[name]:
                raise _unknown(path, where, {f"{name}.{known}" for known in tables[name]})
            if not _alike(value, tables[name][key]):
                raise SettingsError(f"{path}: {where} must look like {tables[name][key]!r}, not {value!r}")
            tables[name][key] = value


def _unknown(path: Path, name: str, known: Iterable[str]) -> SettingsError:
    return SettingsError(f"{path}: the API profile has no {name}", hint=f"it has {', '.join(sorted(known))}")


def _alike(value: object, default: object) -> bool:
    """Tell whether an override has the type of what it replaces; lists hold at least one of the same kind."""
    if isinstance(default, list):
        return isinstance(value, list) and bool(value) and all(_alike(item, default[0]) for item in value)
    return type(value) is type(default) and value != ""
