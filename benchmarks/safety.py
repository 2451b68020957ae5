"""What each safety costs: the CPU time of a row with all of them, and with one left out at a time."""

from pathlib import Path

from benchmarks.measure import Bench, Case, Command, Result, Spread, client, ours, play, serve
from benchmarks.without import ALL, PARTS, is_there

ROWS = 15_000
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
    whole = cases[WHOLE]
    table, figures = [], {}
    for part, case in cases.items():
        cpu = case.spread(lambda run: run.cpu_us)
        pairs = zip(whole.runs, case.runs, strict=True)
        saved = Spread.of([one.cpu_us - other.cpu_us for one, other in pairs])
        table.append([part, f"{cpu:.1f}", "" if case is whole else f"{saved:.1f}"])
        figures[part] = {"cpu_us_per_row": cpu, "saved_us": saved}
    gone = [part for part in PARTS if part not in here]
    return Result(
        f"safety: {rows:,} new users, no latency, 20 workers",
        ("left out", "CPU us a row", "saved"),
        table,
        figures,
        notes=["the interpreter's start is in all of them"] + [f"skipped: no {part} by that name" for part in gone],
    )
