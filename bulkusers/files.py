"""Files that only their owner can read, and that are either whole or not there."""

import fcntl
import glob
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final, Self

from bulkusers.errors import StorageError


def open_private(path: Path, buffering: int = -1) -> BinaryIO:
    """Create `path` for writing with mode 0600, whatever the umask; it must not exist yet.

    Raises:
        StorageError: it exists (a symlink counts), or the folder cannot be written.

    """
    try:
        # umask can only take bits away, and 0600 has none to spare for others
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from None
    return os.fdopen(descriptor, "w+b", buffering)


PIECE: Final = 512  # bytes; nearly every line is shorter
WINDOW: Final = 1 << 16  # bytes that are read around a line, for those that are asked for next


class Appendix:
    """A private file that only grows, line by line; what was appended survives a kill -9 of ours."""

    def __init__(self, path: Path, file: BinaryIO, end: int = 0) -> None:
        self.path = path
        self.end = end
        self._file = file  # without a buffer: a line goes to the system at once, and that in half the time
        self._unsynced = False
        self._rest = b""  # of a line that the disk did not take
        self._window = b""  # what was read last, and where it begins
        self._window_start = 0
        self._missed = 0  # the line that was last asked for and not in it

    @classmethod
    def create(cls, path: Path) -> Self:
        """Begin a new file, whose name survives a power cut.

        Raises:
            StorageError: it exists, or cannot be written.

        """
        file = open_private(path, buffering=0)
        try:
            sync_folder(path.parent)
        except OSError as error:
            file.close()
            raise StorageError(f"cannot write {path}: {error.strerror}") from None
        return cls(path, file)

    @classmethod
    def reopen(cls, path: Path) -> Self | None:
        """Open a file that exists, to read it and then to go on after what is whole (`cut`); None if there is none.

        Raises:
            StorageError: it cannot be opened, or is a symlink.

        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(f"cannot open {path}: {error.strerror}") from None
        return cls(path, os.fdopen(descriptor, "r+b", 0))

    def __iter__(self) -> Iterator[bytes]:
        """Yield the lines from the beginning, ends included.

        Raises:
            StorageError: they cannot be read.

        """
        with self._going_on(), open(self._file.fileno(), "rb", closefd=False) as file:
            file.seek(0)
            yield from file

    def cut(self, end: int) -> None:
        """Drop what comes after `end`, and go on there.

        Raises:
            StorageError: the disk does not take it.

        """
        with self._going_on():
            self._file.seek(end)
            self._file.truncate()
        self.end = end

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(f"cannot go on with {self.path}: {error.strerror}") from None

    def append(self, line: bytes) -> int:
        """Append a line and hand it to the system; return where it begins.

        Raises:
            StorageError: the disk does not take it, or did not take an earlier one.

        """
        if self._rest:
            raise StorageError(f"cannot write {self.path}: it has a gap already")
        start, rest = self.end, line
        try:
            while rest:  # a disk that is nearly full takes a part first
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self._rest = rest
            raise StorageError(f"cannot write {self.path}: {error.strerror}") from None
        self.end += len(line)
        self._unsynced = True
        return start

    def sync(self) -> None:
        """Make everything that was appended survive a power cut.

        Raises:
            StorageError: the disk does not take it.

        """
        if not self._unsynced:
            return
        self._unsynced = False
        try:
            os.fdatasync(self._file.fileno())
        except OSError as error:
            raise StorageError(f"cannot write {self.path}: {error.strerror}") from None

    def line_at(self, start: int) -> bytes:
        """Return the line that begins at `start`, without its end.

        Raises:
            StorageError: there is none any more.

        """
        place = start - self._window_start
        if place < 0 or (end := self._window.find(b"\n", place)) < 0:
            return self._read_line(start)
        return self._window[place:end]

    def _read_line(self, start: int) -> bytes:
        """Read a line, and what is around it if the last one was near: whole files are read nearly in their order.

        That takes a third of the time; a line far from the others is still read alone.
        """
        text = b""
        if abs(start - self._missed) < WINDOW:
            self._window_start = max(start - WINDOW // 2, 0)
            self._window = os.pread(self._file.fileno(), WINDOW, self._window_start)
            text = self._window[start - self._window_start :]
        self._missed = start
        while b"\n" not in text:  # pread leaves the place alone where writing goes on
            piece = os.pread(self._file.fileno(), PIECE, start + len(text))
            if not piece:
                raise StorageError(f"{self.path} was cut short while the run went on")
            text += piece
        return text.partition(b"\n")[0]

    def fileno(self) -> int:
        """Return the file's descriptor."""
        return self._file.fileno()

    def remove(self) -> None:
        """Take the file away, once nobody needs it any more.

        Raises:
            StorageError: it cannot be removed.

        """
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(
                f"cannot remove {self.path}: {error.strerror}", hint="the report is whole: remove this file by hand"
            ) from None

    def close(self) -> None:
        """Let go of the file; what could not be written was told when it happened, and may find room now."""
        if self._rest and not self._file.closed:
            with suppress(OSError):
                self._file.write(self._rest)
        with suppress(OSError):
            self._file.close()


@contextmanager
def scratch_space() -> Iterator[None]:
    """Tell of a disk that does not take what is kept for the time of a run.

    Raises:
        StorageError: it does not.

    """
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot keep the API's answers: {error.strerror}", "TMPDIR names the folder") from None


@contextmanager
def scratch_file() -> Iterator[BinaryIO]:
    """Lend a file that has no name and that nobody else can reach.

    Raises:
        StorageError: the disk does not take what is written into it.

    """
    with scratch_space():
        file = tempfile.TemporaryFile()  # noqa: SIM115 - closed below, where what a full disk says is no news any more
    try:
        with scratch_space():
            yield file
    finally:
        with suppress(OSError):
            file.close()


def check_place(path: Path, option: str) -> None:
    """Find out now whether `path` can be written later; `option` is what names another one.

    Raises:
        StorageError: it is a symlink, a folder or a device, or its folder is missing or cannot be written.

    """
    hint = f"name another one with {option}"
    try:
        ordinary = not path.is_symlink() and (path.is_file() or not path.exists())
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise StorageError(f"cannot write into the folder of {path}: {error.strerror}", hint) from None
    if not ordinary:
        raise StorageError(f"{path} is no ordinary file", hint)


def move_aside(path: Path, *beside: Callable[[Path], Path]) -> Path | None:
    """Rename what stands at `path` to a name with its time in it, so that a new file can take its place.

    `beside` say from its name what belongs to it: that goes first, and along. The time is that of the last one to go,
    so that a move which broke off is ended under the same name.

    Raises:
        StorageError: it cannot be renamed.

    """
    try:
        present = [of for of in (*beside, Path) if of(path).exists()]
        if not present:
            return None
        stamp = datetime.fromtimestamp(present[-1](path).stat().st_mtime, UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
        names = (f"{path.stem}.{stamp}{suffix}{path.suffix}" for suffix in ("", *(f".{n}" for n in range(2, 1000))))
        asides = (path.with_name(name) for name in names)
        aside = next(aside for aside in asides if not any(of(aside).exists() for of in present))
        for of in present:
            of(path).rename(of(aside))
    except OSError as error:
        raise StorageError(f"cannot move {path} aside: {error.strerror}") from None
    return aside


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write a whole new `path`: beside it first, then renamed into place, or not at all.

    Raises:
        StorageError: the file or its folder cannot be written, or the disk is full.

    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        _remove_abandoned(path)
        with open_private(beside) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from None
    finally:
        with suppress(OSError):  # on a disk that takes nothing any more, the first error is the one to tell
            beside.unlink(missing_ok=True)


def _remove_abandoned(path: Path) -> None:
    """Remove what processes have left beside `path` that were killed while they wrote it: nobody holds it any more."""
    for left in filter(Path.is_file, path.parent.glob(f".{glob.escape(path.name)}.*.tmp")):
        with suppress(OSError), left.open("rb") as file:  # somebody else's stays
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()


def sync_folder(folder: Path) -> None:
    """Make a rename or a new name in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
