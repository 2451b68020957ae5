"""What each safety costs: the CPU time of a row with all of them, and with one left out at a time."""

import shutil
from pathlib import Path

from benchmarks.measure import Bench, Case, Command, Result, Spread, client, count_instructions, ours, play, serve
from benchmarks.without import ALL, PARTS, is_there

ROWS = 10_000
COUNTED = 500  # rows, where instructions are counted
WHOLE = "nothing"
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
    here = [part for part in PARTS if is_there(part)]
    with serve() as server:
        cases = {part: Case(rows, without(part), server) for part in (WHOLE, *here, ALL)}
        cases[BARE] = Case(rows, client("aiohttp_bare"), server)
        play(bench, cases)
        counts = {}
        if shutil.which("valgrind") and not bench.quick:
            counts = {part: count_instructions(bench, case.command, COUNTED, server) for part, case in cases.items()}
    whole = cases[WHOLE]
    table, figures = [], {}
    for part, case in cases.items():
        cpu = case.spread(lambda run: run.cpu_us)
        pairs = zip(whole.runs, case.runs, strict=True)
        saved = Spread.of([one.cpu_us - other.cpu_us for one, other in pairs])
        fewer = (counts[WHOLE] - counts[part]) / COUNTED / 1000 if counts else 0.0
        told = ["", ""] if case is whole else [f"{saved:.1f}", f"{fewer:.1f}" if counts else ""]
        table.append([part, f"{cpu:.1f}", *told])
        figures[part] = {"cpu_us_per_row": cpu, "saved_us": saved, "saved_thousand_instructions": round(fewer, 1)}
    notes = ["the interpreter's start is in the CPU time; the instructions hardly vary, so believe them first"]
    notes += [f"skipped: no {part} by that name" for part in PARTS if part not in here]
    if not counts:
        notes.append("skipped: instructions, for which valgrind must be installed, and more time than --quick has")
    return Result(
        f"safety: {rows:,} new users, no latency, 20 workers",
        ("left out", "CPU us a row", "saved", "saved, 1000 instructions"),
        table,
        figures,
        notes=notes,
    )
