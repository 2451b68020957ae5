"""How long it takes until something happens: --help, the first request, and what is imported for it."""

import sys
from collections import Counter

from benchmarks.measure import Bench, Goal, Result, Spread, ours, serve

SHOWN = 8  # packages


def startup(bench: Bench) -> Result:
    """Start again and again."""
    program = [sys.executable, "-m", "bulkusers", "--help"]
    users = bench.users(1)
    with serve() as server:
        command = ours()(users, server.url)
        bench.run(command, 1, server)
        both = [(bench.run(program, 1), bench.run(command, 1, server)) for _ in range(2 * bench.repeat)]
        told = bench.run([sys.executable, "-X", "importtime", *command[1:]], 1, server).said
    helped = Spread.of([run.seconds for run, _ in both])
    first = Spread.of([run.first for _, run in both])
    whole = Spread.of([run.seconds for _, run in both])
    cpu = [Spread.of([pair[place].cpu for pair in both]) for place in (0, 1)]
    lines = [line.removeprefix("import time:").split("|") for line in told.splitlines() if "|" in line][1:]
    packages: Counter[str] = Counter()
    for self_us, _, name in lines:
        packages[name.strip().partition(".")[0]] += int(self_us)
    top = {name: us / 1000 for name, us in packages.most_common(SHOWN)}
    return Result(
        "startup",
        ("what", "seconds", "CPU seconds"),
        [
            ["--help", f"{helped:.3f}", f"{cpu[0]:.3f}"],
            ["a run of one row, to its first request", f"{first:.3f}", ""],
            ["a run of one row", f"{whole:.3f}", f"{cpu[1]:.3f}"],
        ],
        {
            "help": {"seconds": helped, "cpu": cpu[0]},
            "run": {"seconds_to_first_request": first, "seconds": whole, "cpu": cpu[1], "modules": len(lines)},
            "import_ms": top,
        },
        [
            Goal("seconds for --help", helped.median, at_most=0.25),
            Goal("seconds until a run of one row sends", first.median, at_most=0.45),
        ],
        [
            f"a run imports {len(lines)} modules; ms, measured one by one, which slows: "
            + ", ".join(f"{name} {ms:.0f}" for name, ms in top.items())
        ],
    )
