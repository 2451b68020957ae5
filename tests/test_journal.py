"""Every outcome is on disk as soon as it is known, and comes back in the order of the rows."""

import random
import resource
import stat
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest
from conftest import MakeOutcome

from bulkusers.errors import StorageError
from bulkusers.journal import Journal, row_of
from bulkusers.models import Outcome, Status

Open = Callable[[], Journal]


@pytest.fixture
def open_journal(tmp_path: Path) -> Iterator[Open]:
    """Return a function that begins a journal; it is closed afterwards."""
    opened: list[Journal] = []

    def begin() -> Journal:
        opened.append(Journal(tmp_path / "results.journal"))
        return opened[-1]

    yield begin
    for journal in opened:
        journal.__exit__(None, None, None)


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let the system refuse to make any file longer, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_rows_come_back_in_order(open_journal: Open, make_outcome: MakeOutcome) -> None:
    """However the answers came, each row is there once and says what it said; the numbers may have gaps."""
    journal = open_journal()
    outcomes = [make_outcome(row, attempts=row) for row in (*range(2, 300), 500, 9_999)]
    random.Random(1).shuffle(outcomes)
    for outcome in outcomes:
        journal(outcome)
    expected = sorted(outcomes, key=lambda outcome: outcome.row)
    assert [orjson.loads(row) for row in journal.rows()] == [row_of(outcome) for outcome in expected]


def test_rows_can_be_read_while_more_come(open_journal: Open, make_outcome: MakeOutcome) -> None:
    """Reading moves nothing: what is appended afterwards stands at the end, and everything can be read again."""
    journal = open_journal()
    for row in (3, 2):
        journal(make_outcome(row))
    assert len(list(journal.rows())) == 2
    journal(make_outcome(4))
    assert [orjson.loads(row)["row"] for row in journal.rows()] == [2, 3, 4]
    assert [orjson.loads(row)["row"] for row in journal.rows()] == [2, 3, 4]


def test_each_outcome_is_on_disk_at_once(open_journal: Open, make_outcome: MakeOutcome) -> None:
    """After every call another reader finds one more whole line: a kill -9 loses nothing that was known."""
    journal = open_journal()
    for count, row in enumerate((7, 2, 5), start=1):
        journal(make_outcome(row))
        lines = journal.path.read_bytes().splitlines(keepends=True)
        assert len(lines) == count
        assert lines[-1].endswith(b"}\n")
        assert orjson.loads(lines[-1])["row"] == row


def test_a_hundred_thousand_rows_need_little_memory(open_journal: Open, make_outcome: MakeOutcome) -> None:
    """The index takes about eight bytes a row, and the outcomes none."""
    journal, rows = open_journal(), 100_000
    outcome = make_outcome()
    with_row = [Outcome(row, outcome.email, Status.CREATED) for row in range(2, rows + 2)]
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for outcome in with_row:
        journal(outcome)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 16 * rows
    assert sum(1 for _ in journal.rows()) == rows


def test_a_full_disk_is_a_storage_error(tmp_path: Path, make_outcome: MakeOutcome) -> None:
    """It is told at the outcome that did not fit, and closing the journal hides it behind nothing else."""
    written = 0
    with (
        pytest.raises(StorageError, match="cannot write .*results.journal: File too large"),
        file_size_limit(1000),
        Journal(tmp_path / "results.journal") as journal,
    ):
        for row in range(2, 1000):
            journal(make_outcome(row))
            written += 1
    assert 10 <= written < 20


def test_a_journal_of_another_run_is_not_overwritten(tmp_path: Path) -> None:
    """It may be all that is left of that run."""
    path = tmp_path / "results.journal"
    path.write_bytes(b"precious\n")
    with pytest.raises(StorageError):
        Journal(path)
    assert path.read_bytes() == b"precious\n"


def test_a_journal_is_for_its_owner_only_and_can_be_taken_away(open_journal: Open) -> None:
    """It holds e-mails."""
    journal = open_journal()
    assert stat.S_IMODE(journal.path.stat().st_mode) == 0o600
    journal.remove()
    assert not journal.path.exists()


def test_a_row_says_only_what_there_is_to_say(make_outcome: MakeOutcome) -> None:
    """A million good rows are as short as they can be; a row in trouble says everything."""
    assert row_of(make_outcome(2)) == {"row": 2, "email": "row2@example.edu", "status": "created"}
    assert row_of(make_outcome(3, Status.UPDATED, changed=("roles",), attempts=1, ms=48)) == {
        "row": 3,
        "email": "row3@example.edu",
        "status": "updated",
        "changed": ("roles",),
        "attempts": 1,
        "ms": 48,
    }
    assert row_of(make_outcome(4, Status.REJECTED, "email-invalid")) == {
        "row": 4,
        "email": "row4@example.edu",
        "status": "rejected",
        "code": "email-invalid",
        "message": "this is email-invalid",
        "hint": "mend email-invalid",
    }
