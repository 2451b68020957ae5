"""How well a limit is kept: how much of it is used, and how much more than it in any second."""

from benchmarks.measure import Bench, Case, Goal, Result, Run, ours, play, serve

RATES = (10, 50, 500, 2_000)
SECONDS = 6


def requests_per_second(run: Run) -> float:
    """Return the rate that the server saw."""
    return (run.requests - 1) / run.span


def pace(bench: Bench) -> Result:
    """Send users half of whom exist at several rates; all requests count."""
    seconds = SECONDS // 3 if bench.quick else SECONDS
    most = max(RATES) * seconds // 2
    with serve("--users", bench.users(most), "--share", "0.5") as server:
        start = Case(1, ours(), server)  # what a run takes before and after its requests
        paced = {rate: Case(rate * seconds // 2, ours(rate=rate), server) for rate in RATES}
        play(bench, {"start": start, **{str(rate): case for rate, case in paced.items()}})
    for case in paced.values():
        for run in case.runs:
            # half of them are new, one request; the others are tried, read and replaced
            assert run.requests == 2 * case.rows, "users were left out"
            assert run.seen["users"] - run.seen["former"] == case.rows, "users were left as they were"
    idle = start.spread(lambda run: run.cpu).median
    rows, figures, goals = [], {}, []
    for rate, case in paced.items():
        share = case.spread(requests_per_second) / rate
        second = case.spread(lambda run: run.seen["most_in_1s"])
        tenth = case.spread(lambda run: run.seen["most_in_100ms"])
        cpu = case.spread(lambda run: (run.cpu - idle) / run.requests * 1e6)
        requests = case.runs[-1].requests
        rows.append([f"{rate:,}/s", f"{requests:,}", f"{share:.1%}", f"{second:,.0f}", f"{tenth:,.0f}", f"{cpu:,.0f}"])
        figures[str(rate)] = {
            "requests": requests,
            "share": share,
            "most_in_1s": second,
            "most_in_100ms": tenth,
            "cpu_us_per_request": cpu,
        }
        goals += [
            Goal(f"share of {rate:,}/s", share.median, 0.99, form=".1%"),
            Goal(f"most in any second at {rate:,}/s", second.max, at_most=max(rate * 1.02, rate + 1), form=",.0f"),
        ]
    return Result(
        "pace: half of the users exist, --rate, 20 workers, no latency",
        ("--rate", "requests", "share of it", "most in any 1 s", "most in any 100 ms", "CPU us a request"),
        rows,
        figures,
        goals,
        [
            "CPU is what a run takes beyond one of a single row",
            "the server saw when each request was complete: what comes late into one window falls into the next",
        ],
    )
