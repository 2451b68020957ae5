"""The journal: every outcome, on disk as soon as it is known; the finished report is made from it."""

from array import array
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from bulkusers.errors import StorageError
from bulkusers.files import open_private
from bulkusers.models import Outcome


class Journal:
    """An append-only file of outcomes beside the report; a `models.Record`.

    Memory is eight bytes a row: where its line begins. That suffices to read a million outcomes in the order of
    their rows, though they came in the order of their answers.

    Raises:
        StorageError: it cannot be written.

    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open_private(path)
        self._end = 0
        self._starts = array("q")  # by row number; -1 where there is none

    def __call__(self, outcome: Outcome) -> None:
        """Append one outcome."""
        line = orjson.dumps(row_of(outcome), option=orjson.OPT_APPEND_NEWLINE)
        try:
            self._file.write(line)
            self._file.flush()  # what the system has survives a kill -9 of ours
        except OSError as error:
            raise StorageError(f"cannot write {self.path}: {error.strerror}") from None
        while len(self._starts) <= outcome.row:
            self._starts.append(-1)
        self._starts[outcome.row] = self._end
        self._end += len(line)

    def rows(self) -> Iterator[bytes]:
        """Yield every outcome's JSON in the order of the rows."""
        for start in self._starts:
            if start >= 0:
                self._file.seek(start)
                yield self._file.readline().rstrip()
        self._file.seek(0, 2)

    def remove(self) -> None:
        """Take the journal away, once the report has all that was in it."""
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # what could not be written was told when it happened
            self._file.close()


def row_of(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome as the report writes it; what is empty is left out."""
    row: dict[str, Any] = {"row": outcome.row, "email": outcome.email, "status": outcome.status}
    if outcome.code:
        row |= {"code": outcome.code, "message": outcome.message, "hint": outcome.hint}
    if outcome.changed:
        row["changed"] = outcome.changed
    if outcome.ms or outcome.attempts:
        row |= {"attempts": outcome.attempts, "ms": outcome.ms}
    return row
