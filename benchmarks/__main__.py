"""`python -m benchmarks [SCENE...]`: measure, show a table, and draw a picture of it."""

import argparse
import dataclasses
import importlib.metadata
import json
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks import picture
from benchmarks.measure import CORES, ROOT, Bench, Result, Spread, prepare
from benchmarks.nightly import nightly
from benchmarks.pace import pace
from benchmarks.safety import safety
from benchmarks.size import aftermath, reading, size
from benchmarks.speed import speed_half, speed_latency, speed_new
from benchmarks.startup import startup

SCENES: Final[Mapping[str, Callable[[Bench], Result]]] = {
    "speed-new": speed_new,
    "speed-half": speed_half,
    "speed-latency": speed_latency,
    "pace": pace,
    "nightly": nightly,
    "size": size,
    "aftermath": aftermath,
    "reading": reading,
    "startup": startup,
    "safety": safety,
}
RESULTS: Final = ROOT / "benchmarks/results.json"
LIBRARIES: Final = ("aiohttp", "uvloop", "orjson", "requests", "httpx", "email-validator")


def describe_machine() -> dict[str, Any]:
    """Return what the figures depend on, and nothing of whose machine it is."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    return {
        "cpu": cpu,
        "cores": len(CORES),
        "system": platform.system(),
        "python": platform.python_version(),
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
    }


def show(console: Console, result: Result) -> None:
    """Show one scene's table."""
    table = Table(
        title=result.title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 3, 0, 0)
    )
    for number, column in enumerate(result.columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    for row in result.rows:
        assert len(row) == len(result.columns), row
        table.add_row(*row)
    console.print(table)
    for note in result.notes:
        console.print(f"  {note}", highlight=False)
    console.print()


def show_goals(console: Console, results: Mapping[str, Result]) -> None:
    """Show what was to be reached beside what was."""
    goals = [
        [name, goal.what, goal.wanted, goal.got, "" if goal.met else "missed"]
        for name, result in results.items()
        for goal in result.goals
    ]
    show(console, Result("goals", ("scene", "what", "goal", "reached", ""), goals, {}))


def plain(value: object) -> object:
    """Return a figure as JSON has it: four digits say all that is known."""
    if isinstance(value, Spread):
        return {name: float(f"{number:.4g}") for name, number in dataclasses.asdict(value).items()}
    raise TypeError(value)


def write_down(name: str, result: Result) -> None:
    """Write what a scene showed beside what the others did on the same machine with the same versions."""
    machine = describe_machine()
    said = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    scenes = said["scenes"] if said.get("machine") == machine else {}
    goals = [{"what": goal.what, "goal": goal.wanted, "reached": goal.got, "met": goal.met} for goal in result.goals]
    scenes[name] = {"title": result.title, "figures": result.figures, "notes": result.notes, "goals": goals}
    ordered = {each: scenes[each] for each in SCENES if each in scenes}
    RESULTS.write_text(
        json.dumps({"machine": machine, "scenes": ordered}, default=plain, indent=1) + "\n", encoding="utf-8"
    )
    if "speed-new" in ordered:
        picture.main()


def main() -> None:
    """Measure and tell; what was measured at full size is written down, scene by scene."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("scenes", nargs="*", metavar="SCENE", choices=[*SCENES, []], help=", ".join(SCENES))
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows, two rounds: to see that it works")
    options = parser.parse_args()
    console = Console(width=200, soft_wrap=True)
    results: dict[str, Result] = {}
    began = time.perf_counter()
    with prepare(quick=options.quick) as bench:
        for name in options.scenes or SCENES:
            results[name] = SCENES[name](bench)
            show(console, results[name])
            if not options.quick:
                write_down(name, results[name])
    if any(result.goals for result in results.values()):
        show_goals(console, results)
    console.print(
        f"{time.perf_counter() - began:,.0f} s" + ", quick: the goals are those of the full size" * options.quick
    )


if __name__ == "__main__":
    main()
