"""How things are measured: a server on one core, one command after another on another one, both counted by the system.

A command is timed whole, from its start to its exit. Everything is compared with what was measured in the same round:
machines have better and worse minutes. CPU time suffers least from them.
"""

import csv
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from bulkusers.columns import COLUMNS
from bulkusers.template import example_rows

ROOT: Final = Path(__file__).parents[1]
CORES: Final = sorted(os.sched_getaffinity(0))
CLIENT_CORE, SERVER_CORE = CORES[0], CORES[-1]  # the same where there is but one
WARM_UP: Final = 200  # rows
KEPT: Final = 200_000  # last bytes of what a command says
LONGEST: Final = 1800  # seconds that a command may take


Command = Callable[[Path, str], list[str]]
"""What sends a file to a base URL."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one command took, and what the server saw of it."""

    rows: int
    seconds: float  # from its start to its exit
    cpu: float  # seconds
    peak: float  # MB that were resident at the most; the system counts from the fork, so no less than our own 30
    first: float  # seconds from its start to its first request; 0 without one
    seen: Mapping[str, Any]
    files: Mapping[str, int]  # bytes of what it left, by name
    said: str  # its last words

    @property
    def rate(self) -> float:
        """Rows a second."""
        return self.rows / self.seconds

    @property
    def cpu_us(self) -> float:
        """Microseconds of CPU a row."""
        return self.cpu / self.rows * 1e6

    @property
    def requests(self) -> int:
        """How many the server saw."""
        return int(self.seen["requests"])

    @property
    def span(self) -> float:
        """Seconds from the first request to the last."""
        return float(self.seen["seconds"])

    @property
    def busy(self) -> float:
        """The share of that time in which the server had something to do."""
        return float(self.seen["busy"]) / self.span


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some values, and the least and the most."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Sum values up."""
        return cls(statistics.median(values), min(values), max(values))

    def __truediv__(self, number: float) -> Self:
        return type(self)(self.median / number, self.min / number, self.max / number)

    def __format__(self, form: str) -> str:
        return f"{self.median:{form}} ({self.min:{form}}..{self.max:{form}})"


@dataclass(frozen=True, slots=True)
class Goal:
    """Something that was to be reached, and what was."""

    what: str
    reached: float
    at_least: float | None = None
    at_most: float | None = None
    form: str = ",.2f"
    unit: str = ""

    @property
    def met(self) -> bool:
        """Tell whether it was."""
        low = -float("inf") if self.at_least is None else self.at_least
        high = float("inf") if self.at_most is None else self.at_most
        return low <= self.reached <= high

    @property
    def wanted(self) -> str:
        """What was to be reached, in words."""
        sign, limit = (">=", self.at_least) if self.at_least is not None else ("<=", self.at_most)
        return f"{sign} {limit:{self.form}}{self.unit}"

    @property
    def got(self) -> str:
        """What was reached, in words."""
        return f"{self.reached:{self.form}}{self.unit}"


@dataclass(frozen=True, slots=True)
class Result:
    """What one scene showed."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    figures: Mapping[str, Any]  # for the file; a `Spread` is one of them
    goals: Sequence[Goal] = ()
    notes: Sequence[str] = ()


class Server:
    """The server, as long as it runs."""

    def __init__(self, url: str) -> None:
        self.url = url

    def begin(self) -> None:
        """Have it forget what it saw, and who came since its start."""
        self._ask("DELETE")

    def seen(self) -> dict[str, Any]:
        """Return what it saw since."""
        said: dict[str, Any] = json.loads(self._ask("GET"))
        return said

    def _ask(self, method: str) -> bytes:
        request = urllib.request.Request(f"{self.url}/bench", method=method)  # noqa: S310 - our own http URL
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - as above
            said: bytes = answer.read()
            return said


@contextmanager
def serve(*options: str | Path) -> Iterator[Server]:
    """Run a server for the time of the block."""
    command = [sys.executable, "-m", "benchmarks.server", "--core", str(SERVER_CORE), *map(str, options)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Server(process.stdout.readline().strip())
        finally:
            process.stdin.close()  # it ends with it


class Bench:
    """A place to work in, and how much of it is wanted."""

    def __init__(self, folder: Path, stack: ExitStack, *, quick: bool) -> None:
        self.folder = folder
        self.quick = quick
        self.repeat = 2 if quick else 5
        self.stack = stack  # ends what runs longer than one scene
        self.largest: object = None  # what the run of the largest file left, for it takes minutes

    def size(self, rows: int) -> int:
        """Return how many rows stand for so many."""
        return rows // 10 if self.quick else rows

    def users(self, rows: int) -> Path:
        """Return a file of so many users: the first ones of always the same file."""
        path = self.folder / f"users-{rows}.csv"
        if not path.exists():
            with path.open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(column.title for column in COLUMNS)
                writer.writerows(example_rows(rows))
        return path

    def run(self, command: Sequence[str], rows: int, server: Server | None = None, place: Path | None = None) -> Run:
        """Run a command in a folder of its own, unless `place` is one, and return what it took."""
        here = place or Path(tempfile.mkdtemp(dir=self.folder))
        if server:
            server.begin()
        with (here / "said").open("wb") as said:
            began = time.perf_counter()
            process = subprocess.Popen(
                command, stdout=said, stderr=said, cwd=here, env=ENVIRONMENT | {"TMPDIR": str(self.folder)}
            )
            limit = threading.Timer(LONGEST, process.kill)
            limit.start()
            try:
                _, status, usage = os.wait4(process.pid, 0)
            except BaseException:
                process.kill()
                raise
            finally:
                limit.cancel()
            seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        with (here / "said").open("rb") as said:
            said.seek(max(0, os.fstat(said.fileno()).st_size - KEPT))
            text = said.read().decode(errors="replace")
        if process.returncode:
            raise SystemExit(f"{' '.join(command)}: exit {process.returncode}\n{text[-2000:]}")
        seen = server.seen() if server else {}
        files = {path.name: path.stat().st_size for path in here.iterdir()}
        if place is None:
            shutil.rmtree(here)
        first = seen["first"] - began if seen.get("requests") else 0.0
        cpu = usage.ru_utime + usage.ru_stime
        return Run(rows or seen["requests"], seconds, cpu, usage.ru_maxrss / 1024, first, seen, files, text)


ENVIRONMENT: Final = {
    "PATH": os.environ["PATH"],
    "PYTHONPATH": str(ROOT),  # for the clients
    "BULKUSERS_TOKEN": "benchmark",
    "PYTHONHASHSEED": "0",  # for instructions, which depend on it
}


def count_instructions(bench: Bench, command: Command, rows: int, server: Server) -> int:
    """Return how many instructions sending so many rows takes, the start included; it hardly varies, and is slow."""
    valgrind = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    said = bench.run([*valgrind, *command(bench.users(rows), server.url)], rows, server).said
    found = re.search(r"Collected : (\d+)", said)
    assert found is not None, said
    return int(found[1])


@contextmanager
def prepare(*, quick: bool) -> Iterator[Bench]:
    """Take the client's core, which all commands inherit, and a place to work in."""
    os.sched_setaffinity(0, {CLIENT_CORE})
    with tempfile.TemporaryDirectory(prefix="bulkusers-bench-") as folder, ExitStack() as stack:
        yield Bench(Path(folder), stack, quick=quick)


def ours(*options: str, workers: int = 20, rate: float = 0) -> Command:
    """Return our own way, without a limit unless told otherwise."""
    more = ["--no-notify", "--quiet", "--concurrency", str(workers), "--rate", str(rate), *options]

    def command(users: Path, url: str) -> list[str]:
        target = ["--base-url", url, "--school", "school"]
        return [sys.executable, "-m", "bulkusers", "run", str(users), *target, *more]

    return command


def client(name: str, workers: int = 20) -> Command:
    """Return another client's way."""
    start = [sys.executable, "-m", f"benchmarks.clients.{name}"]
    return lambda users, url: [*start, str(users), url, str(workers)]


@dataclass(frozen=True, slots=True)
class Case:
    """One client in a scene."""

    rows: int
    command: Command
    server: Server
    runs: list[Run] = field(default_factory=list)

    def spread(self, figure: Callable[[Run], float]) -> Spread:
        """Sum one figure of all runs up."""
        return Spread.of([figure(run) for run in self.runs])

    def ratio(self, other: "Case", figure: Callable[[Run], float] = lambda run: run.rate) -> Spread:
        """Compare one figure with another case's in the same round."""
        pairs = zip(self.runs, other.runs, strict=True)
        return Spread.of([figure(mine) / figure(theirs) for mine, theirs in pairs])

    def figures(self) -> dict[str, Any]:
        """Return what is written down of it."""
        return {
            "rows": self.rows,
            "rows_per_second": self.spread(lambda run: run.rate),
            "cpu_us_per_row": self.spread(lambda run: run.cpu_us),
            "requests": self.runs[-1].requests,
            "server_busy": self.spread(lambda run: run.busy),
        }


def play(bench: Bench, cases: Mapping[str, Case], *, warm: bool = True) -> None:
    """Run all cases in turn, again and again, every other time backwards; first once with a few rows."""
    if warm:
        for case in cases.values():
            users = bench.users(min(case.rows or WARM_UP, WARM_UP))
            bench.run(case.command(users, case.server.url), WARM_UP, case.server)
    for number in range(bench.repeat):
        for case in list(cases.values())[:: -1 if number % 2 else 1]:
            users = bench.users(case.rows or WARM_UP)
            case.runs.append(bench.run(case.command(users, case.server.url), case.rows, case.server))
