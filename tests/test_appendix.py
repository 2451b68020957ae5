"""Files that only grow, line by line, with a checksum for each."""

import errno
import io
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bulkusers.appendix import WINDOW, Appendix, frame, read_frames
from bulkusers.errors import StorageError


@pytest.fixture
def appendix(tmp_path: Path) -> Iterator[Appendix]:
    """Begin a file that grows line by line."""
    file = Appendix.create(tmp_path / "lines")
    yield file
    file.close()


def test_a_new_name_survives_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its folder is made to; where the disk does not take that, it is told, and nothing stays open."""
    path, synced = tmp_path / "results.json.journal", list[str]()
    true = os.fsync

    def note(descriptor: int) -> None:
        true(descriptor)
        synced.extend(os.listdir(descriptor))

    monkeypatch.setattr(os, "fsync", note)
    Appendix.create(path).close()
    assert synced == [path.name]

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError, match=r"cannot write .*more: No space left"):
        Appendix.create(tmp_path / "more")


def test_a_line_that_the_disk_takes_in_parts_is_whole(tmp_path: Path) -> None:
    """A write may take less than it was given, and say so."""

    class Sluggish(io.FileIO):
        def write(self, data: Any, /) -> int:  # noqa: ANN401 - as FileIO has it
            return super().write(bytes(data)[:7])

    path = tmp_path / "lines"
    file = Appendix(path, Sluggish(path, "w"))
    texts = (b'{"of":"several parts"}', b"{}", b'{"again":"one of several parts"}')
    starts = [file.append(text) for text in texts]
    file.close()
    assert path.read_bytes() == b"".join(map(frame, texts))
    assert starts == [0, len(frame(texts[0])), len(frame(texts[0]) + frame(texts[1]))]


@pytest.mark.parametrize("part", [0, 5])
def test_a_line_that_found_no_room_is_told_and_tried_once_more(tmp_path: Path, part: int) -> None:
    """Nothing goes behind the gap; when the file is closed, the line is there if there is room by then."""

    class Full(io.FileIO):
        def write(self, data: Any, /) -> int:  # noqa: ANN401 - as FileIO has it
            taken = room.pop(0) if room else len(data)
            if not taken:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(bytes(data)[:taken])

    first, second = b'{"is":"there"}', b'{"found":"no room"}'
    room = [len(frame(first)), part, 0] if part else [len(frame(first)), 0]
    path = tmp_path / "lines"
    file = Appendix(path, Full(path, "w"))
    file.append(first)
    with pytest.raises(StorageError, match="No space left"):
        file.append(second)
    with pytest.raises(StorageError, match="it has a gap already"):
        file.append(b'{"comes":"after it"}')
    assert path.read_bytes() == frame(first) + frame(second)[:part]
    file.close()
    file.close()
    assert path.read_bytes() == frame(first) + frame(second)


@pytest.mark.parametrize("longest", [200, 3 * WINDOW])
def test_every_line_is_found_in_whatever_order(appendix: Appendix, longest: int) -> None:
    """Forwards, backwards, by chance or nearly in order, short and long, and while more are appended."""
    drawn = random.Random(1)
    lines = [
        b'{"":"%s"}' % (b"abcdefg"[number % 7 : number % 7 + 1] * drawn.choice([1, 80, drawn.randrange(longest)]))
        for number in range(600)
    ]
    starts = [appendix.append(line) for line in lines[:500]]
    order = list(range(500))
    nearly = sorted(order, key=lambda place: place + drawn.randrange(20))
    for places in (order, order[::-1], drawn.sample(order, 500), nearly):
        for place in places:
            assert appendix.text_at(starts[place]) == lines[place]
    for place in range(500, 600):
        starts.append(appendix.append(lines[place]))
        assert appendix.text_at(starts[place]) == lines[place]
        assert appendix.text_at(starts[place - 5]) == lines[place - 5]


def test_lines_that_are_near_each_other_are_read_together(appendix: Appendix, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nearly in order they need a read for hundreds; a line that is far away costs no more than itself."""
    reads: list[int] = []
    pread = os.pread

    def count(descriptor: int, length: int, offset: int) -> bytes:
        reads.append(length)
        return pread(descriptor, length, offset)

    starts = [appendix.append(b'{"a line as long as most":%06d}' % number) for number in range(20_000)]
    monkeypatch.setattr(os, "pread", count)
    drawn = random.Random(1)
    for place in sorted(range(20_000), key=lambda place: place + drawn.randrange(40)):
        appendix.text_at(starts[place])
    assert len(reads) < 60
    reads.clear()
    for place in range(2_000):
        appendix.text_at(starts[place])
        if place % 100 == 0:
            appendix.text_at(starts[5_000 + place * 31 % 15_000])
    assert len(reads) < 60
    assert sum(length == WINDOW for length in reads) < 10


def test_a_file_that_was_cut_short_is_told(appendix: Appendix) -> None:
    """A line that is not there any more is no empty line."""
    start = appendix.append(b'{"a":"line"}')
    os.truncate(appendix.path, 3)
    with pytest.raises(StorageError, match="was cut short"):
        appendix.text_at(start)


def test_a_line_that_was_changed_meanwhile_is_told(appendix: Appendix) -> None:
    """What somebody else has written over it is not what was appended."""
    start = appendix.append(b'{"a":"line"}')
    with appendix.path.open("r+b") as other:
        other.seek(-4, io.SEEK_END)
        other.write(b"A")
    with pytest.raises(StorageError, match="was changed"):
        appendix.text_at(start)


def test_a_disk_that_cannot_be_read_is_told(appendix: Appendix, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the file, whether a line is read alone or with what is around it."""
    start = appendix.append(b'{"a":"line"}')
    far = [appendix.append(b'{"another":"line"}') for _ in range(WINDOW // 10)][-1]

    def fail(*_: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", fail)
    for place in (start, far):
        with pytest.raises(StorageError, match=r"^cannot read .*lines: Input/output error$"):
            appendix.text_at(place)


def test_a_flipped_bit_is_seen_wherever_it_is() -> None:
    """Of the last line it makes a torn end, of one before it damage that has its line number and its remedy."""
    first, last = b'{"row":2,"email":"a@example.edu"}', b'{"row":3}'
    whole = frame(first) + frame(last)
    for place in range(len(whole)):
        for bit in range(8):
            flipped = bytearray(whole)
            flipped[place] ^= 1 << bit
            lines = bytes(flipped).splitlines(keepends=True)
            texts = []
            try:
                texts = [text for _, text, _ in read_frames(Path("lines"), lines, "remedy")]
            except StorageError as error:
                assert (str(error), error.hint) == ("lines is damaged in line 1", "remedy")  # noqa: PT017 - or nothing
            assert texts in ([], [first])
