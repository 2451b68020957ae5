"""A run's journal, before-images and report belong together: by an id, and wherever they are moved."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from conftest import MakeOutcome

from bulkusers.books import REJECTS, Books, images_of, journal_of
from bulkusers.errors import SourceError, StorageError
from bulkusers.images import Album
from bulkusers.journal import read_header
from bulkusers.models import Image

WHICH: Final = {"sha256": "abc", "base_url": "https://staging.example.edu"}
IMAGE: Final = Image(
    2, "row2@example.edu", {"email": "row2@example.edu"}, {"email": "row2@example.edu", "roles": ["a"]}
)
KINDS: Final = {"report": lambda report: report, "images": images_of, "journal": journal_of}
Begin = Callable[[], Books]


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """Return where the report is to be."""
    return tmp_path / "results.json"


@pytest.fixture
def begin(report: Path) -> Iterator[Begin]:
    """Return a function that begins a run's books; they are closed afterwards."""
    opened: list[Books] = []

    def begin() -> Books:
        opened.append(Books.begin(report, WHICH))
        return opened[-1]

    yield begin
    for books in opened:
        books.__exit__(None, None, None)


@pytest.fixture
def reopen(report: Path) -> Iterator[Begin]:
    """Return a function that goes on with the books that are there; they are closed afterwards."""
    opened: list[Books] = []

    def reopen() -> Books:
        books = Books.reopen(report, WHICH)
        assert books is not None
        opened.append(books)
        return books

    yield reopen
    for books in opened:
        books.__exit__(None, None, None)


def leave(report: Path, kinds: Sequence[str]) -> str:
    """Leave of a run that has ended what these kinds of file say; return the run's id."""
    with Books.begin(report, WHICH) as books:
        books.images(IMAGE)
    report.write_text(books.run)
    for kind, of in KINDS.items():
        if kind not in kinds:
            of(report).unlink()
    return books.run


def owner_of(path: Path, kind: str) -> str:
    """Return the id of the run that a file is of."""
    if kind == "report":
        return path.read_text()
    if kind == "journal":
        return str(read_header(path)["id"])
    return path.read_text().partition('"run":"')[2].partition('"')[0]


def test_no_two_reports_share_their_files(tmp_path: Path) -> None:
    """Whatever stands behind a dot is part of the name, a date for instance, and so is a .json that does not."""
    ends = ("", ".json", ".json.json", ".2026-11-24", ".2026-11-25", ".txt", ".undo", ".undo.json")
    reports = [tmp_path / f"results{end}" for end in ends]
    kinds = (images_of, journal_of, *REJECTS)
    assert len({of(report) for report in reports for of in kinds}) == len(reports) * len(kinds)
    named = ["results.before.jsonl", "results.json.journal", "results.rejects.csv", "results.rejects.2.csv"]
    assert [of(tmp_path / "results.json").name for of in kinds] == named


def test_rejects_go_with_the_report_whose_they_are(report: Path, begin: Begin) -> None:
    """From both places at once, so that neither is another run's afterwards."""
    report.touch()
    for of in REJECTS:
        of(report).write_text(of.__name__)
    begin()
    [aside] = report.parent.glob("results.2*.json")
    assert [of(aside).read_text() for of in REJECTS] == [of.__name__ for of in REJECTS]
    assert not any(of(report).exists() for of in REJECTS)


@pytest.mark.parametrize("sent", REJECTS)
def test_rejects_that_are_being_sent_stay_where_they_are(report: Path, sent: Callable[[Path], Path]) -> None:
    """The others go."""
    for of in REJECTS:
        of(report).touch()
    Books.begin(report, WHICH, str(sent(report))).__exit__(None, None, None)
    assert [of(report).exists() for of in REJECTS] == [of is sent for of in REJECTS]


def test_an_id_stands_in_both_and_survives_a_resume(report: Path, begin: Begin, reopen: Begin) -> None:
    """It is another one for another run."""
    with begin() as first:
        first.images(IMAGE)
    with reopen() as again:
        again.images(IMAGE)
    assert first.run == again.run == owner_of(images_of(report), "images") == owner_of(journal_of(report), "journal")
    with Album(images_of(report), first.run, {}) as album:
        assert [changes.images for changes in album] == [(IMAGE, IMAGE)]
    with begin() as other:
        assert other.run != first.run


def test_images_that_were_deleted_are_begun_anew(report: Path, begin: Begin, reopen: Begin) -> None:
    """Nobody is kept from going on."""
    with begin() as first:
        pass
    images_of(report).unlink()
    with reopen():
        pass
    assert owner_of(images_of(report), "images") == first.run


def test_nobody_goes_on_with_the_images_of_another_run(report: Path, tmp_path: Path, begin: Begin) -> None:
    """Nor takes them back; and the report that is there stays."""
    with begin():
        pass
    other = tmp_path / "other.json"
    leave(other, ["images"])
    images_of(other).replace(images_of(report))
    report.write_text("as it was")
    with pytest.raises(SourceError, match="another run"):
        Books.reopen(report, WHICH)
    with pytest.raises(SourceError, match="another run"):
        Album(images_of(report), "its id", {})
    assert report.read_text() == "as it was"


def test_nobody_goes_on_with_a_run_that_was_taken_back(report: Path, begin: Begin) -> None:
    """What its journal calls done is done no more; taking it back again is another matter, however often."""
    with begin() as books:
        books.images(IMAGE)
    said = set()
    for _ in range(2):
        with Album(images_of(report), books.run, {}) as album:
            album.mark_undone()
            album.mark_undone()
            said.add((album.sha256, len(list(album)), images_of(report).read_bytes()))
    assert len(said) == 1
    with pytest.raises(SourceError, match="taken back") as caught:
        Books.reopen(report, WHICH)
    assert "without --resume" in caught.value.hint


def test_a_mark_goes_behind_whole_lines(report: Path, begin: Begin) -> None:
    """A torn end is dropped; a file that was cut short meanwhile is not made longer."""
    with begin() as books:
        books.images(IMAGE)
    images, whole = images_of(report), images_of(report).read_bytes()
    images.write_bytes(whole + b'{"crc":')
    with Album(images, books.run, {}) as album:
        album.mark_undone()
    assert images.read_bytes().startswith(whole + b'{"crc":"')
    images.write_bytes(whole)
    with Album(images, books.run, {}) as album:
        images.write_bytes(whole[:60])
        with pytest.raises(StorageError, match="has changed since"):
            album.mark_undone()
        with pytest.raises(StorageError, match="cut short"):
            list(album)
        images.write_bytes(whole.replace(b"row2", b"row3"))
        with pytest.raises(StorageError, match="was changed"):
            list(album)
    assert len(images.read_bytes()) == len(whole)


def test_a_sync_is_one_of_both_the_images_first(
    begin: Begin, make_outcome: MakeOutcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut leaves no outcome whose image is gone."""
    synced: list[str] = []
    true = os.fdatasync

    def fdatasync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        true(descriptor)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    books = begin()
    books.images(IMAGE)
    books.journal(make_outcome())
    books.sync()
    assert synced == ["results.before.jsonl", "results.json.journal"]


LEFT: Final = (["report"], ["report", "images"], ["images", "journal"], ["report", "images", "journal"], ["images"])


@pytest.mark.parametrize("kinds", LEFT)
def test_what_a_run_has_left_is_moved_aside_together(report: Path, kinds: list[str]) -> None:
    """However many have ended at the same time: each one's files find each other by their names."""
    runs = set()
    for _ in range(3):
        runs.add(leave(report, kinds))
        for of in KINDS.values():
            if of(report).exists():
                os.utime(of(report), (0, 0))
    with Books.begin(report, WHICH):
        pass
    asides = {path for path in report.parent.iterdir() if path.name.startswith("results.1970-01-01T00-00-00Z")}
    assert len(asides) == 3 * len(kinds)
    found = set()
    for number in ("", ".2", ".3"):
        aside = report.with_name(f"results.1970-01-01T00-00-00Z{number}.json")
        (run,) = {owner_of(KINDS[kind](aside), kind) for kind in kinds}
        found.add(run)
    assert found == runs


@pytest.mark.parametrize("kinds", [kinds for kinds in LEFT if len(kinds) > 1])
@pytest.mark.parametrize("last", [1, 2])
def test_a_move_that_broke_off_is_ended_by_the_next_run(
    report: Path, monkeypatch: pytest.MonkeyPatch, kinds: list[str], last: int
) -> None:
    """A kill between two renames parts nobody's report from its images, nor a journal from them."""
    run = leave(report, kinds)
    for number, kind in enumerate(kinds):
        os.utime(KINDS[kind](report), (number, number))
    true = Path.rename
    renamed: list[Path] = []

    def rename(path: Path, target: Path) -> Any:  # noqa: ANN401 - as pathlib has it
        if len(renamed) == last:
            raise KeyboardInterrupt
        renamed.append(path)
        return true(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    if last < len(kinds):
        with pytest.raises(KeyboardInterrupt):
            Books.begin(report, WHICH)
        assert images_of(report).exists() or not journal_of(report).exists()  # else a run would go on without them
    monkeypatch.setattr(Path, "rename", true)
    with Books.begin(report, WHICH):
        pass
    (aside,) = {path.name.partition("Z")[0] for path in report.parent.iterdir() if "1970" in path.name}
    there = report.with_name(f"{aside}Z.json")
    assert {owner_of(KINDS[kind](there), kind) for kind in kinds} == {run}


def test_what_cannot_be_moved_is_told(report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is begun then."""
    leave(report, ["report", "images"])

    def rename(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(StorageError, match=r"cannot move .*results\.json aside: Operation not permitted"):
        Books.begin(report, WHICH)
    assert not journal_of(report).exists()
