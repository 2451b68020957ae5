"""How fast we are beside every other client: without latency, with users who exist, with latency."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measure import ROOT, Bench, Case, Goal, Result, Run, client, ours, play, serve

NAMES = {
    "vendor": "requests.post, one by one (the vendor's way)",
    "threads": "requests.Session, 20 threads",
    "httpx_tasks": "httpx.AsyncClient, 20 tasks",
    "aiohttp_docs": "aiohttp as documented",
    "aiohttp_bare": "aiohttp session, bare, tuned, uvloop: the yardstick",
    "ours": "bulkusers",
    "wrk": "wrk, in C: the far limit of the server",
}
ROWS = {
    "vendor": 4_000,
    "threads": 5_000,
    "httpx_tasks": 1_500,
    "aiohttp_docs": 40_000,
    "aiohttp_bare": 60_000,
    "ours": 60_000,
}
SECONDS = 3  # that wrk sends
COLUMNS = ("client", "rows", "rows/s", "CPU us a row", "server busy", "ours is faster", "by CPU time")
LATENCY = 0.05  # seconds
WORKERS = {"vendor": 1, "aiohttp_bare": 20, "20": 20, "200": 200}


def flood(_: Path, url: str) -> list[str]:
    """Send as many users as wrk can."""
    script = str(ROOT / "benchmarks/clients/wrk.lua")
    return ["wrk", "-t1", "-c20", f"-d{SECONDS}s", "-s", script, url]


def cpu_us(run: Run) -> float:
    """Return the CPU time of a row."""
    return run.cpu_us


def tell(cases: dict[str, Case]) -> list[list[str]]:
    """Return a table of clients."""
    mine = cases["ours"]
    return [
        [
            NAMES[name],
            f"{case.spread(lambda run: run.rows).median:,.0f}",
            f"{case.spread(lambda run: run.rate):,.0f}",
            f"{case.spread(cpu_us):,.1f}",
            f"{case.spread(lambda run: run.busy).median:.0%}",
            "" if case is mine else f"{mine.ratio(case):,.2f}x",
            "" if case is mine else f"{case.ratio(mine, cpu_us):,.2f}x",
        ]
        for name, case in cases.items()
    ]


def compare(cases: dict[str, Case]) -> dict[str, Any]:
    """Return what is written down of clients."""
    mine = cases["ours"]
    return {
        name: case.figures() | {"ours_is_faster": mine.ratio(case), "by_cpu_time": case.ratio(mine, cpu_us)}
        for name, case in cases.items()
    }


def compare_with_bare(cases: dict[str, Case]) -> list[Goal]:
    """Return what is to be reached of the yardstick, by the clock and by CPU time."""
    mine, bare = cases["ours"], cases["aiohttp_bare"]
    return [
        Goal("rows/s of the bare client's", mine.ratio(bare).median, 0.8, form=".0%"),
        Goal("rows by CPU time of the bare client's", bare.ratio(mine, cpu_us).median, 0.8, form=".0%"),
    ]


def speed_new(bench: Bench) -> Result:
    """Send new users, no latency, 20 workers: every client."""
    with serve() as server:
        cases = {
            name: Case(bench.size(rows), ours() if name == "ours" else client(name), server)
            for name, rows in ROWS.items()
        }
        notes = []
        if shutil.which("wrk"):
            cases["wrk"] = Case(0, flood, server)
        else:
            notes.append("skipped: wrk is not installed")
        play(bench, cases)
    for name, case in cases.items():
        for run in case.runs:
            assert name == "wrk" or run.seen["users"] == run.requests == case.rows, f"{name} left users out"
    mine = cases["ours"]
    notes.append(
        f"our CPU time is {mine.spread(lambda run: run.cpu / run.seconds).median:.0%} of our time; the rest we wait, "
        "for the server or for whoever else uses the core"
    )
    if "wrk" in cases:
        (far, far_busy), (near, near_busy) = (
            (case.spread(lambda run: run.rate).median, case.spread(lambda run: run.busy).median)
            for case in (cases["wrk"], mine)
        )
        notes.append(
            f"the server gives wrk {far:,.0f} answers/s, busy {far_busy:.0%}; us {near:,.0f}, busy {near_busy:.0%}"
        )
    return Result(
        "speed-new: new users, no latency, 20 workers",
        COLUMNS,
        tell(cases),
        compare(cases),
        [
            *compare_with_bare(cases),
            Goal("rows/s of the vendor's way", mine.ratio(cases["vendor"]).median, 8, form=".1f", unit="x"),
            Goal("rows/s of threads", mine.ratio(cases["threads"]).median, 6, form=".1f", unit="x"),
            Goal("rows/s of httpx", mine.ratio(cases["httpx_tasks"]).median, 20, form=".1f", unit="x"),
        ],
        notes,
    )


def speed_half(bench: Bench) -> Result:
    """Send users half of whom exist and differ, no latency: create, and for these read, merge and replace."""
    rows = bench.size(30_000)
    with serve("--users", bench.users(rows), "--share", "0.5") as server:
        cases = {
            "vendor": Case(bench.size(2_500), client("vendor"), server),
            "aiohttp_bare": Case(rows, client("aiohttp_bare"), server),
            "ours": Case(rows, ours(), server),
        }
        play(bench, cases)
    mine, bare = cases["ours"], cases["aiohttp_bare"]
    for run in mine.runs + bare.runs:
        assert (run.requests, run.seen["users"], run.seen["former"]) == (2 * rows, rows, 0), "users were left out"
    return Result(
        "speed-half: half of the users exist and differ, no latency, 20 workers",
        COLUMNS,
        tell(cases),
        compare(cases),
        compare_with_bare(cases),
        ["the vendor's way overwrites who exists; the others read, merge and replace: 2 requests a row on average"],
    )


def speed_latency(bench: Bench) -> Result:
    """Send new users with 50 ms of latency: how much of what Little's law allows, and beside the vendor's way."""

    def share(workers: int) -> Callable[[Run], float]:
        # whoever is not in the first batch waits for an answer to another
        return lambda run: (run.requests - workers) / run.span * run.seen["mean_delay"] / workers

    with serve("--delay", str(LATENCY)) as server:
        cases = {
            "vendor": Case(bench.size(60), client("vendor"), server),
            "aiohttp_bare": Case(bench.size(4_000), client("aiohttp_bare"), server),
            "20": Case(bench.size(4_000), ours(), server),
            "200": Case(bench.size(20_000), ours(workers=200), server),
        }
        play(bench, cases, warm=False)
    for name, case in cases.items():
        for run in case.runs:
            assert run.seen["users"] == run.requests == case.rows, f"{name} left users out"
    vendor = cases["vendor"]
    rows, figures = [], {}
    for name, case in cases.items():
        faster, little = case.ratio(vendor), case.spread(share(WORKERS[name]))
        rows.append(
            [
                f"bulkusers, {name} workers" if name.isdecimal() else NAMES[name],
                f"{case.rows:,}",
                f"{case.spread(lambda run: run.rate):,.1f}",
                f"{case.spread(cpu_us):,.0f}",
                f"{case.spread(lambda run: run.seen['most_in_flight']).max:.0f}",
                f"{little:.1%}",
                "" if case is vendor else f"{faster:,.1f}x",
            ]
        )
        figures[name] = case.figures() | {"share_of_littles_law": little, "faster_than_vendor": faster}
    return Result(
        f"speed-latency: new users, {LATENCY * 1000:.0f} ms of latency",
        ("client", "rows", "rows/s", "CPU us a row", "most in flight", "of Little's law", "faster than vendor's"),
        rows,
        figures,
        [
            Goal("share of Little's law, 20 workers", cases["20"].spread(share(20)).median, 0.98, form=".1%"),
            Goal("share of Little's law, 200 workers", cases["200"].spread(share(200)).median, 0.95, form=".1%"),
            Goal("rows/s of the vendor's way, 20 workers", cases["20"].ratio(vendor).median, 19, form=".1f", unit="x"),
        ],
        [
            "Little's law: workers / the time that the server held an answer back, from the first request to the last",
            "rows/s are of whole commands, from start to exit",
            "the bare client's share is what the machine gives: to wake up for an answer costs more than to handle it",
        ],
    )
