"""Runs that are killed, locked out or cut off: what `--resume` makes of them, through real processes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

PROGRAM = [sys.executable, "-m", "bulkusers"]
HEADER = "First Name,Last Name,Email,Products,Role IDs"
NEW = 300


class Stage:
    """A sandbox in a process of its own, and a folder with a file of new and existing users for it."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        rows = [f"Example,User {n:05},user{n:05}@example.edu,scheduling,example-admin" for n in range(1, NEW + 31)]
        (folder / "users.csv").write_text("\n".join([HEADER, *rows]) + "\n")
        self.report = folder / "results.json"
        self.journal = folder / "results.json.journal"
        session = {"email": "admin@example.edu", "plaintextPassword": "sandbox"}
        self.token = self.ask("POST", "sessions", session)["token"]

    def ask(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401 - JSON
        """Ask the sandbox something."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/{path}", method=method, data=data)  # noqa: S310 - loopback
        with urllib.request.urlopen(request) as answer:  # noqa: S310 - loopback
            text = answer.read()
        return [json.loads(line) for line in text.splitlines()] if path.endswith("ledger") else json.loads(text)

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start `bulkusers run`."""
        target = ["--base-url", self.url, "--school", "example_university"]
        return subprocess.Popen(
            [*PROGRAM, "run", "users.csv", *target, "--quiet", *arguments],
            cwd=self.folder,
            env=os.environ | {"BULKUSERS_TOKEN": self.token},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(self, process: "subprocess.Popen[str]") -> tuple[int, str]:
        """Wait for a run; return its exit code and what it said."""
        out, _ = process.communicate(timeout=60)
        return process.returncode, out

    def written(self) -> int:
        """Return how many lines the journal has."""
        return len(self.journal.read_bytes().splitlines()) if self.journal.exists() else 0

    def check(self) -> None:
        """Compare the finished report with what the sandbox holds: every row done, nobody twice, nothing lost."""
        rows = json.loads(self.report.read_bytes())["rows"]
        users = self.ask("GET", "_sandbox/state")["users"]
        assert [row["row"] for row in rows] == list(range(2, NEW + 32))
        assert {row["status"] for row in rows} <= {"created", "updated", "unchanged"}
        for row in rows:
            assert "example-admin" in users[row["email"]]["roles"], row
            assert ("preferences" in users[row["email"]]) is (row["row"] <= 31), row
        assert len(users) == NEW + 30


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """Run a sandbox that knows thirty of the file's users."""
    process = subprocess.Popen([*PROGRAM, "sandbox", "--port", "0", "--users", "30"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    match = re.search(r"http://\S+", process.stdout.readline())
    assert match is not None
    yield Stage(tmp_path, match[0])
    process.terminate()
    process.stdout.close()
    process.wait(10)


def wait_for(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    until = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < until, "it never came to hold"
        time.sleep(0.005)


def test_a_killed_run_goes_on_where_it_was(stage: Stage) -> None:
    """After kill -9 at several moments, `--resume` sends what has no outcome yet, and looks first at what was begun."""
    for lines in (1, 60, 200, 420):
        process = stage.start("--rate", "400", "--resume")
        wait_for(lambda lines=lines: stage.written() >= lines)  # type: ignore[misc] # mypy cannot infer a default
        process.kill()
        stage.finish(process)
    code, out = stage.finish(stage.start("--rate", "0", "--resume"))
    assert code == 0, out
    stage.check()
    creates = [entry for entry in stage.ask("GET", "_sandbox/ledger") if entry["method"] == "POST" and entry["wrote"]]
    assert len(creates) == NEW
    assert not stage.journal.exists()


def test_a_stopped_run_can_be_resumed(stage: Stage) -> None:
    """SIGTERM leaves a report and a journal; what is done is not sent again."""
    process = stage.start("--rate", "200")
    wait_for(lambda: stage.written() >= 100)
    process.send_signal(signal.SIGTERM)
    code, out = stage.finish(process)
    assert code == 143
    assert "--resume" in out
    done = {row["email"] for row in json.loads(stage.report.read_bytes())["rows"] if row["status"] != "unprocessed"}
    assert done
    stage.ask("DELETE", "_sandbox/ledger")
    assert stage.finish(stage.start("--rate", "0", "--resume"))[0] == 0
    stage.check()
    asked = json.dumps(stage.ask("GET", "_sandbox/ledger"))
    assert stage.report.exists()
    assert not [email for email in done if email.replace("@", "%40") in asked]


def test_a_run_that_was_cut_off_says_so_and_is_resumed(stage: Stage) -> None:
    """`--max-duration` ends it in order with exit 10."""
    code, out = stage.finish(stage.start("--rate", "100", "--max-duration", "1s"))
    assert code == 10, out
    assert stage.finish(stage.start("--rate", "0", "--resume"))[0] == 0
    stage.check()


@pytest.mark.parametrize(
    ("arguments", "words"), [(["--existing", "overwrite"], "existing"), (["--lists", "replace"], "lists")]
)
def test_a_journal_of_another_run_is_refused(stage: Stage, arguments: list[str], words: str) -> None:
    """What was begun one way is not finished another way: exit 3, and nothing is sent."""
    process = stage.start("--rate", "200")
    wait_for(lambda: stage.written() >= 50)
    process.kill()
    stage.finish(process)
    stage.ask("DELETE", "_sandbox/ledger")
    code, out = stage.finish(stage.start("--resume", *arguments))
    assert code == 3
    assert words in out
    assert stage.ask("GET", "_sandbox/ledger") == []


def test_another_file_is_not_resumed(stage: Stage) -> None:
    """The journal knows its file by content."""
    process = stage.start("--rate", "200")
    wait_for(lambda: stage.written() >= 50)
    process.kill()
    stage.finish(process)
    with (stage.folder / "users.csv").open("a") as file:
        file.write("A,B,c@example.edu,events,\n")
    code, out = stage.finish(stage.start("--resume"))
    assert code == 3
    assert "the file has changed" in out


def test_a_damaged_journal_is_not_believed(stage: Stage) -> None:
    """A flipped bit in the middle ends the resume with exit 12; a torn end is dropped."""
    process = stage.start("--rate", "200")
    wait_for(lambda: stage.written() >= 80)
    process.kill()
    stage.finish(process)
    whole = stage.journal.read_bytes()
    middle = whole.index(b"@", len(whole) // 2)
    stage.journal.write_bytes(whole[:middle] + b"#" + whole[middle + 1 :])
    code, out = stage.finish(stage.start("--resume"))
    assert code == 12
    assert "damaged" in out
    stage.journal.write_bytes(whole[:-7])
    assert stage.finish(stage.start("--rate", "0", "--resume"))[0] == 0
    stage.check()


def test_one_account_runs_once_at_a_time(stage: Stage) -> None:
    """The second run exits 11 with nothing sent; after a kill -9 the next one gets the lock."""
    account = ["--email", "admin@example.edu", "-o"]
    first = stage.start("--rate", "100", *account, "one.json")
    wait_for((stage.folder / "one.json.journal").exists)
    codes = [stage.finish(process)[0] for process in [stage.start(*account, f"{n}.json") for n in range(5)]]
    assert codes == [11] * 5
    assert not list(stage.folder.glob("[0-4].json*"))
    first.kill()
    stage.finish(first)
    assert stage.finish(stage.start("--rate", "0", *account, "two.json"))[0] == 0
