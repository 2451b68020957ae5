"""Before-images: what every changed user's record was, on disk before the change; an undo is made from them.

One JSON object a line, its checksum first: `{"crc":"…","row":3,"email":"…","before":{…},"sent":{…},"certain":true}`.
"""

import hashlib
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import orjson

from bulkusers.errors import StorageError
from bulkusers.files import Appendix
from bulkusers.models import Image

PREFIX: Final = len(b'{"crc":"00000000",')


@dataclass(frozen=True, slots=True)
class Changes:
    """Everything that one run did to one user, in its order; to be taken back."""

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

    @classmethod
    def create(cls, path: Path) -> Self:
        """Begin a new file.

        Raises:
            StorageError: it exists, or cannot be written.

        """
        return cls(Appendix.create(path))

    @classmethod
    def reopen(cls, path: Path) -> Self:
        """Go on with the file of an interrupted run, without a torn end; begin it where there is none.

        Raises:
            StorageError: it is damaged before its end, or cannot be opened.

        """
        file = Appendix.reopen(path)
        if file is None:
            return cls.create(path)
        end = 0
        try:
            for start, _, length in read_lines(path, file):
                end = start + length
        except BaseException:
            file.close()
            raise
        file.cut(end)
        return cls(file)

    def __call__(self, image: Image) -> None:
        """Write one image down.

        Raises:
            StorageError: the disk does not take it.

        """
        entry = {"row": image.row, "email": image.email, "before": image.before, "sent": image.sent}
        text = orjson.dumps(entry | {"certain": image.certain})
        self._file.append(b'{"crc":"%08x",%s\n' % (zlib.crc32(text), text[1:]))

    def sync(self) -> None:
        """Make everything that was written survive a power cut.

        Raises:
            StorageError: the disk does not take it.

        """
        self._file.sync()

    def remove_if_empty(self) -> None:
        """Take the file away where nothing was changed."""
        if not self._file.end:
            self._file.remove()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


class Album:
    """The before-images of a finished run, by row; memory is 20 bytes an image."""

    def __init__(self, path: Path) -> None:
        """Read the file once.

        Raises:
            StorageError: it cannot be read, or is damaged before its end.

        """
        file = Appendix.reopen(path)
        if file is None:
            raise StorageError(f"there is no {path}", hint="it lies beside the report of every run that changed users")
        self._file = file
        self._starts = array("q")
        self._rows = array("L")
        digest = hashlib.sha256()
        try:
            for start, text, _ in read_lines(path, file):
                digest.update(text)
                self._starts.append(start)
                self._rows.append(orjson.loads(text)["row"])
        except BaseException:
            file.close()
            raise
        self.sha256: Final = digest.hexdigest()
        self.rows: Final = len(set(self._rows))

    def __iter__(self) -> Iterator[Changes]:
        """Yield what was done to each user, in the order of the rows."""
        places = sorted(range(len(self._rows)), key=self._rows.__getitem__)  # stable: in the order of the changes
        for row, group in groupby(places, key=self._rows.__getitem__):
            images = tuple(self._read(place) for place in group)
            yield Changes(row, images[0].email, images)

    def _read(self, place: int) -> Image:
        return Image(**orjson.loads(b"{" + self._file.line_at(self._starts[place])[PREFIX:]))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def images_of(report: Path) -> Path:
    """Return where the before-images of a run lie whose report is at `report`."""
    return report.with_suffix(".before.jsonl")


def read_lines(path: Path, file: Appendix) -> Iterator[tuple[int, bytes, int]]:
    """Yield each whole line's start, its JSON without the checksum, and its length; stop at a torn end.

    Raises:
        StorageError: a line is damaged, and whole ones follow it.

    """
    start, damaged = 0, 0
    for number, line in enumerate(file, start=1):
        text = b"{" + line[PREFIX:-1]
        if line.endswith(b"\n") and line[:PREFIX] == b'{"crc":"%08x",' % zlib.crc32(text):
            if damaged:
                raise StorageError(f"{path} is damaged in line {damaged}", hint="get a whole copy of it")
            yield start, text, len(line)
        else:
            damaged = damaged or number
        start += len(line)
