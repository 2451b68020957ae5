"""`bulkusers report`."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from bulkusers.cli import options as opt
from bulkusers.cli.output import write_csv, write_data
from bulkusers.cli.screen import write
from bulkusers.cli.summary import list_problems, plural, summarize, table_of_counts
from bulkusers.columns import safe_cell
from bulkusers.journal import BEGUN, is_journal, read_progress
from bulkusers.models import Status
from bulkusers.report import Report, add_up, read_report
from bulkusers.tally import IN_TROUBLE

CELLS = ("row", "email", "status", "code", "message", "hint", "attempts", "ms", "changed", "report")
NOT_DONE = IN_TROUBLE | {Status.UNPROCESSED}


def report(
    results: Annotated[list[Path], typer.Argument(metavar="RESULTS.json...", help="Reports; several add up.")],
    output: Annotated[opt.ReportFormat, opt.option("--format", text="How to show it.")] = opt.ReportFormat.TEXT,
    failed: Annotated[
        bool, opt.option("--failed", text="Every row that is not done: rejected, failed, unknown, unprocessed.")
    ] = False,
) -> None:
    """Read outcome reports: summary, failures, exports."""
    if len({path.resolve() for path in results}) < len(results):
        raise typer.BadParameter("a report is named twice, and would be counted twice", param_hint="RESULTS.json")
    if len(results) == 1 and is_journal(results[0]):
        _show_progress(results[0], output)
        return
    reports = [read_report(path) for path in results]
    match output:
        case opt.ReportFormat.TEXT:
            for line in _text(reports, failed=failed):
                write(sys.stdout, line)
        case opt.ReportFormat.JSON:
            write_data(_json(reports, failed=failed))
        case opt.ReportFormat.CSV:
            write_csv(CELLS, _cells(reports, failed=failed))
        case opt.ReportFormat.MD:
            write_data(_md(reports, failed=failed))


def _show_progress(path: Path, output: opt.ReportFormat) -> None:
    """Show how far a run came that has no report yet."""
    progress = read_progress(path)
    if output is opt.ReportFormat.JSON:
        write_data([orjson.dumps({"schema": 1, "counts": progress}).decode()])
        return
    if output is not opt.ReportFormat.TEXT:
        raise typer.BadParameter("a journal is shown as text or json; the report will have more", param_hint="--format")
    write(sys.stdout, f"{path}: the journal of a run that was interrupted, or goes on")
    write(sys.stdout, "")
    for line in table_of_counts(progress):
        write(sys.stdout, line)
    if progress[BEGUN]:
        write(sys.stdout, f"  {progress[BEGUN]:>9,} {BEGUN:<12}without an outcome: may or may not be applied")
    write(sys.stdout, "")
    write(sys.stdout, "Next: the command of that run once more, with --resume")


def _text(reports: Sequence[Report], *, failed: bool) -> Iterator[str]:
    if failed:
        for row in _rows(reports, failed=True):
            yield f"row {row['row']}  {row['email']}  {row['status']}  {row.get('message', '')}".rstrip()
            if row.get("hint"):
                yield f"    {row['hint']}"
    elif len(reports) == 1:
        yield from summarize(reports[0])
    else:
        total = add_up(reports)
        yield f"{plural(len(reports), 'run')}: {plural(total.counts['rows'], 'row')}"
        yield ""
        yield from table_of_counts(total.counts)
        yield f"  {total.http['requests']:>9,} requests"
        yield from list_problems(total.problems)


def _json(reports: Sequence[Report], *, failed: bool) -> Iterator[str]:
    """Yield one JSON object: what a report says before its rows, and with --failed the rows in trouble."""
    if len(reports) == 1:
        run = reports[0]
        head = {"run": run.run, "counts": run.counts, "http": run.http, "warnings": run.warnings}
        problems = run.problems
    else:
        total = add_up(reports)
        head = {
            "files": [str(report.path).encode(errors="replace").decode() for report in reports],
            "counts": total.counts,
            "http": total.http,
        }
        problems = total.problems
    whole = orjson.dumps({"schema": 1} | head | {"problems": problems}).decode()
    if not failed:
        yield whole
        return
    yield whole.removesuffix("}") + ', "rows": ['
    comma = ""
    for row in _rows(reports, failed=True):
        yield comma + orjson.dumps(row).decode()
        comma = ","
    yield "]}"


def _cells(reports: Sequence[Report], *, failed: bool) -> Iterator[list[str]]:
    for report in reports:
        for row in _rows([report], failed=failed):
            row |= {"changed": ",".join(row.get("changed", ())), "report": report.path}
            yield [safe_cell(str(row.get(cell, ""))) for cell in CELLS]


def _md(reports: Sequence[Report], *, failed: bool) -> Iterator[str]:
    total = add_up(reports)
    yield f"# {', '.join(str(report.run['input']['path']) for report in reports)}"
    yield ""
    yield from _md_table("Status", "Rows", ((status, total.counts[status]) for status in Status))
    if total.problems:
        yield ""
        yield from _md_table("Problem", "Rows", ((problem.message, problem.count) for problem in total.problems))
    if failed:
        yield ""
        rows = _rows(reports, failed=True)
        yield from _md_table(
            "Row", "Problem", ((f"{row['row']} {row['email']}", row.get("message", "")) for row in rows)
        )


def _md_table(left: str, right: str, lines: Iterable[tuple[object, object]]) -> Iterator[str]:
    yield f"| {left} | {right} |"
    yield "|---|---|"
    for one, other in lines:
        yield "| " + " | ".join(str(cell).replace("|", "\\|") for cell in (one, other)) + " |"


def _rows(reports: Sequence[Report], *, failed: bool) -> Iterator[dict[str, Any]]:
    for report in reports:
        # whom an undo leaves as is was to be taken back, and is not
        not_done = NOT_DONE | ({Status.SKIPPED} if report.run.get("command") == "undo" else set())
        for row in report.rows():
            if not failed or row["status"] in not_done:
                yield row
