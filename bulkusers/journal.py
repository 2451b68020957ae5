"""The journal: what was begun and what came of it, handed to the system at once; the report is made from it.

One line each, its checksum first: `{"crc":"…","row":3,"email":"…","status":"created",…}`. The first line says of which
run it is. A user who was begun and has no outcome may or may not have been changed when the process died; `--resume`
looks before it sends.
"""

import fcntl
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from enum import Enum, auto
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self

import orjson

from bulkusers.appendix import PREFIX, Appendix, damage, is_frame, read_frames
from bulkusers.errors import LockedError, SourceError, StorageError
from bulkusers.models import Item, Outcome, Status

IN_DOUBT: Final = {None, Status.UNKNOWN}  # what a line says of those who may have been changed; None: was begun
UNDECIDED: Final = {Status.UNKNOWN, Status.UNPROCESSED, Status.FAILED}  # a resumed run has these before it again
REMEDY: Final = "run again without --resume: what is done will be found unchanged"
NAMES: Final = frozenset(Outcome._fields)  # of what a line says of a row
STATUSES: Final = {str(status): status for status in Status}
GROWTH: Final = 1024  # rows that the index has room for at a time


class Progress(Enum):
    """How far a user had come when the run was interrupted."""

    NEW = auto()
    BEGUN = auto()
    DONE = auto()


class Journal:
    """An append-only file beside the report; as a `models.Record` it takes outcomes.

    Memory is sixteen bytes a row: where its outcome begins, and a fingerprint of its e-mail. That suffices to read a
    million outcomes in the order of their rows, though they came in the order of their answers.
    """

    def __init__(self, file: Appendix) -> None:
        self._file = file
        self.path: Final = file.path
        self._starts = array("q")  # by row number; -1 where there is no outcome
        self._keys = array("q")  # by row number; whose outcome it is
        self._begun: dict[int, str] = {}  # of an interrupted run: row -> e-mail

    @classmethod
    def create(cls, path: Path, run: Mapping[str, Any]) -> Self:
        """Begin a new journal for `run`.

        Raises:
            StorageError: it exists, or cannot be written.

        """
        journal = cls(Appendix.create(path))
        with ExitStack() as stack:
            stack.push(journal)  # closes it unless it becomes the caller's
            _claim(path, journal._file)
            journal._write(run)
            stack.pop_all()
        return journal

    @classmethod
    def reopen(cls, path: Path, run: Mapping[str, Any]) -> Self | None:
        """Open the journal of an interrupted run to go on with it; None where there is none, or nothing in it.

        A torn end, as a power cut leaves it, is dropped.

        Raises:
            SourceError: it is of another run: another file, target, or treatment of users.
            StorageError: it is damaged before its end, or cannot be opened.

        """
        file = Appendix.reopen(path)
        if file is None:
            return None
        journal = cls(file)
        with ExitStack() as stack:
            stack.push(journal)
            _claim(path, file)
            if not journal._load(run):
                return None
            stack.pop_all()
        return journal

    def _load(self, run: Mapping[str, Any]) -> bool:
        lines = _read_lines(self.path, self._file)
        nothing: tuple[int, dict[str, Any] | None, int] = (0, None, 0)
        _, begun_run, end = next(lines, nothing)
        if begun_run is None:
            return False
        if differing := [name for name, value in run.items() if begun_run.get(name) != value]:
            other = {"sha256": "the file has changed", "images": "its before-images have changed"}
            words = [other.get(name, f"--{name.replace('_', '-')} is another") for name in differing]
            raise SourceError(
                f"{self.path} is the journal of another run: {' and '.join(words)}",
                hint="run with what it was begun with, or without --resume to begin anew",
            )
        for start, entry, end in lines:  # noqa: B007 - the last one's is where writing goes on
            self._recall(start, entry)
        self._file.cut(end)
        return True

    def _recall(self, start: int, entry: Mapping[str, Any]) -> None:
        row, status = entry["row"], entry.get("status")
        if status in IN_DOUBT:
            self._begun[row] = entry["email"]
        else:
            self._begun.pop(row, None)  # whatever it is, it is known: nobody has to look what was done
            if status not in UNDECIDED:
                self._index(row, entry["email"], start)

    def progress(self, user: Item) -> Progress:
        """Tell how far an interrupted run had come with a user, by row and e-mail both."""
        if user.row < len(self._starts) and self._starts[user.row] >= 0:
            return Progress.DONE if self._keys[user.row] == hash(user.email) else Progress.NEW
        return Progress.BEGUN if self._begun.get(user.row) == user.email else Progress.NEW

    def begin(self, user: Item) -> None:
        """Note that a user's conversation begins now: the first write comes after that."""
        self._write({"row": user.row, "email": user.email})

    def __call__(self, outcome: Outcome) -> None:
        """Append one outcome."""
        self._index(outcome.row, outcome.email, self._write(row_of(outcome)))

    def _index(self, row: int, email: str, start: int) -> None:
        if row >= len(self._starts):
            missing = row + GROWTH - len(self._starts)
            self._starts.extend(array("q", [-1]) * missing)
            self._keys.extend(array("q", [0]) * missing)
        self._starts[row] = start
        self._keys[row] = hash(email)

    def _write(self, entry: Mapping[str, Any]) -> int:
        return self._file.append(orjson.dumps(entry))

    def sync(self) -> None:
        """Make everything that was written survive a power cut.

        Raises:
            StorageError: the disk does not take it.

        """
        self._file.sync()

    def rows(self) -> Iterator[bytes]:
        """Yield every outcome's JSON in the order of the rows."""
        for start in self._starts:
            if start >= 0:
                yield self._file.text_at(start)

    def outcome(self, row: int) -> Outcome:
        """Return the outcome that a row has already."""
        return outcome_of(orjson.loads(self._file.text_at(self._starts[row])))

    def remove(self) -> None:
        """Take the journal away, once the report has all that was in it."""
        self._file.remove()

    def close(self) -> None:
        """Let go of the file, and of the claim on it."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def refuse_live(path: Path) -> None:
    """Refuse to touch the journal of a run that is going on.

    Raises:
        LockedError: a process has it open for writing.
        StorageError: it cannot be read.

    """
    with claiming(path):
        pass


@contextmanager
def claiming(path: Path) -> Iterator[None]:
    """Let nobody go on with a run for the time of the block; there may be no journal of one.

    Raises:
        LockedError: a process has it open for writing.
        StorageError: it cannot be read.

    """
    with ExitStack() as stack:
        try:
            if path.is_file():
                _claim(path, stack.enter_context(path.open("rb")))
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror}") from None
        yield


def _claim(path: Path, file: BinaryIO | Appendix) -> None:
    """Make a journal ours as long as it is open; the system lets go of it when we die."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise LockedError(
            f"{path} belongs to a run that is going on", hint="wait for it to end, or name another --report"
        ) from None


def _read_lines(path: Path, file: Iterable[bytes]) -> Iterator[tuple[int, dict[str, Any], int]]:
    """Yield where each whole line begins, what it says, and where it ends; stop at a torn end.

    Raises:
        StorageError: a line is damaged, and whole ones follow it; or a whole one cannot be understood.

    """
    for number, (start, text, end) in enumerate(read_frames(path, file, REMEDY), start=1):
        entry = _understand(text, first=number == 1)
        if entry is None:
            raise damage(path, number, REMEDY)
        yield start, entry, end


def _understand(text: bytes, *, first: bool) -> dict[str, Any] | None:
    """Return what a whole line says; None where it is what this version would never write."""
    try:
        entry = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return entry if isinstance(entry, dict) and (first or _is_of_row(entry)) else None


def _is_of_row(entry: dict[str, Any]) -> bool:
    row = entry.get("row")
    return (
        NAMES.issuperset(entry)
        and isinstance(row, int)
        and row > 0
        and isinstance(entry.get("email"), str)
        and ("status" not in entry or (isinstance(entry["status"], str) and entry["status"] in STATUSES))
        and ("changed" not in entry or isinstance(entry["changed"], list))
        and isinstance(entry.get("loses", False), bool)
    )


def row_of(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome as the report writes it; what is empty is left out."""
    row: dict[str, Any] = {"row": outcome.row, "email": outcome.email, "status": outcome.status}
    if outcome.code:
        row |= {"code": outcome.code, "message": outcome.message, "hint": outcome.hint}
    if outcome.changed:
        row["changed"] = outcome.changed
    if outcome.loses:
        row["loses"] = True
    if outcome.ms or outcome.attempts:
        row |= {"attempts": outcome.attempts, "ms": outcome.ms}
    return row


def outcome_of(row: Mapping[str, Any]) -> Outcome:
    """Return the outcome that a report's row says."""
    return Outcome(
        row["row"],
        row["email"],
        STATUSES[row["status"]],
        row.get("code", ""),
        row.get("message", ""),
        row.get("hint", ""),
        tuple(row.get("changed", ())),
        row.get("attempts", 0),
        row.get("ms", 0),
        row.get("loses", False),
    )


BEGUN: Final = "begun"


def is_journal(path: Path) -> bool:
    """Tell a journal from a report by how it begins."""
    with suppress(OSError), path.open("rb") as file:
        return is_frame(file.read(PREFIX))
    return False


def read_header(path: Path) -> dict[str, Any]:
    """Return what the journal of an interrupted run says of that run.

    Raises:
        SourceError: it cannot be read, or is no journal.

    """
    try:
        with path.open("rb") as file:
            _, run, _ = next(_read_lines(path, file), (0, {}, 0))
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from None
    if "base_url" not in run:
        raise SourceError(f"{path} is no journal of a run")
    return run


def read_progress(path: Path) -> dict[str, int]:
    """Return how far an interrupted run had come: rows by status, and as "begun" those that have no outcome.

    Raises:
        SourceError: it cannot be read, or is no journal.
        StorageError: it is damaged before its end.

    """
    states = {entry["row"]: STATUSES[entry["status"]] if "status" in entry else BEGUN for entry in _read_entries(path)}
    counts = Counter(states.values())
    return {state: counts[state] for state in (*map(str, Status), BEGUN)}


def read_unclear(path: Path) -> dict[int, str]:
    """Return the users, by row, of whom an interrupted run did not see whether they were changed.

    Raises:
        SourceError: it cannot be read, or is no journal.
        StorageError: it is damaged before its end.

    """
    unclear: dict[int, str] = {}
    for entry in _read_entries(path):
        if entry.get("status", Status.UNKNOWN) == Status.UNKNOWN:
            unclear[entry["row"]] = entry["email"]
        else:
            unclear.pop(entry["row"], None)
    return unclear


def _read_entries(path: Path) -> Iterator[dict[str, Any]]:
    read_header(path)
    try:
        with path.open("rb") as file:
            yield from (entry for _, entry, _ in islice(_read_lines(path, file), 1, None))
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from None
