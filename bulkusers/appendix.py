"""Files that only grow, line by line: what was appended survives a kill -9, and a damaged line is seen.

A line is a JSON object that begins with the checksum of the rest: `{"crc":"…","row":3,…}`.
"""

import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final, Self

from bulkusers.errors import StorageError
from bulkusers.files import open_private, sync_folder

PREFIX: Final = len(b'{"crc":"00000000",')
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

    def append(self, text: bytes) -> int:
        """Append an object, given as JSON, and hand it to the system; return where its line begins.

        Raises:
            StorageError: the disk does not take it, or did not take an earlier one.

        """
        if self._rest:
            raise StorageError(f"cannot write {self.path}: it has a gap already")
        line = frame(text)
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

    def text_at(self, start: int) -> bytes:
        """Return the object whose line begins at `start`, as JSON.

        Raises:
            StorageError: there is none any more.

        """
        text = unframe(self._line_at(start))
        if text is None:
            raise StorageError(f"{self.path} was changed by somebody else")
        return text

    def _line_at(self, start: int) -> bytes:
        place = start - self._window_start
        if place < 0 or (end := self._window.find(b"\n", place)) < 0:
            return self._read_line(start)
        return self._window[place : end + 1]

    def _read_line(self, start: int) -> bytes:
        """Read a line, and what is around it if the last one was near: whole files are read nearly in their order.

        That takes a third of the time; a line far from the others is still read alone.
        """
        text = b""
        if abs(start - self._missed) < WINDOW:
            self._window_start = max(start - WINDOW // 2, 0)
            self._window = self._pread(WINDOW, self._window_start)
            text = self._window[start - self._window_start :]
        self._missed = start
        while b"\n" not in text:
            piece = self._pread(PIECE, start + len(text))
            if not piece:
                raise StorageError(f"{self.path} was cut short by somebody else")
            text += piece
        return text[: text.index(b"\n") + 1]

    def _pread(self, size: int, start: int) -> bytes:
        """Read, and leave the place alone where writing goes on."""
        try:
            return os.pread(self._file.fileno(), size, start)
        except OSError as error:
            raise StorageError(f"cannot read {self.path}: {error.strerror}") from None

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


def frame(text: bytes) -> bytes:
    """Return an object, as JSON, as a line that begins with its checksum."""
    return b'{"crc":"%08x",%s\n' % (zlib.crc32(text), text[1:])


def unframe(line: bytes) -> bytes | None:
    """Return the object that a line is, without its checksum; None where the line is torn or damaged."""
    text = b"{" + line[PREFIX:-1]
    return text if line == frame(text) else None


def is_frame(start: bytes) -> bool:
    """Tell from its first `PREFIX` bytes whether a line begins with its checksum."""
    return start[:8] == b'{"crc":"' and start[16:] == b'",'


def read_frames(path: Path, lines: Iterable[bytes], remedy: str) -> Iterator[tuple[int, bytes, int]]:
    """Yield where each whole line begins, its object, and where it ends; stop at a torn end.

    Raises:
        StorageError: a line is damaged, and whole ones follow it; `remedy` is what helps then.

    """
    start, damaged = 0, 0
    for number, line in enumerate(lines, start=1):
        end = start + len(line)
        if (text := unframe(line)) is None:
            damaged = damaged or number
        elif damaged:
            raise damage(path, damaged, remedy)
        else:
            yield start, text, end
        start = end


def damage(path: Path, number: int, remedy: str) -> StorageError:
    """Return what to raise for a line that cannot be trusted."""
    return StorageError(f"{path} is damaged in line {number}", hint=remedy)
