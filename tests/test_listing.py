"""Lists of records in every shape are read exactly, whatever the pieces they come in, and refused if they are none."""

import io
import itertools
import json
import math
import tracemalloc
from typing import Any, BinaryIO, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bulkusers.errors import ShapeError
from bulkusers.listing import LONGEST, Listing
from bulkusers.models import Json
from bulkusers.profile import load_profile

NAMES: Final = load_profile().records
ZOE: Final = {"email": "zoë@example.edu", "firstName": "Zoë 李 🎓", "products": ["events"], "n": -1.5e-7, "x": None}
ADA: Final = {"email": "ada@example.edu", "lastName": 'O"Neil \\ \n', "nested": {"a": [1, {"b": True}]}, "roles": []}
SHAPES: Final = ("map", "list", "data", "length", "bare")


def shape(records: list[Json], kind: str, **dumps: Any) -> str:  # noqa: ANN401 - any argument of json.dumps
    """Return the JSON of a list in one of the shapes that an API may give it."""
    document: object = {
        "map": {record["email"]: record for record in records},
        "list": records,
        "data": {"data": records, "totalCount": len(records)},
        "length": {"listLength": len(records), "took": 1.5e-3, "next": None, "data": records},
        "bare": {"data": records},
    }[kind]
    return json.dumps(document, **dumps)


def read(text: str | bytes) -> tuple[list[tuple[Json, str]], Listing]:
    """Read a list to its end."""
    listing = Listing(io.BytesIO(text.encode() if isinstance(text, str) else text), NAMES)
    return list(listing), listing


@pytest.mark.parametrize("kind", SHAPES)
def test_every_shape_is_read(kind: str) -> None:
    """The records, what was said of their number, and whether there may be pages, are known afterwards."""
    read_out, listing = read(shape([ZOE, ADA], kind))
    assert [record for record, _ in read_out] == [ZOE, ADA]
    assert listing.total == (2 if kind in ("data", "length") else None)
    assert listing.keyed is (kind == "map")


@pytest.mark.parametrize("kind", SHAPES)
def test_no_users_are_a_list_too(kind: str) -> None:
    """An empty school is nothing to be afraid of."""
    read_out, listing = read(shape([], kind))
    assert read_out == []
    assert listing.total == (0 if kind in ("data", "length") else None)


@pytest.mark.parametrize("kind", SHAPES)
def test_the_pieces_do_not_matter(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers, escapes and characters of several bytes may be cut anywhere."""
    text = shape([ZOE, ADA], kind, indent=1, ensure_ascii=kind == "list")
    whole = read(text)[0]
    for piece in range(1, len(text.encode()) + 1):
        monkeypatch.setattr("bulkusers.listing.PIECE", piece)
        read_out, listing = read(text)
        assert read_out == whole
        assert listing.total == (2 if kind in ("data", "length") else None)


FIELDS: Final = st.dictionaries(
    st.text(max_size=8),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**63)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=12),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)


@given(
    records=st.lists(FIELDS, max_size=5),
    kind=st.sampled_from(SHAPES),
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 0, 3, "\t", "\r\n "]),
    separators=st.sampled_from([(",", ":"), (" , ", "\n:\t")]),
    outer=st.sampled_from(["", " \r\n\t"]),
    piece=st.integers(1, 40),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_drawn_records_come_back_as_they_came(  # noqa: PLR0917 - what is drawn
    monkeypatch: pytest.MonkeyPatch,
    records: list[Json],
    kind: str,
    ascii_only: bool,
    indent: int | str | None,
    separators: tuple[str, str],
    outer: str,
    piece: int,
) -> None:
    """Value and text of each record are what was written, however it was written."""
    records = [record | {"email": f"user{number}@example.edu"} for number, record in enumerate(records)]
    text = shape(records, kind, ensure_ascii=ascii_only, indent=indent, separators=separators)
    monkeypatch.setattr("bulkusers.listing.PIECE", piece)
    read_out, _ = read(outer + text + outer)
    assert [record for record, _ in read_out] == records
    assert [json.loads(raw) for _, raw in read_out] == records
    places = [text.index(raw) for _, raw in read_out]  # a piece of what came, not what was made of it
    assert places == sorted(places)


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("piece", [1, 1 << 16])
def test_a_list_that_ends_anywhere_is_never_whole(kind: str, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut at any byte it is refused, and what was read until then are records that stand in it."""
    monkeypatch.setattr("bulkusers.listing.PIECE", piece)
    body = shape([ZOE, ADA], kind, ensure_ascii=False).encode()
    for end in range(len(body)):
        seen: list[Json] = []
        with pytest.raises(ShapeError):
            seen.extend(record for record, _ in Listing(io.BytesIO(body[:end]), NAMES))
        assert seen == [ZOE, ADA][: len(seen)]


NO_LIST: Final = {
    "nothing": b"",
    "blanks": b" \n ",
    "a page": b"<!doctype html><html><body>Log in</body></html>",
    "words": b"Service Unavailable",
    "a text": b'"users"',
    "a number": b"17",
    "null": b"null",
    "an error": b'{"error": "Unauthenticated"}',
    "an error beside users": b'{"a@example.edu": {"email": "a@example.edu"}, "error": "cut short"}',
    "a mark before it": b"\xef\xbb\xbf[]",
    "UTF-16": '[{"a": 1}]'.encode("utf-16"),
    "Latin-1": '[{"a": "Zoë"}]'.encode("latin-1"),
    "half a character": b'[{"a": "\xc3"}]',
    "a list of texts": b'["a@example.edu"]',
    "a list of lists": b"[[]]",
    "records and nulls": b'[{"a": 1}, null]',
    "an object of lists": b'{"users": [{"a": 1}]}',
    "two documents": b"[]\n[]",
    "something after it": b"[{}] x",
    "two lists": b'{"data": [{"a": 1}], "data": [{"a": 1}]}',
    "a list and records": b'{"data": [{"a": 1}], "b@example.edu": {"a": 1}}',
    "a list that is none": b'{"data": "none"}',
    "NaN": b'[{"a": NaN}]',
    "infinity": b'[{"a": -Infinity}]',
    "an infinite number": b'[{"a": 1e999}]',
    "half a character pair": b'[{"a": "\\ud800"}]',
    "single quotes": b"[{'a': 1}]",
    "a bare name": b"[{a: 1}]",
    "a comma too many": b"[{},]",
    "a comma too many in an object": b'{"a@example.edu": {},}',
    "no comma": b"[{} {}]",
    "no colon": b'{"a@example.edu" {}}',
    "a name that is no text": b"{1: {}}",
    "a bare line break": b'[{"a": "\n"}]',
    "JSON lines": b'{"a": {}}\n{"b": {}}',
    "the wrong end": b"[{}}",
    "a number with thousands of digits": b'[{"a": ' + b"1" * 5000 + b"}]",
    "deep lists": b"[" * 100_000,
    "a deep record": b'[{"a": ' + b"[" * 900 + b"]" * 900 + b"}]",
    "a record that could not be sent back": b'[{"a": ' + b"[" * 400 + b"]" * 400 + b"}]",
}


@pytest.mark.parametrize(
    ("what", "piece"),
    # deep lists are decoded anew for every piece
    [(what, piece) for what in NO_LIST for piece in (1, 3, 1 << 16) if what != "deep lists" or piece > 100],
)
def test_what_is_no_list_is_refused(what: str, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one kind of error and a sentence, whatever it is."""
    monkeypatch.setattr("bulkusers.listing.PIECE", piece)
    with pytest.raises(ShapeError, match="the API's list of users") as caught:
        read(NO_LIST[what])
    assert "API profile" in caught.value.hint


class Endless(io.RawIOBase):
    """A file that repeats something for as long as it is read, up to a limit that no reader should reach."""

    def __init__(self, beginning: bytes, unit: bytes, most: int = 1 << 24) -> None:
        super().__init__()
        self._rest = beginning
        self._unit = unit
        self.left = most

    def read(self, size: int = -1) -> bytes:
        """Return the next piece."""
        text = self._rest + self._unit * (size // len(self._unit) + 1)
        self._rest = text[size:]
        self.left -= size
        return text[:size] if self.left > 0 else b""


def as_file(file: Endless) -> BinaryIO:
    """Say that a raw file is a file like any other."""
    return file  # type: ignore[return-value] # a RawIOBase reads bytes, and that is all that is asked of it


@pytest.mark.parametrize(
    ("beginning", "unit"),
    [
        (b'[{"a": "', b"x"),
        (b'[{"a": [', b'"' + b"x" * 99 + b'",'),
        (b"[", b"9"),
        (b'{"', b"n"),
        (b'[{"a": ', b" "),
        (b"[1.", b"0"),
    ],
)
def test_a_record_without_an_end_is_given_up(beginning: bytes, unit: bytes) -> None:
    """After a megabyte, not when memory is full."""
    file = Endless(beginning, unit)
    began = file.left
    tracemalloc.start()
    try:
        with pytest.raises(ShapeError):
            list(Listing(as_file(file), NAMES))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert began - file.left < LONGEST + (1 << 18)
    assert peak < 40 * LONGEST


def test_a_long_list_needs_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand records pass through a few pieces."""
    monkeypatch.setattr("bulkusers.listing.PIECE", 1 << 12)
    unit = json.dumps(ADA | {"notes": "x" * 60}).encode() + b","
    file = Endless(b"[", unit, most=len(unit) * 10_000)
    count = itertools.count()
    tracemalloc.start()
    try:
        with pytest.raises(ShapeError, match="ends in the middle"):
            all(next(count) < math.inf for _ in Listing(as_file(file), NAMES))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert next(count) > 9_000
    assert peak < 1 << 18


def test_blanks_are_no_matter_of_memory() -> None:
    """Megabytes of them before the list are skipped piece by piece."""
    tracemalloc.start()
    try:
        with pytest.raises(ShapeError):
            list(Listing(as_file(Endless(b"", b" ", most=1 << 22)), NAMES))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_the_larger_of_two_counts_is_believed() -> None:
    """The other one may be a page's: to ask for one page more costs little, to miss users costs their records."""
    for counts in ('"totalCount": 9, "listLength": 1', '"listLength": 1, "totalCount": 9'):
        assert read(f'{{"data": [{{"a": 1}}], {counts}}}')[1].total == 9


@pytest.mark.parametrize("count", ["true", "1.0", '"1"', "null"])
def test_a_count_that_is_no_number_counts_nothing(count: str) -> None:
    """`true` is 1 to Python, and to nobody else."""
    assert read(f'{{"data": [{{"a": 1}}], "totalCount": {count}}}')[1].total is None


def test_large_numbers_keep_what_json_can_keep() -> None:
    """All 64 bits are kept; a larger number is what JavaScript makes of it, in the value and not in the text."""
    (record, text), *_ = read('[{"a": 18446744073709551615, "b": 123456789012345678901234567890}]')[0]
    assert record == {"a": 2**64 - 1, "b": 123456789012345678901234567890.0}
    assert text.endswith('"b": 123456789012345678901234567890}')
