"""What the cells of one row must look like: pure rules from cells to a user, or to why it is none."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from operator import itemgetter
from typing import Final

from bulkusers.columns import BLANKS, COLUMNS, Column, Layout, clean
from bulkusers.models import Outcome, Status, User

Values = tuple[str, ...]
"""A row's cleaned cells in the order of COLUMNS; after them the cells that the header has no place for."""

EMAIL: Final = [column.field for column in COLUMNS].index("email")
STATUS: Final = [column.field for column in COLUMNS].index("status")

NOTICES: Final = {
    "department-comma": "Department takes one value; the comma is sent as a part of it",
    "inactive-products": "an inactive user's blank Products keep the products that are there, unless overwritten",
    "several-roles": "the vendor advises against more than one prebuilt role",
}

MISFIT: Final = "columns-mismatch"  # the code of a row that has fewer or more cells than the header

_LONGEST: Final = 10_000  # characters in one cell
_LONGEST_SHOWN: Final = 320  # characters of an e-mail in an outcome, the most that RFC 3696 has room for

_STATUSES: Final = frozenset({"active", "inactive"})
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_MANGLED: Final = re.compile(r"\d+(?:[.,]\d+)?E\+\d{2,}", re.ASCII | re.IGNORECASE)

# Addresses that email-validator surely accepts, at a hundredth of its price: with 64 characters in all no part is too
# long, and without "--" no label is a broken IDNA one. What `++` took it never gives back; that, and letters in both
# cases instead of IGNORECASE, is twice as fast.
_RESERVED: Final = "arpa|invalid|local|localhost|onion|test"  # the ends of its SPECIAL_USE_DOMAIN_NAMES
_is_plain_email: Final = re.compile(
    r"(?=.{6,64}\Z)[A-Za-z0-9_+-]++(?:\.[A-Za-z0-9_+-]++)*+"
    rf"@(?:[A-Za-z0-9]++(?:-[A-Za-z0-9]++)*+\.)+(?!(?i:{_RESERVED})\Z)[A-Za-z]{{2,}}",
    re.ASCII,
).fullmatch


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a row cannot be sent; the same words for every row that has it."""

    code: str
    message: str
    hint: str = ""


_FEWER_CELLS: Final = Fault(
    MISFIT,
    "the row has fewer cells than the header",
    "check its delimiters and quotes; a blank cell counts too",
)
_MORE_CELLS: Final = Fault(
    MISFIT,
    "the row has more cells than the header",
    "put a cell that holds the delimiter into double quotes",
)


class Rules:
    """The rules for the rows of one file; the fast path is only ever a shorter way to the same verdict."""

    __slots__ = ("_known", "_pick", "_products", "_taken", "_widths")

    def __init__(self, layout: Layout, products: Sequence[str]) -> None:
        self._pick = itemgetter(*layout.places)  # of a row with a blank cell at its end: -1 picks that
        self._products = tuple(products)
        self._known = frozenset(products)
        self._widths = range(layout.width, len(layout.header) + 1)
        self._taken = len(layout.header)

    def pick(self, cells: list[str]) -> Values:
        """Return the cells of a row that has as many as the header, as they are, in the order of COLUMNS."""
        picked: Values = self._pick([*cells, ""])
        return picked

    def judge(self, cells: list[str]) -> tuple[Values, Fault | None]:
        """Return a row's cleaned cells, and what is wrong with them if anything is."""
        if len(cells) not in self._widths:
            return self._judge_misfit(cells)
        raw = self.pick(cells)
        joined = "".join(raw)
        # a part of a printable text in NFC is one as well, and the only blank in it is a space
        if not (joined.isprintable() and unicodedata.is_normalized("NFC", joined) and "'" not in joined):
            return self._judge_slowly(tuple(map(clean, raw)))
        values = tuple(map(str.strip, raw)) if " " in joined else raw
        first, last, email, products, _, _, _, _, status = values
        keys = split_values(products)
        if (
            first
            and last
            and _is_plain_email(email)
            and keys
            and self._known.issuperset(keys)
            and (not status or status.lower() in _STATUSES)
            and ("+" not in joined or "E+" not in joined.upper())
            and len(joined) <= _LONGEST
        ):
            return values, None
        return self._judge_slowly(values)

    def _judge_slowly(self, values: Values) -> tuple[Values, Fault | None]:
        return values, next((fault for _, fault in _find_faults(values, self._products)), None)

    def _judge_misfit(self, cells: list[str]) -> tuple[Values, Fault | None]:
        extra = [cell for cell in map(clean, cells[self._taken :]) if cell]
        padded = [*cells[: self._taken], *[""] * (self._taken - len(cells)), ""]
        values = (*map(clean, self._pick(padded)), *extra)
        if len(cells) < self._widths.start:
            return values, _FEWER_CELLS
        if extra:
            return values, _MORE_CELLS
        return self._judge_slowly(values)


@lru_cache(maxsize=1024)  # a file has few distinct lists of products or roles
def split_values(cell: str) -> tuple[str, ...]:
    """Return the values of a cell that holds several, each once."""
    return tuple(dict.fromkeys(value for value in (part.strip(BLANKS) for part in cell.split(",")) if value))


def make_user(row: int, values: Values) -> User:
    """Return the user in a row that has no fault."""
    first, last, email, products, external_id, department, secondary, roles, status = values
    return User(
        row,
        email,
        first,
        last,
        split_values(products),
        split_values(roles) if roles else (),
        department,
        split_values(secondary) if secondary else (),
        external_id,
        status.lower(),
    )


def reject(row: int, values: Values, fault: Fault) -> Outcome:
    """Return the outcome of a row that has a fault."""
    return Outcome(row, show_email(values[EMAIL]), Status.REJECTED, fault.code, fault.message, fault.hint)


def show_email(email: str) -> str:
    """Return an e-mail for an outcome: what would be invisible is escaped, what is far too long is cut."""
    if not email.isprintable():
        email = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in email)
    return email[:_LONGEST_SHOWN]


def list_faulty(values: Values, products: Sequence[str]) -> list[tuple[str, Fault]]:
    """Return the fields whose cells are wrong, each with what is."""
    return list(_find_faults(values, tuple(products)))


def identify(values: Values) -> tuple[object, ...]:
    """Return what rows with the same e-mail must have in common to be the same user twice."""
    first, last, _, products, external_id, department, secondary, roles, status, *extra = values
    lists = map(split_values, (products, secondary, roles))
    return (first, last, external_id, department, status.lower(), *lists, *extra)


def list_notices(values: Values) -> list[str]:
    """Return the codes of what is worth saying about a row that has no fault."""
    _, _, _, products, _, department, _, roles, _ = values
    codes = []
    if not products:  # no fault, so the user is inactive
        codes.append("inactive-products")
    if "," in department:
        codes.append("department-comma")
    if "," in roles and len(split_values(roles)) > 1:
        codes.append("several-roles")
    return codes


def _find_faults(values: Values, products: tuple[str, ...]) -> Iterator[tuple[str, Fault]]:
    """Yield what is wrong and in which field, in the order of COLUMNS."""
    inactive = values[STATUS].lower() == "inactive"
    for column, cell in zip(COLUMNS, values, strict=True):
        for fault in _check_cell(column, cell, products, inactive=inactive):
            yield column.field, fault


def _check_cell(column: Column, cell: str, products: tuple[str, ...], *, inactive: bool) -> Iterator[Fault]:
    given = split_values(cell) if column.several else (cell,)
    if len(cell) > _LONGEST:
        yield Fault("cell-too-long", f"{column.title} has more than {_LONGEST:,} characters", "shorten it")
    elif column.required and not any(given):
        if not (column.field == "products" and inactive):
            yield _missing(column)
    elif column.field == "email":
        yield from _check_email(cell)
    elif _CONTROL.search(cell):
        yield Fault(
            "control-character",
            f"{column.title} holds a line break or another control character",
            "type the cell's text again on one line",
        )
    else:
        yield from _check_meaning(column, given, products)


def _check_meaning(column: Column, given: tuple[str, ...], products: tuple[str, ...]) -> Iterator[Fault]:
    match column.field:
        case "first_name" | "last_name":
            pass
        case "products":
            yield from _check_products(given, products)
        case "status":
            if not _STATUSES.issuperset(map(str.lower, filter(None, given))):
                yield Fault("status-invalid", "Status is neither active nor inactive", "write one of them, or nothing")
        case _:
            yield from _check_ids(column, given)


def _missing(column: Column) -> Fault:
    code = f"{column.field.replace('_', '-')}-missing"
    who = "active user" if column.field == "products" else "user"
    return Fault(code, f"{column.title} is blank", f"fill it in: Coursedog needs it for every {who}")


def _check_email(email: str) -> Iterator[Fault]:
    if _is_plain_email(email):
        return
    if not email.isprintable():
        yield Fault(
            "email-invisible",
            "Email holds characters that cannot be seen",
            "type the address again instead of copying it",
        )
        return
    from email_validator import EmailNotValidError, validate_email  # takes 14 ms, and most files do without

    try:
        validate_email(email, check_deliverability=False)
    except EmailNotValidError:
        yield Fault(
            "email-invalid", "Email is not a valid address", "correct it; a cell holds one address and nothing else"
        )


def _check_products(given: tuple[str, ...], known: tuple[str, ...]) -> Iterator[Fault]:
    unknown = [product for product in given if product not in known]
    if not unknown:
        return
    hint = f"the products are {', '.join(known)}"
    if re.search(r"[;|/\s]", unknown[0]):
        hint = f"separate products by commas; {hint}"
    else:
        spellings = {product.casefold(): product for product in known}
        near = get_close_matches(unknown[0].casefold(), spellings, n=1)
        if near:
            hint = f"did you mean '{spellings[near[0]]}'?"
    yield Fault("product-unknown", "Products holds one that Coursedog does not have", hint)


def _check_ids(column: Column, given: tuple[str, ...]) -> Iterator[Fault]:
    # `1,23E+11` in a cell for several values comes as `1` and `23E+11`, which is a mangled one as well
    if any(map(_MANGLED.fullmatch, given)):
        yield Fault(
            "id-mangled",
            f"{column.title} holds a long number that a spreadsheet has rounded, as in 1.23E+11",
            "format the column as text in the spreadsheet, then enter the number again",
        )
