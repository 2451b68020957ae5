"""A finished run in words: a summary that fits a screen, and the next command for every kind of problem."""

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from textwrap import wrap
from typing import Any, Final
from urllib.parse import urlsplit

from bulkusers.books import find_rejects
from bulkusers.models import Status
from bulkusers.report import STRANGE_IDS, Report
from bulkusers.tally import IN_TROUBLE, VALUES_LOST, Problem

WIDTH: Final = 80
MOST_SHOWN: Final = 6  # kinds of problem on a screen
MOST_LEFT: Final = 10  # users whom an undo leaves as they are, on a screen
CAP: Final = "--max-failures"  # stands in the reason of a run that it stopped
MEANING: Final = {
    Status.CREATED: "",
    Status.UPDATED: "",
    Status.UNCHANGED: "nothing to change",
    Status.SKIPPED: "left out on purpose",
    Status.REJECTED: "not applied: the data must be fixed",
    Status.FAILED: "not applied: run again",
    Status.UNKNOWN: "may or may not be applied: run again",
    Status.UNPROCESSED: "never sent, or turned away",
}


def summarize(report: Report) -> Iterator[str]:
    """Yield the lines that a person needs after a run."""
    run, counts = report.run, report.counts
    rows = plural(counts["rows"], "row")
    yield f"{run['input']['path']}: {rows} to {describe_target(run)} in {duration(run['seconds'])}"
    if run["stopped"]:
        yield from fold(f"Stopped: {run['stopped']['reason']}")
    yield ""
    yield from table_of_counts(counts)
    requests, pace = report.http["requests"], report.http["requests_per_second"]
    yield f"  {requests:>9,} request{'' if requests == 1 else 's'}, {pace:,} per second"
    for warning in report.warnings:
        if warning.get("code") in {VALUES_LOST, STRANGE_IDS}:
            rows = name_rows(warning["rows"], warning["count"])
            yield from fold(f"  {warning['count']:>9,} {warning['message']} ({rows})", 12)
    yield from list_problems(report.problems)
    if run.get("command") == "undo" and counts[Status.SKIPPED]:
        left = (row for row in report.rows() if row["status"] == Status.SKIPPED)
        yield from list_left(((row["row"], row["email"], row["message"]) for row in left), counts[Status.SKIPPED])
    steps = list(next_steps(report))
    if steps:
        yield ""
        yield "Next:"
    for why, command in steps:
        yield from fold(f"  {why}:" if command else f"  {why}")
        if command:
            yield f"    {command}"
    yield ""
    yield f"Report: {report.path}"


def table_of_counts(counts: Mapping[str, int]) -> Iterator[str]:
    """Yield a line for each status that has rows."""
    for status, meaning in MEANING.items():
        if counts[status]:
            yield f"  {counts[status]:>9,} {status:<12}{meaning}".rstrip()


def list_problems(problems: Sequence[Problem]) -> Iterator[str]:
    """Yield the most pressing kinds of problem, each with what to do about it."""
    pressing = [problem for problem in problems if problem.status in IN_TROUBLE]
    if not pressing:
        return
    yield ""
    yield "Problems:"
    for problem in pressing[:MOST_SHOWN]:
        yield from fold(f"  {problem.count:>9,} {problem.message}", 12)
        what_to_do = filter(None, (name_rows(problem.rows, problem.count), problem.hint))
        yield from fold(f"{'':>12}{': '.join(what_to_do)}", 12)
    if (more := len(pressing) - MOST_SHOWN) > 0:
        yield f"{'':>12}and {plural(more, 'more kind')}"


def list_left(left: Iterable[tuple[int, str, str]], count: int) -> Iterator[str]:
    """Yield whom an undo leaves as is, the first few of so many, and why."""
    if count:
        yield ""
        yield f"Left as they are: {plural(count, 'user')}"
    for row, email, message in islice(left, MOST_LEFT):
        yield f"  row {row}  {email}"
        yield from fold(f"      {message}", 6)
    if count > MOST_LEFT:
        yield f"  and {count - MOST_LEFT:,} more: the report names all (--failed)"


def name_rows(rows: Sequence[int], count: int) -> str:
    """Name the first few of so many rows."""
    if not rows:
        return ""
    return f"row{'s' if count > 1 else ''} {', '.join(map(str, rows))}{', …' if count > len(rows) else ''}"


def next_steps(report: Report) -> Iterator[tuple[str, str]]:
    """Yield what to do next and the command for it, the most pressing first."""
    run, counts = report.run, report.counts
    if run["stopped"] and run["stopped"]["hint"]:
        yield run["stopped"]["hint"], ""
    again = counts[Status.FAILED] + counts[Status.UNKNOWN] + counts[Status.UNPROCESSED]
    resume = ("--resume",) if run["stopped"] and run["environment"] != "sandbox" else ()
    if again:
        why, file = f"{plural(again, 'row')} to send again; rows that are done stay as they are", run["input"]["path"]
        if file == "-":
            yield f"{why}: pipe the file again{', and say --resume' if resume else ''}", ""
        else:
            yield why, run_command(file, _arguments_to_go_on(run), *resume, command=run.get("command", "run"))
    # what goes on writes them all, and moves these aside
    if not (again and resume) and (written := run.get("rejects")) and (rejects := find_rejects(report.path, written)):
        yield (
            "correct the rejected rows (columns Error and Hint say what is wrong), then",
            run_command(str(rejects), _arguments_for_rejects(run)),
        )
    if sum(counts[status] for status in IN_TROUBLE) > 0:
        yield "every row in trouble", run_command(str(report.path), ["--failed"], command="report")


def _arguments_to_go_on(run: Mapping[str, Any]) -> list[str]:
    """Return a run's arguments without the cap that stopped it: the same rows would stop it again."""
    arguments = list(run.get("arguments", ()))
    if run["stopped"] and CAP in run["stopped"]["reason"]:
        if CAP in arguments:
            place = arguments.index(CAP)
            del arguments[place : place + 2]
        arguments += [CAP, "100%"]  # the environment may say it, too
    return arguments


def _arguments_for_rejects(run: Mapping[str, Any]) -> list[str]:
    """Return a run's arguments as its rejects need them: they are UTF-8, whatever the file was."""
    arguments = list(run.get("arguments", ()))
    if "--encoding" in arguments:
        place = arguments.index("--encoding")
        arguments[place + 1 : place + 2] = ["utf-8"]
    elif run["input"].get("encoding", "utf-8") not in {"utf-8", "utf-8-sig"}:  # the environment may say so again
        arguments += ["--encoding", "utf-8"]
    return arguments


def run_command(file: str, arguments: Iterable[str], *more: str, command: str = "run") -> str:
    """Return the command that runs a file with these options."""
    name = f"./{file}" if file.startswith("-") and file != "-" else file  # a file is no option, whatever its name
    return shlex.join(["bulkusers", command, name, *arguments, *more])


def describe_target(run: Mapping[str, Any]) -> str:
    """Name where a run sent, in words."""
    if run["environment"] == "sandbox":
        return "a sandbox"
    custom = run["environment"] == "custom"
    return f"{urlsplit(run['base_url']).netloc if custom else run['environment']} ({run['school']})"


def plural(number: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Return a time span as a person says it."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def fold(sentence: str, indent: int = 2) -> list[str]:
    """Return a sentence as lines of a screen's width, nothing of it lost; words such as paths stay whole."""
    return wrap(sentence, WIDTH, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)
