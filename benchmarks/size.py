"""What a file's size costs: memory, seconds, the report, reading alone, and going on with an interrupted million."""

import shutil
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Bench, Goal, Result, Run, Server, Spread, ours, serve

SIZES = (1_000, 100_000, 1_000_000)
UNDONE = 1_000  # last lines of the journal that an interrupted run had not come to


@dataclass(frozen=True, slots=True)
class Million:
    """What one run of the largest file left."""

    users: Path
    server: Server
    run: Run
    report: Path
    journal: Path  # as it was just before the end


def send_largest(bench: Bench) -> Million:
    """Send the largest file once, whoever asks, and keep what it leaves."""
    if bench.largest is None:
        users, place = bench.users(bench.size(SIZES[-1])), bench.folder / "largest"
        place.mkdir()
        journal = place / "results.json.journal"
        link = threading.Thread(target=link_when_there, args=(journal, place / "journal"))
        server = bench.stack.enter_context(serve())  # a journal is of one base URL
        link.start()
        run = bench.run(ours()(users, server.url), bench.size(SIZES[-1]), server, place)
        link.join()
        bench.largest = Million(users, server, run, place / "results.json", place / "journal")
    assert isinstance(bench.largest, Million)
    return bench.largest


def link_when_there(journal: Path, link: Path) -> None:
    """Give a journal a second name as soon as it is there, for its run takes away the first."""
    end = time.monotonic() + 300
    while not journal.exists() and time.monotonic() < end:
        time.sleep(0.02)
    link.hardlink_to(journal)


def size(bench: Bench) -> Result:
    """Send new users: memory, seconds and report by number of rows."""
    sizes = [bench.size(rows) for rows in SIZES]
    runs: dict[int, list[Run]] = {rows: [] for rows in sizes}
    with serve() as server:
        for _ in range(1 if bench.quick else 3):
            for rows in sizes[:-1]:
                runs[rows].append(bench.run(ours()(bench.users(rows), server.url), rows, server))
    runs[sizes[-1]].append(send_largest(bench).run)
    peaks = {rows: Spread.of([run.peak for run in runs[rows]]) for rows in sizes}
    smallest, largest = peaks[sizes[0]].median, peaks[sizes[-1]].median
    table, figures = [], {}
    for rows, peak in peaks.items():
        seconds = Spread.of([run.seconds for run in runs[rows]])
        report = runs[rows][-1].files["results.json"] / 1e6
        more = peak.median - smallest
        table.append([f"{rows:,}", f"{peak:.1f}", f"{more:+.1f}", f"{seconds:,.1f}", f"{report:,.1f}"])
        figures[str(rows)] = {"peak_mb": peak, "more_mb": round(more, 1), "seconds": seconds, "report_mb": report}
    return Result(
        "size: new users, no latency, 20 workers",
        ("rows", "peak MB", "more than the first", "seconds", "report MB"),
        table,
        figures,
        [
            Goal(f"MB more for {sizes[-1]:,} rows than for {sizes[0]:,}", largest - smallest, at_most=30, form=".1f"),
            Goal(f"peak MB of {sizes[-1]:,} rows", largest, at_most=110, form=".1f"),
        ],
        [f"the system counted what was resident at the most (wait4); {sizes[-1]:,} rows were sent once"],
    )


def aftermath(bench: Bench) -> Result:
    """Read the report of the largest file, and go on with its run as if it had been killed just before its end."""
    million = send_largest(bench)
    rows = million.run.rows
    summarized, exported, resumed = [], [], []
    for _ in range(1 if bench.quick else 3):
        command = [sys.executable, "-m", "bulkusers", "report", str(million.report)]
        summarized.append(bench.run(command, rows))
        exported.append(bench.run([*command, "--format", "csv"], rows))
        place = bench.folder / "resumed"
        place.mkdir()
        cut(million.journal, place / "results.json.journal", UNDONE)
        shutil.copy(million.report.with_name("results.before.jsonl"), place)
        resumed.append(bench.run(ours("--resume")(million.users, million.server.url), rows, million.server, place))
        shutil.rmtree(place)
    assert all(0 < run.requests <= 3 * UNDONE for run in resumed)
    figures = {
        name: {
            "seconds": Spread.of([run.first or run.seconds for run in runs]),
            "peak_mb": Spread.of([run.peak for run in runs]),
        }
        for name, runs in {
            "report": summarized,
            "report --format csv": exported,
            "run --resume, to its first request": resumed,
        }.items()
    }
    export, resume = figures["report --format csv"], figures["run --resume, to its first request"]
    return Result(
        f"aftermath: {rows:,} rows",
        ("what", "seconds", "peak MB"),
        [[name, f"{told['seconds']:.2f}", f"{told['peak_mb']:.1f}"] for name, told in figures.items()],
        figures,
        [
            Goal("seconds for a report with every row", export["seconds"].median, at_most=8),
            Goal("peak MB of a report with every row", export["peak_mb"].median, at_most=90, form=".1f"),
            Goal("seconds until --resume sends", resume["seconds"].median, at_most=15),
        ],
        [
            f"journal and before-images are those of a whole run, the journal less its last {UNDONE:,} lines",
            "the resumed run's peak is of the whole run",
        ],
    )


def cut(journal: Path, copy: Path, lines: int) -> None:
    """Copy a journal without its last lines."""
    ends = deque([0], maxlen=lines + 1)
    with journal.open("rb") as file:
        for line in file:
            ends.append(ends[-1] + len(line))
    shutil.copyfile(journal, copy)
    with copy.open("r+b") as file:
        file.truncate(ends[0])


def reading(bench: Bench) -> Result:
    """Read and check the largest file without sending anything, once to judge it and once more to take its users."""
    rows = bench.size(SIZES[-1])
    command = [sys.executable, "-m", "benchmarks.reading", str(bench.users(rows))]
    runs = [bench.run(command, rows) for _ in range(2 if bench.quick else 3)]
    passes = [[float(word) for word in run.said.split()] for run in runs]
    names = ("judging the file", "taking its users", "both")
    spreads = {name: Spread.of([rows / each[place] for each in passes]) for place, name in enumerate(names)}
    cpu = Spread.of([run.cpu_us for run in runs])
    return Result(
        f"reading: {rows:,} rows, nothing sent",
        ("pass", "rows/s"),
        [[name, f"{spread:,.0f}"] for name, spread in spreads.items()],
        {**spreads, "cpu_us_per_row": cpu},
        [Goal("rows/s read and checked, both passes", spreads["both"].median, 100_000, form=",.0f")],
        [f"CPU us a row, both passes and the interpreter's start: {cpu:.1f}"],
    )
