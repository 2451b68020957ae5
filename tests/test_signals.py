"""Signals at moments of a run's life, through real processes. `make torture` plays all of them with every signal."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from lifecycle import HEADER, MOMENTS, play_signal

EARLY: Final = ["-m", "bulkusers", "run", "users.csv", "--base-url", "http://127.0.0.1:9", "--school", "example"]
NUMBERS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def start(folder: Path, *options: str) -> "subprocess.Popen[str]":
    """Start a run that nobody listens to."""
    return subprocess.Popen(
        [sys.executable, *options, *EARLY],
        cwd=folder,
        env=os.environ | {"BULKUSERS_TOKEN": "t"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_ends_a_program_that_is_still_being_loaded(tmp_path: Path, number: signal.Signals) -> None:
    """At once, with the signal's exit code, and without a traceback."""
    process = start(tmp_path, "-X", "importtime")
    assert process.stderr is not None
    while "typer.models" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(number)
    out, err = process.communicate(timeout=10)
    assert process.returncode == 128 + number
    assert "Traceback" not in err
    assert out == ""


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_ends_a_program_that_reads_its_file(tmp_path: Path, number: signal.Signals) -> None:
    """At once, with the signal's exit code, without a word, and nothing is left behind."""
    os.mkfifo(tmp_path / "users.csv")
    process = start(tmp_path)
    with (tmp_path / "users.csv").open("w") as file:  # opens when the program opens it
        file.write(HEADER)
        file.flush()
        process.send_signal(number)
        assert process.communicate(timeout=10) == ("", "")
    assert process.returncode == 128 + number
    assert [path.name for path in tmp_path.iterdir()] == ["users.csv"]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_after_the_end_changes_nothing(number: signal.Signals) -> None:
    """The exit code is that of what was done."""
    program = f"import os\nfrom bulkusers.__main__ import main\ntry: main()\nfinally: os.kill(os.getpid(), {number})"
    done = subprocess.run([sys.executable, "-c", program, "template"], capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("during the login", signal.SIGHUP),
        ("during a settle wait", signal.SIGINT),
        ("during a pause for 429", signal.SIGTERM),
        ("during an outage", signal.SIGHUP),
    ],
)
def test_a_run_that_waits_is_stopped_and_resumed(tmp_path: Path, moment: str, number: signal.Signals) -> None:
    """Whatever it waits for: it ends soon, the report is true, and `--resume` does the rest."""
    ending = play_signal(MOMENTS[moment], (number,), tmp_path, latency=0.2)
    assert ending.violations == []
    assert ending.seconds < 5
