"""Peak memory of `bulkusers run` by size of file, and what the sandbox saw of its promises.

    python benchmarks/memory.py [--rows 1000 100000] [--repeat 3]

The sandbox is a process of its own; the peak is the client's resident set as the system counted it (wait4). New users
only, no rate limit; then one paced run, whose ledger shows the most requests in flight and in any one second.
"""

import argparse
import bisect
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = [sys.executable, "-m", "bulkusers"]
PACED_ROWS = 3000
PACED_RATE = 500  # requests per second
WORKERS = 20


@contextmanager
def run_sandbox() -> Iterator[str]:
    """Run a sandbox for the time of the block; give its URL."""
    command = [*PROGRAM, "sandbox", "--port", "0", "--users", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        match = re.search(r"http://\S+", process.stdout.readline())
        assert match is not None
        try:
            yield match[0]
        finally:
            process.terminate()


def ask(url: str, method: str, body: object = None) -> bytes:
    """Ask the sandbox something."""
    request = urllib.request.Request(  # noqa: S310 - the sandbox's own http URL
        url, method=method, data=None if body is None else json.dumps(body).encode()
    )
    with urllib.request.urlopen(request) as answer:  # noqa: S310 - as above
        said: bytes = answer.read()
        return said


def send(folder: Path, url: str, rows: int, rate: float) -> tuple[float, dict[str, Any]]:
    """Send a file of new users; return the client's peak memory in MB and the head of its report."""
    users = folder / f"{rows}.csv"
    if not users.exists():
        with users.open("wb") as file:
            subprocess.run([*PROGRAM, "template", "--rows", str(rows)], stdout=file, check=True)
    session = {"email": "admin@example.edu", "plaintextPassword": "sandbox"}
    token = json.loads(ask(f"{url}/sessions", "POST", session))["token"]
    ask(f"{url}/_sandbox/ledger", "DELETE")
    command = [*PROGRAM, "run", str(users), "--base-url", url, "--school", "example_university", "--no-notify"]
    command += ["--rate", str(rate), "--concurrency", str(WORKERS), "--report", str(folder / "results.json"), "--quiet"]
    process = subprocess.Popen(command, env=os.environ | {"BULKUSERS_TOKEN": token})
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"bulkusers run exited with {process.returncode}"
    with (folder / "results.json").open(encoding="utf-8") as file:
        head = json.loads("".join(line for line, _ in zip(file, range(6), strict=False)).rstrip().rstrip(",") + "}")
    return usage.ru_maxrss / 1024, head


def measure(rows: int) -> tuple[float, dict[str, Any]]:
    """Measure one run of new users without a limit."""
    with run_sandbox() as url, tempfile.TemporaryDirectory() as folder:
        return send(Path(folder), url, rows, 0)


def show_memory(sizes: Sequence[int], repeat: int) -> None:
    """Print the peak memory for each size, the runs interleaved."""
    peaks: dict[int, list[float]] = {rows: [] for rows in sizes}
    speeds: dict[int, list[float]] = {rows: [] for rows in sizes}
    for _ in range(repeat):
        for rows in sizes:
            peak, head = measure(rows)
            peaks[rows].append(peak)
            speeds[rows].append(rows / head["run"]["seconds"])
    print(f"{'rows':>10} {'peak MB':>8} {'min..max':>13} {'more than first':>16} {'rows/s':>8}")
    first = statistics.median(peaks[sizes[0]])
    for rows in sizes:
        peak, low, high = statistics.median(peaks[rows]), min(peaks[rows]), max(peaks[rows])
        speed = statistics.median(speeds[rows])
        print(f"{rows:>10,} {peak:>8.1f} {f'{low:.1f}..{high:.1f}':>13} {peak - first:>16.1f} {speed:>8,.0f}")


def show_promises() -> None:
    """Print what the sandbox saw of a paced run."""
    with run_sandbox() as url, tempfile.TemporaryDirectory() as folder:
        ask(f"{url}/_sandbox/switches", "POST", {"latency": 0.02})
        send(Path(folder), url, PACED_ROWS, PACED_RATE)
        entries = [json.loads(line) for line in ask(f"{url}/_sandbox/ledger", "GET").splitlines()]
    times = [entry["at"] for entry in entries]
    most = max(bisect.bisect_left(times, start + 1) - place for place, start in enumerate(times))
    share = (len(times) - 1) / (times[-1] - times[0]) / PACED_RATE
    print(f"\npaced at {PACED_RATE}/s with {WORKERS} workers and 20 ms of latency, {PACED_ROWS:,} rows:")
    print(f"  most in any one second {most} ({most / PACED_RATE:.1%}), share of the budget {share:.1%}")
    print(f"  most in flight {max(entry['in_flight'] for entry in entries)}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 100_000])
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    show_memory(options.rows, options.repeat)
    show_promises()


if __name__ == "__main__":
    main()
