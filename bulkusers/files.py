"""Files that only their owner can read, and that are either whole or not there."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from bulkusers.errors import StorageError


def open_private(path: Path) -> BinaryIO:
    """Create `path` for writing with mode 0600, whatever the umask; it must not exist yet.

    Raises:
        StorageError: it exists (a symlink counts), or the folder cannot be written.

    """
    try:
        # umask can only take bits away, and 0600 has none to spare for others
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from None
    return os.fdopen(descriptor, "w+b")


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


def move_aside(path: Path) -> Path | None:
    """Rename what stands at `path` to a name with its time in it, so that a new file can take its place.

    Raises:
        StorageError: it cannot be renamed.

    """
    try:
        if not path.exists():
            return None
        stamp = datetime.fromtimestamp(path.stat().st_mtime, UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
        names = (f"{path.stem}.{stamp}{suffix}{path.suffix}" for suffix in ("", *(f".{n}" for n in range(2, 1000))))
        aside = next(there for name in names if not (there := path.with_name(name)).exists())
        path.rename(aside)
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
        beside.unlink(missing_ok=True)  # left by a process of the same number that was killed
        with open_private(beside) as file:
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


def sync_folder(folder: Path) -> None:
    """Make a rename or a new name in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
