"""How the program starts and ends: signals at ten moments, fifty starts at once, and outages of a minute.

`python tests/lifecycle.py signals`, `starts` and `outage` play one kind each, as real processes against a sandbox in
another; `make torture` plays them all. What a run reports is judged by the checker of the torture.
"""

import argparse
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from torture import CLIENT, PASSWORD, Case, Stage, judge, staging

HEADER: Final = "First Name,Last Name,Email,Products"
KNOWN: Final = 20  # of the file's users, that the sandbox has already
PATIENCE: Final = 60.0  # seconds until a moment must have come, and a process that was told to end must have
DRAIN: Final = 30.0  # seconds that a run may take to end in good order
AT_ONCE: Final = 2.0  # seconds in which a process ends that has nothing to wait for
USERS: Final = "*/users*"


def make_case(rows: int, *, spoiled: int = 0, **more: Any) -> Case:  # noqa: ANN401 - any field of a case
    """Make a case of known and new users, followed by rows that cannot be sent."""
    lines = [f"Example,User {number:05},user{number:05}@example.edu,events" for number in range(1, rows + 1)]
    lines += [f"Example,User,nobody at {number},events" for number in range(spoiled)]
    plain: dict[str, Any] = {
        "seed": 1,
        "invalid": frozenset(range(rows + 2, rows + spoiled + 2)),
        "unknown_ids": frozenset(),
        "users": KNOWN,
        "existing": "merge",
        "lists": "add",
        "notify": False,
        "rate": 0,
        "concurrency": 20,
        "timeout": 30.0,
        "log_in": False,
        "switches": {},
        "faults": (),
        "moments": (),
    }
    return Case(file="\n".join([HEADER, *lines]) + "\n", **plain | more)


def wait_for(holds: Callable[[], object], what: str, *, look: float = 0.002) -> None:
    """Wait until something holds."""
    until = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > until:
            raise TimeoutError(f"it did not come to {what}")
        time.sleep(look)


# --- signals ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment in a run's life: how to bring it about, and how to see that it has come."""

    has_come: Callable[[Stage], object]
    faults: tuple[Mapping[str, Any], ...] = ()
    rest: float = 0.0  # seconds from what can be seen to the moment
    early: bool = False  # before there is anything to write down
    late: bool = False  # the report is being written: the run may end as if nobody had asked
    rows: int = 120
    spoiled: int = 0
    log_in: bool = False


def asked(stage: Stage) -> list[dict[str, Any]]:
    """Return what the latest process asked so far."""
    return stage.ledger()[stage.starts[-1] :]


def met(action: str, count: int = 1) -> Callable[[Stage], object]:
    """Return a function that tells whether so many requests have met a fault."""
    return lambda stage: sum(entry["fault"] == action for entry in asked(stage)) >= count


LOST: Final = {"method": "POST", "path": USERS, "action": "reset_before", "nth": KNOWN + 5}  # somebody new
BUSY: Final = {"path": USERS, "action": "status", "status": 429, "headers": {"Retry-After": "25"}, "nth": 30}
DOWN: Final = {"path": USERS, "action": "status", "status": 502, "start": 1.0}
MOMENTS: Final[Mapping[str, Moment]] = {
    "before the loop starts": Moment(lambda _: True, rest=0.12, early=True),
    "while the file is read": Moment(lambda _: True, rest=0.9, early=True, rows=1_000_000),
    "during the login": Moment(asked, rest=0.1, log_in=True),
    "at the first request": Moment(asked),
    "in the middle": Moment(lambda stage: len(asked(stage)) >= 60),
    "during a settle wait": Moment(
        lambda stage: any(entry["status"] == 404 for entry in asked(stage)), (LOST,), rest=0.5, rows=30
    ),
    "during a pause for 429": Moment(met("status"), (BUSY,), rest=0.5),
    "during an outage": Moment(met("status", 10), (DOWN,), rest=0.5),
    "while the report is written": Moment(
        lambda stage: list(stage.folder.glob(".results.json.*.tmp")), late=True, rows=30, spoiled=20_000
    ),
    "just at the end": Moment((lambda stage: (stage.folder / "results.json").exists()), late=True, rows=30),
}
SIGNALS: Final[Mapping[str, tuple[signal.Signals, ...]]] = {
    "SIGINT": (signal.SIGINT,),
    "SIGTERM": (signal.SIGTERM,),
    "SIGHUP": (signal.SIGHUP,),
    "Ctrl-C twice": (signal.SIGINT, signal.SIGINT),
}


@dataclass(slots=True)
class Ending:
    """What came of a signal."""

    code: int
    seconds: float  # from the last signal to the end
    violations: list[str] = field(default_factory=list)


def play_signal(moment: Moment, signals: tuple[signal.Signals, ...], folder: Path, *, latency: float) -> Ending:
    """End a run by signals at a moment, resume it, and return what is not as it must be."""
    case = make_case(moment.rows, spoiled=moment.spoiled, log_in=moment.log_in, faults=moment.faults)
    case = replace(case, switches={"latency": latency})
    with staging(case, folder, CLIENT) as stage:
        before = stage.state()
        process = stage.start(case)
        try:
            wait_for(lambda: moment.has_come(stage), "its moment")
            time.sleep(moment.rest)
            for place, number in enumerate(signals):
                time.sleep(0.2 if place else 0)
                process.send_signal(number)
            began = time.monotonic()
            code = process.wait(PATIENCE)
            ending = Ending(code, time.monotonic() - began)
        finally:
            process.kill()
            process.wait()
        stage.collect()
        ending.violations = list(judge_ending(moment, signals, stage, case, before, ending))
        if moment.early:  # what was not sent yet may as well be another file
            case = make_case(30, log_in=moment.log_in)
            (folder / "users.csv").write_text(case.file)
        stage.ask("POST", "_sandbox/faults", [])
        stage.ask("POST", "_sandbox/switches", {"latency": 0.0})
        code = stage.start(case).wait(PATIENCE)
        stage.collect()
        if code != (6 if moment.spoiled else 0):
            ending.violations.append(f"the resumed run ended with {code}")
        ending.violations += judge(stage, case, before, code, stop_wanted=False)
    return ending


def judge_ending(
    moment: Moment,
    signals: tuple[signal.Signals, ...],
    stage: Stage,
    case: Case,
    before: Mapping[str, Any],
    ending: Ending,
) -> Iterator[str]:
    """Yield what is not as it must be after the signals."""
    report, journal = stage.folder / "results.json", stage.folder / "results.json.journal"
    at_once = moment.early or len(signals) > 1
    said = stage.texts["said-1.txt of process 1"]
    if "Traceback" in said:
        yield f"there is a traceback: {said[-800:]}"
    if ending.seconds > (AT_ONCE if at_once else DRAIN):
        yield f"it took {ending.seconds:.1f} s to end"
    if ending.code != 128 + signals[0] and not (moment.late and ending.code == code_of(report)):
        yield f"it ended with {ending.code}: {said[-300:]}"
    if moment.early:
        if stage.ledger()[stage.starts[0] :] or report.exists() or journal.exists():
            yield "there is more than there may be before anything is sent"
    elif report.exists():
        yield from judge(stage, case, before, ending.code, stop_wanted=True)
    elif not at_once:
        yield f"there is no report: {said[-300:]}"
    if not moment.early and not report.exists() and not journal.exists():
        yield "there is nothing to go on with"


def code_of(report: Path) -> int | None:
    """Return the exit code that a report says; None where there is no report."""
    return json.loads(report.read_bytes())["run"]["exit_code"] if report.exists() else None


def sweep_signals(latency: float) -> int:
    """Play every moment with every signal and print how long each took to end; return how many went wrong."""
    bad = 0
    for name, moment in MOMENTS.items():
        for way, signals in SIGNALS.items():
            with tempfile.TemporaryDirectory() as folder:
                ending = play_signal(moment, signals, Path(folder), latency=latency)
            tell(f"{name:<28}{way:<14}exit {ending.code:>4} after {ending.seconds:5.2f} s", ending.violations)
            bad += bool(ending.violations)
    return bad


def tell(line: str, violations: list[str]) -> None:
    """Print what was played and what is wrong with it, for whoever waits."""
    print("\n    ".join([line, *violations]), flush=True)  # noqa: T201 - as above


# --- many starts -----------------------------------------------------------------------------------------------------


def play_starts(count: int, folder: Path) -> list[str]:
    """Start one account's run many times at once, kill the one that got through, and return what is wrong."""
    case = replace(make_case(300, log_in=True), rate=2)  # slow enough to be there until the last one has tried
    with staging(case, folder, CLIENT) as stage:
        before = stage.state()
        processes = [stage.start(case) for _ in range(count)]
        try:
            wait_for(lambda: sum(process.poll() is not None for process in processes) >= count - 1, "one", look=0.1)
            codes = [process.poll() for process in processes]
            violations = [f"they ended with {codes}"] if sorted(codes, key=str) != [11] * (count - 1) + [None] else []
            entries = stage.ledger()
            runner = next(process for process in processes if process.poll() is None)
            runner.kill()
            runner.wait()
        finally:
            for process in processes:
                process.kill()
                process.wait()
        logins = sum(entry["path"] == "/api/v1/sessions" for entry in entries)
        if logins != 1:
            violations.append(f"{logins} of them logged in")
        began = time.monotonic()
        stage.starts[:] = [0]  # all but one have sent nothing
        case = replace(case, rate=0)
        code = stage.start(case).wait(PATIENCE)
        stage.collect()
        tell(f"{count} starts: after kill -9 the next ended with {code} in {time.monotonic() - began:.1f} s", [])
        return violations + judge(stage, case, before, code, stop_wanted=False)


# --- outages ---------------------------------------------------------------------------------------------------------

OUTAGE: Final = 60.0  # seconds
BEGINNING: Final = 5.0  # seconds from the start of the run to that of the outage
MOST_REFUSED: Final = 10  # requests that are tried while nobody listens
MOST_BAD: Final = 11  # requests that go wrong: half of the latest twenty, and the first probe
SERVE: Final = """
import asyncio, json, signal, sys
from dataclasses import asdict
from pathlib import Path
from bulkusers.sandbox import Sandbox
from bulkusers.sandbox.server import serve_forever

async def main():
    sandbox = Sandbox(users=int(sys.argv[1]), state=Path(sys.argv[2]))
    sandbox.password = sys.argv[3]
    task = asyncio.current_task()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        await serve_forever(sandbox, int(sys.argv[4]), lambda sandbox: print(sandbox.url, flush=True))
    except asyncio.CancelledError:
        for entry in sandbox.ledger:
            print(json.dumps(asdict(entry)))

asyncio.run(main())
"""


@dataclass(slots=True)
class Restarted(Stage):
    """A stage whose sandbox is another process than the one that it began with."""

    kept: list[dict[str, Any]] = field(default_factory=list)  # what the first one was asked

    def ledger(self) -> list[dict[str, Any]]:
        """Return what both were asked."""
        return [*self.kept, *Stage.ledger(self)]


@contextmanager
def serving(folder: Path, port: int) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Run a sandbox whose users outlive it, and which tells in the end what it was asked."""
    command = [sys.executable, "-c", SERVE, str(KNOWN), str(folder / "users.json"), PASSWORD, str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


def play_refusal(folder: Path) -> list[str]:
    """Stop the sandbox in the middle of a run and start it again at the same port."""
    case = make_case(600, log_in=True, rate=20)
    held = folder.with_name(f"{folder.name}-held")
    held.mkdir()
    with serving(held, 0) as (process, url):
        stage = Restarted(folder, url, CLIENT)
        (folder / "users.csv").write_text(case.file)
        before = stage.state()
        run = stage.start(case)
        time.sleep(BEGINNING)
        process.terminate()
        stage.kept += [json.loads(line) for line in process.communicate(timeout=10)[0].splitlines()]
    time.sleep(OUTAGE)
    stage.deeds.append("web-login")  # the tokens died with the sandbox
    with serving(held, int(re.findall(r":(\d+)/", url)[0])):
        return judge_outage(stage, case, before, run, MOST_REFUSED)


def play_outage(folder: Path, fault: Mapping[str, Any]) -> list[str]:
    """Let every request go wrong for a minute in the middle of a run."""
    script = ({"path": USERS, **fault, "start": BEGINNING, "stop": BEGINNING + OUTAGE},)
    case = make_case(600, rate=20, faults=script)
    with staging(case, folder, CLIENT) as stage:
        before = stage.state()
        return judge_outage(stage, case, before, stage.start(case), MOST_BAD)


def judge_outage(
    stage: Stage, case: Case, before: Mapping[str, Any], run: "subprocess.Popen[bytes]", most: int
) -> list[str]:
    """Let a run with an outage in it end by itself, and return what is wrong."""
    try:
        code = run.wait(5 * PATIENCE)
    finally:
        run.kill()
        run.wait()
    stage.collect()
    report = json.loads((stage.folder / "results.json").read_bytes())
    # the server does not see what it refuses, but each of them is sent again
    sent = sum(bool(entry["fault"]) for entry in stage.ledger()) or report["http"]["retries"]
    tell(f"{OUTAGE:.0f} s of {report['run']['seconds']} s nothing worked: {sent} requests in it, exit {code}", [])
    violations = [f"it ended with {code}"] if code else []
    if not 5 <= sent <= most:
        violations.append(f"{sent} requests were sent in the outage")
    return violations + judge(stage, case, before, code, stop_wanted=False)


OUTAGES: Final[Mapping[str, Callable[[Path], list[str]]]] = {
    "refused": play_refusal,
    "502": lambda folder: play_outage(folder, {"action": "status", "status": 502, "write": False}),
    "reset": lambda folder: play_outage(folder, {"action": "reset_before"}),
}


def main() -> int:
    """Play what the command line asks for; return 1 if something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("signals", "starts", "outage"))
    parser.add_argument("--latency", type=float, default=1.0, help="of the sandbox, while signals are sent")
    parser.add_argument("--starts", type=int, default=50)
    parser.add_argument("--outage", choices=OUTAGES, default="refused")
    wanted = parser.parse_args()
    if wanted.kind == "signals":
        return bool(sweep_signals(wanted.latency))
    with tempfile.TemporaryDirectory() as folder:
        inner = Path(folder) / "played"
        inner.mkdir()
        play = OUTAGES[wanted.outage]
        violations = play_starts(wanted.starts, inner) if wanted.kind == "starts" else play(inner)
    tell(f"{wanted.kind}: {len(violations)} violations", violations)
    return bool(violations)


if __name__ == "__main__":
    sys.exit(main())
