"""`python -m benchmarks.check`: fail where a row costs more than it may; `--set` makes what it costs now the measure.

A row's cost is told in rows of the bare client, measured in the same round: that says the same on every machine. CPU
time is always looked at; the number of instructions, which hardly varies, where valgrind is installed.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Final

from benchmarks.measure import Bench, Case, Server, client, count_instructions, ours, play, prepare, serve

LIMITS: Final = Path(__file__).with_name("limits.json")
ROWS: Final = 10_000
FEW, MANY = 100, 600  # rows; what lies between them is what rows cost
MARGINS: Final = {  # how much more than what was measured is no slowdown yet
    "cpu": 1.25,  # on a busy machine it varies by a tenth
    "instructions": 1.1,  # vary by a hundredth
}


def compare_cpu(bench: Bench, server: Server) -> float:
    """Return our CPU time a row in rows of the bare client."""
    mine, bare = Case(ROWS, ours(), server), Case(ROWS, client("aiohttp_bare"), server)
    play(bench, {"ours": mine, "bare": bare})
    return mine.ratio(bare, lambda run: run.cpu).median


def compare_instructions(bench: Bench, server: Server) -> float:
    """Return the instructions of one of our rows in rows of the bare client, the program's start left out."""
    mine, bare = (
        count_instructions(bench, command, MANY, server) - count_instructions(bench, command, FEW, server)
        for command in (ours(), client("aiohttp_bare"))
    )
    return mine / bare


def main() -> None:
    """Measure, compare, and exit with 1 where we got slower."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.check", description=__doc__)
    parser.add_argument("--set", action="store_true", help="write limits.json")
    options = parser.parse_args()
    costs = {}
    with prepare(quick=False) as bench, serve() as server:
        costs["cpu"] = compare_cpu(bench, server)
        if shutil.which("valgrind"):
            costs["instructions"] = compare_instructions(bench, server)
        else:
            print("skipped: valgrind is not installed")
    limits = json.loads(LIMITS.read_text(encoding="utf-8"))
    if options.set:  # what could not be measured here keeps its limit
        limits |= {name: round(cost * MARGINS[name], 2) for name, cost in costs.items()}
        LIMITS.write_text(json.dumps(limits) + "\n")
    if without := costs.keys() - limits.keys():
        sys.exit(f"there is no limit for {', '.join(sorted(without))}: --set makes one")
    for name, cost in costs.items():
        verdict = "fine" if cost <= limits[name] else "SLOWER"
        print(f"{name}: a row costs {cost:.2f} rows of the bare client, at most {limits[name]:.2f}: {verdict}")
    sys.exit(any(cost > limits[name] for name, cost in costs.items()))


if __name__ == "__main__":
    main()
