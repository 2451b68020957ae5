"""The values that travel through a run: users in, requests and responses, outcomes out.

What is made for every row is a named tuple: as immutable as a frozen dataclass, and made in a fifth of its time.
"""

import unicodedata
from bisect import insort
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto
from types import MappingProxyType
from typing import Any, BinaryIO, Final, NamedTuple, Protocol

SHOWN_ROWS: Final = 5  # rows that are named of many
BREATH: Final = 100  # rows that are worked on in one go, before others have their turn


class Status(StrEnum):
    """What became of a row; every row has exactly one."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    SKIPPED = "skipped"
    REJECTED = "rejected"  # the data must be fixed; not applied
    FAILED = "failed"  # attempts used up; known not applied
    UNKNOWN = "unknown"  # may or may not be applied
    UNPROCESSED = "unprocessed"  # never sent, or turned away (401, 429)


class Existing(StrEnum):
    """What to do with a user who exists already."""

    MERGE = "merge"  # keep what the file does not say
    OVERWRITE = "overwrite"  # the file's row becomes the record
    SKIP = "skip"  # leave alone


class Lists(StrEnum):
    """What merging does to products, roles and secondary departments."""

    ADD = "add"  # nobody loses one
    REPLACE = "replace"  # the file's list, where its cell is not blank


Json = dict[str, Any]
"""A record as the API has it."""


class Item(Protocol):
    """One thing that a run does something about: a user, by row and e-mail."""

    @property
    def row(self) -> int:
        """Where it stands."""

    @property
    def email(self) -> str:
        """Whose it is."""

    @property
    def private(self) -> tuple[str, ...]:
        """What no message may repeat."""


class User(NamedTuple):
    """One row of the file, checked and cleaned; an empty value means that the cell was blank."""

    row: int  # as a spreadsheet numbers it: the header is row 1
    email: str  # as written, outer blanks removed
    first_name: str
    last_name: str
    products: tuple[str, ...]
    roles: tuple[str, ...] = ()
    department: str = ""
    secondary_departments: tuple[str, ...] = ()
    external_id: str = ""
    status: str = ""  # "active", "inactive" or blank

    @property
    def private(self) -> tuple[str, ...]:
        """What no message may repeat."""
        return (self.first_name, self.last_name, self.external_id)


class Outcome(NamedTuple):
    """What became of one row."""

    row: int
    email: str
    status: Status
    code: str = ""  # stable, for scripts: "email-invalid"
    message: str = ""  # one sentence, no value of any cell in it
    hint: str = ""  # what to do about it
    changed: tuple[str, ...] = ()  # names of the record's fields that an update changed
    attempts: int = 0  # requests that could have changed something (POST, PUT, DELETE)
    ms: int = 0  # from the row's turn to its outcome, with all that it waited for in between
    loses: bool = False  # an update took a value away and put no other in its place


class Rows:
    """Whatever counts rows, and names the first few of them."""

    count: int
    rows: list[int]

    def add(self, row: int) -> None:
        """Count one row; they come in the order of their answers, and are named in their own."""
        self.count += 1
        if len(self.rows) < SHOWN_ROWS or row < self.rows[-1]:
            insort(self.rows, row)
            del self.rows[SHOWN_ROWS:]


@dataclass(slots=True)
class Notice(Rows):
    """Something worth saying that stops nothing."""

    code: str
    message: str
    count: int = 0
    rows: list[int] = field(default_factory=list)


class Request(NamedTuple):
    """One HTTP request as the protocol means it; `path` is below the base URL and percent-encoded."""

    method: str
    path: str
    body: bytes | None = None  # people's data, or a password
    authorized: bool = True  # carries the token
    into: BinaryIO | None = None  # takes the body of a good answer, however long it is

    def __repr__(self) -> str:
        return f"Request({self.method} {self.path})"


class Response(NamedTuple):
    """One HTTP answer, whole; what it means is the protocol's business."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = MappingProxyType({})

    def __repr__(self) -> str:
        return f"Response({self.status})"


def email_key(email: str) -> str:
    """Return what an e-mail is compared by: neither case, outer blanks nor the way of writing an accent matter."""
    folded = email.strip().casefold()
    return folded if folded.isascii() else unicodedata.normalize("NFC", folded)


class Settle(Enum):
    """A conversation's wish to wait until a late write would have shown."""

    SETTLE = auto()


SETTLE: Final = Settle.SETTLE


class Image(NamedTuple):
    """A record before and after a change; a conversation's wish to have that written down, before it is made.

    A creation is written down after it is made: only then it is known whether there was somebody before.
    """

    row: int
    email: str
    before: Json | None  # None: there was no such user
    sent: Json | None  # None: the user is to be deleted
    certain: bool = True  # False: whoever was created may have been there before

    def __repr__(self) -> str:
        return f"Image({self.row}, {self.email})"


Send = Callable[[Request], Awaitable[Response]]
"""The one seam to the network; raises `errors.TransportError` where no answer came."""

Record = Callable[[Outcome], None]
"""Takes each outcome as it happens, in no particular order; `list.append` is one."""


@dataclass(frozen=True, slots=True)
class Share:
    """A number of rows or a percentage of all rows, and how it was typed."""

    typed: str  # "20" or "5%"

    def of(self, rows: int) -> float:
        """Return how many of so many rows are meant."""
        number = float(self.typed.removesuffix("%"))
        return number * rows / 100 if self.typed.endswith("%") else number

    def __str__(self) -> str:
        return self.typed


class Secret:
    """A token or password that shows itself only when asked to."""

    __slots__ = ("_value",)

    def __init__(self, value: str = "") -> None:
        self._value: Final = value

    def reveal(self) -> str:
        """Return the secret; call it only where it is sent or stored."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "***" if self._value else "(none)"

    __str__ = __repr__
