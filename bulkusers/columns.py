"""The columns of a users file: their names, the other names that people give them, and what each may hold."""

import re
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Column:
    """One column: `field` is the attribute of `models.User`, `title` the header that we write."""

    field: str
    title: str
    required: bool = False
    several: bool = False  # comma-separated values in one cell
    synonyms: tuple[str, ...] = ()


COLUMNS: Final = (
    Column("first_name", "First Name", required=True, synonyms=("given name", "forename", "first", "fname")),
    Column("last_name", "Last Name", required=True, synonyms=("family name", "surname", "last", "lname")),
    Column("email", "Email", required=True, synonyms=("email address", "mail", "user email")),
    Column("products", "Products", required=True, several=True, synonyms=("product", "product keys", "product access")),
    Column(
        "external_id",
        "External ID",
        synonyms=("unique id", "institution id", "institutional id", "school id", "sis id", "user id"),
    ),
    Column(
        "department",
        "Department",
        synonyms=("primary department", "primary department id", "department id", "dept", "primary dept"),
    ),
    Column(
        "secondary_departments",
        "Secondary Departments",
        several=True,
        synonyms=("secondary department", "secondary department ids", "other departments"),
    ),
    Column("roles", "Role IDs", several=True, synonyms=("role id", "roles", "role")),
    Column("status", "Status", synonyms=("user status", "account status")),
)

REJECT_TITLES: Final = ("Error", "Hint")
"""What a file of rejected rows has besides; ignored when such a file is run again."""


def header_key(header: str) -> str:
    """Return what a header is compared by: without case, blanks, `_`, `-`, `#` and other punctuation."""
    return re.sub(r"[\W_]+", "", header.casefold())
