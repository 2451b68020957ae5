"""Before-images: what every changed user's record was, handed to the system before the change; an undo needs them.

One JSON object a line, its checksum first: `{"crc":"…","row":3,"email":"…","before":{…},"sent":{…},"certain":true}`.
The first line says of which run they are, and another one that the run was taken back.
"""

import hashlib
import heapq
import os
import time
from array import array
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import orjson

from bulkusers.appendix import Appendix, damage, read_frames
from bulkusers.errors import SourceError, StorageError
from bulkusers.models import Image

KINDS: Final = {"row": int, "email": str, "before": dict | None, "sent": dict | None, "certain": bool}
UNDONE: Final = b'{"undone":true}'
REMEDY: Final = "get a whole copy of it"


@dataclass(frozen=True, slots=True)
class Changes:
    """Everything that one run did to one user, in its order; without images nobody knows whether it did anything."""

    row: int
    email: str
    images: tuple[Image, ...] = field(repr=False)

    @property
    def private(self) -> tuple[str, ...]:
        """What no message may repeat."""
        records = [record for image in self.images for record in (image.before, image.sent) if record]
        return tuple({value for record in records for value in record.values() if isinstance(value, str)})


class Images:
    """The before-images of one run; takes one `models.Image` after another."""

    def __init__(self, file: Appendix) -> None:
        self._file = file
        self._head = 0  # bytes that are no image

    @classmethod
    def create(cls, path: Path, run: str) -> Self:
        """Begin the file of the run with this id.

        Raises:
            StorageError: it exists, or cannot be written.

        """
        images = cls(Appendix.create(path))
        images._begin(run)
        return images

    @classmethod
    def reopen(cls, path: Path, run: str) -> Self:
        """Go on with the file of an interrupted run, without a torn end; begin it where there is none.

        Raises:
            SourceError: it is another run's, or the run was taken back.
            StorageError: it is damaged before its end, or cannot be opened.

        """
        file = Appendix.reopen(path)
        if file is None:
            return cls.create(path, run)
        images = cls(file)
        end = 0
        try:
            for start, text, end in read_frames(path, file, REMEDY):
                if not start:
                    _check_run(path, text, run)
                    images._head = end
                _refuse_undone(path, text)
            file.cut(end)
            if not end:
                images._begin(run)
        except BaseException:
            file.close()
            raise
        return images

    def _begin(self, run: str) -> None:
        try:
            self._file.append(_head_of(run))
        except BaseException:
            self.close()
            raise
        self._head = self._file.end

    def __call__(self, image: Image) -> None:
        """Write one image down.

        Raises:
            StorageError: the disk does not take it.

        """
        entry = {"row": image.row, "email": image.email, "before": image.before, "sent": image.sent}
        self._file.append(orjson.dumps(entry | {"certain": image.certain}))

    def sync(self) -> None:
        """Make everything that was written survive a power cut.

        Raises:
            StorageError: the disk does not take it.

        """
        self._file.sync()

    def remove_if_empty(self) -> None:
        """Take the file away where nothing was changed."""
        if self._file.end == self._head:
            self._file.remove()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


class Album:
    """What a run that is over did, by row: its before-images; memory is 20 bytes an image.

    `unclear` are the users by row of whom the run did not see what became of them: it may have created even those who
    have no image.
    """

    def __init__(self, path: Path, run: str, unclear: Mapping[int, str]) -> None:
        """Read the file of the run with this id once.

        Raises:
            SourceError: it is another run's.
            StorageError: it cannot be read, or is damaged before its end.

        """
        file = Appendix.reopen(path)
        if file is None:
            raise StorageError(f"there is no {path}", hint="it lies beside the report of every run that changed users")
        self._file = file
        self._starts = array("q")
        self._rows = array("L")
        self._end = 0
        self._undone = False
        digest = hashlib.sha256()
        try:
            for number, (start, text, end) in enumerate(read_frames(path, file, REMEDY), start=1):
                self._end = end
                if text == UNDONE:
                    self._undone = True
                    continue
                digest.update(text)
                if number == 1:
                    _check_run(path, text, run)
                else:
                    self._starts.append(start)
                    self._rows.append(_row_of(path, number, text))
        except BaseException:
            file.close()
            raise
        self.sha256: Final = digest.hexdigest()
        self._size = os.fstat(file.fileno()).st_size  # a torn end included
        known = set(self._rows)
        self._unclear = {row: email for row, email in sorted(unclear.items()) if row not in known}
        self.rows: Final = len(known) + len(self._unclear)

    def __iter__(self) -> Iterator[Changes]:
        """Yield what was done to each user, in the order of the rows."""
        unclear = (Changes(row, email, ()) for row, email in self._unclear.items())
        return heapq.merge(self._read_all(), unclear, key=lambda changes: changes.row)

    def _read_all(self) -> Iterator[Changes]:
        places = sorted(range(len(self._rows)), key=self._rows.__getitem__)  # stable: in the order of the changes
        for row, group in groupby(places, key=self._rows.__getitem__):
            images = tuple(self._read(place) for place in group)
            yield Changes(row, images[0].email, images)

    def _read(self, place: int) -> Image:
        return Image(**orjson.loads(self._file.text_at(self._starts[place])))

    def age(self) -> float:
        """Return the seconds since the last image was written."""
        return time.time() - os.fstat(self._file.fileno()).st_mtime

    def mark_undone(self) -> None:
        """Note that the run is taken back, so that nobody goes on with it.

        Raises:
            StorageError: the disk does not take it.

        """
        if self._undone:
            return
        if os.fstat(self._file.fileno()).st_size != self._size:
            raise StorageError(f"{self._file.path} has changed since it was read", hint="start again")
        self._file.cut(self._end)
        self._file.append(UNDONE)
        self._file.sync()
        self._undone = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _head_of(run: str) -> bytes:
    return orjson.dumps({"run": run})


def _check_run(path: Path, text: bytes, run: str) -> None:
    """Refuse the images of another run: to put them back would take back what nobody asked for.

    Raises:
        SourceError: they are.

    """
    if text != _head_of(run):
        raise SourceError(
            f"{path} holds the before-images of another run", hint="a report and its before-images are moved together"
        )


def _refuse_undone(path: Path, text: bytes) -> None:
    """Refuse to go on with a run that was taken back: what it says it has done is done no more.

    Raises:
        SourceError: it was.

    """
    if text == UNDONE:
        raise SourceError(f"{path}: what that run did was taken back", hint="begin anew, without --resume")


def _row_of(path: Path, number: int, text: bytes) -> int:
    """Return the row that a whole line is about.

    Raises:
        StorageError: this version would never write such a line.

    """
    with suppress(orjson.JSONDecodeError):
        entry = orjson.loads(text)
        if (
            entry.keys() == KINDS.keys()
            and all(isinstance(entry[name], kind) for name, kind in KINDS.items())
            and entry["row"] > 0
        ):
            return int(entry["row"])
    raise damage(path, number, REMEDY)
