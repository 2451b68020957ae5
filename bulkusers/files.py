"""Files that only their owner can read, and that are either whole or not there."""

import fcntl
import glob
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

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


def is_same_place(one: Path | str, other: Path | str) -> bool:
    """Tell whether two paths lead to one place, whatever links and dots are on the way; it need not exist."""
    return os.path.realpath(one) == os.path.realpath(other)


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
