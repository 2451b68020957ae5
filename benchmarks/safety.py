"""What each safety costs: the CPU time of a row with all of them, and with one left out at a time."""

import shutil
from pathlib import Path
from typing import Any

from benchmarks.measure import Bench, Case, Command, Result, Spread, client, count_instructions, ours, play, serve
from benchmarks.without import ALL, PARTS, WHOLE

ROWS = 10_000
COUNTED = 500  # rows, where instructions are counted
BARE = "everything: the bare client"


def without(part: str) -> Command:
    """Return our way without one of its parts."""

    def command(users: Path, url: str) -> list[str]:
        python, _, _, *arguments = ours()(users, url)
        return [python, "-m", "benchmarks.without", part, *arguments]

    return command


def safety(bench: Bench) -> Result:
    """Send new users, each time without another part."""
    rows = bench.size(ROWS)
    with serve() as server:
        cases = {part: Case(rows, without(part), server) for part in (WHOLE, *PARTS, ALL)}
        cases[BARE] = Case(rows, client("aiohttp_bare"), server)
        play(bench, cases)
        counts = {}
        if shutil.which("valgrind") and not bench.quick:
            # the bare client's start is another, and would not cancel out
            counted = (part for part in cases if part != BARE)
            counts = {part: count_instructions(bench, cases[part].command, COUNTED, server) for part in counted}
    whole = cases[WHOLE]
    table: list[list[str]] = []
    figures: dict[str, dict[str, Any]] = {}
    for part, case in cases.items():
        cpu = case.spread(lambda run: run.cpu_us)
        pairs = zip(whole.runs, case.runs, strict=True)
        saved = Spread.of([one.cpu_us - other.cpu_us for one, other in pairs])
        table.append([part, f"{cpu:.1f}", "" if case is whole else f"{saved:.1f}", ""])
        figures[part] = {"cpu_us_per_row": cpu, "saved_us": saved}
        if part in counts and case is not whole:
            fewer = round((counts[WHOLE] - counts[part]) / COUNTED / 1000, 1)
            table[-1][-1] = str(fewer)
            figures[part]["saved_thousand_instructions"] = fewer
    notes = [
        "the interpreter's start is in the CPU time, which varies more than most parts cost: believe the instructions",
        "these vary by ten thousand a row, with what the disk is told to keep meanwhile",
    ]
    if not counts:
        notes.append("skipped: instructions, for which valgrind must be installed, and more time than --quick has")
    return Result(
        f"safety: {rows:,} new users, no latency, 20 workers",
        ("left out", "CPU us a row", "saved", "saved, 1000 instructions"),
        table,
        figures,
        notes=notes,
    )
