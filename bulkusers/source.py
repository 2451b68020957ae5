"""The users file: refused as a whole, or read row by row in the same memory whatever its size."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from bulkusers.cells import EMAIL, NOTICES, Fault, Rules, Values, list_notices, make_user, reject, show_email
from bulkusers.columns import Layout, match_header
from bulkusers.duplicates import Repeat, Repeats, Sightings
from bulkusers.errors import SourceError
from bulkusers.models import Notice, Outcome, Status, User
from bulkusers.profile import load_profile
from bulkusers.rows import Form, Reading, find_delimiter, find_encoding, read_header


@dataclass(frozen=True, slots=True)
class Facts:
    """What the first reading found."""

    path: str  # as the user wrote it; "-" is the standard input
    sha256: str  # of the file's bytes
    rows: int  # data rows
    encoding: str
    delimiter: str
    header: tuple[str, ...]  # as written
    ignored: tuple[str, ...]  # unknown columns, as messages name them
    rejected: int  # rows already known to be bad
    notices: tuple[Notice, ...]


class Source:
    """A users file that can be sent, row by row; `open_source` makes it."""

    def __init__(self, facts: Facts, file: BinaryIO, rules: Rules, repeats: Repeats, plain: bytearray) -> None:
        self.facts = facts
        self._file = file
        self._rules = rules
        self._repeats = repeats
        self._plain = plain  # of each data row: 1 if it has no fault and nothing to clean; it is not judged again

    def users(self) -> Iterator[User | Outcome]:
        """Yield each data row in turn: a user, or the outcome of a row that is not to be sent."""
        rules, repeats = self._rules, self._repeats
        for plain, (row, cells) in zip(self._plain, self.records(), strict=True):
            values, fault = (rules.pick(cells), None) if plain else rules.judge(cells)
            if fault is not None:
                yield reject(row, values, fault)
            elif repeats and (repeat := repeats.find(values[EMAIL])) and (repeat.differ or row != repeat.kept):
                yield _refuse_repeat(row, values, repeat)
            else:
                yield make_user(row, values)

    def records(self) -> Iterator[tuple[int, list[str]]]:
        """Yield each data row's number and its cells as they are in the file."""
        form = Form(self.facts.encoding, self.facts.delimiter)
        yield from islice(Reading(self.facts.path, self._file, form), 1, None)  # without the header


@contextmanager
def open_source(
    path: Path | str,
    *,
    products: Sequence[str] = (),
    encoding: str = "",
    delimiter: str = "",
    allow_empty: bool = False,
    stdin: BinaryIO | None = None,
) -> Iterator[Source]:
    """Open a users file, "-" being the standard input, after reading it once to its end.

    It is copied first, to where nobody else can reach it: whatever becomes of the file, what was checked is sent.

    `products` are the keys that the school's API knows; those of the built-in API profile unless named.

    Raises:
        SourceError: the file as a whole cannot be used.

    """
    # a name that is no text must not spoil the report at the end
    name = os.fsencode(path).decode(errors="backslashreplace")
    with _open(path, name, stdin) as file:
        encoding = find_encoding(name, file, encoding)
        form = Form(encoding, find_delimiter(name, file, encoding, delimiter))
        layout = match_header(name, *read_header(name, file, form))
        source = _survey(name, file, form, layout, Rules(layout, products or load_profile().values.products))
        if not source.facts.rows and not allow_empty:
            raise SourceError(f"{name} has a header but no users", hint="if that is as it should be, say --allow-empty")
        yield source


def _open(path: Path | str, name: str, stdin: BinaryIO | None) -> BinaryIO:
    """Return a copy of a file, or of the standard input, that stays as it is."""
    if name == "-":
        stdin = stdin or getattr(sys.stdin, "buffer", None)  # a daemon may have none
        if stdin is None:
            raise SourceError("there is no standard input to read from", hint="name a file instead of -")
        return _spool(name, stdin)
    try:
        with Path(path).open("rb") as file:
            return _spool(name, file)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        missing = isinstance(error, FileNotFoundError)
        hint = "is the name right? `bulkusers template` gives a file to start from" if missing else ""
        raise SourceError(f"cannot read {name}: {getattr(error, 'strerror', error)}", hint) from None


def _spool(name: str, stream: BinaryIO) -> BinaryIO:
    """Copy a stream into a file that has no name and that only we can read."""
    with ExitStack() as stack:
        try:
            file = stack.enter_context(tempfile.TemporaryFile())
            shutil.copyfileobj(stream, file)
            file.flush()
        except OSError as error:
            raise SourceError(
                f"cannot keep a copy of {name}: {error.strerror}", hint="TMPDIR names the folder to keep it in"
            ) from None
        stack.pop_all()
    return file


def _survey(path: str, file: BinaryIO, form: Form, layout: Layout, rules: Rules) -> Source:
    """Read the file once to its end, and see what is in it."""
    reading = Reading(path, file, form)
    data = iter(reading)
    next(data)  # the header
    rejected = 0
    plain = bytearray()
    notices: dict[str, Notice] = {}
    sightings = Sightings()
    for row, cells in data:
        values, fault = rules.judge(cells)
        plain.append(fault is None and values == rules.pick(cells))
        if fault is not None:
            rejected += 1
        else:
            for code in list_notices(values):
                notices.setdefault(code, Notice(code, NOTICES[code])).add(row)
        if values[EMAIL]:
            sightings.add(values[EMAIL])
    repeats = Repeats(sightings.repeated())
    del sightings  # before the repeats fill up
    if repeats:
        for row, cells in islice(Reading(path, file, form), 1, None):
            values, fault = rules.judge(cells)
            repeats.add(row, values, good=fault is None)
    facts = Facts(
        path=path,
        sha256=reading.sha256,
        rows=len(plain),
        encoding=form.encoding,
        delimiter=form.delimiter,
        header=layout.header,
        ignored=layout.ignored,
        rejected=rejected + repeats.count_refused(),
        notices=tuple(notices.values()),
    )
    return Source(facts, file, rules, repeats, plain)


def _refuse_repeat(row: int, values: Values, repeat: Repeat) -> Outcome:
    if not repeat.differ:
        message = f"the same user stands in row {repeat.kept} already"
        return Outcome(row, show_email(values[EMAIL]), Status.SKIPPED, "duplicate-row", message)
    *others, last = map(str, repeat.rows)
    named = f"{', '.join([*others, last])} and more" if repeat.more else f"{', '.join(others)} and {last}"
    message = f"rows {named} have the same e-mail but differ"
    return reject(row, values, Fault("duplicate-email", message, "keep the right one and delete the others"))
