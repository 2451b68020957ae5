"""Files that only their owner can read, and that are either whole or not there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write a whole new `path`: beside it first, then renamed into place, or not at all.

    Raises:
        StorageError: the file or its folder cannot be written, or the disk is full.

    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    beside.unlink(missing_ok=True)  # left by a process of the same number that was killed
    file = open_private(beside)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise StorageError(f"cannot write {path}: {error.strerror}") from None
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Make a rename or a new name in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
