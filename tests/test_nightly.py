"""The nightly job of the README, as cron and systemd would start it: what it says, and what the next night does."""

import configparser
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from lifecycle import make_case
from torture import CLIENT, EMAIL, PASSWORD, Stage, staging

from bulkusers.workers import DRAIN

README: Final = Path(__file__).parents[1].joinpath("README.md").read_text(encoding="utf-8")


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """Run a sandbox that knows some of the file's users, and write the account's file."""
    with staging(make_case(30, log_in=True), tmp_path, CLIENT) as stage:
        where = f"BULKUSERS_BASE_URL={stage.url}\nBULKUSERS_SCHOOL=example_university\n"
        account = f"BULKUSERS_EMAIL={EMAIL}\nBULKUSERS_PASSWORD='{PASSWORD}'\n"
        (tmp_path / "bulkusers.env").write_text(where + account)
        yield stage


def find_command() -> str:
    """Return the command of the README's crontab line."""
    (command,) = re.findall(r"^15 2 \* \* \* +(.*)$", README, re.MULTILINE)
    return str(command)


def find_unit(kind: str) -> configparser.ConfigParser:
    """Return the README's unit that has such a section."""
    (text,) = (text for text in re.findall(r"```ini\n(.*?)```", README, re.DOTALL) if f"[{kind}]" in text)
    unit = configparser.ConfigParser(interpolation=None)
    unit.read_string(text)
    return unit


def play_night(folder: Path, command: str) -> "subprocess.CompletedProcess[str]":
    """Run a command as cron does, with hardly any environment, where the README's folders are these ones."""
    here = command.replace("/srv/users", shlex.quote(str(folder)))
    here = here.replace("/opt/bulkusers/bin", shlex.quote(str(Path(sys.executable).parent)))
    bare = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "SHELL": "/bin/sh", "LOGNAME": "registrar"}
    return subprocess.run(
        ["/bin/sh", "-c", here],
        env=bare,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60,
    )


def rows_of(stage: Stage) -> list[dict[str, Any]]:
    """Return the rows of the latest report."""
    rows: list[dict[str, Any]] = json.loads((stage.folder / "results.json").read_bytes())["rows"]
    return rows


def test_nothing_is_said_when_all_is_well(stage: Stage) -> None:
    """The README's crontab line works as it stands, and cron has nothing to mail."""
    done = play_night(stage.folder, find_command())
    assert (done.returncode, done.stdout) == (0, "")
    assert [row["status"] for row in rows_of(stage)] == ["updated"] * 20 + ["created"] * 10


def test_what_is_wrong_is_said_with_the_next_command(stage: Stage) -> None:
    """It is what cron mails."""
    with (stage.folder / "users.csv").open("a") as file:
        file.write("A,B,nobody,events\n")
    done = play_night(stage.folder, find_command())
    assert done.returncode == 6
    assert "1 rejected" in done.stdout
    assert "bulkusers run results.rejects.csv" in done.stdout


def test_systemd_starts_what_cron_starts() -> None:
    """In the same folder, with the same account, and with time enough to end in order."""
    service = find_unit("Service")["Service"]
    folder, account, command = (service[key] for key in ("WorkingDirectory", "EnvironmentFile", "ExecStart"))
    assert find_command() == f"cd {folder} && set -a && . ./{Path(account).name} && {command}"
    assert Path(account).parent == Path(folder)
    assert int(service["TimeoutStopSec"]) > DRAIN + 10
    assert service["SuccessExitStatus"] == "143"
    assert find_unit("Timer")["Timer"]["OnCalendar"].endswith(" 02:15")


def test_the_night_after_an_interrupted_one_begins_anew(stage: Stage) -> None:
    """Though the file is another: it says so, keeps the old journal, leaves what is done, and sends nobody twice."""
    assert play_night(stage.folder, find_command().replace("2h", "1s --rate 40 --concurrency 4")).returncode == 10
    finished = {row["email"] for row in rows_of(stage) if row["status"] == "updated"}
    assert finished
    with (stage.folder / "users.csv").open("a") as file:
        file.write("A,B,newcomer@example.edu,events\n")
    done = play_night(stage.folder, find_command())
    assert done.returncode == 0, done.stdout
    assert "begins anew" in done.stdout
    assert {row["status"] for row in rows_of(stage) if row["email"] in finished} == {"unchanged"}
    assert len([*stage.folder.glob("*.journal")]) == 1
    users = stage.state()["users"]
    assert len(users) == 31
    creates = [entry for entry in stage.ledger() if entry["method"] == "POST" and entry["status"] == 201]
    assert len(creates) == 11 + 2  # and a login each night
