"""The outcome report: written whole, read line by line, added up, and turned into a file to mend."""

import csv
import io
import json
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from conftest import MakeOutcome

from bulkusers.cli.options import ReportFormat
from bulkusers.cli.report import report as show
from bulkusers.errors import SourceError, StorageError
from bulkusers.journal import row_of
from bulkusers.models import Outcome, Status
from bulkusers.report import Report, TextForm, add_up, read_report, write_rejects, write_report
from bulkusers.tally import Problem, Tally

RUN = {
    "environment": "staging",
    "base_url": "https://staging.example.edu/api/v1",
    "school": "example",
    "seconds": 2.0,
    "stopped": None,
    "input": {"path": "users.csv"},
    "arguments": ["--env", "staging"],
    "rejects": None,
}
Write = Callable[..., Report]
WriteRejects = Callable[..., list[list[str]]]


def json_of(outcomes: Iterable[Outcome]) -> Iterator[bytes]:
    """Yield outcomes as the journal does."""
    return (orjson.dumps(row_of(outcome)) for outcome in outcomes)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes the report of some outcomes and returns what was written."""

    def write(*outcomes: Outcome, name: str = "results.json", exit_code: int = 0) -> Report:
        tally = Tally(len(outcomes))
        for outcome in outcomes:
            tally(outcome)
        run = RUN | {"exit_code": exit_code}
        http = {"requests": len(outcomes), "requests_per_second": 1.5, "by_status": {"201": len(outcomes)}}
        report = Report(tmp_path / name, run, tally.counts, http, [{"code": "bom"}], tally.problems())
        write_report(report, json_of(outcomes))
        return report

    return write


@pytest.fixture
def some(make_outcome: MakeOutcome) -> tuple[Outcome, ...]:
    """Return a row of each kind that matters."""
    return (
        make_outcome(2, attempts=1, ms=48),
        make_outcome(3, Status.REJECTED, "email-invalid"),
        make_outcome(4, Status.UPDATED, changed=("roles",)),
        make_outcome(
            5, Status.FAILED, "refused-500", message='it said "]}" and {"rows": [', email="é|\u2028@example.edu"
        ),
        make_outcome(6, Status.UNPROCESSED),
    )


def test_a_report_is_json_as_a_whole_and_has_one_row_per_line(write: Write, some: tuple[Outcome, ...]) -> None:
    """Any tool reads it, and a million rows can be searched without loading them."""
    path = write(*some).path
    whole = json.loads(path.read_text(encoding="utf-8"))
    assert list(whole) == ["schema", "run", "counts", "http", "warnings", "problems", "rows"]
    assert whole["schema"] == 1
    assert [row["row"] for row in whole["rows"]] == [2, 3, 4, 5, 6]
    assert [problem["code"] for problem in whole["problems"]] == ["email-invalid", "refused-500"]
    lines = path.read_bytes().split(b"\n")
    rows = [json.loads(line.rstrip(b",")) for line in lines if line.startswith(b'{"row":')]
    assert rows == whole["rows"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_was_written_is_read(write: Write, some: tuple[Outcome, ...]) -> None:
    """Everything before the rows at once, the rows one after another."""
    written = write(*some, exit_code=5)
    read = read_report(written.path)
    assert read == written
    assert read.exit_code == 5
    assert list(read.rows()) == [orjson.loads(row) for row in json_of(some)]


def test_a_report_without_rows_is_a_report(write: Write) -> None:
    """An empty file may be allowed."""
    path = write().path
    assert json.loads(path.read_bytes())["rows"] == []
    assert list(read_report(path).rows()) == []


def test_rows_are_streamed(write: Write, make_outcome: MakeOutcome) -> None:
    """The first is there although the last cannot be read."""
    path = write(*(make_outcome(row) for row in range(2, 2000))).path
    path.write_bytes(path.read_bytes()[:-5])
    rows = read_report(path).rows()
    assert next(rows)["row"] == 2


@pytest.mark.parametrize(
    "form", [{"indent": 2}, {"indent": 0}, {"indent": "\t"}, {}, {"separators": (",", ":")}, {"sort_keys": True}]
)
def test_a_report_that_another_tool_wrote_anew_is_read_too(
    write: Write, some: tuple[Outcome, ...], form: dict[str, Any]
) -> None:
    """Line breaks and blanks are not what it means."""
    written = write(*some)
    before = list(written.rows())
    written.path.write_text(json.dumps(json.loads(written.path.read_bytes()), **form), encoding="utf-8")
    assert read_report(written.path) == written
    assert list(read_report(written.path).rows()) == before


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'"schema"',
        b"First Name,Last Name\n",
        b"\xff\xfe\x00",
        b'{"schema": 1,\n"rows": [\n',
    ],
)
def test_a_file_that_is_no_report_is_refused(tmp_path: Path, content: bytes) -> None:
    """The message names the file, the hint what a report is."""
    path = tmp_path / "users.csv"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"users\.csv is no outcome report") as caught:
        read_report(path)
    assert "bulkusers run" in caught.value.hint


@pytest.mark.parametrize("part", ["run", "counts", "http", "problems", "counts.created", "run.input", "http.requests"])
@pytest.mark.parametrize("instead", [None, "a word"])
def test_a_report_that_lacks_what_its_readers_need_is_refused(write: Write, part: str, instead: str | None) -> None:
    """At once, and not with a traceback when the summary is half printed."""
    path = write().path
    whole = json.loads(path.read_bytes())
    *tables, key = part.split(".")
    place = whole[tables[0]] if tables else whole
    del place[key]
    if instead:
        place[key] = instead
    path.write_text(json.dumps(whole))
    with pytest.raises(SourceError, match="is no outcome report"):
        read_report(path)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    """So is a folder."""
    with pytest.raises(SourceError, match=r"cannot read .*results\.json: No such file"):
        read_report(tmp_path / "results.json")
    with pytest.raises(SourceError, match="Is a directory"):
        read_report(tmp_path)


def test_a_report_of_another_schema_is_refused(write: Write) -> None:
    """What a later version means is not guessed."""
    path = write().path
    path.write_bytes(path.read_bytes().replace(b'"schema": 1', b'"schema": 2'))
    with pytest.raises(SourceError, match=r"another version of bulkusers \(2\)") as caught:
        read_report(path)
    assert "run.tool" in caught.value.hint


@pytest.mark.parametrize("kept", [0.99, 0.9, 0.6])
def test_half_a_report_is_not_taken_for_a_whole_one(write: Write, make_outcome: MakeOutcome, kept: float) -> None:
    """A copy that was cut off would hide rows in trouble."""
    path = write(*(make_outcome(row) for row in range(2, 100))).path
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(SourceError, match=r"results\.json is damaged"):
        list(read_report(path).rows())


def test_a_report_cut_off_between_two_rows_is_not_whole(write: Write, make_outcome: MakeOutcome) -> None:
    """Every line that is left is whole, and yet rows are missing."""
    path = write(make_outcome(2), make_outcome(3)).path
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-2]))
    with pytest.raises(SourceError, match="is damaged"):
        list(read_report(path).rows())


def test_several_runs_add_up(write: Write, make_outcome: MakeOutcome) -> None:
    """Counts, requests and problems; row numbers of different files say nothing side by side."""
    bad = make_outcome(3, Status.REJECTED, "email-invalid")
    one = write(make_outcome(2), bad, name="one.json")
    two = write(bad, make_outcome(4, Status.FAILED, "refused-500"), name="two.json")
    total = add_up([one, two])
    assert total.counts == {str(status): 0 for status in Status} | {"rows": 4, "created": 1, "rejected": 2, "failed": 1}
    assert total.http == {"requests": 4, "by_status": {"201": 4}}
    assert [(problem.code, problem.count, problem.rows) for problem in total.problems] == [
        ("email-invalid", 2, []),
        ("refused-500", 1, []),
    ]
    assert [problem.rows for problem in one.problems] == [[3]]


@pytest.fixture
def reject(tmp_path: Path, make_outcome: MakeOutcome) -> WriteRejects:
    """Return a function that writes the rejects among some good rows, and returns what a CSV reader sees."""

    def reject(
        header: Sequence[str], *rows: Sequence[str], delimiter: str = ",", encoding: str = "utf-8"
    ) -> list[list[str]]:
        path = tmp_path / "results.rejects.csv"
        records = [(2, ["a good row"] * len(header))]
        outcomes = [make_outcome(2)]
        for cells in rows:
            row = records[-1][0] + 2
            records += [(row - 1, list(cells)), (row, ["another good row"])]
            outcomes += [make_outcome(row - 1, Status.REJECTED, "bad"), make_outcome(row)]
        write_rejects(path, TextForm(header, delimiter, encoding), iter(records), json_of(outcomes))
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        text = path.read_bytes().decode("utf-8")
        return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))

    return reject


def test_rejects_are_the_users_own_rows_and_what_is_wrong(reject: WriteRejects) -> None:
    """All columns, also those that mean nothing to us, in the user's order, with Error and Hint at the end."""
    header = ["Email", "Shoe Size", "First Name"]
    assert reject(header, ["ann@", "38", "Ann"], ["bob@", "", 'Bob "B"\nLee, Jr.']) == [
        [*header, "Error", "Hint"],
        ["ann@", "38", "Ann", "this is bad", "mend bad"],
        ["bob@", "", 'Bob "B"\nLee, Jr.', "this is bad", "mend bad"],
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_rejects_have_the_delimiter_of_the_file(reject: WriteRejects, delimiter: str) -> None:
    """It opens where the file opened, and a cell with the delimiter in it stays one cell."""
    cells = f"a{delimiter}b"
    assert reject(["Email", "First Name"], [cells, "Ann"], delimiter=delimiter)[1] == [
        cells,
        "Ann",
        "this is bad",
        "mend bad",
    ]


def test_rejects_have_a_mark_for_excel_where_the_file_had_one(reject: WriteRejects, tmp_path: Path) -> None:
    """Once, at the very beginning."""
    reject(["Email"], ["josé"], ["é"], encoding="utf-8-sig")
    content = (tmp_path / "results.rejects.csv").read_bytes()
    assert content.startswith(b"\xef\xbb\xbfEmail,")
    assert content.count(b"\xef\xbb\xbf") == 1
    reject(["Email"], ["josé"])
    assert (tmp_path / "results.rejects.csv").read_bytes().startswith(b"Email,")


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(A1)", ' =HYPERLINK("http://example.edu")', "\t=1"])
def test_no_cell_of_the_rejects_runs_as_a_formula(reject: WriteRejects, cell: str) -> None:
    """Neither a value nor a header nor a cell beyond the header."""
    header, row = reject(["Email", cell], ["ann@", cell, cell])
    safe = f"'{cell.strip()}"
    assert header == ["Email", safe, "Error", "Hint"]
    assert row == ["ann@", safe, "this is bad", "mend bad", safe]


def test_words_of_the_api_run_as_no_formula(tmp_path: Path, make_outcome: MakeOutcome) -> None:
    """The columns Error and Hint hold what a server said."""
    path = tmp_path / "results.rejects.csv"
    outcome = make_outcome(2, Status.REJECTED, "refused-400", message="=cmd|' /C calc'!A0", hint="@hint")
    write_rejects(path, TextForm(["Email"], ",", "utf-8"), [(2, ["ann@"])], json_of([outcome]))
    assert list(csv.reader(path.read_text().splitlines()))[1] == ["ann@", "'=cmd|' /C calc'!A0", "'@hint"]


def test_rejects_of_rejects_say_only_what_is_wrong_now(reject: WriteRejects) -> None:
    """Older Error and Hint columns are replaced wherever they stand, however they are written."""
    assert reject(["Error", "Email", "HINT ", "Products"], ["old", "ann@", "old", "events"]) == [
        ["Email", "Products", "Error", "Hint"],
        ["ann@", "events", "this is bad", "mend bad"],
    ]


def test_short_and_long_rows_keep_their_cells(reject: WriteRejects) -> None:
    """A short row is filled up, and what a long one has beyond the header stands at its end."""
    assert reject(["Email", "First Name"], ["ann@"], [], ["bob@", "Bob", "x", "y"])[1:] == [
        ["ann@", "", "this is bad", "mend bad"],
        ["", "", "this is bad", "mend bad"],
        ["bob@", "Bob", "this is bad", "mend bad", "x", "y"],
    ]


def test_a_failed_write_leaves_the_older_rejects(tmp_path: Path) -> None:
    """The file to mend is whole or not there."""
    path = tmp_path / "results.rejects.csv"
    path.write_text("older")

    def records() -> Iterator[tuple[int, list[str]]]:
        yield 2, ["ann@"]
        raise StorageError("gone")

    rows = [b'{"row":2,"status":"rejected","code":"c","message":"m","hint":"h"}', b'{"row":3,"status":"rejected"}']
    with pytest.raises(StorageError, match="gone"):
        write_rejects(path, TextForm(["Email"], ",", "utf-8"), records(), rows)
    assert path.read_text() == "older"


@pytest.mark.parametrize("runs", [1, 2])
def test_a_report_is_shown_as_json(
    write: Write, some: tuple[Outcome, ...], capsys: pytest.CaptureFixture[str], runs: int
) -> None:
    """One object, of one run or of several, with the rows in trouble where they were asked for."""
    paths = [write(*some, name=f"{number}.json").path for number in range(runs)]
    show(paths, ReportFormat.JSON, failed=False)
    said = json.loads(capsys.readouterr().out)
    assert (said["counts"]["rows"], said["http"]["requests"]) == (5 * runs, 5 * runs)
    assert "rows" not in said
    show(paths, ReportFormat.JSON, failed=True)
    said = json.loads(capsys.readouterr().out)
    assert [row["row"] for row in said["rows"]] == [3, 5, 6] * runs


def test_a_report_is_shown_as_csv(write: Write, make_outcome: MakeOutcome, capsys: pytest.CaptureFixture[str]) -> None:
    """One line a row, and none of them runs as a formula."""
    path = write(make_outcome(2), make_outcome(3, Status.REJECTED, "bad", email="=1@example.edu", message="a, b")).path
    show([path], ReportFormat.CSV, failed=False)
    good, bad = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (good["row"], good["status"], good["code"]) == ("2", "created", "")
    assert (bad["email"], bad["message"]) == ("'=1@example.edu", "a, b")
    show([path], ReportFormat.CSV, failed=True)
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_a_report_is_shown_as_markdown(
    write: Write, make_outcome: MakeOutcome, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tables keep their columns, whatever the messages hold."""
    path = write(make_outcome(2), make_outcome(3, Status.REJECTED, "bad", message="a | b")).path
    show([path], ReportFormat.MD, failed=True)
    said = capsys.readouterr().out
    assert said.startswith("# users.csv\n")
    assert "| created | 1 |" in said
    assert "| a \\| b | 1 |" in said
    assert "| 3 row3@example.edu | a \\| b |" in said


def test_a_problem_is_read_back_as_one(write: Write, some: tuple[Outcome, ...]) -> None:
    """Not as a dictionary that looks like it."""
    assert read_report(write(*some).path).problems[0] == Problem(
        "rejected", "email-invalid", "this is email-invalid", "mend email-invalid", 1, [3]
    )
