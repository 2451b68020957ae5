"""Signals at moments of a run's life, through real processes. `make torture` plays all of them with every signal."""

import fcntl
import os
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import IO, Final

import pytest
from lifecycle import HEADER, MOMENTS, play_signal, wait_for

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


def end(process: "subprocess.Popen[str]", number: signal.Signals) -> tuple[str, str]:
    """Send a signal to a run; return what it said, once it has ended."""
    process.send_signal(number)
    try:
        return process.communicate(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise


def waits_for_more(process: "subprocess.Popen[str]", file: IO[str]) -> bool:
    """Tell whether a process has taken all that is in a pipe, and sleeps until there is more."""
    left = struct.unpack("i", fcntl.ioctl(file, termios.FIONREAD, b"\0" * 4))[0]
    return not left and Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_ends_a_program_that_is_still_being_loaded(tmp_path: Path, number: signal.Signals) -> None:
    """At once, with the signal's exit code, and without a traceback."""
    process = start(tmp_path, "-X", "importtime")
    assert process.stderr is not None
    while "typer.models" not in process.stderr.readline():
        assert process.poll() is None
    out, err = end(process, number)
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
        wait_for(lambda: waits_for_more(process, file), "read on")
        assert end(process, number) == ("", "")
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


def test_what_was_imported_is_not_looked_through_in_the_middle_of_a_run() -> None:
    """The collector would stop everything for 20 ms, and requests that had their turn would go out late, crowded."""
    code = """if True:
        import gc
        from bulkusers.cli.app import main
        from bulkusers.cli.loop import run_in_loop
        async def count():
            import bulkusers.run, bulkusers.undo
            print(gc.get_freeze_count(), len(gc.get_objects()))
        run_in_loop(count())
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    kept, looked_through = map(int, done.stdout.split())
    assert looked_through < kept / 3
