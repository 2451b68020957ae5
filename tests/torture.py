"""Runs that are killed at drawn moments, under drawn faults, resumed until they end, and checked for the truth.

`python tests/torture.py --seed 1 --kills 20 --rows 300` plays one case, `--cases 50` those of fifty seeds. A seed draws
the same case every time: the file, the modes, the sandbox's switches, the faults and the moments. What the scheduler
makes of it differs, so a case that failed is worth playing more than once.
"""

import argparse
import csv
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import torture_checker
from torture_checker import Evidence

CLIENT: Final = (sys.executable, "-m", "bulkusers")
EMAIL: Final = "admin@example.edu"
PASSWORD: Final = "Xk7-drawn-Vq2"  # a word that nothing else says, so that it can be looked for
SERVE: Final = """
import asyncio, sys
from bulkusers.sandbox import Sandbox
from bulkusers.sandbox.server import serve_forever
sandbox = Sandbox(users=int(sys.argv[1]), seed=int(sys.argv[2]))
sandbox.password = sys.argv[3]
asyncio.run(serve_forever(sandbox, 0, lambda sandbox: print(sandbox.url, flush=True)))
"""
OUTAGES: Final = 25  # one in so many cases has one, which costs half a minute
LONGEST: Final = 240.0  # seconds for one process; an outage takes a part of a minute
BUSY: Final = 429
STOPPED: Final = {143: "stop", 4: "web-login"}  # exit codes, and what they may come from
LOOK: Final = 0.004  # seconds between two looks at whether a moment has come
OPTIONAL: Final = ("External ID", "Department", "Secondary Departments", "Role IDs", "Status")
PRODUCTS: Final = ("scheduling", "curriculum", "syllabus", "events", "catalog", "courseDemandProjections")
ROLES: Final = ("example-admin", "example-scheduler", "example-viewer")
NAMES: Final = ("Ada", "Zoë", "Anne Marie", "D'Arcy", "李", "O'Neil", "van der Berg")
ODD_FIELDS: Final = (
    "firstName", "lastName", "products", "roles", "department", "secondaryDepartments", "externalId", "status",
    "preferences",
)  # fmt: skip
ODD: Final[tuple[Any, ...]] = (
    None, "", [], {}, 0, 7, 1.5, True, "other", " Example ", "events,catalog", ["events"], ["curriculum", "curriculum"],
    ["example-viewer", " example-scheduler"], ["", "0300"], [None], [1], {"id": "0100"},
)  # fmt: skip
EDIT: Final = {"method": "PUT", "path": "*/users/*", "action": "edit", "share": 0.04}
BAD: Final = ("no first name", "bad email", "unknown product", "few cells", "bad status", "mangled id")


@dataclass(frozen=True, slots=True)
class Moment:
    """When something is done to a process, counted from its start, and what."""

    after: str  # "ledger" or "journal" entries, or "ms"
    count: int
    deed: str = "kill"  # or "stop", in good order, or "web-login", which kills the token
    rest: float = 0.0  # seconds until the next start


@dataclass(frozen=True, slots=True)
class Case:
    """One drawn case."""

    seed: int
    file: str
    invalid: frozenset[int]
    unknown_ids: frozenset[int]
    users: int  # that the sandbox knows
    existing: str
    lists: str
    notify: bool
    rate: float
    concurrency: int
    timeout: float
    log_in: bool  # with e-mail and password; else with a token
    switches: Mapping[str, Any]
    faults: tuple[Mapping[str, Any], ...]
    moments: tuple[Moment, ...]

    def arguments(self, url: str) -> list[str]:
        """Return what `bulkusers` is told."""
        options = {
            "--base-url": url,
            "--school": "example_university",
            "--existing": self.existing,
            "--lists": self.lists,
            "--rate": self.rate,
            "--concurrency": self.concurrency,
            "--timeout": self.timeout,
        }
        words = [str(word) for pair in options.items() for word in pair]
        return ["run", "users.csv", "--resume", *words, "--notify" if self.notify else "--no-notify"]


def draw_case(seed: int, rows: int, kills: int) -> Case:
    """Draw a case."""
    draw = random.Random(seed)
    users = draw.randint(rows // 10, rows // 2)
    log_in = draw.random() < 0.5
    timeout = draw.choice((0.7, 1.0, 1.0, 2.0))
    rate = draw.choice((0, 0, 0, 100, 150, 300))
    switches: dict[str, Any] = {
        "duplicate": draw.choice((409, 400, 422)),
        "unknown_ids": draw.choice(("store", "refuse")),
        "latency": draw.choice((0.0, 0.0, 0.01, 0.05)),
        "commit_delay": draw.choice((0.0, 0.0, 0.0, 0.02, 0.3)),
    }
    if draw.random() < 0.1:
        switches |= {"read_lag": 0.5}
    if draw.random() < 0.15:
        switches |= {"rate_limit": draw.choice((150, 250)), "retry_after": draw.choice(("seconds", "date", "none"))}
    file, invalid, unknown_ids = draw_file(draw, rows, users)
    more = random.Random(f"{seed} more")
    switches |= {"updated_at": more.choice(("none", "kept")), "defaults": more.choice(("none", "filled"))}
    edits = [EDIT] if more.random() < 0.3 else []
    return Case(
        seed=seed,
        file=file,
        invalid=invalid,
        unknown_ids=unknown_ids if switches["unknown_ids"] == "refuse" else frozenset(),
        users=users,
        existing=draw.choice(("merge", "merge", "overwrite", "skip")),
        lists=draw.choice(("add", "replace")),
        notify=draw.random() < 0.5,
        rate=rate,
        concurrency=draw.choice((2, 8, 20, 20, 40)),
        timeout=timeout,
        log_in=log_in,
        switches=switches,
        faults=(*edits, *draw_faults(draw, log_in=log_in, outage=seed % OUTAGES == 0)),
        moments=tuple(draw_moments(draw, rows, kills)),
    )


def draw_file(draw: random.Random, rows: int, users: int) -> tuple[str, frozenset[int], frozenset[int]]:
    """Draw a users file; return it with the rows that cannot be sent, and those with ids that no school has."""
    optional = [column for column in OPTIONAL if draw.random() < 0.6]
    header = ["First Name", "Last Name", "Email", "Products", *optional]
    lines: list[list[str]] = []
    invalid, unknown = set(), set()
    numbers = draw.sample(range(1, users + rows + 1), rows)  # up to `users` they are known to the sandbox
    for position, number in enumerate(numbers):
        row = position + 2
        cells = draw_existing(draw, number) if number <= users else draw_new(draw, number)
        kind = draw.random()
        if position > 12 and kind < 0.03:
            cells["Role IDs"] = "role-of-another-school"
            if "Role IDs" in header:
                unknown.add(row)
        line = [cells[column] for column in header]
        if kind > 0.97:
            line = spoil(line, header, draw.choice(BAD))
            invalid.add(row)
        elif kind > 0.93 and position > 12:
            line = list(draw.choice([old for old in lines if len(old) == len(header)]))  # somebody twice
            line[1] = draw.choice((line[1], "Another"))
            if lines.index(next(old for old in lines if len(old) > 2 and old[2] == line[2])) + 2 in invalid:
                invalid.add(row)
        lines.append(line)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *lines])
    return text.getvalue(), frozenset(invalid), frozenset(unknown)


def draw_existing(draw: random.Random, number: int) -> dict[str, str]:
    """Draw the row of a user whom the sandbox knows: equal to the record, or different in a few cells."""
    agrees = number % 3 == 0
    cells = {
        "First Name": "Example",
        "Last Name": f"User {number:05d}",
        "Email": f"user{number:05d}@example.edu",
        "Products": "scheduling" if agrees else "curriculum",
        "Role IDs": "example-viewer" if agrees else "example-scheduler",
        "Department": "0100" if number % 2 else "0200",
        "Secondary Departments": "0300",
        "External ID": f"{number:06d}",
        "Status": "active",
    }
    if draw.random() < 0.1:
        cells["Email"] = cells["Email"].upper()
    if draw.random() < 0.4:
        return cells
    other = draw_new(draw, number)
    return cells | {column: other[column] for column in other if column != "Email" and draw.random() < 0.4}


def draw_new(draw: random.Random, number: int) -> dict[str, str]:
    """Draw the row of a user whom nobody knows yet; cells that may be blank are, now and then."""
    return {
        "First Name": draw.choice(NAMES),
        "Last Name": f"{draw.choice(NAMES)} {number}",
        "Email": f"{draw.choice(('new', 'New.', 'o-neil+', 'x_'))}{number:05d}@example.edu",
        "Products": ", ".join(draw.sample(PRODUCTS, draw.randint(1, 3))),
        "Role IDs": draw.choice(("", ",".join(draw.sample(ROLES, draw.randint(1, 2))))),
        "Department": draw.choice(("", "0100", "0500")),
        "Secondary Departments": draw.choice(("", "0300", "0400, 0700")),
        "External ID": draw.choice(("", f"00{number}")),
        "Status": draw.choice(("", "active", "Inactive")),
    }


def draw_odd(draw: random.Random, record: dict[str, Any]) -> dict[str, Any]:
    """Return a record with some fields that no file would have made: missing, empty, of other types, spelled anew."""
    odd = dict(record)
    for name in ODD_FIELDS:
        if draw.random() < 0.2:
            odd[name] = draw.choice(ODD)
        elif draw.random() < 0.1:
            odd.pop(name, None)
    if draw.random() < 0.2:
        odd["email"] = odd["email"].upper()
    return odd


def spoil(line: list[str], header: list[str], how: str) -> list[str]:
    """Return a line that cannot be sent."""
    spoiled = list(line)
    if how == "few cells":
        return spoiled[:3]
    if how == "bad status" and "Status" in header:
        spoiled[header.index("Status")] = "perhaps"
    elif how == "mangled id" and "External ID" in header:
        spoiled[header.index("External ID")] = "1.23E+11"
    elif how == "bad email":
        spoiled[2] = f"nobody at {spoiled[2]}"
    elif how == "unknown product":
        spoiled[3] = "schedulling"
    else:
        spoiled[0] = " "
    return spoiled


def draw_faults(draw: random.Random, *, log_in: bool, outage: bool) -> Iterator[dict[str, Any]]:
    """Draw a script: few enough faults that the client goes on, of kinds that differ from seed to seed."""
    pool: list[dict[str, Any]] = [
        {"action": "reset_before"},
        {"action": "reset_after"},
        {"action": "cut_body"},
        {"action": "late_commit", "seconds": draw.uniform(0.1, 1.4), "status": draw.choice((0, 502, 504))},
        {"action": "html"},
        {"action": "wrong_body"},
        {"action": "garbage"},
        {"action": "redirect", "status": draw.choice((301, 302, 303, 307, 308)), "location": draw.choice(PLACES)},
        {"action": "status", "status": draw.choice((500, 502, 504)), "write": False},
        {"action": "status", "status": draw.choice((500, 502, 504)), "write": True},
        # each of these halves the pace for minutes
        {"action": "status", "status": 503, "write": False, "headers": {"Retry-After": "1"}, "times": 1},
        {"action": "status", "status": 503, "write": True, "times": 1},
        {"action": "late_commit", "seconds": draw.uniform(0.1, 1.4), "status": 503, "times": 1},
        {"action": "delay", "seconds": draw.uniform(0.1, 1.3)},
        {"action": "hang"},
    ]
    chosen = draw.sample(pool, draw.randint(1, 5))
    share = draw.choice((0.0, 0.04, 0.08, 0.12)) / len(chosen)  # of all requests: an outage is another matter
    for fault in chosen:
        method = draw.choice(("*", "POST", "PUT", "GET", "POST"))
        rare = 0.3 if fault["action"] in ("hang", "garbage") else 1.0
        if share:
            yield {"method": method, "path": "*/users*", "share": share * rare * (1 if method == "*" else 2)} | fault
    if outage:
        yield {"path": "*/users*", "action": "status", "status": 502, "start": 1.0, "stop": 3.0}
    if log_in and draw.random() < 0.6:
        yield {"path": "*/users*", "action": "kill_token", "every": draw.choice((97, 150)), "times": 4}


PLACES: Final = ("/login", "/api/v1/example_university/users")


def draw_moments(draw: random.Random, rows: int, kills: int) -> Iterator[Moment]:
    """Draw when the processes are ended: each somewhat further on, seldom before it sends, seldom in good order."""
    stretch = max(2 * rows // max(kills, 1), 4)
    for _ in range(kills):
        after = draw.choice(("ledger", "journal", "ms"))
        count = draw.randint(300, 1500) if after == "ms" else draw.randint(1, stretch)
        yield Moment(
            after,
            count,
            draw.choices(("kill", "stop", "web-login"), (8, 1, 1))[0],
            draw.choice((0.0, 0.0, 0.3)),
        )


@dataclass(slots=True)
class Stage:
    """A sandbox in a process of its own, and a folder in which one case is played."""

    folder: Path
    url: str
    client: tuple[str, ...] = CLIENT
    texts: dict[str, str] = field(default_factory=dict)
    starts: list[int] = field(default_factory=list)
    token: str = ""
    deeds: list[str] = field(default_factory=list)  # what was done to the processes
    foreign: list[int] = field(default_factory=list)  # places in the ledger that are not the client's
    report: str = "results.json"  # of what is being played

    def ask(self, method: str, path: str, body: object = None, *, token: str = "") -> bytes:
        """Ask the sandbox something."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/{path}", method=method, data=data)  # noqa: S310 - loopback
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request) as answer:  # noqa: S310 - loopback
            text: bytes = answer.read()
        return text

    def ledger(self) -> list[dict[str, Any]]:
        """Return what the sandbox was asked so far."""
        return [json.loads(line) for line in self.ask("GET", "_sandbox/ledger").splitlines()]

    def state(self) -> dict[str, Any]:
        """Return what the sandbox holds, but for the times that it keeps itself."""
        state: dict[str, Any] = json.loads(self.ask("GET", "_sandbox/state"))
        for record in state["users"].values():
            record.pop("updatedAt", None)
        return state

    def written(self) -> int:
        """Return how many lines the journal has."""
        journal = self.folder / f"{self.report}.journal"
        return journal.read_bytes().count(b"\n") if journal.exists() else 0

    def start(self, case: Case, arguments: Sequence[str] = ()) -> "subprocess.Popen[bytes]":
        """Start the client, with the case's arguments unless others are named."""
        known = {name: value for name, value in os.environ.items() if not name.startswith("BULKUSERS_")}
        log_in = {"BULKUSERS_EMAIL": EMAIL, "BULKUSERS_PASSWORD": PASSWORD}
        self.starts.append(len(self.ledger()))
        with (self.folder / f"said-{len(self.starts)}.txt").open("wb") as said:
            return subprocess.Popen(
                [*self.client, *(arguments or case.arguments(self.url))],
                cwd=self.folder,
                env=known | {"TMPDIR": str(self.folder)} | (log_in if case.log_in else {"BULKUSERS_TOKEN": self.token}),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
            )

    def has_come(self, moment: Moment, began: float, lines: int) -> bool:
        """Tell whether the moment has come for the process that began then."""
        match moment.after:
            case "ledger":
                return self.ask("GET", "_sandbox/ledger").count(b"\n") - self.starts[-1] >= moment.count
            case "journal":
                return self.written() - lines >= moment.count
        return time.monotonic() >= began + moment.count / 1000

    def live(self, process: "subprocess.Popen[bytes]", moment: Moment | None) -> int | None:
        """Let a process live until it ends or its moment comes; return its exit code, None if it was killed."""
        began, lines = time.monotonic(), self.written()
        while process.poll() is None:
            if time.monotonic() > began + LONGEST:
                process.kill()
                process.wait()
                raise TimeoutError(f"the client was still running after {LONGEST:.0f} seconds")
            if moment is not None and self.has_come(moment, began, lines):
                self.do(moment.deed, process)
                if moment.deed == "kill":
                    return None
                moment = None
            time.sleep(LOOK)
        return process.returncode

    def do(self, deed: str, process: "subprocess.Popen[bytes]") -> None:
        """Do to a process what was drawn."""
        self.deeds.append(deed)
        if deed == "web-login":
            self.ask("POST", "_sandbox/web-login")
        elif deed == "stop":
            process.terminate()
        else:
            process.kill()
            process.wait()

    def log_in(self) -> None:
        """Get a token, beside what the client is watched for."""
        session = {"email": EMAIL, "plaintextPassword": PASSWORD}
        while True:
            self.foreign.append(len(self.ledger()))
            try:
                self.token = json.loads(self.ask("POST", "sessions", session))["token"]
            except urllib.error.HTTPError as refusal:
                if refusal.code != BUSY:
                    raise
                time.sleep(0.5)  # the client has used the rate up
            else:
                return

    def collect(self) -> None:
        """Keep what was written until now, to be searched for secrets."""
        for path in self.folder.iterdir():
            if path.name != "users.csv":
                name = f"{path.name} of process {len(self.starts)}"
                self.texts[name] = path.read_bytes().decode(errors="replace")


@contextmanager
def staging(case: Case, folder: Path, client: tuple[str, ...]) -> Iterator[Stage]:
    """Run a sandbox for a case."""
    serve = [sys.executable, "-c", SERVE, str(case.users), str(case.seed), PASSWORD]
    process = subprocess.Popen(serve, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found is not None, "the sandbox did not start"
        stage = Stage(folder, found[0], client)
        if not case.log_in:
            stage.log_in()
        stage.ask("POST", "_sandbox/switches", dict(case.switches))
        stage.ask("POST", "_sandbox/faults", list(case.faults))
        (folder / "users.csv").write_text(case.file)
        yield stage
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


def play(case: Case, folder: Path, client: tuple[str, ...] = CLIENT) -> list[str]:
    """Play one case to its end and return the violations; also those that show where it was stopped in good order."""
    with staging(case, folder, client) as stage:
        return play_run(stage, case, stage.state())


def play_run(stage: Stage, case: Case, before: Mapping[str, Any]) -> list[str]:
    """Play a case's run; return the violations."""
    moments = iter(case.moments)
    while True:
        code = play_process(stage, case, next(moments, None))
        if isinstance(code, str):
            return [code]
        if code is None:
            continue
        interrupted = code in STOPPED and stage.deeds[-1:] == [STOPPED[code]]
        violations = judge(stage, case, before, code, stop_wanted=interrupted)
        if violations or not interrupted:
            return violations
        if not case.log_in:
            stage.log_in()


def play_process(stage: Stage, case: Case, moment: Moment | None, arguments: Sequence[str] = ()) -> int | str | None:
    """Let one process live; return its exit code, None where it was ended and is to go on, or a violation."""
    try:
        code = stage.live(stage.start(case, arguments), moment)
    except TimeoutError as error:
        return f"I1: {error}"
    stage.collect()
    report = stage.folder / stage.report
    if code is None and stage.written() == 0 and report.exists():
        # it had just finished when the kill came: what would follow is another run, not the rest of this one
        return int(json.loads(report.read_bytes())["run"]["exit_code"])
    # before it listens to signals they kill it, and before it has opened its journal they end it without a report
    if moment is not None and (code in (None, -signal.SIGTERM) or (code == 143 and not report.exists())):
        time.sleep(moment.rest)
        return None
    assert code is not None, "nobody killed it"
    return code


def judge(stage: Stage, case: Case, before: Mapping[str, Any], code: int, *, stop_wanted: bool) -> list[str]:
    """Let late writes be done, and check a run that ended by itself."""
    stage.ask("POST", "_sandbox/settle")
    report = stage.folder / "results.json"
    if not report.exists():
        said = stage.texts.get(f"said-{len(stage.starts)}.txt of process {len(stage.starts)}", "")
        return [f"I1: the process ended with {code} and left no report: {said[-500:]}"]
    after = stage.state()
    evidence = Evidence(
        file=case.file,
        invalid=case.invalid,
        unknown_ids=case.unknown_ids,
        report=json.loads(report.read_bytes()),
        exit_code=code,
        stop_wanted=stop_wanted,
        killed=len(stage.starts) - 1,
        before=before["users"],
        after=after["users"],
        mails=after["mails"],
        ledger=stage.ledger(),
        foreign=frozenset(stage.foreign),
        web_logins=stage.deeds.count("web-login"),
        starts=stage.starts,
        texts=stage.texts,
        secrets=[PASSWORD],
        existing=case.existing,
        lists=case.lists,
        notify=case.notify,
        rate=case.rate,
        concurrency=case.concurrency,
        timeout=case.timeout,
    )
    return torture_checker.find_violations(evidence)


def describe(case: Case) -> str:
    """Say in one line what was drawn."""
    faults = " ".join(f"{fault['action']}:{fault.get('method', '*')}" for fault in case.faults)
    how = f"{case.existing}/{case.lists} rate {case.rate:g} workers {case.concurrency}"
    return f"seed {case.seed}: {how}, {dict(case.switches)}, {faults or 'no faults'}"


def main(player: Callable[[Case, Path, tuple[str, ...]], list[str]] = play) -> int:
    """Play the cases that the command line asks for; return 1 if there was a violation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="of the first case")
    parser.add_argument("--cases", type=int, default=1)
    parser.add_argument("--kills", type=int, default=5, help="moments drawn for each case")
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--client", default="", help="a wrong client to play with, by its name in wrong_clients.py")
    parser.add_argument("--clean", action="store_true", help="without faults")
    asked = parser.parse_args()
    client = CLIENT
    if asked.client:
        client = (sys.executable, str(Path(__file__).with_name("wrong_clients.py")), asked.client)
    bad = 0
    for seed in range(asked.seed, asked.seed + asked.cases):
        case = draw_case(seed, asked.rows, asked.kills)
        if asked.clean:
            case = replace(case, faults=())
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            violations = player(case, Path(folder), client)
        print(f"{describe(case)}: {len(violations)} violations in {time.monotonic() - began:.1f} s", flush=True)  # noqa: T201 - for whoever waits
        for violation in violations:
            print(f"    {violation}", flush=True)  # noqa: T201 - as above
        bad += bool(violations)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
