"""What nobody outside Coursedog knows about its API: one switch for each open question."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Self

CHOICES: Final[Mapping[str, tuple[int | str, ...]]] = {
    "duplicate": (409, 400, 422),
    "list_shape": ("map", "list", "data", "length"),
    "unknown_ids": ("store", "refuse"),
    "login_key": ("plaintextPassword", "password"),
    "roles_path": ("general", "school"),
    "retry_after": ("seconds", "date", "none"),
    "updated_at": ("none", "kept"),
    "defaults": ("none", "filled"),
}
LIMITS: Final[Mapping[str, tuple[float, float]]] = {
    "page_size": (0, math.inf),
    "cut_list": (0, math.inf),
    "dead_token": (400, 599),
    "rate_limit": (0, math.inf),
    "latency": (0, 60),
    "commit_delay": (0, 60),
    "read_lag": (0, 60),  # what is older is forgotten: state.LONGEST_LAG
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Switches:
    """How the API behaves where its behaviour is not known; each default is the likeliest guess.

    Raises:
        ValueError: a switch is set to what it cannot be; the message says what it may be.

    """

    duplicate: int = 409  # the answer to creating a user who exists
    list_shape: str = "map"  # data: {"data": [], "totalCount": N}; length: {"data": [], "listLength": N}
    page_size: int = 0  # users on a page of ?page=1&limit=N; 0 = one page; a map is never paged
    cut_list: int = 0  # users silently missing from the end of a list; its count still tells the truth
    unknown_ids: str = "store"  # role and department ids that the school does not have; refuse: 422
    dead_token: int = 401  # the answer to a token that is not, or no longer, alive
    login_key: str = "plaintextPassword"  # what a login calls the password; any other name: 404
    roles_path: str = "general"  # general: /{school}/general/roles; school: /{school}/roles; the other: 404
    updated_at: str = "none"  # kept: a record says in updatedAt when it was last written, whatever is sent
    defaults: str = "none"  # filled: a new record gets a value for what the request leaves out
    rate_limit: int = 0  # requests in any one second before a 429; 0 = no limit
    retry_after: str = "seconds"  # how a 429 says when to come back
    latency: float = 0.0  # seconds before each answer
    commit_delay: float = 0.0  # seconds from the answer to a write until the write is done
    read_lag: float = 0.0  # seconds by which reads are behind writes

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not _allowed(field.name, value, type(field.default)):
                raise ValueError(f"switch {field.name} may be {_choices(field.name)}, not {value!r}")

    @classmethod
    def parse(cls, pairs: Iterable[str]) -> Self:
        """Read switches as a command line has them: `duplicate=400`.

        Raises:
            ValueError: a pair names no switch, or not what it may be.

        """
        split = (pair.partition("=") for pair in pairs)
        return cls().change({name.strip(): value.strip() for name, _, value in split})

    def change(self, values: Mapping[str, object]) -> Self:
        """Return these switches with some of them set anew; a number may come as text.

        Raises:
            ValueError: a name is no switch, or its value not what it may be.

        """
        kinds = {field.name: type(field.default) for field in fields(self)}
        changes: dict[str, Any] = {}
        for name, value in values.items():
            if name not in kinds:
                raise ValueError(f"there is no switch {name!r}, only {', '.join(kinds)}")
            changes[name] = _read(value, kinds[name]) if isinstance(value, str) else value
        return replace(self, **changes)


def _read(text: str, kind: type) -> object:
    """Read a number where one is due; anything else stays as it is, to be refused by name."""
    try:
        return kind(text)
    except ValueError:
        return text


def _allowed(name: str, value: object, kind: type) -> bool:
    if name in CHOICES:
        return type(value) is kind and value in CHOICES[name]
    low, high = LIMITS[name]
    number = isinstance(value, int | kind) and not isinstance(value, bool)
    return number and low <= value <= high and value != math.inf  # type: ignore[operator] # narrowed by `number`


def _choices(name: str) -> str:
    if name in CHOICES:
        return ", ".join(str(choice) for choice in CHOICES[name])
    low, high = LIMITS[name]
    return f"a number from {low} to {high}" if high < math.inf else f"a number, {low} or more"
