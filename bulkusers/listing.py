"""A list of records as the API answers it, in any of its shapes, read piece by piece.

An object with one member for each record, a list, or an object that holds the list beside its count. None of them is
documented, and shapes have changed without notice: what is none of them is refused.
"""

import codecs
import json
import re
from collections.abc import Iterator
from typing import BinaryIO, Final

import orjson

from bulkusers.errors import ShapeError
from bulkusers.models import Json
from bulkusers.profile import Records

PIECE: Final = 1 << 16  # characters read at once
LONGEST: Final = 1 << 20  # characters of one record; a real one has a thousand
AHEAD: Final = 2  # characters after a number, without which it may go on: 1 is the beginning of 1e+5
BLANKS: Final = re.compile(r"[ \t\n\r]+")


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


DECODER: Final = json.JSONDecoder(parse_constant=_refuse_constant)


class Listing:
    """One answer that lists records; iterate it once, then `total` is what it says that there are."""

    def __init__(self, file: BinaryIO, names: Records, what: str = "users") -> None:
        self.total: int | None = None
        self.keyed = False  # one member for each record
        self.shape = ""  # "map", "list", or "data" where the list stands in an object
        self._file = file
        self._names = names
        self._what = what
        self._text = ""
        self._place = 0
        self._decode = codecs.getincrementaldecoder("utf-8")().decode

    def __iter__(self) -> Iterator[tuple[Json, str]]:
        """Yield each record and its JSON as it came.

        Raises:
            ShapeError: the answer is no list of records.

        """
        match self._take():
            case "[":
                self.shape = "list"
                yield from self._elements()
            case "{":
                self.shape = "map"
                yield from self._members()
            case _:
                raise self._refuse("is not JSON: a log-in page, perhaps")
        if self._peek():
            raise self._refuse("goes on after its end")

    def _elements(self) -> Iterator[tuple[Json, str]]:
        for _ in self._until("]"):
            yield self._record()

    def _members(self) -> Iterator[tuple[Json, str]]:
        """Yield the records of an object: its members, or those of the list in it."""
        listed, strange = False, ""
        for _ in self._until("}"):
            name, _ = self._value()
            if not isinstance(name, str) or self._take() != ":":
                raise self._refuse("is not JSON")
            if name == self._names.data and self._peek() == "[":
                if listed:
                    raise self._refuse("is two lists at once")
                self._take()
                listed, self.shape = True, "data"
                yield from self._elements()
                continue
            value, text = self._value()
            if name in self._names.counts and type(value) is int:
                self.total = max(value, self.total or 0)  # the smaller one may count a page
            elif isinstance(value, dict):
                self.keyed = True
                yield self._check(text)
            else:
                strange = name[:40]
        if self.keyed and (listed or strange):
            raise self._refuse("mixes records with something else")
        if strange and not listed:
            raise self._refuse(f"is neither a list nor an object of records: it has {strange!r}")

    def _until(self, end: str) -> Iterator[None]:
        """Stop before each element of a list or object."""
        if self._peek() == end:
            self._take()
            return
        while True:
            yield
            match self._take():
                case ",":
                    continue
                case found if found == end:
                    return
                case _:
                    raise self._refuse("ends in the middle or is not JSON")

    def _record(self) -> tuple[Json, str]:
        value, text = self._value()
        if not isinstance(value, dict):
            raise self._refuse("lists something that is no record")
        return self._check(text)

    def _check(self, text: str) -> tuple[Json, str]:
        """Return a record that can be sent back as it came, and its text."""
        try:
            record: Json = orjson.loads(text)
            orjson.dumps(record)
        except (orjson.JSONDecodeError, orjson.JSONEncodeError):
            raise self._refuse("holds a record that could not be sent back as it came") from None
        return record, text

    def _value(self) -> tuple[object, str]:
        """Read one JSON value, in as many pieces as it takes; return it and its text."""
        self._peek()
        while True:
            found = self._decode_value()
            if found and (found[1] + AHEAD < len(self._text) or not self._more()):
                value, end = found
                start, self._place = self._place, end
                return value, self._text[start:end]
            if len(self._text) - self._place > LONGEST:
                raise self._refuse("holds a record that is too large to be one")
            if not found and not self._more():
                raise self._refuse("ends in the middle or is not JSON")

    def _decode_value(self) -> tuple[object, int] | None:
        try:
            return DECODER.raw_decode(self._text, self._place)
        except json.JSONDecodeError:
            return None  # not yet, or never
        except RecursionError:
            raise self._refuse("is nested more deeply than any record") from None
        except ValueError:  # NaN, or a number with thousands of digits
            raise self._refuse("is not JSON") from None

    def _peek(self) -> str:
        """Return the next character that is not blank; nothing at the end."""
        while True:
            blank = BLANKS.match(self._text, self._place)
            self._place = blank.end() if blank else self._place
            if self._place < len(self._text) or not self._more():
                return self._text[self._place : self._place + 1]

    def _take(self) -> str:
        found = self._peek()
        self._place += 1
        return found

    def _more(self) -> bool:
        """Read a piece; tell whether there was one."""
        piece = self._file.read(PIECE)
        try:
            text = self._decode(piece, final=not piece)
        except UnicodeDecodeError:
            raise self._refuse("is not UTF-8") from None
        if piece:
            self._text = self._text[self._place :] + text
            self._place = 0
        return bool(piece)

    def _refuse(self, why: str) -> ShapeError:
        return ShapeError(
            f"the API's list of {self._what} {why}",
            hint="is the base URL right, and the paths in the API profile?",
        )
