"""The columns of a users file: their names, the other names that people give them, and where a file has them."""

import difflib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bulkusers.errors import SourceError


@dataclass(frozen=True, slots=True)
class Column:
    """One column: `field` is the attribute of `models.User`, `title` the header that we write."""

    field: str
    title: str
    required: bool = False
    several: bool = False  # comma-separated values in one cell
    synonyms: tuple[str, ...] = ()


COLUMNS: Final = (
    Column(
        "first_name",
        "First Name",
        required=True,
        synonyms=("given name", "given names", "forename", "first", "fname", "user first name"),
    ),
    Column(
        "last_name",
        "Last Name",
        required=True,
        synonyms=("family name", "surname", "last", "lname", "user last name"),
    ),
    Column(
        "email",
        "Email",
        required=True,
        synonyms=("email address", "mail", "mail address", "user email", "user email address"),
    ),
    Column(
        "products",
        "Products",
        required=True,
        several=True,
        synonyms=("product", "product key", "product keys", "product access", "coursedog products"),
    ),
    Column(
        "external_id",
        "External ID",
        synonyms=(
            "unique id",
            "institution id",
            "institutional id",
            "school id",
            "sis id",
            "user id",
            "external user id",
        ),
    ),
    Column(
        "department",
        "Department",
        synonyms=("primary department", "primary department id", "department id", "dept", "dept id", "primary dept"),
    ),
    Column(
        "secondary_departments",
        "Secondary Departments",
        several=True,
        synonyms=(
            "secondary department",
            "secondary department id",
            "secondary department ids",
            "secondary dept",
            "secondary depts",
            "other departments",
            "additional departments",
        ),
    ),
    Column("roles", "Role IDs", several=True, synonyms=("role id", "roles", "role")),
    Column("status", "Status", synonyms=("user status", "account status")),
)

BLANKS: Final = (
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"  # what Unicode calls white space
    "\u200b\u200c\u200d\u2060\ufeff"  # what takes no space at all
)
"""What is stripped off both ends of a cell."""

FORMULA_STARTS: Final = ("=", "+", "-", "@")
"""A cell that begins with one of these is a formula to a spreadsheet."""

REJECT_TITLES: Final = ("Error", "Hint")
"""What a file of rejected rows has besides; ignored when such a file is run again."""

_CLOSE: Final = 0.86  # difflib's ratio: `Prodicts` has 0.875 of Products, `Department Code` 0.846 of Department ID
_LONGEST_NAME: Final = 80  # characters of a header in a message
_SHORT: Final = 5  # letters; below it everything is close to something: `Name` is not `lname`


@dataclass(frozen=True, slots=True)
class Layout:
    """Where one file has its columns."""

    header: tuple[str, ...]  # as written
    places: tuple[int, ...]  # of each of COLUMNS in a row's cells; -1 where the file does not have it
    width: int  # cells that every row must have; blank headers at the end do not count
    ignored: tuple[str, ...]  # headers that mean nothing to us, as messages name them


def header_key(header: str) -> str:
    """Return what a header is compared by: without case, blanks, `_`, `-`, `#` and other punctuation."""
    return re.sub(r"[\W_]+", "", header.casefold())


_KNOWN: Final = {header_key(name): column for column in COLUMNS for name in (column.title, *column.synonyms)}
_REJECT_KEYS: Final = frozenset(map(header_key, REJECT_TITLES))


def count_known(header: Sequence[str]) -> int:
    """Return how many cells of a header name a column."""
    return sum(header_key(cell) in _KNOWN for cell in header)


def match_header(path: str, row: int, header: Sequence[str]) -> Layout:
    """Find the columns in the header, which stands in `row` of the file.

    Raises:
        SourceError: a required column is missing, one stands there twice, or a header looks like a typing error.

    """
    places: dict[str, int] = {}
    ignored = []
    for place, cell in enumerate(header):
        key = header_key(cell)
        column = _KNOWN.get(key)
        if column is None:
            _refuse_near_miss(path, cell, key)
            if key and key not in _REJECT_KEYS:
                ignored.append(name_column(cell))
        elif column.field in places:
            first = name_column(header[places[column.field]])
            raise SourceError(
                f"{path}: the columns '{first}' and '{name_column(cell)}' both mean {column.title}",
                hint="remove or rename one of them",
            )
        else:
            places[column.field] = place
    missing = [column.title for column in COLUMNS if column.required and column.field not in places]
    if missing:
        hint = "`bulkusers template` gives a file to start from"
        if header[0].lower().startswith("sep="):  # a line for spreadsheets, which do not show it
            hint = f"delete row {row}, its `sep=` line, in a text editor: the delimiter is found without it"
        raise SourceError(f"{path}: the header, row {row}, has no column {', '.join(missing)}", hint)
    width = 1 + max(place for place, cell in enumerate(header) if header_key(cell))
    if header_key(header[width - 1]) in _REJECT_KEYS:
        # a spreadsheet makes the header as long as the longest row; what stands behind our own columns is too much
        header = header[:width]
    return Layout(
        header=tuple(header),
        places=tuple(places.get(column.field, -1) for column in COLUMNS),
        width=width,
        ignored=tuple(ignored),
    )


def _refuse_near_miss(path: str, header: str, key: str) -> None:
    """Refuse a header that would be ignored although it was surely meant as a column."""
    if len(key) < _SHORT or not key.isalpha():  # `Email 2` is another column on purpose
        return
    near = [known for known in _KNOWN if sorted(known) == sorted(key)]  # two letters changed places, as in `Emial`
    near += difflib.get_close_matches(key, _KNOWN, n=1, cutoff=_CLOSE)
    near = [known for known in near if known != key + "id"]  # an institution is not its id
    if near:
        raise SourceError(
            f"{path}: there is no column '{name_column(header)}'; did you mean '{_KNOWN[near[0]].title}'?",
            hint="correct the header, or rename the column if it is meant to be ignored",
        )


def clean(cell: str) -> str:
    """Return a cell in NFC without blanks around it and without the apostrophe that keeps it from being a formula."""
    cell = unicodedata.normalize("NFC", cell).strip(BLANKS)
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(FORMULA_STARTS) else cell


def safe_cell(cell: str) -> str:
    """Return a cell as every CSV file of ours writes it: a spreadsheet shows it and never runs it as a formula.

    `clean` takes the apostrophe off again where a file is read, so that a cell survives the way there and back.
    """
    if not cell or cell[0].isalnum():  # nearly every cell: neither a blank nor the start of a formula
        return cell
    bare = unicodedata.normalize("NFC", cell).strip(BLANKS)
    return f"'{bare}" if bare.startswith(FORMULA_STARTS) else cell


def printable(text: str) -> str:
    """Return foreign text with blanks for what could move a terminal's cursor or colour it."""
    return "".join(char if char.isprintable() else " " for char in text)


def name_column(header: str) -> str:
    """Return a file's own header as messages name it: a terminal shows it, and one line has room for it."""
    name = printable(header)
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
