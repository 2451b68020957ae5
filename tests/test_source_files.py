"""Small files as people send them, and what becomes of each: one table for the reader and for the command line."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from bulkusers.errors import SourceError
from bulkusers.models import User
from bulkusers.profile import load_profile
from bulkusers.source import open_source

PRODUCTS = load_profile().values.products

Row = tuple[int, str, str]
"""A row's number, "user" or its status, and its code."""


@dataclass(frozen=True, slots=True)
class File:
    """One file: `rows` where it is read, `refusal` (a part of the message) where it is not."""

    name: str
    data: bytes
    rows: tuple[Row, ...] = ()
    refusal: str = ""

    @property
    def exit_code(self) -> int:
        """The exit code of `bulkusers check`."""
        if self.refusal:
            return 3
        return 6 if any(status == "rejected" for _, status, _ in self.rows) else 0


HEAD = b"First Name,Last Name,Email,Products\n"
ANN = b"Ann,Lee,ann@example.edu,scheduling\n"
BOB = b"Bob,May,bob@example.edu,events\n"
FULL = b"First Name,Last Name,Email,Products,External ID,Department,Secondary Departments,Role IDs,Status\n"


def user(row: int) -> Row:
    """Expect a row to be sent."""
    return (row, "user", "")


def rejected(row: int, code: str) -> Row:
    """Expect that a row must be corrected."""
    return (row, "rejected", code)


def skipped(row: int) -> Row:
    """Expect that a row says again what an earlier one said."""
    return (row, "skipped", "duplicate-row")


def readable(name: str, data: bytes, *rows: Row) -> File:
    """Make a file that is read."""
    return File(name, data, rows=rows)


def refused(name: str, data: bytes, refusal: str) -> File:
    """Make a file that is refused as a whole."""
    return File(name, data, refusal=refusal)


def one_row(name: str, row: bytes, code: str = "") -> File:
    """Make a file of one row under the full header; without a code the row is sent."""
    return readable(name, FULL + row + b"\n", rejected(2, code) if code else user(2))


ENCODINGS = (
    readable("utf-8", HEAD + "Zoë,Nuñez,zoe@example.edu,events\n".encode(), user(2)),
    readable("utf-8 with a mark", b"\xef\xbb\xbf" + HEAD + ANN, user(2)),
    readable("utf-8 with a mark before a quote", b'\xef\xbb\xbf"First Name",Last Name,Email,Products\n' + ANN, user(2)),
    readable("utf-16 little endian with a mark", (HEAD + ANN).decode().encode("utf-16"), user(2)),
    readable("utf-16 big endian with a mark", b"\xfe\xff" + (HEAD + ANN).decode().encode("utf-16-be"), user(2)),
    readable("utf-32 with a mark", (HEAD + ANN).decode().encode("utf-32"), user(2)),
    readable("unicode text of Excel", (HEAD + ANN).decode().replace(",", "\t").encode("utf-16"), user(2)),
    refused("cp1252", HEAD + ANN + "Zoë,Lee,zoe@example.edu,events\n".encode("cp1252"), "row 3, column 1 (First Name)"),
    refused(
        "cp1252 in the header", b"First Name,Last Name,Email,Products,T\xe4tigkeit\n" + ANN, "row 1, column 5 is not"
    ),
    refused("cp1252 far behind", HEAD + ANN * 3000 + b"Z\xeb,Lee,z@example.edu,events\n", "row 3002, column 1"),
    refused(
        "cp1252 after a cell of two lines",
        HEAD + b'"A\nB",L,a@b.edu,events\nZ\xeb,L,z@b.edu,events\n',
        "row 3, column 1",
    ),
    refused("utf-16 without a mark", (HEAD + ANN).decode().encode("utf-16-le"), "UTF-16 without a mark"),
    refused("utf-16 big endian without a mark", (HEAD + ANN).decode().encode("utf-16-be"), "UTF-16 without a mark"),
    refused("utf-16 cut in the middle of a character", (HEAD + ANN).decode().encode("utf-16")[:-1], "not utf-16"),
    refused("utf-16 cut behind its mark", b"\xff\xfe\x41", "not utf-16"),
    refused("utf-8 cut in the middle of a character", HEAD + b"Zo\xc3", "row 2, column 1"),
    refused("a workbook", b"PK\x03\x04\x14\x00\x06\x00", "is a workbook"),
    refused("an old workbook", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "is a workbook"),
)

DELIMITERS = (
    readable("semicolons", (HEAD + ANN).replace(b",", b";"), user(2)),
    readable("tabs", (HEAD + ANN).replace(b",", b"\t"), user(2)),
    readable("bars", (HEAD + ANN).replace(b",", b"|"), user(2)),
    readable(
        "semicolons around lists", b'First Name;Last Name;Email;Products\nA;B;a@b.edu;"events,catalog"\n', user(2)
    ),
    readable(
        "semicolons in an unknown header",
        b"First Name,Last Name,Email,Products,a;b;c;d;e;f;g\n" + ANN[:-1] + b",x\n",
        user(2),
    ),
    readable("blanks before quotes", HEAD + b'Ann, "Lee", ann@example.edu, "events, catalog"\n', user(2)),
    readable("a quote inside a cell", HEAD + b'Ann "Annie",Lee,ann@example.edu,events\n', user(2)),
    readable("doubled quotes", HEAD + b'"Ann ""Annie""",Lee,ann@example.edu,events\n', user(2)),
    readable("a quoted delimiter", HEAD + b'Ann,"Lee, Jr.",ann@example.edu,events\n', user(2)),
    refused("a quote that does not end", HEAD + ANN + b'"Bob,May,bob@example.edu,events\n' + ANN, "row 3 is not CSV"),
    refused("a quote that swallows very much", HEAD + b'"Bob\n' + ANN * 5000, "row 2 has a cell longer than 131,072"),
    refused("an endless cell", HEAD + ANN + b"Bob,May,b@example.edu," + b"1" * 200_000, "row 3 has a cell longer"),
    refused("a quote that ends in the middle", HEAD + b'"Bob"by,May,bob@example.edu,events\n', "row 2 is not CSV"),
    refused("a quote that does not end in the header", b'"' + HEAD + ANN, "row 1 is not CSV"),
)

LINES = (
    readable("windows line ends", (HEAD + ANN + BOB).replace(b"\n", b"\r\n"), user(2), user(3)),
    readable("old mac line ends", (HEAD + ANN + BOB).replace(b"\n", b"\r"), user(2), user(3)),
    readable("doubled carriage returns", (HEAD + ANN + BOB).replace(b"\n", b"\r\r\n"), user(3), user(5)),
    readable("mixed line feeds", HEAD.replace(b"\n", b"\r\n") + ANN + BOB, user(2), user(3)),
    readable("no last line end", (HEAD + ANN)[:-1], user(2)),
    readable("blank lines", b"\n\n" + HEAD + b"\n" + ANN + b"\n\n" + BOB + b"\n", user(5), user(8)),
    readable("blank cells", HEAD + b",,,\n" + ANN + b' ,\xc2\xa0,"\n",\xe2\x80\x8b\n,,,,,\n' + BOB, user(3), user(6)),
    readable("a carriage return inside quotes", b"Note," + HEAD + b'"a\rb",' + ANN + b"," + BOB, user(2), user(3)),
    refused(
        "a carriage return that tears a row",
        HEAD + ANN + b"Bob,May,bob@example.edu,events\r,catalog\n",
        "row 3 ends with",
    ),
    refused(
        "a line feed that tears a row",
        (HEAD + ANN).replace(b"\n", b"\r") + b"B,M,b@b.edu,events\n,x\r",
        "row 3 ends with",
    ),
    refused("nothing", b"", "is empty"),
    refused("only a mark", b"\xef\xbb\xbf", "nothing but blanks"),
    refused("only blanks", b"\n \n\xc2\xa0\n", "nothing but blanks"),
    refused("only a header", HEAD, "a header but no users"),
    refused("a header and blank rows", HEAD + b",,,\n\n", "a header but no users"),
)

HEADERS = (
    readable(
        "headers in another case and order", b"PRODUCTS,e-mail,last_name,#First  Name\nevents,a@b.edu,L,F\n", user(2)
    ),
    readable("headers by other names", b"Given Name,Surname,Mail,Product\nA,B,a@b.edu,events\n", user(2)),
    readable("unknown headers", b"Phone," + HEAD + b"\x07," + ANN, user(2)),
    readable("a file of rejects", b"Error,Hint," + HEAD + b"Email is blank,fill it in," + ANN, user(2)),
    readable("blank headers", HEAD[:-1] + b",, \n" + ANN + BOB[:-1] + b",note,\n", user(2), user(3)),
    readable(
        "a long row under blank headers",
        HEAD[:-1] + b",,\n" + ANN[:-1] + b",note,,too much\n",
        rejected(2, "columns-mismatch"),
    ),
    readable("a short row of a file of rejects", HEAD[:-1] + b",Error,Hint\n" + ANN, rejected(2, "columns-mismatch")),
    readable(
        "a cell behind a file of rejects that a spreadsheet has saved",
        HEAD[:-1] + b",Error,Hint,\n" + ANN[:-1] + b",,,x\n" + BOB[:-1] + b",,,\n",
        rejected(2, "columns-mismatch"),
        user(3),
    ),
    refused("a header twice", b"Email," + HEAD + b"a@b.edu," + ANN, "both mean Email"),
    refused("a column by two names", b"E-mail Address," + HEAD + b"a@b.edu," + ANN, "both mean Email"),
    refused("a column missing", b"First Name,Email\nAnn,ann@example.edu\n", "no column Last Name, Products"),
    refused("a typing error", b"First Name,Last Name,Email,Prodcuts\n" + ANN, "did you mean 'Products'?"),
    refused("no header at all", ANN + BOB, "the header, row 1, has no column"),
)

CELLS = (
    one_row("everything", b'Ann,Lee,ann@example.edu,"events, catalog",007,MATH,"PHYS,CHEM",editor,Active'),
    one_row("blanks around cells", b" Ann ,\xc2\xa0Lee,\xe2\x80\x8bann@example.edu\xef\xbb\xbf, events ,,,,, active "),
    one_row("an apostrophe before a formula", b"'=Ann,'+Lee,ann@example.edu,events,'-1,,,,"),
    one_row("a formula", b"=1+1,Lee,ann@example.edu,events,,,,,"),
    one_row("blank cells at the end", b"Ann,Lee,ann@example.edu,events,,,,,,,"),
    one_row("too few cells", b"Ann,Lee,ann@example.edu,events", "columns-mismatch"),
    one_row("too many cells", b"Ann,Lee, Jr.,ann@example.edu,events,,,,,active", "columns-mismatch"),
    one_row("no first name", b",Lee,ann@example.edu,events,,,,,", "first-name-missing"),
    one_row("no last name", b"Ann,\xe2\x80\x8b,ann@example.edu,events,,,,,", "last-name-missing"),
    one_row("no e-mail", b"Ann,Lee, ,events,,,,,", "email-missing"),
    one_row("no products", b"Ann,Lee,ann@example.edu,,,,,,active", "products-missing"),
    one_row("only commas for products", b'Ann,Lee,ann@example.edu,", ,",,,,,', "products-missing"),
    one_row("no products for an inactive user", b"Ann,Lee,ann@example.edu,,,,,,Inactive"),
    one_row("an e-mail without a domain", b"Ann,Lee,ann@school,events,,,,,", "email-invalid"),
    one_row("two e-mails", b'Ann,Lee,"ann@example.edu, a@b.edu",events,,,,,', "email-invalid"),
    one_row("an e-mail with a name", b"Ann,Lee,Ann Lee <ann@example.edu>,events,,,,,", "email-invalid"),
    one_row("an e-mail in another script", "Ann,Lee,añn@bücher.edu,events,,,,,".encode()),
    one_row("a zero-width blank in an e-mail", b"Ann,Lee,an\xe2\x80\x8bn@example.edu,events,,,,,", "email-invisible"),
    one_row("a bidi override in an e-mail", b"Ann,Lee,an\xe2\x80\xaen@example.edu,events,,,,,", "email-invisible"),
    one_row("a NUL in an e-mail", b"Ann,Lee,an\x00n@example.edu,events,,,,,", "email-invisible"),
    one_row("a NUL in a name", b"An\x00n,Lee,ann@example.edu,events,,,,,", "control-character"),
    one_row("a line break in a name", b'Ann,"Lee\nMay",ann@example.edu,events,,,,,', "control-character"),
    one_row("a line separator in a name", b"Ann,Lee\xe2\x80\xa8May,ann@example.edu,events,,,,,", "control-character"),
    one_row(
        "a bidi isolate in a department", b"Ann,Lee,ann@example.edu,events,,M\xe2\x81\xa6A,,,", "control-character"
    ),
    one_row("a product in another case", b"Ann,Lee,ann@example.edu,Scheduling,,,,,", "product-unknown"),
    one_row("products with semicolons", b"Ann,Lee,ann@example.edu,events;catalog,,,,,", "product-unknown"),
    one_row("an unknown status", b"Ann,Lee,ann@example.edu,events,,,,,retired", "status-invalid"),
    one_row("a rounded id", b"Ann,Lee,ann@example.edu,events,1.23E+11,,,,", "id-mangled"),
    one_row("a rounded id with a comma", b'Ann,Lee,ann@example.edu,events,"1,23E+11",,,,', "id-mangled"),
    one_row("a rounded department", b"Ann,Lee,ann@example.edu,events,,1E+05,,,", "id-mangled"),
    one_row("rounded secondary departments", b'Ann,Lee,ann@example.edu,events,,,"MATH,1.5E+10",,', "id-mangled"),
    one_row("a rounded role with a comma", b'Ann,Lee,ann@example.edu,events,,,,"1,23E+11",', "id-mangled"),
    one_row("an id that only looks rounded", b"Ann,Lee,ann@example.edu,events,1E5,,,,"),
    one_row("a very long name", b"A" * 10_001 + b",Lee,ann@example.edu,events,,,,,", "cell-too-long"),
    one_row("two faults", b"Ann,Lee,ann@school,nonsense,,,,,", "email-invalid"),
)

DUPLICATES = (
    readable("a row twice", HEAD + ANN + BOB + ANN, user(2), user(3), skipped(4)),
    readable("a row three times", HEAD + ANN + ANN + ANN, user(2), skipped(3), skipped(4)),
    readable(
        "a row twice in other cases and blanks",
        HEAD + ANN + b"Ann , Lee,\xc2\xa0ANN@Example.edu,scheduling\n",
        user(2),
        skipped(3),
    ),
    readable(
        "an e-mail twice in other normal forms",
        HEAD + "A,B,é@b.edu,events\nA,B,e\u0301@b.edu,events\n".encode(),
        user(2),
        skipped(3),
    ),
    readable(
        "an e-mail twice with other names",
        HEAD + ANN + BOB + ANN.replace(b"Lee", b"Ray"),
        rejected(2, "duplicate-email"),
        user(3),
        rejected(4, "duplicate-email"),
    ),
    readable(
        "two alike and one that differs",
        HEAD + ANN + ANN + ANN.replace(b"Lee", b"Ray"),
        *(rejected(row, "duplicate-email") for row in (2, 3, 4)),
    ),
    readable(
        "a bad row with the e-mail of another",
        HEAD + ANN + ANN.replace(b"Lee", b""),
        rejected(2, "duplicate-email"),
        rejected(3, "last-name-missing"),
    ),
    readable(
        "a bad row twice",
        HEAD + ANN.replace(b"Lee", b"") * 2,
        rejected(2, "last-name-missing"),
        rejected(3, "last-name-missing"),
    ),
    readable(
        "a status twice in other cases",
        FULL + b"A,B,a@b.edu,events,,,,,Active\nA,B,a@b.edu,events,,,,,active\n",
        user(2),
        skipped(3),
    ),
    readable(
        "lists twice with other blanks",
        HEAD + b'A,B,a@b.edu,"events,catalog"\nA,B,a@b.edu,"events, catalog,"\n',
        user(2),
        skipped(3),
    ),
    readable(
        "rows without an e-mail",
        HEAD + b"A,B,,events\nC,D,,events\n",
        rejected(2, "email-missing"),
        rejected(3, "email-missing"),
    ),
    readable(
        "a short row that differs from a whole one",
        FULL + ANN + ANN[:-1] + b",1,,,,\n",
        rejected(2, "columns-mismatch"),
        rejected(3, "duplicate-email"),
    ),
    readable(
        "a short row beside its whole self",
        FULL + ANN + ANN[:-1] + b",,,,,\n",
        rejected(2, "columns-mismatch"),
        user(3),
    ),
)

FILES = (*ENCODINGS, *DELIMITERS, *LINES, *HEADERS, *CELLS, *DUPLICATES)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_file_is_read_or_refused_as_the_table_says(file: File, tmp_path: Path) -> None:
    """Each row has its number, its status and its code, and the facts agree with the rows; or the file is refused."""
    path = tmp_path / "users.csv"
    path.write_bytes(file.data)
    if file.refusal:
        with pytest.raises(SourceError) as refusal, open_source(path, products=PRODUCTS):
            pass
        assert file.refusal in str(refusal.value)
        assert str(path) in str(refusal.value)
        assert refusal.value.hint
        return
    with open_source(path, products=PRODUCTS) as source:
        rows = tuple(
            user(item.row) if isinstance(item, User) else (item.row, item.status.value, item.code)
            for item in source.users()
        )
        assert rows == file.rows
        assert source.facts.rows == len(rows)
        assert source.facts.rejected == sum(status == "rejected" for _, status, _ in rows)


def test_names_of_files_are_unique() -> None:
    """A failing line of the table can be told from the others."""
    names = [file.name for file in FILES]
    assert len(set(names)) == len(names)
