"""A file's bytes as numbered rows of cells: encoding, delimiter, quotes and line ends."""

import codecs
import csv
import hashlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final

from bulkusers.columns import BLANKS, count_known, name_column
from bulkusers.errors import SourceError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

DELIMITERS: Final = (",", ";", "\t", "|")

_NAMED_DELIMITERS: Final = {**{char: char for char in DELIMITERS}, "tab": "\t", r"\t": "\t"}
_BYTE_ORDER_MARKS: Final = (  # UTF-32 first: its mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
_WORKBOOKS: Final = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # .xlsx, .ods; .xls
_NOT_OF_FILES: Final = {"utf-7", "unicode-escape", "raw-unicode-escape", "idna", "punycode", "undefined"}
_HEAD: Final = 4096  # bytes looked at to tell the encoding
_BUFFER: Final = 1 << 16
_LONGEST_ROW: Final = 1 << 22  # bytes; neither a file without any line end nor a row without one must fill the memory
_UNDECODABLE: Final = "\udcff"  # no decoder that we allow makes one by itself
_MARK: Final = "bulkusers.mark"

codecs.register_error(_MARK, lambda error: (_UNDECODABLE, getattr(error, "end", 0)))


@dataclass(frozen=True, slots=True)
class Form:
    """How a file's bytes are to be understood."""

    encoding: str
    delimiter: str = ","


class Tape(io.RawIOBase):
    """The bytes of an open file from first to last, hashed as they pass; each tape of a file runs by itself."""

    def __init__(self, path: str, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._offset = 0
        self.unended = 0  # bytes since the last row; whoever takes a row sets it
        self.hash = hashlib.sha256()

    def readable(self) -> bool:
        """Tell that this is for reading."""
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Fill the buffer.

        Raises:
            SourceError: the disk says no, or there are no rows in the file.

        """
        view = memoryview(buffer)
        try:
            chunk = os.pread(self._file.fileno(), len(view), self._offset)
        except OSError as error:
            raise SourceError(f"cannot read {self._path}: {error.strerror}") from None
        self.unended += len(chunk)
        if self.unended > _LONGEST_ROW:
            raise SourceError(
                f"{self._path}: a row is longer than {_LONGEST_ROW >> 20} MiB", hint="is it a CSV file at all?"
            )
        self.hash.update(chunk)
        self._offset += len(chunk)
        view[: len(chunk)] = chunk
        return len(chunk)


class Reading:
    """One reading of a file from its beginning to its end; iterate it once."""

    def __init__(self, path: str, file: BinaryIO, form: Form, errors: str = "strict") -> None:
        self._source = (path, file, form)
        self._tape = Tape(path, file)
        self._text = _decode(self._tape, form, errors)

    @property
    def sha256(self) -> str:
        """The hash of the bytes read so far."""
        return self._tape.hash.hexdigest()

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        """Yield every row that is not blank, with its number as a spreadsheet shows it.

        Raises:
            SourceError: something in the file is not CSV, or not in the encoding.

        """
        path, _, form = self._source
        row = 0
        try:
            # blanks around a cell mean nothing, and a quote after one is meant as a quote
            records = csv.reader(self._text, delimiter=form.delimiter, strict=True, skipinitialspace=True)
            for row, cells in enumerate(records, 1):
                self._tape.unended = 0
                if "".join(cells).strip(BLANKS):
                    yield row, cells
        except csv.Error as error:
            if "field limit" in str(error):
                raise SourceError(
                    f"{path}: row {row + 1} has a cell longer than {csv.field_size_limit():,} characters",
                    hint="look for a quote that is opened and not closed; if there is none, shorten the cell",
                ) from None
            raise SourceError(
                f"{path}: row {row + 1} is not CSV: a quoted cell in it has no proper end",
                hint="look for a quote that is opened and not closed; a quote inside a quoted cell is written twice",
            ) from None
        except UnicodeError:
            raise _explain_undecodable(*self._source) from None
        ends = self._text.newlines
        if isinstance(ends, tuple) and "\r" in ends:
            _refuse_torn_row(*self._source)


def find_encoding(path: str, file: BinaryIO, wanted: str) -> str:
    """Return the encoding by the file's byte order mark, else the one that is wanted, else UTF-8.

    Raises:
        SourceError: the file is empty or no text, or there is no such encoding, or the mark contradicts it.

    """
    name = _look_up(wanted) if wanted else ""
    try:
        head = os.pread(file.fileno(), _HEAD, 0)
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from None
    if not head:
        raise SourceError(f"{path} is empty", hint="`bulkusers template` gives a file to start from")
    if head.startswith(_WORKBOOKS):
        raise SourceError(f"{path} is a workbook, not a CSV file", hint="save it as 'CSV UTF-8' in the spreadsheet")
    marked = next((encoding for mark, encoding in _BYTE_ORDER_MARKS if head.startswith(mark)), "")
    if marked and name and not name.startswith(marked.removesuffix("-sig")):
        raise SourceError(f"{path} is marked as {marked.removesuffix('-sig')}, not {name}", hint="leave out --encoding")
    if not marked and not name:
        for first, guess in ((1, "utf-16-le"), (0, "utf-16-be")):
            if head[first::2].count(0) > len(head) // 4:
                raise SourceError(f"{path} looks like UTF-16 without a mark", hint=f"if it is, say --encoding {guess}")
    return marked or name or "utf-8"


def _look_up(encoding: str) -> str:
    try:
        name = codecs.lookup(encoding).name
        io.TextIOWrapper(io.BytesIO(), encoding=encoding)  # knows which codecs are not for text
    except (LookupError, ValueError):
        name = ""
    if not name or name in _NOT_OF_FILES:
        raise SourceError(
            f"there is no encoding {encoding!r}", hint="common ones: utf-8, utf-16-le, cp1252, iso-8859-1, mac-roman"
        )
    return name


def find_delimiter(path: str, file: BinaryIO, encoding: str, wanted: str) -> str:
    """Return the delimiter that is wanted, else the one under which most cells of the header are known columns.

    Raises:
        SourceError: there is no such delimiter.

    """
    if wanted:
        if wanted.lower() not in _NAMED_DELIMITERS:
            raise SourceError(f"a delimiter is , ; | or tab, not {wanted!r}")
        return _NAMED_DELIMITERS[wanted.lower()]

    def fitness(delimiter: str) -> int:
        try:
            _, header = read_header(path, file, Form(encoding, delimiter))
        except SourceError:  # not the delimiter; if none fits, the reading proper says why
            return -1
        return count_known(header)

    return max(DELIMITERS, key=fitness)


def read_header(path: str, file: BinaryIO, form: Form) -> tuple[int, list[str]]:
    """Return the first row that is not blank, with its number.

    Raises:
        SourceError: there is none, or it is not CSV or not in the encoding.

    """
    # the rows behind it are decoded along with it; whether they can be is another question
    row, header = next(iter(Reading(path, file, form, errors=_MARK)), (0, []))
    if not header:
        raise SourceError(f"{path} holds nothing but blanks", hint="`bulkusers template` gives a file to start from")
    if any(_UNDECODABLE in cell for cell in header):
        raise _explain_undecodable(path, file, form)
    return row, header


def _explain_undecodable(path: str, file: BinaryIO, form: Form) -> SourceError:
    """Return the error that names the first cell which is not in the encoding."""
    hint = "save it as 'CSV UTF-8' in the spreadsheet, or name the encoding it has, such as --encoding cp1252"
    header: list[str] = []
    for row, cells in Reading(path, file, form, errors=_MARK):
        header = header or cells
        for place, cell in enumerate(cells):
            if _UNDECODABLE in cell:
                title = header[place] if place < len(header) and cells is not header else ""
                column = f"column {place + 1} ({name_column(title)})" if title else f"column {place + 1}"
                return SourceError(f"{path}: row {row}, {column} is not {form.encoding}", hint)
    return SourceError(f"{path} is not {form.encoding}", hint)


def _refuse_torn_row(path: str, file: BinaryIO, form: Form) -> None:
    """Refuse a file in which a single carriage return tears a row in two, though the header ends otherwise."""
    tape = Tape(path, file)
    text = _decode(tape, form)
    line = ""

    def lines() -> Iterator[str]:
        nonlocal line
        for line in text:  # noqa: UP028 - the line that ended a row is used below
            yield line

    wanted = None
    for row, cells in enumerate(csv.reader(lines(), delimiter=form.delimiter, strict=True, skipinitialspace=True), 1):
        tape.unended = 0
        if "".join(cells).strip(BLANKS) and line.endswith(("\r", "\n")):
            single = line.endswith("\r")
            if single is not (single if wanted is None else wanted):
                raise SourceError(
                    f"{path}: row {row} ends with another kind of line end than the header",
                    hint="a stray line break may have torn it in two; join it, or save the file anew",
                )
            wanted = single


def _decode(tape: Tape, form: Form, errors: str = "strict") -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BufferedReader(tape, _BUFFER), encoding=form.encoding, errors=errors, newline="")
