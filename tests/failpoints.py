"""Runs of twelve rows in which one operation fails, or is the process's last: each operation in its turn.

`python tests/failpoints.py` goes through all of them: the first, second, third ... request, write, sync, rename,
creation and removal that a run comes to, and those of a run that is resumed. Each run is resumed until it ends, and
checked for the truth. `python tests/failpoints.py KIND MODE NUMBER [MISTAKE] -- run users.csv ...` is one such client.
"""

import argparse
import asyncio
import errno
import io
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, TypeVar
from unittest import mock

from aiohttp import ClientRequest
from torture import Case, Stage, judge, staging
from wrong_clients import MISTAKES, STORAGE_MISTAKES
from yarl import URL

from bulkusers import api, pipeline, retry
from bulkusers.cli import app
from bulkusers.client import Client
from bulkusers.models import Request, Response

FILE: Final = """\
First Name,Last Name,Email,Products,Role IDs,Department
Ada,Example,new1@example.edu,scheduling,,
Example,User 00001,user00001@example.edu,curriculum,example-viewer,0100
Example,User 00003,user00003@example.edu,scheduling,example-viewer,0100
Anne Marie,Example,new2@example.edu,"catalog, events",example-viewer,0500
Example,User 00002,user00002@example.edu,events,example-scheduler,0200
Ada,Example,nobody at example.edu,scheduling,,
Ada,Example,new1@example.edu,scheduling,,
Zoë,Example,new3@example.edu,syllabus,"example-admin,example-viewer",
Other,User 00004,user00004@example.edu,curriculum,,0300
Ada,Either,new4@example.edu,scheduling,,
Ada,Or,new4@example.edu,scheduling,,
Zoë,Example,new5@example.edu,events,,0100
"""
INVALID: Final = frozenset({7})
OLDER: Final = {"results.json": "an older report\n", "results.rejects.csv": "older rejected rows\n"}
REACHED: Final = "reached"  # a file that says that the point was come to
NOBODY: Final = URL("http://127.0.0.1:1")  # where nothing listens
BREAKS: Final = {"break-before": "reset_before", "break-after": "reset_after"}  # what the sandbox does at them
DEATHS: Final = ("die-before", "die-after")
MODES: Final = {
    "send": ("refuse", *BREAKS, *DEATHS),
    "write": ("fail", "fail-torn", *DEATHS, "die-torn"),
    "fdatasync": ("fail", *DEATHS),
    "fsync": ("fail", *DEATHS),
    "rename": ("fail", *DEATHS),
    "create": ("fail", *DEATHS),
    "remove": ("fail", *DEATHS),
    "truncate": ("fail", *DEATHS),
    "disk": ("full",),  # all of the files' operations, in the order in which they come; from one on, all fail
}
CALLS: Final = {  # functions of `os`, and of which kind they are; pathlib calls them, too
    "fdatasync": "fdatasync",
    "fsync": "fsync",
    "rename": "rename",
    "replace": "rename",
    "unlink": "remove",
    "remove": "remove",
}
ERRORS: Final = {"write": errno.ENOSPC, "create": errno.ENOSPC, "disk": errno.EROFS}  # else EIO
DONE: Final = 6  # the exit code of a run of this file that came to its end: some rows are bad
MOST: Final = 200  # operations of one kind; no run of twelve rows has so many
REJECTED: Final = 3  # rows, in the end
KILLED: Final = -signal.SIGKILL
TURNS: Final = 4  # processes that a run may need after its last point
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Point:
    """One operation of one process, and what becomes of it."""

    kind: str
    mode: str
    number: int  # the first of its kind is 1

    def __str__(self) -> str:
        return f"{self.kind} {self.mode} {self.number}"


NOWHERE: Final = Point("nothing", "happens", 0)
SWEEPS: Final = (  # what to do with users who exist, workers, where earlier processes ended, and the kinds of points
    ("merge", 1, (), tuple(kind for kind in MODES if kind != "truncate")),
    ("skip", 3, (), ("send", "write")),
    ("overwrite", 1, (), ("send",)),
    ("skip", 1, (Point("write", "die-torn", 12),), tuple(MODES)),
    # its journal says nothing yet
    ("skip", 1, (Point("write", "die-torn", 1),), ("write", "fsync", "rename", "create", "remove")),
    # its report is there, the rejected rows are not
    ("skip", 1, (Point("rename", "die-after", 3),), tuple(kind for kind in MODES if kind != "send")),
)


class Guard:
    """Counts a process's operations of one kind, and lets the point's one fail or be the last."""

    def __init__(self, point: Point) -> None:
        self.mode = point.mode
        self._left = point.number
        self._error = ERRORS.get(point.kind, errno.EIO)

    def comes(self) -> bool:
        """Count an operation; tell whether it is the one."""
        self._left -= 1
        if self._left == 0:
            with Path(REACHED).open("w"):
                pass
        return self._left == 0 or (self.mode == "full" and self._left < 0)

    def do(self, operation: Callable[[], Result], part: Callable[[], Result] | None = None) -> Result:
        """Do an operation, unless it is the one; `part` is what is done of it where it breaks in its middle."""
        if not self.comes():
            return operation()
        if self.mode.endswith("torn") and part is not None:
            done = part()
            if self.mode == "die-torn":
                die()
            self.mode, self._left = "fail", 1  # a short write is no error; the next one is
            return done
        if self.mode == "die-after":
            with suppress(OSError):  # such as that of a lock that is there already
                operation()
        if self.mode.startswith("die"):
            die()
        raise OSError(self._error, os.strerror(self._error))


def die() -> None:
    """End this process, as a power cut or the system's lack of memory does."""
    os.kill(os.getpid(), signal.SIGKILL)


class RawFile(io.FileIO):
    """A file whose writes are guarded where they go to the system, below what is buffered."""

    def __init__(self, descriptor: int, writes: Guard | None, truncates: Guard | None) -> None:
        super().__init__(descriptor, "r+b")
        self._writes = writes
        self._truncates = truncates

    def write(self, data: Any, /) -> int:  # noqa: ANN401 - whatever has bytes
        """Write, or not."""
        whole = bytes(data)
        if self._writes is None:
            return super().write(whole)
        write = super().write
        return self._writes.do(lambda: write(whole), lambda: write(whole[: len(whole) // 2]))

    def truncate(self, size: int | None = None, /) -> int:
        """Cut the file's end off, or not."""
        truncate = super().truncate
        return truncate(size) if self._truncates is None else self._truncates.do(lambda: truncate(size))


def arm(point: Point, stack: ExitStack) -> None:
    """Put a guard around the operations of the point's kind, wherever in the process they are done."""
    guard = Guard(point)

    def patch(owner: object, name: str, value: object) -> None:
        stack.enter_context(mock.patch.object(owner, name, value))

    def watches(kind: str) -> bool:
        return point.kind in (kind, "disk")

    if point.kind == "send":
        patch(Client, "send", guarded_send(guard))
    for name, kind in CALLS.items():
        if watches(kind):
            patch(os, name, guarded_call(guard, getattr(os, name)))
    if watches("create"):
        patch(os, "open", guarded_open(guard, os.open, unnamed=point.kind == "disk"))
    writes, truncates = guard if watches("write") else None, guard if watches("truncate") else None
    if writes or truncates:

        def fdopen(descriptor: int, _: str, buffering: int = -1) -> IO[bytes]:
            raw = RawFile(descriptor, writes, truncates)
            return io.BufferedRandom(raw) if buffering else raw

        patch(os, "fdopen", fdopen)


def guarded_call(guard: Guard, call: Callable[..., Result]) -> Callable[..., Result]:
    """Return a function of `os` that is guarded where there is something to do it to."""

    def call_guarded(what: int | str, *more: Any) -> Result:  # noqa: ANN401 - as os has it
        if isinstance(what, int) or os.path.lexists(what):
            return guard.do(lambda: call(what, *more))
        return call(what, *more)

    return call_guarded


def guarded_open(guard: Guard, opens: Callable[..., int], *, unnamed: bool) -> Callable[..., int]:
    """Return an `os.open` that is guarded where it makes a file, on demand also one without a name."""
    making = os.O_CREAT | (os.O_TMPFILE & ~os.O_DIRECTORY if unnamed else 0)

    def open_guarded(path: str, flags: int, *more: Any, **named: Any) -> int:  # noqa: ANN401 - as os.open has it
        if flags & making:
            return guard.do(lambda: opens(path, flags, *more, **named))
        return opens(path, flags, *more, **named)

    return open_guarded


def guarded_send(guard: Guard) -> Callable[..., Any]:
    """Return a `Client.send` that is guarded."""
    true = Client.send

    async def send(client: Client, request: Request) -> Response:
        if not guard.comes():
            return await true(client, request)
        if guard.mode == "die-before":
            die()
        if guard.mode == "refuse":
            client = copy(client)
            nobody = ClientRequest("GET", NOBODY, loop=asyncio.get_running_loop())
            client._server = nobody  # noqa: SLF001 - one request goes astray, those beside it do not
        response = await true(client, request)
        if guard.mode == "die-after":
            die()
        return response

    return send


def be_client(words: Sequence[str]) -> int:
    """Be the command line with a point, and perhaps with a mistake."""
    place = words.index("--")
    kind, mode, number, *mistake = words[:place]
    tempfile.gettempdir()  # makes a file when it is asked first, and looks elsewhere where that fails
    with ExitStack() as stack:
        # the sandbox writes at once, so that nobody has to wait long until a late write must have shown
        stack.enter_context(mock.patch.object(api, "SETTLE", 0.05))
        stack.enter_context(mock.patch.object(pipeline, "SYNC", 0.001))
        stack.enter_context(mock.patch.object(retry, "FIRST_BACKOFF", 0.01))
        if int(number):
            arm(Point(kind, mode, int(number)), stack)
        for name in mistake:  # around what is guarded, as a mistake of the program's own would be
            (MISTAKES | STORAGE_MISTAKES)[name]()
        return app.main(words[place + 1 :])


def make_case(existing: str, workers: int) -> Case:
    """Return the case of the twelve rows."""
    return Case(
        seed=0,
        file=FILE,
        invalid=INVALID,
        unknown_ids=frozenset(),
        users=6,
        existing=existing,
        lists="add",
        notify=True,
        rate=0,
        concurrency=workers,
        timeout=5.0,
        log_in=True,
        switches={"latency": 0.005},
        faults=(),
        moments=(),
    )


def play(case: Case, points: Sequence[Point], folder: Path, mistake: str = "") -> tuple[list[str], int]:
    """Play a run until it ends, its processes with a point each; return the violations, and how many points came."""
    with staging(case, folder, ()) as stage:
        for name, text in OLDER.items():
            (folder / name).write_text(text)
        before = stage.state()
        came = 0
        violations: list[str] = []
        for point in (*points, *[NOWHERE] * TURNS):
            code = live(stage, case, point, mistake)
            reached = has_come(stage)
            came += reached
            violations += check_end(stage, point if reached else NOWHERE, code)
            if is_finished(stage):
                # one that was killed then would have ended with what its report says
                violations += judge(stage, case, before, DONE if code == KILLED else code, stop_wanted=False)
                return violations + list(check_files(folder)), came
        return [*violations, f"I1: the run did not end in {TURNS} processes after its last point"], came


def live(stage: Stage, case: Case, point: Point, mistake: str) -> int:
    """Let a process live until it ends, with its point; return its exit code."""
    (stage.folder / REACHED).unlink(missing_ok=True)
    action = BREAKS.get(point.mode)  # the sandbox breaks the connection; all else happens in the client
    stage.ask("POST", "_sandbox/faults", [{"action": action, "nth": point.number}] if action else [])
    armed = NOWHERE if action else point
    stage.client = (
        *(sys.executable, str(Path(__file__).resolve()), armed.kind, armed.mode, str(armed.number)),
        *([mistake] if mistake else []),
        "--",
    )
    code = stage.live(stage.start(case), None)
    assert code is not None, "nobody but itself ends it"
    stage.collect()
    return code


def has_come(stage: Stage) -> bool:
    """Tell whether the last process came to its point."""
    return (stage.folder / REACHED).exists() or any(entry["fault"] for entry in stage.ledger()[stage.starts[-1] :])


def is_finished(stage: Stage) -> bool:
    """Tell whether there is nothing to go on with: the run's report is there, and no journal."""
    report = stage.folder / "results.json"
    journal = stage.folder / "results.json.journal"
    return not journal.exists() and report.exists() and report.read_text() != OLDER[report.name]


def dies(point: Point) -> bool:
    """Tell whether a process ends at once."""
    return point.mode.startswith("die")


def check_end(stage: Stage, point: Point, code: int) -> Iterator[str]:
    """Check that a process ended as the interface promises for what befell it, and said why."""
    said = stage.texts[f"said-{len(stage.starts)}.txt of process {len(stage.starts)}"]
    asked = len(stage.ledger()) > stage.starts[-1]
    if point == NOWHERE:
        expected = {DONE}
    elif dies(point):
        expected = {KILLED}
    elif point.kind != "send":
        # without room for a copy of the users file, it is refused before anything is sent
        expected = {12} if asked or point.kind != "disk" else {12, 3}
    else:
        expected = {DONE}
    if code not in expected:
        yield f"I9: {point}: the process ended with {code}, not with one of {expected}: {said[-600:]}"
    if code in (12, 3):
        lines = said.splitlines()
        errors = [number for number, line in enumerate(lines) if line.startswith("error: ")]
        if len(errors) != 1:
            yield f"I9: {point}: there are {len(errors)} errors in {said!r}"
        elif not any(word in "".join(lines[errors[0] :]) for word in ("results.", "users.csv", ".lock", "→")):
            yield f"I9: {point}: neither a path nor a hint: {lines[errors[0]]}"


def check_files(folder: Path) -> Iterator[str]:
    """Check that nothing is lost that was there before, and nothing left over, also by processes that died."""
    texts = [path.read_bytes().decode() for path in folder.glob("results.*")]
    yield from (f"files: {name} of an older run is lost" for name, text in OLDER.items() if text not in texts)
    rejects = folder / "results.rejects.csv"
    if not rejects.exists() or len(rejects.read_text().splitlines()) != 1 + REJECTED:
        yield "files: the rejected rows are not in results.rejects.csv"
    if left := [path.name for path in folder.iterdir() if path.name.endswith(".tmp")]:
        yield f"files: {left} is left over"


@dataclass(frozen=True, slots=True)
class Sweep:
    """Every point of a kind and mode, in runs of one sort, after those that the run's first processes meet."""

    existing: str
    workers: int
    before: tuple[Point, ...]
    kind: str
    mode: str

    def __str__(self) -> str:
        after = "".join(f", after {point}" for point in self.before)
        return f"{self.existing}, {self.workers} workers{after}: {self.kind} {self.mode}"

    def play(self, mistake: str = "") -> tuple[int, list[str]]:
        """Play the points from the first to the one that no run comes to; return how many came, and violations."""
        violations: list[str] = []
        for number in range(1, MOST):
            points = (*self.before, Point(self.kind, self.mode, number))
            with tempfile.TemporaryDirectory() as folder:
                found, came = play(make_case(self.existing, self.workers), points, Path(folder), mistake)
            violations += [f"{self} {number}: {violation}" for violation in found]
            if came < len(points):
                return number - 1, violations
        return MOST, [*violations, f"{self}: there is no end of it"]


def list_sweeps() -> Iterator[Sweep]:
    """Yield all: of a run's first process, and of one that resumes."""
    for existing, workers, before, kinds in SWEEPS:
        yield from (Sweep(existing, workers, before, kind, mode) for kind in kinds for mode in MODES[kind])


def main() -> int:
    """Play every point; return 1 if there was a violation, or a kind of which no run has any."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at the same time")
    parser.add_argument("--only", default="", help="sweeps whose names have this in them")
    parser.add_argument("--mistake", default="", help="a wrong client to play with, by its name in wrong_clients.py")
    asked = parser.parse_args()
    began = time.monotonic()
    sweeps = [sweep for sweep in list_sweeps() if asked.only in str(sweep)]
    points, bad = 0, 0
    came: Counter[str] = Counter()
    with ThreadPoolExecutor(asked.jobs) as jobs:
        for sweep, (count, violations) in zip(
            sweeps, jobs.map(lambda sweep: sweep.play(asked.mistake), sweeps), strict=True
        ):
            say(f"{sweep}: {count} points, {len(violations)} violations")
            for violation in violations:
                say(f"    {violation}")
            points, bad = points + count, bad + len(violations)
            came[sweep.kind] += count
    say(f"{points} points, {bad} violations in {time.monotonic() - began:.0f} s")
    return 1 if bad or not all(came.values()) else 0


def say(line: str) -> None:
    """Tell whoever waits."""
    print(line, flush=True)  # noqa: T201 - as the program that it is


if __name__ == "__main__":
    sys.exit(be_client(sys.argv[1:]) if "--" in sys.argv else main())
