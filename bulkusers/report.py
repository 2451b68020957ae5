"""The outcome report: one JSON file with one row per line, and what is made from it.

A file of a million rows is written, read and searched line by line, and any JSON tool reads it whole.
"""

import codecs
import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from types import NoneType
from typing import Any, BinaryIO, Final

import orjson

from bulkusers.cells import MISFIT
from bulkusers.columns import REJECT_TITLES, header_key, safe_cell
from bulkusers.errors import SourceError
from bulkusers.files import replacing
from bulkusers.models import Status
from bulkusers.tally import Problem

SCHEMA: Final = 1
ROWS_BEGIN: Final = b'"rows": ['
ROWS_END: Final = b"]}"
HEAD: Final = {"schema": int, "run": dict, "counts": dict, "http": dict, "problems": list}
RUN: Final = {
    "exit_code": int,
    "seconds": (int, float),
    "environment": str,
    "base_url": str,
    "school": str,
    "stopped": (dict, NoneType),
    "input": dict,
    "arguments": list,
    "rejects": (str, NoneType),
}
LATER: Final[Mapping[str, Any]] = {"arguments": [], "rejects": None}  # what the first reports did not say
HTTP: Final = {"requests": int, "requests_per_second": (int, float), "by_status": dict}
PROBLEM: Final = {"status": str, "code": str, "message": str, "hint": str, "count": int, "rows": list}
ROW: Final = {"row": int, "email": str, "status": str}
STRANGE_IDS: Final = "ids-unknown"  # a warning that belongs into every summary
REJECTED: Final = b'"status":"rejected"'
LOOK_FIRST: Final = "see that every cell is in its column, then delete the cell after this one"
UNTIL_RIGHT: Final = "delete this cell when the row is right"
ANOTHER: Final = "bulkusers run writes one; its name is results.json unless -o says else"


@dataclass(frozen=True, slots=True)
class TextForm:
    """How a user's CSV file is written, so that ours looks like it."""

    header: Sequence[str]
    delimiter: str
    encoding: str


@dataclass(frozen=True, slots=True)
class Report:
    """A finished run: what the report file says before its rows."""

    path: Path
    run: Mapping[str, Any]
    counts: Mapping[str, int]
    http: Mapping[str, Any]
    warnings: Sequence[Mapping[str, Any]]
    problems: Sequence[Problem]

    @property
    def exit_code(self) -> int:
        """What the run exited with."""
        return int(self.run["exit_code"])

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield every row's outcome, in the order of the file, without holding them.

        Raises:
            SourceError: the file ends too early, or is damaged.

        """
        try:
            for row in _read_rows(self.path):
                _check(row, ROW)
                yield row
        except OSError as error:
            raise SourceError(f"cannot read {self.path}: {error.strerror}") from None
        except (orjson.JSONDecodeError, KeyError, TypeError):
            raise SourceError(f"{self.path} is damaged", hint="get a whole copy of it") from None


def write_report(report: Report, rows: Iterable[bytes]) -> None:
    """Write the report whole, or leave what was there; `rows` are JSON objects in their final order.

    Raises:
        StorageError: it cannot be written.

    """
    with replacing(report.path) as file:
        file.write(b'{"schema": %d,\n' % SCHEMA)
        for name in ("run", "counts", "http", "warnings"):
            file.write(b'"%s": %s,\n' % (name.encode(), orjson.dumps(getattr(report, name))))
        file.write(b'"problems": %s,\n' % orjson.dumps(report.problems))
        file.write(ROWS_BEGIN + b"\n")
        last = None
        for row in rows:
            if last is not None:
                file.write(last + b",\n")
            last = row
        file.write((last + b"\n" if last is not None else b"") + ROWS_END + b"\n")


def read_report(path: Path) -> Report:
    """Read a report up to its rows.

    Raises:
        SourceError: the file cannot be read or is no outcome report.

    """
    try:
        said = _read_head(path)
        if said["schema"] != SCHEMA:
            raise SourceError(
                f"{path} is an outcome report of another version of bulkusers ({said['schema']})",
                hint="read it with the version that its run.tool names",
            )
        _check_head(said)
        problems = [Problem(**problem) for problem in said["problems"]]
        return Report(path, said["run"], said["counts"], said["http"], said.get("warnings", []), problems)
    except OSError as error:
        journal = Path(f"{path}.journal")  # also of . and /, which have no name
        hint = f"its run was interrupted; {journal} says how far it came" if journal.exists() else ANOTHER
        raise SourceError(f"cannot read {path}: {error.strerror}", hint) from None
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise SourceError(
            f"{path} is no outcome report",
            hint=ANOTHER,
        ) from None


def _read_head(path: Path) -> Any:  # noqa: ANN401 - whatever JSON the file holds
    """Return what a report says before its rows; it is read whole where another tool has laid it out anew."""
    with path.open("rb") as file:
        head = b"".join(_lines_of_head(file))
    with suppress(orjson.JSONDecodeError):
        said = orjson.loads(head + ROWS_BEGIN + ROWS_END)
        if isinstance(said, dict) and said.keys() >= HEAD.keys():
            return said
    return orjson.loads(path.read_bytes())


def _lines_of_head(file: BinaryIO) -> Iterator[bytes]:
    return takewhile(lambda line: line.rstrip() != ROWS_BEGIN, file)


def _read_rows(path: Path) -> Iterator[Any]:
    """Yield the rows without holding them; the file is read whole where another tool has laid it out anew."""
    with path.open("rb") as file:
        for _ in _lines_of_head(file):
            pass
        line = file.readline().rstrip()
        if line == ROWS_END or _is_row(line):
            while line != ROWS_END:
                yield orjson.loads(line.rstrip(b","))
                line = file.readline().rstrip()
            return
    yield from orjson.loads(path.read_bytes())["rows"]


def _is_row(line: bytes) -> bool:
    """Tell whether a line is one whole row: a problem has "rows", too, and they are numbers."""
    with suppress(orjson.JSONDecodeError):
        return isinstance(orjson.loads(line.rstrip(b",")), dict)
    return False


def _check_head(said: Mapping[str, Any]) -> None:
    """Refuse a report that lacks something its readers rely on.

    Raises:
        KeyError: there is no such key.
        TypeError: another kind of value stands there.

    """
    _check(said, HEAD)
    run, http = {**LATER, **said["run"]}, said["http"]
    _check(run, RUN)
    _check({"encoding": "", **run["input"]}, {"path": str, "encoding": str})
    if run["stopped"] is not None:
        _check(run["stopped"], {"reason": str, "hint": str})
    _check(run["arguments"], dict.fromkeys(range(len(run["arguments"])), str))
    _check(said["counts"], dict.fromkeys(("rows", *Status), int))
    _check(http, HTTP)
    _check(http["by_status"], dict.fromkeys(http["by_status"], int))
    for problem in said["problems"]:
        _check(problem, PROBLEM)


def _check(what: Any, kinds: Mapping[Any, Any]) -> None:  # noqa: ANN401 - whatever JSON the file holds
    for key, kind in kinds.items():
        if not isinstance(what[key], kind):
            raise TypeError(key)


@dataclass(frozen=True, slots=True)
class Total:
    """Several runs as one; what cannot be added is left out."""

    counts: Mapping[str, int]
    http: Mapping[str, Any]
    problems: Sequence[Problem]


def add_up(reports: Sequence[Report]) -> Total:
    """Add the counts, requests and problems of several runs."""
    counts: Counter[str] = Counter()
    by_status: Counter[str] = Counter()
    problems: dict[tuple[str, str, str], Problem] = {}
    for report in reports:
        counts.update(report.counts)
        by_status.update(report.http["by_status"])
        for problem in report.problems:
            # row numbers of different files say nothing side by side
            nameless = Problem(problem.status, problem.code, problem.message, problem.hint)
            problems.setdefault((problem.status, problem.code, problem.message), nameless).count += problem.count
    return Total(
        {str(name): counts[name] for name in ("rows", *Status)},
        {"requests": sum(report.http["requests"] for report in reports), "by_status": dict(sorted(by_status.items()))},
        list(problems.values()),
    )


def write_rejects(
    path: Path,
    form: TextForm,
    records: Iterable[tuple[int, Sequence[str]]],
    rows: Iterable[bytes],
) -> None:
    """Write the rejected rows as the user had them, plus what is wrong with each, ready to fix and run again.

    `records` and `rows` are in the order of the file; nothing of either is held. A row that has too few cells gets them
    here, and one too many behind them, so that it is rejected again until somebody has looked at it.

    Raises:
        StorageError: it cannot be written.

    """
    ours = {header_key(title) for title in REJECT_TITLES}
    kept = [place for place, title in enumerate(form.header) if header_key(title) not in ours]
    rejected = (orjson.loads(row) for row in rows if REJECTED in row)
    cells_of = iter(records)
    with replacing(path) as file:
        writer = csv.writer(codecs.getwriter(form.encoding)(file), delimiter=form.delimiter)
        writer.writerow([safe_cell(form.header[place]) for place in kept] + list(REJECT_TITLES))
        for outcome in rejected:
            cells = next(cells for row, cells in cells_of if row == outcome["row"])
            own = [cells[place] if place < len(cells) else "" for place in kept]
            hint = outcome["hint"]
            beyond = cells[len(form.header) :]  # of a row that is too long: the user decides what is right
            if outcome["code"] == MISFIT and beyond in ([], [UNTIL_RIGHT]):
                hint, beyond = LOOK_FIRST, [UNTIL_RIGHT]
            row = [*own, outcome["message"], hint, *beyond]
            writer.writerow([safe_cell(cell) for cell in row])
