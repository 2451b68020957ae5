"""A finished run in words: what happened, and the exact command that goes on from there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bulkusers.books import rejects_of
from bulkusers.cli.summary import MOST_SHOWN, WIDTH, duration, list_problems, next_steps, plural, summarize
from bulkusers.models import Status
from bulkusers.report import Report
from bulkusers.tally import Problem

MakeReport = Callable[..., Report]
STOPPED = {"reason": "the API cannot be reached: Connection refused", "hint": "run again when it is back"}
MEND = "correct the rejected rows (columns Error and Hint say what is wrong), then"
SHOW = "every row in trouble"


@pytest.fixture
def make_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeReport:
    """Return a function that makes a finished run's report from its counts, and anything of its run said otherwise.

    Rejected rows lie beside it.
    """
    monkeypatch.chdir(tmp_path)

    def make(
        *problems: Problem,
        path: str = "results.json",
        file: str = "users.csv",
        run: dict[str, Any] | None = None,
        **counts: int,
    ) -> Report:
        said = {
            "environment": "staging",
            "base_url": "https://staging.example.edu/api/v1",
            "school": "example",
            "seconds": 12.3,
            "stopped": None,
            "input": {"path": file},
            "arguments": ["--env", "staging"],
            "rejects": None,
        }
        if counts.get("rejected"):
            rejects = rejects_of(Path(path))
            rejects.parent.mkdir(exist_ok=True)
            rejects.touch()
            said["rejects"] = str(rejects)
        statuses = {str(status): 0 for status in Status} | counts
        http = {"requests": 1234, "requests_per_second": 49.8, "by_status": {}}
        return Report(
            Path(path), said | (run or {}), {"rows": sum(counts.values())} | statuses, http, [], list(problems)
        )

    return make


def make_problem(count: int, message: str = "no e-mail", hint: str = "add one", status: str = "rejected") -> Problem:
    """Return a problem of the first `count` rows."""
    return Problem(status, "code", message, hint, count, list(range(2, 2 + min(count, 5))))


def test_a_good_run_needs_no_next_step(make_report: MakeReport) -> None:
    """The whole summary, as a person sees it."""
    assert list(summarize(make_report(created=1200, unchanged=34))) == [
        "users.csv: 1,234 rows to staging (example) in 12.3 s",
        "",
        "      1,200 created",
        "         34 unchanged   nothing to change",
        "      1,234 requests, 49.8 per second",
        "",
        "Report: results.json",
    ]


def test_a_run_in_trouble_says_what_to_do(make_report: MakeReport) -> None:
    """The whole summary of a run in which everything went wrong."""
    report = make_report(make_problem(2), created=5, rejected=2, unknown=1, unprocessed=3, run={"stopped": STOPPED})
    assert list(summarize(report)) == [
        "users.csv: 11 rows to staging (example) in 12.3 s",
        "Stopped: the API cannot be reached: Connection refused",
        "",
        "          5 created",
        "          2 rejected    not applied: the data must be fixed",
        "          1 unknown     may or may not be applied: run again",
        "          3 unprocessed never sent, or turned away",
        "      1,234 requests, 49.8 per second",
        "",
        "Problems:",
        "          2 no e-mail",
        "            rows 2, 3: add one",
        "",
        "Next:",
        "  run again when it is back",
        "  4 rows to send again; rows that are done stay as they are:",
        "    bulkusers run users.csv --env staging --resume",
        f"  {SHOW}:",
        "    bulkusers report results.json --failed",
        "",
        "Report: results.json",
    ]


@pytest.mark.parametrize(
    ("counts", "stopped", "steps"),
    [
        ({"created": 1, "updated": 1, "unchanged": 1, "skipped": 1}, None, []),
        (
            {"rejected": 1},
            None,
            [
                (MEND, "bulkusers run results.rejects.csv --env staging"),
                (SHOW, "bulkusers report results.json --failed"),
            ],
        ),
        (
            {"failed": 1},
            None,
            [
                (
                    "1 row to send again; rows that are done stay as they are",
                    "bulkusers run users.csv --env staging",
                ),
                (SHOW, "bulkusers report results.json --failed"),
            ],
        ),
        (
            {"unknown": 2000},
            None,
            [
                (
                    "2,000 rows to send again; rows that are done stay as they are",
                    "bulkusers run users.csv --env staging",
                ),
                (SHOW, "bulkusers report results.json --failed"),
            ],
        ),
        (
            {"created": 1, "unprocessed": 2},
            STOPPED,
            [
                ("run again when it is back", ""),
                (
                    "2 rows to send again; rows that are done stay as they are",
                    "bulkusers run users.csv --env staging --resume",
                ),
            ],
        ),
        ({"created": 1}, STOPPED | {"hint": ""}, []),
    ],
)
def test_every_kind_of_trouble_has_its_command(
    make_report: MakeReport, counts: dict[str, int], stopped: dict[str, str] | None, steps: list[tuple[str, str]]
) -> None:
    """And nothing else is proposed."""
    assert list(next_steps(make_report(run={"stopped": stopped}, **counts))) == steps


def test_the_next_command_sends_to_where_the_run_sent(make_report: MakeReport) -> None:
    """With the options that it was given, for the whole file and for its rejects."""
    run = {"arguments": ["--base-url", "https://x.example.edu/api?", "--lists", "replace"]}
    options = "--base-url 'https://x.example.edu/api?' --lists replace"
    assert [command for _, command in next_steps(make_report(path="out/r.json", failed=1, rejected=1, run=run))][
        :2
    ] == [
        f"bulkusers run users.csv {options}",
        f"bulkusers run out/r.rejects.csv {options}",
    ]


def test_commands_can_be_pasted_whatever_files_are_called(make_report: MakeReport) -> None:
    """Names with blanks and quotes are quoted."""
    report = make_report(path="out/my results.json", file="it's users.csv", failed=1, rejected=1)
    assert [command for _, command in next_steps(report)] == [
        "bulkusers run 'it'\"'\"'s users.csv' --env staging",
        "bulkusers run 'out/my results.rejects.csv' --env staging",
        "bulkusers report 'out/my results.json' --failed",
    ]


def test_a_file_whose_name_begins_like_an_option_is_none(make_report: MakeReport) -> None:
    """What is printed is taken for a file by whoever runs it."""
    report = make_report(path="-r.json", file="-u.csv", failed=1, rejected=1)
    assert [command for _, command in next_steps(report)] == [
        "bulkusers run ./-u.csv --env staging",
        "bulkusers run ./-r.rejects.csv --env staging",
        "bulkusers report ./-r.json --failed",
    ]


def test_rejects_are_named_by_where_they_lie(make_report: MakeReport) -> None:
    """Beside the report, whatever a run called them once; those of another run are not, and nor are those that went."""
    report = make_report(path="moved.json", rejected=1, run={"rejects": "results.rejects.csv"})
    assert next(next_steps(report)) == (MEND, "bulkusers run moved.rejects.csv --env staging")
    Path("results.rejects.csv").touch()
    Path("moved.rejects.csv").unlink()
    assert [why for why, _ in next_steps(report)] == [SHOW]


def test_standard_input_cannot_be_sent_again(make_report: MakeReport) -> None:
    """What to do is said in words, because no command would find the rows."""
    again = "1 row to send again; rows that are done stay as they are: pipe the file again"
    assert next(next_steps(make_report(file="-", failed=1))) == (again, "")
    stopped = {"stopped": STOPPED | {"hint": ""}}
    assert list(next_steps(make_report(file="-", unprocessed=1, run=stopped))) == [(f"{again}, and say --resume", "")]


def test_a_summary_fits_a_screen(make_report: MakeReport) -> None:
    """Whatever an API says and however many rows there are, and no sentence is lost: cron mails the remedy, too."""
    hint = "use an account whose role has the permission, and get its token with: bulkusers login --env production"
    stopped = {"reason": "the first 10 rows were all refused alike: " + "the API says a lot " * 15, "hint": hint}
    counts = {str(status): 1_000_000 for status in Status}
    problems = [make_problem(1_000_000, "a long sentence " * 20, "a long hint " * 20) for _ in range(50)]
    lines = list(summarize(make_report(*problems, run={"stopped": stopped}, **counts)))
    assert [line for line in lines if len(line) > WIDTH] == []
    assert len(lines) < 90
    words = " ".join(" ".join(lines).split())
    assert hint in words
    assert "rows 2, 3, 4, 5, 6, …: a long hint " + "a long hint " * 18 + "a long hint" in words
    assert stopped["reason"].strip() in words


@pytest.mark.parametrize(("kinds", "more"), [(1, None), (6, None), (7, "and 1 more kind"), (9, "and 3 more kinds")])
def test_only_the_most_pressing_problems_are_shown(kinds: int, more: str | None) -> None:
    """The first ones, and how many there are besides; a skipped row is none."""
    problems = [make_problem(2, f"problem {letter}") for letter in "abcdefghi"[:kinds]]
    lines = list(list_problems([*problems, make_problem(9, "skipped", status="skipped")]))
    assert lines[:2] == ["", "Problems:"]
    assert len(lines) == 2 + 2 * min(kinds, MOST_SHOWN) + (more is not None)
    assert (lines[-1].strip() == more) is (more is not None)
    assert not any("skipped" in line for line in lines)
    assert list(list_problems([make_problem(9, status="skipped")])) == []


@pytest.mark.parametrize(
    ("count", "named"), [(1, "row 2: add one"), (2, "rows 2, 3: add one"), (6, "rows 2, 3, 4, 5, 6, …: add one")]
)
def test_a_problem_names_its_first_rows(count: int, named: str) -> None:
    """And says where there are more."""
    assert list(list_problems([make_problem(count)]))[-1].strip() == named


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0.0 s"),
        (12.34, "12.3 s"),
        (60, "1 min 00 s"),
        (61.4, "1 min 01 s"),
        (3599.6, "1 h 00 min"),
        (7500, "2 h 05 min"),
    ],
)
def test_time_is_said_as_a_person_says_it(seconds: float, said: str) -> None:
    """Two units at most."""
    assert duration(seconds) == said
    assert (plural(1, "row"), plural(0, "row"), plural(1234, "row")) == ("1 row", "0 rows", "1,234 rows")
