"""What is counted while a run goes on, and the exit code that follows from it."""

import io
import random
from collections.abc import Callable

import pytest
from conftest import MakeOutcome

from bulkusers.errors import (
    AccessError,
    BulkUsersError,
    CapError,
    Interrupted,
    OutageError,
    SourceError,
    StorageError,
    TimeUpError,
    TransportError,
)
from bulkusers.models import SHOWN_ROWS, Request, Response, Status
from bulkusers.tally import MOST_PROBLEMS, Meter, Tally, exit_code, metered

Count = Callable[..., dict[str, int]]


@pytest.fixture
def count() -> Count:
    """Return a function that makes the counts of a run; `rows` is their sum unless it is said."""

    def count(*, rows: int | None = None, **statuses: int) -> dict[str, int]:
        return (
            {str(status): 0 for status in Status}
            | statuses
            | {"rows": sum(statuses.values()) if rows is None else rows}
        )

    return count


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        ({}, 0),
        ({"created": 5}, 0),
        ({"created": 1, "updated": 1, "unchanged": 1, "skipped": 1}, 0),
        ({"created": 5, "rejected": 1}, 6),
        ({"created": 5, "failed": 1}, 5),
        ({"created": 5, "unknown": 1}, 5),
        ({"rejected": 9, "failed": 1}, 5),
        ({"rejected": 9, "unknown": 1}, 5),
    ],
)
def test_the_exit_code_follows_from_the_counts(count: Count, statuses: dict[str, int], code: int) -> None:
    """A row to send again weighs more than one to mend, however many there are."""
    assert exit_code(count(**statuses), None) == code


@pytest.mark.parametrize("statuses", [{"created": 5}, {"created": 2, "rejected": 1, "unprocessed": 3}, {"failed": 1}])
@pytest.mark.parametrize(
    ("stopped", "code"),
    [
        (AccessError("x"), 4),
        (OutageError("x"), 7),
        (CapError("x"), 8),
        (TimeUpError("x"), 10),
        (SourceError("x"), 3),
        (StorageError("x"), 12),
        (Interrupted("SIGINT", 2), 130),
        (Interrupted("SIGTERM", 15), 143),
        (Interrupted("SIGHUP", 1), 129),
    ],
)
def test_what_stopped_a_run_weighs_more_than_its_rows(
    count: Count, statuses: dict[str, int], stopped: BulkUsersError, code: int
) -> None:
    """The exit code is the reason's, whatever became of the rows."""
    assert exit_code(count(**statuses), stopped) == code


@pytest.mark.parametrize("rows", [4, 6])
@pytest.mark.parametrize("stopped", [None, OutageError("x")])
def test_a_row_lost_or_counted_twice_is_a_bug(count: Count, rows: int, stopped: BulkUsersError | None) -> None:
    """It is told before everything else."""
    assert exit_code(count(rows=rows, created=4, rejected=1), stopped) == 1


def test_every_outcome_is_counted_once(make_outcome: MakeOutcome) -> None:
    """The counts have every status from the start, and `done` is their sum."""
    tally = Tally(20)
    assert tally.counts == {"rows": 20} | {str(status): 0 for status in Status}
    for row, status in enumerate([*Status, Status.CREATED, Status.CREATED], start=2):
        tally(make_outcome(row, status))
    assert tally.counts == {"rows": 20} | {str(status): 1 for status in Status} | {"created": 3}
    assert tally.done == 10
    assert tally.problems() == []


def test_sentences_that_differ_in_numbers_are_one_problem(make_outcome: MakeOutcome) -> None:
    """The first one speaks for all, and only the first few rows are named."""
    tally = Tally(30)
    for row in range(2, 32):
        tally(make_outcome(row, Status.REJECTED, "email-twice", message=f"row {row} and row {row + 100} have it"))
    [problem] = tally.problems()
    assert (problem.status, problem.code, problem.message) == ("rejected", "email-twice", "row 2 and row 102 have it")
    assert problem.hint == "mend email-twice"
    assert problem.count == 30
    assert problem.rows == list(range(2, 2 + SHOWN_ROWS))


def test_the_first_rows_are_named_in_whatever_order_they_come(make_outcome: MakeOutcome) -> None:
    """Answers come in any order; a problem and a loss name the first rows of the file, in its order."""
    tally = Tally(30)
    for row in (9, 30, 4, 8, 2, 31, 7, 3):
        tally(make_outcome(row, Status.FAILED, "no-answer", loses=row > 4))
    assert [problem.rows for problem in tally.problems()] == [[2, 3, 4, 7, 8]]
    assert (tally.losses.count, tally.losses.rows) == (5, [7, 8, 9, 30, 31])


def test_problems_that_differ_in_words_code_or_status_are_several(make_outcome: MakeOutcome) -> None:
    """Each is mended in its own way."""
    tally = Tally(4)
    tally(make_outcome(2, Status.REJECTED, "refused-400", message="no such role"))
    tally(make_outcome(3, Status.REJECTED, "refused-400", message="no such department"))
    tally(make_outcome(4, Status.REJECTED, "refused-422", message="no such role"))
    tally(make_outcome(5, Status.FAILED, "refused-400", message="no such role"))
    assert [problem.rows for problem in tally.problems()] == [[2], [3], [4], [5]]


def test_what_needs_a_person_comes_first_then_what_is_frequent(make_outcome: MakeOutcome) -> None:
    """A skipped row is no trouble, however many there are."""
    tally = Tally(12)
    codes = ["skipped"] * 6 + ["rare"] + ["frequent"] * 5
    for row, code in enumerate(codes, start=2):
        tally(make_outcome(row, Status.SKIPPED if code == "skipped" else Status.REJECTED, code))
    assert [problem.code for problem in tally.problems()] == ["frequent", "rare", "skipped"]


def test_an_api_with_a_new_sentence_for_every_row_fills_no_memory(make_outcome: MakeOutcome) -> None:
    """Beyond a number of kinds the rest is counted by status and code, and no row is lost from the counts."""
    tally = Tally(5000)
    for row in range(5000):
        letters = "".join(chr(ord("a") + int(digit)) for digit in str(row))
        tally(make_outcome(row, Status.REJECTED, f"refused-{(400, 422)[row % 2]}", message=f"no {letters} here"))
    problems = tally.problems()
    assert len(problems) == MOST_PROBLEMS + 2
    assert sum(problem.count for problem in problems) == 5000
    assert [(problem.code, problem.count) for problem in problems[:2]] == [
        ("refused-400", (5000 - MOST_PROBLEMS) // 2),
        ("refused-422", (5000 - MOST_PROBLEMS) // 2),
    ]


@pytest.mark.parametrize("spread", ["even", "long tail", "all alike", "a single one"])
def test_percentiles_are_right_to_two_percent(spread: str) -> None:
    """Compared with the sorted list of all answers, which the meter does not keep."""
    dice = random.Random(1)
    seconds = {
        "even": [dice.uniform(0.001, 2) for _ in range(10_000)],
        "long tail": [dice.lognormvariate(-3, 1.5) for _ in range(10_000)],
        "all alike": [0.25] * 1000,
        "a single one": [0.0123],
    }[spread]
    meter = Meter()
    for time in seconds:
        meter.answered(200, time)
    said = meter.summary(1)["latency_ms"]
    in_order = sorted(seconds)
    for name, share in (("p50", 0.50), ("p95", 0.95), ("p99", 0.99)):
        exact = 1000 * in_order[round(share * len(in_order) + 0.4999) - 1]
        assert said[name] == pytest.approx(exact, rel=0.02, abs=0.005)
    assert said["max"] == pytest.approx(1000 * in_order[-1], abs=0.005)
    assert said["p50"] <= said["p95"] <= said["p99"] <= said["max"]


def test_a_run_without_requests_has_a_summary() -> None:
    """All rows may have been rejected, in no time."""
    said = Meter().summary(0)
    assert (said["requests"], said["requests_per_second"], said["by_status"]) == (0, 0.0, {})
    assert said["latency_ms"] == {"p50": 0.0, "p95": 0.0, "p99": 0.0, "max": 0.0}


async def test_requests_and_their_answers_are_counted() -> None:
    """A lost answer is a request without one; the report's keys are text and in order."""
    meter = Meter()
    statuses = iter([201, 429, 200, 201])

    async def answer(_: Request) -> Response:
        return Response(next(statuses))

    async def lose(_: Request) -> Response:
        raise TransportError("reset", sent=True)

    for _ in range(4):
        await metered(answer, meter)(Request("GET", "/"))
    with pytest.raises(TransportError):
        await metered(lose, meter)(Request("GET", "/"))
    said = meter.summary(2)
    assert (said["requests"], said["lost"], said["throttled"]) == (5, 1, 1)
    assert list(said["by_status"].items()) == [("200", 1), ("201", 2), ("429", 1)]
    assert said["requests_per_second"] == 2.5


async def test_a_list_is_counted_and_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long all users take tells nothing of how late a write may be."""
    meter = Meter()
    clock = iter([0.0, 6.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))

    async def answer(_: Request) -> Response:
        return Response(200)

    await metered(answer, meter)(Request("GET", "/", into=io.BytesIO()))
    assert (meter.requests, meter.by_status, meter.longest) == (1, {200: 1}, 0.0)
