"""Peak memory and time of reading all users of a school, whose API is a process of its own.

    python benchmarks/snapshot.py [--users 1000 100000] [--bytes 1000] [--repeat 3]

The peak is the resident set of the process that reads, as the system counted it (wait4); every record is then looked
up once, as a run with --changed-only does.
"""

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

SERVE = """
import asyncio, sys
from bulkusers.sandbox import Sandbox, Switches
from bulkusers.sandbox.server import serve_forever
BARE = 350  # bytes of an example user's record without notes
users, size, shape = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
sandbox = Sandbox(users=users, switches=Switches(list_shape=shape))
for record in sandbox.users.values():
    record["notes"] = "n" * max(size - BARE, 0)
print(sandbox.new_token(), flush=True)
asyncio.run(serve_forever(sandbox, 0, lambda sandbox: print(sandbox.url, flush=True)))
"""
READ = """
import asyncio, sys, time
from bulkusers import Secret, Settings
from bulkusers.api import open_for_reading
from bulkusers.brake import Brake
from bulkusers.run import make_rules
from bulkusers.snapshot import take_snapshot
settings = Settings(base_url=sys.argv[1], school="example_university", token=Secret(sys.argv[2]), timeout=120)
async def read():
    async with open_for_reading(settings, Brake()) as api:
        began = time.perf_counter()
        with await api.read(take_snapshot(make_rules(settings))) as snapshot:
            taken = time.perf_counter() - began
            for number in range(1, len(snapshot) + 1):
                assert snapshot.find(f"user{number:05d}@example.edu") is not None
            print(len(snapshot), taken, time.perf_counter() - began - taken)
asyncio.run(read())
"""


@contextmanager
def run_sandbox(users: int, size: int, shape: str) -> Iterator[tuple[str, str]]:
    """Run a sandbox that holds so many users of so many bytes; give its URL and a token."""
    command = [sys.executable, "-c", SERVE, str(users), str(size), shape]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        token, url = process.stdout.readline().strip(), process.stdout.readline().strip()
        try:
            yield url, token
        finally:
            process.kill()


def measure(users: int, size: int, shape: str) -> tuple[float, float, float]:
    """Read all users once; return MB at the peak, seconds until all were read, seconds to find each."""
    with run_sandbox(users, size, shape) as (url, token):
        process = subprocess.Popen([sys.executable, "-c", READ, url, token], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        said = process.stdout.read().split()
        process.stdout.close()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        assert int(said[0]) == users
        return usage.ru_maxrss / 1024, float(said[1]), float(said[2])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--users", type=int, nargs="+", default=[1_000, 100_000])
    parser.add_argument("--bytes", type=int, default=1_000, help="of one record")
    parser.add_argument("--shape", default="map", help="of the list: map, list, data, length")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    print(f"{'users':>10} {'peak MB':>8} {'min..max':>13} {'read s':>7} {'find s':>7}")
    for users in options.users:
        found = [measure(users, options.bytes, options.shape) for _ in range(options.repeat)]
        peak, read, find = (statistics.median(column) for column in zip(*found, strict=True))
        spread = f"{min(found)[0]:.1f}..{max(found)[0]:.1f}"
        print(f"{users:>10,} {peak:>8.1f} {spread:>13} {read:>7.2f} {find:>7.2f}")


if __name__ == "__main__":
    main()
