"""What was begun and what came of it is on disk at once, and comes back in the order of the rows."""

import errno
import os
import random
import stat
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from conftest import MakeOutcome, MakeUser, file_size_limit

from bulkusers.appendix import frame, unframe
from bulkusers.errors import SourceError, StorageError
from bulkusers.journal import Journal, Progress, outcome_of, read_progress, read_unclear, refuse_live, row_of
from bulkusers.models import Outcome, Status

RUN = {"sha256": "abc", "base_url": "https://staging.example.edu", "school": "example"}
Open = Callable[..., Journal]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the journal stands."""
    return tmp_path / "results.journal"


@pytest.fixture
def create(path: Path) -> Iterator[Open]:
    """Return a function that begins a journal; it is closed afterwards."""
    opened: list[Journal] = []

    def create() -> Journal:
        opened.append(Journal.create(path, RUN))
        return opened[-1]

    yield create
    for journal in opened:
        journal.__exit__(None, None, None)


@pytest.fixture
def reopen(path: Path) -> Iterator[Open]:
    """Return a function that goes on with the journal, of a run in which some things may differ."""
    opened: list[Journal] = []

    def reopen(**differing: Any) -> Journal:  # noqa: ANN401 - anything that a run says
        journal = Journal.reopen(path, RUN | differing)
        assert journal is not None
        opened.append(journal)
        return journal

    yield reopen
    for journal in opened:
        journal.__exit__(None, None, None)


def rows_of(journal: Journal) -> list[int]:
    """Return the numbers of the rows that have an outcome, as the journal yields them."""
    return [orjson.loads(row)["row"] for row in journal.rows()]


def test_rows_come_back_in_order(create: Open, make_outcome: MakeOutcome) -> None:
    """However the answers came, each row is there once and says what it said; the numbers may have gaps."""
    journal = create()
    outcomes = [make_outcome(row, attempts=row) for row in (*range(2, 300), 500, 9_999)]
    random.Random(1).shuffle(outcomes)
    for outcome in outcomes:
        journal(outcome)
    expected = sorted(outcomes, key=lambda outcome: outcome.row)
    assert [orjson.loads(row) for row in journal.rows()] == [row_of(outcome) for outcome in expected]


def test_rows_can_be_read_while_more_come(create: Open, make_outcome: MakeOutcome) -> None:
    """Reading moves nothing: what is appended afterwards stands at the end, and everything can be read again."""
    journal = create()
    for row in (3, 2):
        journal(make_outcome(row))
    assert rows_of(journal) == [2, 3]
    journal(make_outcome(4))
    assert rows_of(journal) == [2, 3, 4]
    assert rows_of(journal) == [2, 3, 4]


def test_everything_is_on_disk_at_once(create: Open, make_outcome: MakeOutcome, make_user: MakeUser) -> None:
    """After every call another reader finds one more whole line: a kill -9 loses nothing that was known."""
    journal = create()
    for count, row in enumerate((7, 2, 5)):
        journal.begin(make_user(row))
        assert len(journal.path.read_bytes().splitlines()) == 2 + 2 * count
        journal(make_outcome(row))
        lines = journal.path.read_bytes().splitlines(keepends=True)
        assert len(lines) == 3 + 2 * count
        assert lines[-1].endswith(b"}\n")
        assert orjson.loads(unframe(lines[-1]) or b"") == row_of(make_outcome(row))


def test_a_single_outcome_can_be_looked_up(create: Open, make_outcome: MakeOutcome) -> None:
    """Also one with a very long message, and the journal goes on after it."""
    journal = create()
    long = make_outcome(3, Status.REJECTED, "refused-400", message="no " * 100_000)
    for outcome in (make_outcome(4), long, make_outcome(2)):
        journal(outcome)
    assert journal.outcome(3) == long
    journal(make_outcome(5))
    assert rows_of(journal) == [2, 3, 4, 5]


def test_a_hundred_thousand_rows_need_little_memory(create: Open) -> None:
    """The index takes about sixteen bytes a row, and the outcomes none."""
    journal, rows = create(), 100_000
    outcomes = [Outcome(row, "ann@example.edu", Status.CREATED) for row in range(2, rows + 2)]
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for outcome in outcomes:
        journal(outcome)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 24 * rows
    assert sum(1 for _ in journal.rows()) == rows


def test_a_full_disk_is_a_storage_error(path: Path, make_outcome: MakeOutcome) -> None:
    """It is told at the outcome that did not fit, and closing the journal hides it behind nothing else."""
    written: list[int] = []

    def write_on() -> None:
        with Journal.create(path, RUN) as journal:
            for row in range(2, 1000):
                journal(make_outcome(row))
                written.append(row)

    with file_size_limit(10), pytest.raises(StorageError, match="File too large"):
        Journal.create(path, RUN)
    path.unlink()
    with file_size_limit(1500), pytest.raises(StorageError, match=r"^cannot write .*results\.journal: File too large$"):
        write_on()
    assert 10 <= len(written) < 25


def test_a_journal_of_another_run_is_not_overwritten(path: Path) -> None:
    """It may be all that is left of that run."""
    path.write_bytes(b"precious\n")
    with pytest.raises(StorageError):
        Journal.create(path, RUN)
    assert path.read_bytes() == b"precious\n"


def test_a_journal_is_for_its_owner_only_and_can_be_taken_away(create: Open) -> None:
    """It holds e-mails."""
    journal = create()
    assert stat.S_IMODE(journal.path.stat().st_mode) == 0o600
    journal.sync()
    journal.remove()
    assert not journal.path.exists()


def test_a_journal_that_cannot_be_removed_is_a_storage_error(create: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads it learns what to do with the file, and that nothing is lost."""

    def refuse(_: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    journal = create()
    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(StorageError, match=r"^cannot remove .*results\.journal: Read-only file system$") as caught:
        journal.remove()
    assert "the report is whole" in caught.value.hint


def test_there_is_nothing_to_go_on_with_where_no_journal_is(path: Path) -> None:
    """Neither without a file nor in one whose first line never came to be."""
    assert Journal.reopen(path, RUN) is None
    for content in (b"", b"0bad", b'12345678 {"sha256": "abc"'):
        path.write_bytes(content)
        assert Journal.reopen(path, RUN) is None


def test_an_interrupted_run_knows_how_far_each_user_came(
    create: Open, reopen: Open, make_outcome: MakeOutcome, make_user: MakeUser
) -> None:
    """What is done is done; what was begun or is unknown must be looked at; the rest, failed or not, is new."""
    with create() as journal:
        for row in range(2, 7):
            journal.begin(make_user(row))
        journal(make_outcome(2))
        journal(make_outcome(3, Status.FAILED, "refused-500"))
        journal(make_outcome(4, Status.UNKNOWN, "answer-lost"))
        journal(make_outcome(7, Status.REJECTED, "email-invalid"))
        journal(make_outcome(8, Status.UNPROCESSED))
        journal(make_outcome(10, Status.UNKNOWN, "answer-lost"))
    again = reopen()
    progress = {row: again.progress(make_user(row)) for row in range(2, 11)}
    assert progress == {
        2: Progress.DONE,
        3: Progress.NEW,
        4: Progress.BEGUN,
        5: Progress.BEGUN,
        6: Progress.BEGUN,
        7: Progress.DONE,
        8: Progress.NEW,
        9: Progress.NEW,
        10: Progress.BEGUN,
    }
    assert rows_of(again) == [2, 7]


def test_a_row_that_holds_somebody_else_is_new(
    create: Open, reopen: Open, make_outcome: MakeOutcome, make_user: MakeUser
) -> None:
    """Progress is of a person, never of a position."""
    with create() as journal:
        journal(make_outcome(2))
        journal.begin(make_user(3))
    again = reopen()
    assert again.progress(make_user(2, email="other@example.edu")) is Progress.NEW
    assert again.progress(make_user(3, email="other@example.edu")) is Progress.NEW


def test_a_resumed_run_goes_on_where_the_journal_ends(create: Open, reopen: Open, make_outcome: MakeOutcome) -> None:
    """Old and new outcomes come back together, and a third run finds them all."""
    with create() as journal:
        journal(make_outcome(3))
        journal(make_outcome(2, Status.UNKNOWN, "answer-lost"))
    with reopen() as again:
        again(make_outcome(4))
        again(make_outcome(2, Status.UPDATED))
        assert [orjson.loads(row)["status"] for row in again.rows()] == ["updated", "created", "created"]
    third = reopen()
    assert rows_of(third) == [2, 3, 4]


@pytest.mark.parametrize("torn", [1, 2, 30, 60])
def test_a_torn_end_is_dropped(
    create: Open, reopen: Open, make_outcome: MakeOutcome, make_user: MakeUser, torn: int
) -> None:
    """A power cut may take the end of the last line; what comes next stands on a line of its own."""
    with create() as journal:
        journal(make_outcome(2))
        journal(make_outcome(3))
    content = journal.path.read_bytes()
    journal.path.write_bytes(content[:-torn])
    with reopen() as again:
        assert again.progress(make_user(2)) is Progress.DONE
        assert again.progress(make_user(3)) is Progress.NEW
        assert journal.path.read_bytes() == b"".join(content.splitlines(keepends=True)[:2])
        again(make_outcome(3))
    assert journal.path.read_bytes() == content


@pytest.mark.parametrize("line", [1, 2])
def test_damage_before_the_end_is_told(path: Path, create: Open, make_outcome: MakeOutcome, line: int) -> None:
    """A single changed letter is enough; nothing is guessed."""
    with create() as journal:
        for row in (2, 3, 4):
            journal(make_outcome(row))
    lines = path.read_bytes().splitlines(keepends=True)
    lines[line] = lines[line].replace(b"example", b"exbmple")
    path.write_bytes(b"".join(lines))
    with pytest.raises(StorageError, match=rf"results\.journal is damaged in line {line + 1}") as caught:
        Journal.reopen(path, RUN)
    assert "without --resume" in caught.value.hint


def test_a_journal_of_another_file_or_target_is_refused(path: Path, create: Open, make_outcome: MakeOutcome) -> None:
    """The message names what differs, and the journal stays as it was."""
    with create() as journal:
        journal(make_outcome(2))
    before = path.read_bytes()
    with pytest.raises(SourceError, match="the file has changed and --school is another"):
        Journal.reopen(path, RUN | {"sha256": "other", "school": "other"})
    assert path.read_bytes() == before


def test_a_symlink_is_not_gone_on_with(tmp_path: Path, path: Path) -> None:
    """It may lead into another's folder."""
    (tmp_path / "other").write_bytes(b"")
    path.symlink_to(tmp_path / "other")
    with pytest.raises(StorageError, match="cannot open"):
        Journal.reopen(path, RUN)


def test_another_process_knows_the_users_again(create: Open, make_outcome: MakeOutcome) -> None:
    """Nothing on disk depends on the process that wrote it."""
    with create() as journal:
        journal(make_outcome(2, email="ännə@example.edu"))
    program = (
        "import sys; from pathlib import Path\n"
        "from bulkusers.journal import Journal; from bulkusers.models import User\n"
        f"print(Journal.reopen(Path(sys.argv[1]), {RUN}).progress(User(2, 'ännə@example.edu', 'A', 'L', ())))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(journal.path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "Progress.DONE"


def test_a_row_says_only_what_there_is_to_say(make_outcome: MakeOutcome) -> None:
    """A million good rows are as short as they can be; a row in trouble says everything."""
    assert row_of(make_outcome(2)) == {"row": 2, "email": "row2@example.edu", "status": "created"}
    assert row_of(make_outcome(4, Status.REJECTED, "email-invalid")) == {
        "row": 4,
        "email": "row4@example.edu",
        "status": "rejected",
        "code": "email-invalid",
        "message": "this is email-invalid",
        "hint": "mend email-invalid",
    }


def test_an_outcome_comes_back_from_its_row_as_it_was(make_outcome: MakeOutcome) -> None:
    """Through JSON and back, with everything or with little to say."""
    for outcome in (
        make_outcome(2),
        make_outcome(3, Status.UPDATED, changed=("roles", "department"), attempts=1, ms=48),
        make_outcome(4, Status.UNKNOWN, "answer-lost", attempts=2, ms=30_000),
    ):
        assert outcome_of(orjson.loads(orjson.dumps(row_of(outcome)))) == outcome


def test_no_cut_and_no_flipped_bit_invents_an_outcome(
    path: Path, create: Open, make_outcome: MakeOutcome, make_user: MakeUser
) -> None:
    """Cut at every byte it knows less; with any bit flipped or byte changed it knows less or is refused; never more."""
    with create() as journal:
        for row in (2, 3, 4):
            journal.begin(make_user(row))
            journal(make_outcome(row))
    whole = path.read_bytes()
    cuts = [whole[:end] for end in range(len(whole))]
    changes = [
        whole[:place] + bytes([byte]) + whole[place + 1 :]
        for place, present in enumerate(whole)
        for byte in {*(present ^ 1 << bit for bit in range(8)), *b"\n\r\0 0\xff"} - {present}
    ]
    known = refused = 0
    for damaged in cuts + changes:
        path.write_bytes(damaged)
        try:
            counts = read_progress(path)
        except (StorageError, SourceError):
            counts = {}
        assert counts.get("created", 0) <= 3
        assert sum(counts.values()) <= 3
        try:
            journal_again = Journal.reopen(path, RUN)
        except (StorageError, SourceError):
            refused += 1
            continue
        if journal_again is None:
            continue
        with journal_again as journal:
            done = [row for row in range(10) if journal.progress(make_user(row)) is Progress.DONE]
            known += len(done)
            assert done == rows_of(journal)
            assert counts["created"] == len(done)
            assert [journal.outcome(row) for row in done] == [make_outcome(row) for row in done]
            assert set(done) <= {2, 3, 4}
    assert known > 100
    assert refused > 100


def test_who_was_begun_or_is_unknown_is_unclear(
    path: Path, create: Open, make_outcome: MakeOutcome, make_user: MakeUser
) -> None:
    """Until it has an outcome; also one that was known, and is begun again."""
    with create() as journal:
        for row in (2, 3, 4, 5):
            journal.begin(make_user(row))
        journal(make_outcome(2))
        journal(make_outcome(3, Status.UNKNOWN, "answer-lost"))
        journal(make_outcome(4, Status.FAILED, "refused-500"))
        assert read_unclear(path) == {3: "row3@example.edu", 5: "row5@example.edu"}
        journal.begin(make_user(4))
        journal.begin(make_user(3))
        journal(make_outcome(3))
    assert read_unclear(path) == {4: "row4@example.edu", 5: "row5@example.edu"}


def test_a_journal_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """A plain error, not the system's own."""
    with pytest.raises(StorageError, match=r"cannot read .*: File name too long"):
        refuse_live(tmp_path / ("x" * 300))


@pytest.mark.parametrize("run", [{"base_url": "https://staging.example.edu", "images": "abc"}, RUN])
def test_progress_is_that_of_an_undo_too(path: Path, make_outcome: MakeOutcome, run: dict[str, str]) -> None:
    """Whatever the run was one of."""
    with Journal.create(path, run) as journal:
        journal(make_outcome(2))
    assert read_progress(path)["created"] == 1


@pytest.mark.parametrize(
    "text",
    [
        b"{x",
        b"{",
        b"{}",
        b'{"row":2}',
        b'{"row":"2","email":"row2@example.edu","status":"created"}',
        b'{"row":-1,"email":"row2@example.edu","status":"created"}',
        b'{"row":2,"email":7,"status":"created"}',
        b'{"row":2,"email":"row2@example.edu","status":"archived"}',
        b'{"row":2,"email":"row2@example.edu","status":[]}',
        b'{"row":2,"email":"row2@example.edu","status":"created","changed":null}',
        b'{"row":2,"email":"row2@example.edu","status":"created","mood":"good"}',
    ],
)
def test_a_whole_line_that_this_version_would_never_write_is_damage(
    path: Path, create: Open, make_outcome: MakeOutcome, text: bytes
) -> None:
    """A right checksum is not enough, also at the end: what another version said is neither guessed nor dropped."""
    with create() as journal:
        journal(make_outcome(3))
    whole = path.read_bytes() + frame(text)
    path.write_bytes(whole)
    with pytest.raises(StorageError, match="damaged in line 3"):
        read_progress(path)
    with pytest.raises(StorageError, match="damaged in line 3"):
        Journal.reopen(path, RUN)
    assert path.read_bytes() == whole
