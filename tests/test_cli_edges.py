"""The command line where things go wrong: signals, lost terminals, full disks, foreign locales, mistreated files."""

import csv
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_cli import PROGRAM, rows_of, spawn, wait_for, write_users

from bulkusers.appendix import frame
from bulkusers.cli.app import main
from bulkusers.cli.options import parse_duration, parse_share
from bulkusers.errors import SourceError
from bulkusers.models import Status
from bulkusers.report import Report, read_report, write_report
from bulkusers.tally import Problem

ASCII_ONLY = {"LC_ALL": "C", "PYTHONUTF8": "0"}
GOOD, BAD = "A,B,{}@example.edu,events,", "A,B,{}@example.edu,event,"

BROKEN = [{"method": "POST", "path": "*/users", "action": "status", "status": 500}]

Start = Callable[..., str]
Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder, with nothing configured but an account of the sandbox."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("BULKUSERS_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # it hides what Python's last flush does to an exit code
    monkeypatch.setenv("BULKUSERS_EMAIL", "admin@example.edu")
    monkeypatch.setenv("BULKUSERS_PASSWORD", "sandbox")
    return tmp_path


@pytest.fixture
def start_sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Return a function that starts a sandbox of its own and makes it the target."""
    processes: list[subprocess.Popen[str]] = []

    def start(*options: str) -> str:
        process = subprocess.Popen([*PROGRAM, "sandbox", "--port", "0", *options], stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None
        match = re.search(r"http://\S+", process.stdout.readline())
        assert match is not None
        monkeypatch.setenv("BULKUSERS_BASE_URL", match[0])
        monkeypatch.setenv("BULKUSERS_SCHOOL", "example_university")
        return match[0]

    yield start
    for process in processes:
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        process.stdout.close()
        process.wait(10)


@pytest.fixture
def write_results(folder: Path) -> Write:
    """Return a function that writes a report whose warnings, problems and rows hold lists of rows, and a letter."""

    def write(name: str = "results.json") -> Path:
        run = {
            "exit_code": 6,
            "seconds": 1.5,
            "environment": "staging",
            "base_url": "https://staging.example.edu/api/v1",
            "school": "example",
            "stopped": {"reason": "SIGINT asked to stop", "hint": ""},
            "arguments": ["--lists", "replace"],
            "rejects": "results.rejects.csv",
            "input": {"path": "zoë.csv"},
        }
        counts = {str(status): 0 for status in Status} | {"rows": 2, "created": 1, "rejected": 1}
        http = {"requests": 2, "requests_per_second": 1.3, "by_status": {"201": 1, "400": 1}}
        problem = Problem("rejected", "refused-400", "no such role", "mend it", 1, [3])
        report = Report(folder / name, run, counts, http, [{"code": "bom", "rows": [2, 3]}], [problem])
        rows = [
            {"row": 2, "email": "zoë@example.edu", "status": "created"},
            {
                "row": 3,
                "email": "b@example.edu",
                "status": "rejected",
                "code": "refused-400",
                "message": "no such role",
            },
        ]
        write_report(report, [json.dumps(row).encode() for row in rows])
        return report.path

    return write


def code_of(*arguments: str) -> Any:  # noqa: ANN401 - as SystemExit has it
    """Run a command inside this process and return its exit code."""
    try:
        return main(arguments)
    except SystemExit as end:
        return end.code


def write_many(folder: Path, number: int) -> None:
    """Write a users file of many good rows."""
    write_users(folder, *(GOOD.format(f"u{count}") for count in range(number)))


def events_of(text: str) -> list[dict[str, Any]]:
    """Return the events of a log of JSON lines."""
    return [json.loads(line) for line in text.splitlines()]


def begin_run(*arguments: str) -> "subprocess.Popen[bytes]":
    """Start a run and return once it has begun with users."""
    command = [*PROGRAM, "run", "users.csv", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for_journal()
    return process


def wait_for_journal(what: bytes = b'"row"') -> None:
    """Wait until a run has begun with users, or has come as far as said."""
    journal = Path("results.json.journal")
    wait_for(lambda: journal.exists() and what in journal.read_bytes())


def gone_reader() -> int:
    """Return a pipe whose reader has left."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def test_check_tells_a_collector_every_problem_and_the_counts(folder: Path) -> None:
    """One event a problem, with its fields, then the counts."""
    write_users(folder, GOOD.format("a"), BAD.format("b"), GOOD.format("c"), GOOD.format("c"))
    done = spawn("check", "users.csv", "--log-format", "json")
    assert (done.returncode, done.stdout) == (6, "")
    bad, repeated, last = events_of(done.stderr)
    assert (bad["level"], bad["row"], bad["code"]) == ("error", 3, "product-unknown")
    assert "event" in bad["hint"] + bad["message"]
    assert (repeated["level"], repeated["row"]) == ("info", 5)
    assert last["exit_code"] == 6
    assert last["counts"] == {"rows": 4, "fine": 2, "rejected": 1, "skipped": 1}


def test_check_tells_a_person_every_problem_and_the_counts(folder: Path) -> None:
    """One line a problem, and how many rows are fine."""
    write_users(folder, GOOD.format("a"), BAD.format("b"))
    done = spawn("check", "users.csv")
    assert done.returncode == 6
    lines = done.stdout.splitlines()
    assert lines[0].startswith("row 3: ")
    assert lines[-1] == "users.csv: 2 rows, 1 fine, 1 rejected, 0 skipped"


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_quiet_check_speaks_only_if_not_all_is_well(folder: Path, form: str) -> None:
    """Whatever its form."""
    arguments = ("check", "users.csv", "--quiet", "--log-format", form)
    write_users(folder, GOOD.format("a"))
    done = spawn(*arguments)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    write_users(folder, BAD.format("a"))
    done = spawn(*arguments)
    assert done.returncode == 6
    assert (done.stdout + done.stderr).count("\n") > 1
    (folder / "users.csv").write_text("Shoe Size\n")
    assert spawn(*arguments).returncode == 3


@pytest.mark.parametrize(
    ("header", "row", "named"),
    [
        ("\x1b[31mEvil\x1b]0;pwn\a" + "x" * 500, "x", "not used:  [31mEvil ]0;pwn xx"),
        ("\x1b[Prodicts\x85", "x", "no column ' [Prodicts '; did"),
        ("Email\a", "x", "'Email' and 'Email ' both mean"),
        ("\x1b[31mEvil", "\xff", "column 5 ( [31mEvil) is not utf-8"),
    ],
)
def test_a_header_moves_no_terminal(folder: Path, header: str, row: str, named: str) -> None:
    """Whatever stands in it, a message names it without what a terminal would obey, and not at any length."""
    write_users(folder, header=f"First Name,Last Name,Email,Products,{header}")
    with (folder / "users.csv").open("ab") as file:
        file.write(f"{GOOD.format('a')}{row}\n".encode("latin-1"))
    said = spawn("check", "users.csv").stderr
    assert named in said
    assert said.replace("\n", "").isprintable()
    assert all(len(line) < 160 for line in said.splitlines())


def test_check_leads_to_a_run_that_reads_the_file_alike(folder: Path) -> None:
    """What the file needs to be read is said again."""
    (folder / "it's.csv").write_bytes(
        "First Name;Last Name;Email;Products\nZoë;B;a@example.edu;events\n".encode("cp1252")
    )
    done = spawn("check", "it's.csv", "--encoding", "cp1252", "--delimiter=;")
    assert done.returncode == 0, done.stderr
    command = done.stdout.splitlines()[-1].removeprefix("Next: ")
    assert shlex.split(command) == ["bulkusers", "run", "it's.csv", "--encoding", "cp1252", "--delimiter", ";"]


def test_a_hint_is_a_part_of_its_error(folder: Path) -> None:
    """A collector sees one event for one error."""
    write_users(folder, GOOD.format("a"))
    done = spawn("run", "users.csv", "--env", "staging", "--log-format", "json")
    assert done.returncode == 4
    [error] = [event for event in events_of(done.stderr) if event["level"] == "error"]
    assert "no school" in error["message"]
    assert "--school" in error["hint"]


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [(signal.SIGINT, signal.SIGINT, 130), (signal.SIGTERM, signal.SIGINT, 143), (signal.SIGHUP, signal.SIGTERM, 129)],
)
def test_a_second_signal_ends_a_run_at_once(
    folder: Path, start_sandbox: Start, first: signal.Signals, second: signal.Signals, code: int
) -> None:
    """With the first one's code and no traceback; the journal stays, and the run can be resumed."""
    start_sandbox("--switch", "latency=8")
    write_many(folder, 100)
    (folder / "coursedog.properties").write_text("token = t\n")
    process = begin_run()
    process.send_signal(first)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(second)
    began = time.monotonic()
    out, err = process.communicate(timeout=20)
    assert time.monotonic() - began < 3
    assert process.returncode == code, err
    assert b"Traceback" not in err
    assert f"error: {first.name} asked to stop" in err.decode()
    assert out == b""
    assert (folder / "results.json.journal").exists()
    assert not (folder / "results.json").exists()


def test_a_terminal_that_goes_away_takes_only_the_live_line_with_it(folder: Path, start_sandbox: Start) -> None:
    """The system sends SIGHUP, and the run ends as at any signal: drained, reported, exit code 129."""
    start_sandbox()
    write_many(folder, 2000)
    ours, its = os.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", *PROGRAM, "run", "users.csv", "--no-notify", "--rate", "200"],  # noqa: S607 - the system's own
        stdin=its,
        stdout=its,
        stderr=its,
    )
    os.close(its)
    wait_for_journal()
    while b"created" not in os.read(ours, 4096):  # the live line comes with the first outcome
        assert process.poll() is None
    os.close(ours)
    assert process.wait(20) == 129
    counts = read_report(folder / "results.json").counts
    assert counts["created"] > 0
    assert counts["unprocessed"] > 0


def test_a_run_outlives_its_terminal_where_it_is_told_to(folder: Path, start_sandbox: Start) -> None:
    """Nohup means that SIGHUP is nothing to stop for."""
    start_sandbox()
    write_many(folder, 100)
    process = subprocess.Popen(
        ["nohup", *PROGRAM, "run", "users.csv"],  # noqa: S607 - the system's own
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    wait_for_journal()
    process.send_signal(signal.SIGHUP)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert read_report(folder / "results.json").counts["created"] == 100


DATA = [
    ("template",),
    ("template", "--rows", "10000"),
    *(("report", "results.json", "--format", form) for form in ("json", "csv", "md")),
    ("report", "results.json", "--failed", "--format", "csv"),
]


@pytest.mark.parametrize("arguments", DATA, ids=" ".join)
def test_data_that_a_full_disk_does_not_take_is_told(write_results: Write, arguments: tuple[str, ...]) -> None:
    """Exit 12, and no half a file that passes for a whole one."""
    write_results()
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([*PROGRAM, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (12, "error: cannot write to stdout: No space left on device\n")
    closed = subprocess.run(
        ["bash", "-c", f"{shlex.join([*PROGRAM, *arguments])} >&-"],  # noqa: S607 - the system's own shell
        capture_output=True,
        text=True,
        check=False,
    )
    assert (closed.returncode, closed.stderr.count("\n")) == (12, 1)


@pytest.mark.parametrize("arguments", [*DATA, ("report", "results.json")], ids=" ".join)
def test_a_reader_who_left_has_seen_enough(write_results: Write, arguments: tuple[str, ...]) -> None:
    """`bulkusers template | head` is no error."""
    write_results()
    with os.fdopen(gone_reader(), "wb") as pipe:
        done = subprocess.run([*PROGRAM, *arguments], stdout=pipe, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("place", ["/dev/full", "a pipe"])
def test_a_run_that_nobody_reads_still_ends_with_its_own_code(folder: Path, place: str) -> None:
    """What is said to people can be lost; the exit code cannot."""
    write_users(folder, GOOD.format("a"), BAD.format("b"))
    descriptor = gone_reader() if place == "a pipe" else os.open(place, os.O_WRONLY)
    with os.fdopen(descriptor, "wb") as stream:
        command = [*PROGRAM, "run", "users.csv", "--env", "sandbox"]
        done = subprocess.run(command, stdout=stream, stderr=stream, check=False, timeout=60)
    assert done.returncode == 6


@pytest.mark.parametrize("command", [("report",), ("undo", "--yes"), ("undo", "--dry-run")], ids=" ".join)
@pytest.mark.parametrize("place", [".", "..", "/"])
def test_a_folder_in_place_of_a_report_is_told(command: tuple[str, ...], place: str) -> None:
    """Also one whose name has nothing that a file beside it could be named after."""
    done = spawn(*command, place)
    assert done.returncode == 3
    assert done.stderr.startswith(f"error: cannot read {place}: Is a directory\n")


STREAMS = {"stdin": "<&-", "stdout": ">&-", "stderr": "2>&-", "all three": "<&- >&- 2>&-"}


@pytest.mark.parametrize("closed", STREAMS.values(), ids=STREAMS)
def test_a_command_does_its_work_though_a_stream_is_closed(folder: Path, start_sandbox: Start, closed: str) -> None:
    """Daemons and wrappers start jobs like that; a socket with the number of a stream would abort the process."""
    start_sandbox()
    write_users(folder, GOOD.format("a"))
    for arguments, written in (
        (("plan", "users.csv"), None),
        (("run", "users.csv", "--no-notify"), "results.json"),
        (("export", "--output", "all.csv"), "all.csv"),
        (("login",), "coursedog.properties"),
    ):
        command = f"{shlex.join([*PROGRAM, *arguments])} {closed}"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=60)  # noqa: S607 - the system's own shell
        assert done.returncode == 0, (arguments, done.stderr)
        assert written is None or (folder / written).stat().st_size > 0
    assert read_report(folder / "results.json").counts["created"] == 1


def test_data_is_utf_8_whatever_the_locale(write_results: Write) -> None:
    """A name with two dots is not another name in a cron job."""
    write_results()
    for form in ("json", "csv", "md"):
        command = [*PROGRAM, "report", "results.json", "--format", form]
        said, in_ascii = (
            subprocess.run(command, capture_output=True, check=True, env=os.environ | env).stdout
            for env in ({}, ASCII_ONLY)
        )
        assert "zoë".encode() in said
        assert in_ascii == said


def test_the_template_is_a_csv_file(folder: Path) -> None:
    """As many rows as asked for, and each can be read."""
    done = spawn("template", "--rows", "3", env=ASCII_ONLY)
    assert len(list(csv.DictReader(io.StringIO(done.stdout)))) == 3
    (folder / "users.csv").write_text(done.stdout)
    assert spawn("check", "users.csv").returncode == 0


def test_a_sandbox_that_could_not_save_does_not_start(folder: Path) -> None:
    """Exit 12, the place, and what to do."""
    done = spawn("sandbox", "--port", "0", "--state", "missing/state.json")
    assert (done.returncode, done.stdout) == (12, "")
    assert "missing/state.json" in done.stderr
    assert "--state" in done.stderr
    assert "port" not in done.stderr
    (folder / "link").symlink_to("elsewhere")
    assert spawn("sandbox", "--port", "0", "--state", "link").returncode == 12


def test_a_port_that_is_taken_is_told(start_sandbox: Start) -> None:
    """Exit 4, with the port's number."""
    port = start_sandbox().rpartition(":")[2].partition("/")[0]
    done = spawn("sandbox", "--port", port)
    assert done.returncode == 4
    assert f"cannot listen on port {port}" in done.stderr


def test_a_sandbox_that_cannot_save_any_more_says_so(folder: Path) -> None:
    """Its folder has gone while it served."""
    place = folder / "place"
    place.mkdir()
    process = subprocess.Popen(
        [*PROGRAM, "sandbox", "--port", "0", "--state", "place/state.json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    place.rmdir()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (12, "error: cannot write place/state.json: No such file or directory\n")


@pytest.mark.parametrize(
    "form",
    [
        *([f"--indent={number}"] for number in (0, 1, 2, 8)),
        ["--tab"],
        ["--no-indent"],
        ["--compact"],
        ["--indent=0", "--sort-keys"],
        ["--sort-keys"],
        ["--no-ensure-ascii", "--indent=0"],
    ],
    ids=" ".join,
)
def test_a_report_that_went_through_json_tool_is_read(write_results: Write, form: list[str]) -> None:
    """However it laid the report out."""
    path = write_results()
    before, rows = read_report(path), list(read_report(path).rows())
    subprocess.run([sys.executable, "-m", "json.tool", *form, path, path], check=True)
    after = read_report(path)
    assert (after, list(after.rows())) == (before, rows)
    for options in ((), ("--failed",), ("--format", "csv"), ("--format", "json"), ("--format", "md", "--failed")):
        assert code_of("report", "results.json", *options) == 0


def test_a_sorted_report_without_problems_is_read(write_results: Write) -> None:
    """Its rows stand before the rest of its head."""
    path = write_results()
    report = json.loads(path.read_bytes()) | {"problems": [], "warnings": []}
    path.write_text(json.dumps(report, indent=0, sort_keys=True))
    assert read_report(path).run == report["run"]
    assert list(read_report(path).rows()) == report["rows"]


def keys_of(report: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield the way to every key that a reader may rely on."""
    for name in ("run", "counts", "http"):
        yield (name,)
        yield from ((name, key) for key in report[name])
    yield from (("run", part, key) for part in ("input", "stopped") for key in report["run"][part])
    yield from (("problems", "0", key) for key in report["problems"][0])


def change(report: dict[str, Any], way: tuple[str, ...], value: object) -> None:
    """Put another value in the place of one, or none."""
    place: Any = report
    for key in way[:-1]:
        place = place[int(key) if key.isdigit() else key]
    if value is None:
        del place[way[-1]]
    else:
        place[way[-1]] = value


def test_a_report_that_lacks_something_is_refused(write_results: Write, capfd: pytest.CaptureFixture[str]) -> None:
    """Whatever is missing or of another kind, and however the report is to be shown: exit 3 and no traceback."""
    path = write_results()
    whole = path.read_bytes()
    optional = {("run", "arguments"), ("run", "rejects")}
    values: tuple[dict[str, Any] | None, ...] = (None, {"x": []})
    for way in keys_of(json.loads(whole)):
        for value in values:
            report = json.loads(whole)
            change(report, way, value)
            path.write_text(json.dumps(report))
            if value is None and way in optional:
                read_report(path)
                continue
            with pytest.raises(SourceError, match="is no outcome report"):
                read_report(path)
    assert code_of("report", str(path), "--format", "md") == 3
    assert "is no outcome report" in capfd.readouterr().err


@pytest.mark.parametrize("row", ["[1]", '{"row": 2}', '{"row": 2, "email": "a", "status": 1}', "null"])
def test_a_row_that_is_none_is_damage(write_results: Write, row: str) -> None:
    """It is told wherever it stands."""
    path = write_results()
    lines = path.read_text().splitlines()
    for place in (-3, -2):
        changed = lines[:]
        changed[place] = row + ("," if place == -3 else "")
        path.write_text("\n".join(changed))
        with pytest.raises(SourceError, match="is damaged"):
            list(read_report(path).rows())


def test_a_large_file_that_is_no_report_is_refused_soon(folder: Path) -> None:
    """Reading its lines one after another costs what reading it costs."""
    (folder / "users.csv").write_text("Ann,Lee,ann@example.edu,events,,,,\n" * 500_000)
    began = time.monotonic()
    with pytest.raises(SourceError):
        read_report(folder / "users.csv")
    assert time.monotonic() - began < 5


def test_the_next_command_says_what_the_first_one_said(folder: Path) -> None:
    """Options as they were typed, and none that came from elsewhere; it can be pasted."""
    users = "First Name;Last Name;Email;Products\nA;B;a@example.edu;event\n"
    (folder / "the users.csv").write_bytes(users.encode("cp1252"))
    typed = [
        *("--env", "sandbox", "--rate", "100", "--existing", "skip", "--lists", "replace", "--no-notify"),
        *("--timeout", "2.5", "--encoding", "cp1252", "--delimiter", ";", "--quiet"),
    ]
    done = spawn("run", "the users.csv", "-o", "my report.json", *typed, env={"BULKUSERS_CONCURRENCY": "3"})
    assert done.returncode == 6, done.stderr
    report = read_report(folder / "my report.json")
    arguments = report.run["arguments"]
    assert "--concurrency" not in arguments
    said = dict(zip(*[iter(arg for arg in arguments if arg not in {"--no-notify", "--quiet"})] * 2, strict=True))
    assert {"--no-notify", "--quiet"} <= set(arguments)
    assert said == {
        "--env": "sandbox",
        "--rate": "100",
        "--existing": "skip",
        "--lists": "replace",
        "--report": "my report.json",
        "--timeout": "2.5",
        "--encoding": "cp1252",
        "--delimiter": ";",
    }
    [command] = re.findall(r"^    (bulkusers run .*)$", done.stdout, re.MULTILINE)
    # what is to be mended is UTF-8, whatever the file was
    arguments = ["utf-8" if argument == "cp1252" else argument for argument in arguments]
    assert shlex.split(command) == ["bulkusers", "run", report.run["rejects"], *arguments]
    again = spawn(*shlex.split(command)[1:])
    assert again.returncode == 6, again.stderr
    assert read_report(folder / "my report.json").run["arguments"] == arguments


@pytest.mark.parametrize("report", ["users.csv", "sub/../users.csv", "link/data.csv", "data.csv"])
def test_no_report_takes_the_place_of_the_users_file(folder: Path, report: str) -> None:
    """Whichever way leads there: the file is as it was, and nothing was sent."""
    write_users(folder, GOOD.format("a"))
    (folder / "users.csv").rename(folder / "data.csv")
    (folder / "users.csv").symlink_to("data.csv")
    (folder / "sub").mkdir()
    (folder / "link").symlink_to(".")
    before = (folder / "data.csv").read_bytes()
    done = spawn("run", "users.csv", "--env", "sandbox", "-o", report)
    assert (done.returncode, "the place of the users file" in done.stderr) == (2, True)
    assert {path.name for path in folder.iterdir()} == {"data.csv", "users.csv", "sub", "link"}
    assert (folder / "users.csv").read_bytes() == before


def test_no_rejects_take_the_place_of_the_file_that_is_sent(folder: Path) -> None:
    """Also where it is known by another name."""
    write_users(folder, BAD.format("a"))
    (folder / "users.csv").rename(folder / "results.rejects.csv")
    (folder / "users.csv").symlink_to("results.rejects.csv")
    before = (folder / "results.rejects.csv").read_bytes()
    assert spawn("run", "users.csv", "--env", "sandbox").returncode == 6
    assert (folder / "results.rejects.csv").read_bytes() == before
    assert (folder / "results.rejects.2.csv").exists()


@pytest.mark.parametrize("names", [["results.json"] * 3, ["results.mon", "results.tue", "results.wed"]])
def test_every_report_names_its_own_rejects(folder: Path, names: list[str]) -> None:
    """Monday's are not Tuesday's, and Wednesday has none; what a report names is there."""
    for day, name in zip(("mon", "tue", "wed"), names, strict=True):
        write_users(folder, (GOOD if day == "wed" else BAD).format(day))
        spawn("run", "users.csv", "--env", "sandbox", "-o", name)
    found = {}
    for path in [path for path in folder.glob("results*") if b'"schema": 1' in path.read_bytes()]:
        [mail] = {row["email"] for row in rows_of(path)}
        shown = spawn("report", path.name)
        rejects = re.findall(r"^    bulkusers run (\S+\.csv)", shown.stdout, re.MULTILINE)
        found[mail] = [mail in (folder / name).read_text() for name in rejects]
    assert found == {"mon@example.edu": [True], "tue@example.edu": [True], "wed@example.edu": []}


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16-le", "utf-16", "utf-8-sig", "utf-8"])
def test_rejects_are_read_though_the_environment_names_another_encoding(folder: Path, encoding: str) -> None:
    """It named the first file's."""
    users = "First Name,Last Name,Email,Products\nZoë,B,a@example.edu,event\n"
    (folder / "users.csv").write_bytes(users.encode(encoding))
    env = {"BULKUSERS_ENCODING": encoding, "BULKUSERS_ENV": "sandbox"}
    done = spawn("run", "users.csv", env=env)
    assert done.returncode == 6, done.stderr
    [command] = re.findall(r"^    (bulkusers run .*)$", done.stdout, re.MULTILINE)
    again = spawn(*shlex.split(command)[1:], env=env)
    assert again.returncode == 6, again.stderr


def test_a_file_from_a_pipe_is_to_be_piped_again(folder: Path, start_sandbox: Start) -> None:
    """There is no command that would find it."""
    start_sandbox("--faults", write_faults(folder, BROKEN))
    users = "First Name,Last Name,Email,Products\nA,B,a@example.edu,events\n"
    done = spawn("run", "-", "--retries", "0", stdin=None, input=users)
    assert done.returncode == 5, done.stderr
    assert "pipe the file again" in done.stdout
    assert "bulkusers run" not in done.stdout


def write_faults(folder: Path, faults: list[dict[str, Any]]) -> str:
    """Write a script of faults and return its name."""
    (folder / "faults.json").write_text(json.dumps(faults))
    return "faults.json"


def test_a_run_stops_when_its_time_is_up_and_goes_on_from_there(folder: Path, start_sandbox: Start) -> None:
    """Exit 10; the next command that it prints sends the rest, and only the rest."""
    start_sandbox()
    write_many(folder, 60)
    done = spawn("run", "users.csv", "--max-duration", "1s", "--rate", "30")
    assert done.returncode == 10, done.stderr
    assert "the time is used up (1s)" in done.stdout
    first = read_report(folder / "results.json")
    assert first.counts["created"] > 0
    assert first.counts["unprocessed"] > 0
    [command] = re.findall(r"^    (bulkusers run .*)$", done.stdout, re.MULTILINE)
    assert shlex.split(command)[1:] == ["run", "users.csv", *first.run["arguments"], "--resume"]
    again = shlex.split(command.replace("1s", "1h"))[1:]
    done = spawn(*again)
    assert done.returncode == 0, done.stderr
    assert read_report(folder / "results.json").counts["created"] == 60
    assert "--resume" not in read_report(folder / "results.json").run["arguments"]
    assert "journal" not in done.stderr


@pytest.mark.parametrize(("cap", "code"), [("2", 8), ("3", 6), ("0", 8), ("5%", 8), ("7.5%", 6)])
def test_a_run_stops_when_too_many_rows_fail(folder: Path, cap: str, code: int) -> None:
    """Exactly so many may; a percentage is of all rows of the file."""
    write_users(
        folder,
        *(BAD.format(f"bad{count}") for count in range(3)),
        *(GOOD.format(f"u{count}") for count in range(37)),
    )
    done = spawn("run", "users.csv", "--env", "sandbox", "--max-failures", cap)
    assert done.returncode == code, done.stderr
    counts = read_report(folder / "results.json").counts
    assert counts["rejected"] == 3
    assert (counts["unprocessed"] > 0) is (code == 8)
    assert (f"more rows failed than --max-failures {cap} allows" in done.stdout) is (code == 8)


@pytest.mark.parametrize("said", ["option", "environment"])
def test_a_run_that_too_many_rows_stopped_goes_on_as_it_says(folder: Path, start_sandbox: Start, said: str) -> None:
    """The cap that stopped it is not in the next command, whoever set it; the file need not be touched."""
    start_sandbox()
    write_users(folder, BAD.format("bad"), *(GOOD.format(f"u{count}") for count in range(40)))
    arguments = ("--max-failures", "0") if said == "option" else ()
    environment = {} if said == "option" else {"BULKUSERS_MAX_FAILURES": "0"}
    done = spawn("run", "users.csv", "--no-notify", *arguments, env=environment)
    assert done.returncode == 8
    assert "go on with --resume and the file as it is" in done.stdout
    assert "results.rejects.csv" not in done.stdout  # that is written anew
    command = re.findall(r"^    (bulkusers run .*)$", done.stdout, re.MULTILINE)[0]
    done = spawn(*shlex.split(command)[1:], env=environment)
    assert done.returncode == 6, done.stdout
    assert read_report(folder / "results.json").counts["created"] == 40
    stopped = next(folder.glob("results.*Z.json"))  # and its rejects went with it
    assert stopped.with_name(f"{stopped.stem}.rejects.csv").exists()
    assert (folder / "results.rejects.csv").exists()


def test_a_request_is_sent_again_as_often_as_told(folder: Path, start_sandbox: Start) -> None:
    """Not at all with `--retries 0`."""
    start_sandbox("--faults", write_faults(folder, BROKEN))
    write_users(folder, GOOD.format("a"))
    assert spawn("run", "users.csv", "--retries", "0").returncode == 5
    assert rows_of(folder / "results.json")[0]["attempts"] == 1
    assert read_report(folder / "results.json").run["options"]["retries"] == 0


@pytest.mark.parametrize(
    ("option", "value"),
    [("--max-duration", value) for value in ("", "0s", "2", "1.5h", "2h30", "30m1h", "-5s", "1d", "٣s", "2 h")]
    + [("--max-failures", value) for value in ("", "-1", "1.5", "%", "5 %", "1000%0", "101%", "100.5%", "x", "٣")]
    + [("--retries", value) for value in ("-1", "x")],
)
def test_a_limit_that_is_none_is_wrong_usage(folder: Path, option: str, value: str) -> None:
    """Exit 2, with the option's name, and nothing is sent."""
    write_users(folder, GOOD.format("a"))
    done = spawn("run", "users.csv", f"{option}={value}")
    assert done.returncode == 2
    assert option in done.stderr
    assert not (folder / "results.json").exists()


def test_limits_are_read_as_people_write_them() -> None:
    """Spans of time, numbers of rows, and percentages."""
    spans = {"90s": 90, "15m": 900, "2h": 7200, "1h30m": 5400, "1h0m5s": 3605, "100m": 6000}
    assert {text: parse_duration(text).seconds for text in spans} == spans
    rows = {"0": 0, "20": 20, "5%": 10, "0.5%": 1, "100%": 200}
    assert {text: parse_share(text).of(200) for text in rows} == rows


def test_a_run_beside_an_interrupted_one_says_what_it_does(folder: Path, start_sandbox: Start) -> None:
    """It begins anew, keeps the old journal, and says what would have gone on."""
    start_sandbox()
    write_many(folder, 100)
    process = begin_run("--rate", "40")
    wait_for_journal(b'"created"')
    process.kill()
    process.communicate()
    shown = spawn("report", "results.json.journal")
    assert shown.returncode == 0, shown.stderr
    assert re.search(r"^ +\d+ created$", shown.stdout, re.MULTILINE)
    assert "--resume" in shown.stdout
    done = spawn("run", "users.csv", "--rate", "0", "--quiet")
    assert done.returncode == 0, done.stderr
    assert "begins anew" in done.stderr
    assert "--resume would go on with it" in done.stderr
    assert len(list(folder.glob("results*.journal*"))) == 1
    done = spawn("run", "users.csv", "--rate", "0", "--resume")
    assert done.returncode == 0, done.stderr
    assert "nothing to go on with" in done.stderr


def test_a_journal_shows_how_far_a_run_came(folder: Path) -> None:
    """Each row once, by what is known of it last; a torn end is no trouble."""
    entries: list[dict[str, Any]] = [
        {"sha256": "0", "base_url": "https://staging.example.edu/api/v1"},
        *({"row": row, "email": "a"} for row in range(2, 9)),
        *({"row": row, "email": "a", "status": "created"} for row in (2, 3, 4)),
        {"row": 5, "email": "a", "status": "unknown", "code": "lost", "message": "m", "hint": "h"},
        {"row": 5, "email": "a"},
        {"row": 5, "email": "a", "status": "updated"},
        {"row": 9, "email": "a", "status": "rejected", "code": "bad", "message": "m", "hint": "h"},
    ]
    lines = [json.dumps(entry).encode() for entry in entries]
    content = b"".join(map(frame, lines)) + b'{"crc":"0000'
    (folder / "results.json.journal").write_bytes(content)
    shown = spawn("report", "results.json.journal")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert re.findall(r"^ +(\d) (\w+)", shown.stdout, re.MULTILINE) == [
        ("3", "created"),
        ("1", "updated"),
        ("1", "rejected"),
        ("3", "begun"),
    ]
    counts = json.loads(spawn("report", "results.json.journal", "--format", "json").stdout)["counts"]
    assert {name: count for name, count in counts.items() if count} == {
        "created": 3,
        "updated": 1,
        "rejected": 1,
        "begun": 3,
    }
    assert spawn("report", "results.json.journal", "--format", "csv").returncode == 2
    (folder / "other").write_bytes(frame(b'{"row":2}'))
    assert spawn("report", "other").returncode == 3
