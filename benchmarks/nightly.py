"""What a nightly file takes in which little changed, and how many requests the vendor's way would send for it."""

from benchmarks.measure import Bench, Case, Goal, Result, Spread, client, ours, play, serve

ROWS = 50_000
CHANGED = 0.01
NAMES = {
    "vendor": "the vendor's way",
    "plain": "bulkusers run",
    "changed_only": "bulkusers run --changed-only",
}


def nightly(bench: Bench) -> Result:
    """Send a file of users who all exist, 1 % of whom differ."""
    rows = bench.size(ROWS)
    with serve("--users", bench.users(rows), "--changed", str(CHANGED)) as server:
        cases = {
            "vendor": Case(bench.size(2_000), client("vendor"), server),
            "plain": Case(rows, ours(), server),
            "changed_only": Case(rows, ours("--changed-only"), server),
        }
        play(bench, cases)
    for name, case in cases.items():
        untouched = round((rows - case.rows) * CHANGED)  # the vendor's way is given the first users only
        for run in case.runs:
            assert (run.seen["former"], run.seen["users"]) == (untouched, rows), f"{name} left users as they were"
    table, figures = [], {}
    for name, case in cases.items():
        run = case.runs[-1]
        whole = rows / case.rows  # files that this one is a part of
        requests = run.requests * whole
        sent, answered = run.seen["received"] * whole / 1e6, run.seen["sent"] * whole / 1e6
        seconds = Spread.of([run.seconds * whole for run in case.runs])
        cpu = case.spread(lambda run: run.cpu_us)
        peak = case.spread(lambda run: run.peak)
        told = (f"{requests:,.0f}", f"{sent:,.1f}", f"{answered:,.1f}", f"{seconds:,.1f}", f"{cpu:,.1f}", f"{peak:.1f}")
        table.append([NAMES[name], *told])
        figures[name] = {
            "requests": round(requests),
            "sent_mb": round(sent, 2),
            "answered_mb": round(answered, 2),
            "seconds": seconds,
            "cpu_us_per_row": cpu,
            "peak_mb": peak,
        }
    ours_of_vendors = figures["vendor"]["requests"] / figures["changed_only"]["requests"]
    return Result(
        f"nightly: {rows:,} users who all exist, {CHANGED:.0%} differ, no latency",
        ("way", "requests", "MB sent", "MB answered", "seconds", "CPU us a row", "peak MB"),
        table,
        figures,
        [Goal("the vendor's requests for one of --changed-only", ours_of_vendors, 190, form=",.0f")],
        [
            f"the vendor's way creates (409) and updates: measured with {cases['vendor'].rows:,} rows, told for all",
            "--changed-only reads the list of all users once, up to three of them singly, and sends what differs",
        ],
    )
