"""The outcome report: one JSON file with one row per line, and what is made from it.

A file of a million rows is written, read and searched line by line, and any JSON tool reads it whole.
"""

import codecs
import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from bulkusers.columns import REJECT_TITLES, header_key, safe_cell
from bulkusers.errors import SourceError
from bulkusers.files import replacing
from bulkusers.models import Status
from bulkusers.tally import Problem

SCHEMA: Final = 1
ROWS_BEGIN: Final = b'"rows": ['
ROWS_END: Final = b"]}"
REJECTED: Final = b'"status":"rejected"'


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
            with self.path.open("rb") as file:
                if any(line.rstrip() == ROWS_BEGIN for line in file):
                    for line in file:
                        if line.rstrip() == ROWS_END:
                            return
                        yield orjson.loads(line.rstrip().rstrip(b","))
            yield from orjson.loads(self.path.read_bytes())["rows"]  # reformatted by another tool
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
        with path.open("rb") as file:
            head = b""
            for line in file:
                if line.rstrip() == ROWS_BEGIN:
                    head += b'"rows": []}'
                    break
                head += line
        said = orjson.loads(head)
        if said["schema"] != SCHEMA:
            raise SourceError(
                f"{path} is an outcome report of another version of bulkusers ({said['schema']})",
                hint="read it with the version that its run.tool names",
            )
        problems = [Problem(**problem) for problem in said["problems"]]
        return Report(path, said["run"], said["counts"], said["http"], said.get("warnings", []), problems)
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from None
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise SourceError(
            f"{path} is no outcome report",
            hint="bulkusers run writes one; its name is results.json unless -o says else",
        ) from None


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

    `records` and `rows` are in the order of the file; nothing of either is held.

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
            beyond = cells[len(form.header) :]  # of a row that is too long: the user decides what is right
            row = [*own, outcome["message"], outcome["hint"], *beyond]
            writer.writerow([safe_cell(cell) for cell in row])
