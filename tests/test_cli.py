"""The commands as people and cron jobs use them: what they print, write and exit with."""

import csv
import fcntl
import io
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from test_source_files import FILES, File

from bulkusers.cli.app import app, main
from bulkusers.journal import Journal
from bulkusers.sandbox import Sandbox

README = Path(__file__).parent.parent / "README.md"
PROGRAM = [sys.executable, "-m", "bulkusers"]
HEADER = "First Name,Last Name,Email,Products,Role IDs"


class Called:
    """What a command did."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err


Call = Callable[..., Called]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder, with nothing configured."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("BULKUSERS_")]:
        monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Call:
    """Return a way to run a command inside this process."""

    def call(*arguments: str) -> Called:
        capfd.readouterr()
        try:
            code: Any = main(arguments)
        except SystemExit as end:
            code = end.code
        said = capfd.readouterr()
        return Called(code, said.out, said.err)

    return call


def spawn(*arguments: str, env: dict[str, str] | None = None, **more: Any) -> "subprocess.CompletedProcess[str]":  # noqa: ANN401 - as subprocess.run
    """Run a command as a process of its own."""
    more = {"stdin": subprocess.DEVNULL} | more
    return subprocess.run(
        [*PROGRAM, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | (env or {}),
        **more,
    )


@pytest.fixture
def sandbox() -> Iterator[str]:
    """Run `bulkusers sandbox` as a process and return its URL."""
    process = subprocess.Popen([*PROGRAM, "sandbox", "--port", "0", "--users", "30"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    match = re.search(r"http://\S+", process.stdout.readline())
    assert match is not None
    yield match[0]
    process.send_signal(signal.SIGINT)
    process.stdout.close()
    assert process.wait(10) == 0


def write_users(folder: Path, *rows: str, header: str = HEADER) -> str:
    """Write a users file and return its name."""
    (folder / "users.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return "users.csv"


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a report."""
    rows: list[dict[str, Any]] = json.loads(path.read_bytes())["rows"]
    return rows


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_check_and_run_agree_on_every_file_of_the_table(call: Call, folder: Path, file: File) -> None:
    """What a file leads to: the exit code of both commands, and the outcome of each row."""
    (folder / "users.csv").write_bytes(file.data)
    checked = call("check", "users.csv")
    assert checked.code == file.exit_code
    ran = call("run", "users.csv", "--env", "sandbox", "--rate", "0")
    assert ran.code == file.exit_code
    if file.refusal:
        assert file.refusal in ran.err
        assert file.refusal in checked.err
        assert not (folder / "results.json").exists()
        return
    told = [(row["row"], row["status"], row.get("code", "")) for row in rows_of(folder / "results.json")]
    assert told == [(row, "created" if status == "user" else status, code) for row, status, code in file.rows]
    assert all(f"row {row}:" in checked.out for row, status, _ in file.rows if status != "user")


def save_as_a_spreadsheet(path: Path, delimiter: str) -> None:
    """Give every row, the header too, as many cells as the longest has."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter=delimiter))
    longest = max(map(len, rows))
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([*row, *[""] * (longest - len(row))] for row in rows)


@pytest.mark.parametrize("saved", [False, True], ids=["as it is", "saved by a spreadsheet"])
@pytest.mark.parametrize("file", [file for file in FILES if file.exit_code == 6], ids=lambda file: file.name)
def test_what_was_rejected_stays_so_until_somebody_mends_it(call: Call, folder: Path, file: File, saved: bool) -> None:
    """Whatever is wrong with a row, the file of rejects is no way round it, nor that one's own."""
    (folder / "users.csv").write_bytes(file.data)
    bad = sum(status == "rejected" for _, status, _ in file.rows)
    sent = "users.csv"
    for rejects in ("results.rejects.csv", "results.rejects.2.csv", "results.rejects.csv"):
        assert call("run", sent, "--env", "sandbox", "--rate", "0").code == 6
        rows = rows_of(folder / "results.json")
        assert [row["status"] for row in rows].count("rejected") == bad
        assert sent == "users.csv" or len(rows) == bad
        if saved:
            run = json.loads((folder / "results.json").read_bytes())["run"]
            save_as_a_spreadsheet(folder / rejects, run["input"]["delimiter"])
        sent = rejects


def test_a_short_row_is_mended_by_deleting_a_cell(call: Call, folder: Path) -> None:
    """Its hint says so, and then it is a row like any other."""
    write_users(folder, "A,B,a@example.edu,events")
    assert call("run", "users.csv", "--env", "sandbox").code == 6
    rejects = folder / "results.rejects.csv"
    header, row = csv.reader(rejects.read_text().splitlines())
    assert row[-3] == "the row has fewer cells than the header"
    assert row[-2].endswith("then delete the cell after this one")
    with rejects.open("w", newline="") as file:
        csv.writer(file).writerows([header, row[:-1]])
    assert call("run", "results.rejects.csv", "--env", "sandbox").code == 0


def test_the_way_of_a_newcomer(call: Call, folder: Path) -> None:
    """A template runs with nothing configured, says where it went, and its report can be read in every format."""
    (folder / "users.csv").write_text(call("template", "--rows", "120").out)
    ran = call("run", "users.csv", "--rate", "0")
    assert ran.code == 0
    assert "nothing leaves this machine" in ran.err
    assert "no registration mail" in ran.err
    assert re.search(r"^ +20 created$", ran.out, re.MULTILINE)
    shown = call("report", "results.json")
    assert (shown.code, shown.out) == (0, ran.out)
    as_json = json.loads(call("report", "results.json", "--format", "json").out)
    assert as_json["counts"]["rows"] == 120
    as_csv = list(csv.DictReader(io.StringIO(call("report", "results.json", "--format", "csv").out)))
    assert {row["changed"] for row in as_csv if row["status"] == "updated"} >= {"products,roles"}
    assert [row["email"] for row in as_csv] == [f"user{number:05}@example.edu" for number in range(1, 121)]
    assert "| created | 20 |" in call("report", "results.json", "--format", "md").out


def test_several_reports_add_up(call: Call, folder: Path) -> None:
    """Two runs are shown as one, in text and as JSON."""
    write_users(folder, "A,B,a@example.edu,events,", "A,B,b@example.edu,event,")
    for name in ("one.json", "two.json"):
        call("run", "users.csv", "--env", "sandbox", "-o", name)
    total = json.loads(call("report", "one.json", "two.json", "--format", "json").out)
    assert (total["counts"]["rows"], total["counts"]["created"], total["counts"]["rejected"]) == (4, 2, 2)
    assert [(problem["code"], problem["count"]) for problem in total["problems"]] == [("product-unknown", 2)]
    shown = call("report", "one.json", "two.json").out
    assert "2 runs: 4 rows" in shown
    assert re.search(r"^ {12}did you mean", shown, re.MULTILINE)  # rows of different files say nothing side by side
    cells = csv.DictReader(io.StringIO(call("report", "one.json", "two.json", "--format", "csv").out))
    assert [(row["row"], row["report"]) for row in cells] == [(r, f) for f in ("one.json", "two.json") for r in "23"]
    assert call("report", "one.json", "./one.json").code == 2


def test_failed_shows_the_rows_in_trouble_only(call: Call, folder: Path) -> None:
    """`--failed` names the row, the cause and the remedy, in every format."""
    write_users(folder, "A,B,a@example.edu,events,", "A,B,b@example.edu,event,")
    call("run", "users.csv", "--env", "sandbox")
    text = call("report", "results.json", "--failed").out
    assert text.startswith("row 3  b@example.edu  rejected  ")
    assert "did you mean" in text
    assert "a@example.edu" not in text
    rows = json.loads(call("report", "results.json", "--failed", "--format", "json").out)["rows"]
    assert [row["row"] for row in rows] == [3]
    assert len(call("report", "results.json", "--failed", "--format", "csv").out.splitlines()) == 2
    assert "3 b@example.edu" in call("report", "results.json", "--failed", "--format", "md").out


@pytest.mark.parametrize("content", ["", "{}", '{"schema": 1}', "[1]", "no json", '{"schema": 2}'])
def test_a_file_that_is_no_report_is_refused(call: Call, folder: Path, content: str) -> None:
    """Exit 3, with the file's name and no traceback."""
    (folder / "x.json").write_text(content)
    called = call("report", "x.json")
    assert (called.code, called.out) == (3, "")
    assert "x.json" in called.err


def test_a_login_is_all_that_a_run_needs(
    call: Call, folder: Path, sandbox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`login` keeps token, school and target in a file of mode 0600; `run` then needs no option."""
    stand_in = Sandbox()
    monkeypatch.setenv("BULKUSERS_PASSWORD", stand_in.password)
    logged_in = call("login", "--base-url", sandbox, "--school", stand_in.school, "--email", stand_in.email)
    assert logged_in.code == 0, logged_in.err
    properties = folder / "coursedog.properties"
    assert properties.stat().st_mode & 0o777 == 0o600
    assert [line.split(" = ")[0] for line in properties.read_text().splitlines()] == [
        "base_url",
        "school",
        "email",
        "token",
    ]
    monkeypatch.delenv("BULKUSERS_PASSWORD")
    write_users(folder, "Example,User 00001,user00001@example.edu,catalog,example-admin", "A,B,new@example.edu,events,")
    ran = call("run", "users.csv", "--concurrency", "20")
    assert ran.code == 0, ran.err
    report = json.loads((folder / "results.json").read_bytes())
    assert [row["status"] for row in report["rows"]] == ["updated", "created"]
    assert (report["run"]["operator"], report["run"]["base_url"]) == (stand_in.email, sandbox)
    token = re.search(r"token = (\S+)", properties.read_text())
    assert token is not None
    assert token[1] not in (folder / "results.json").read_text() + ran.out + ran.err + logged_in.out + logged_in.err


def test_a_token_that_stands_above_the_new_one_is_told(
    call: Call, folder: Path, sandbox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the advice for a dead token in the environment would lead round in a circle."""
    stand_in = Sandbox()
    monkeypatch.setenv("BULKUSERS_PASSWORD", stand_in.password)
    login = ("login", "--base-url", sandbox, "--school", stand_in.school, "--email", stand_in.email)
    assert "BULKUSERS_TOKEN" not in call(*login).err
    monkeypatch.setenv("BULKUSERS_TOKEN", "an-old-one")
    assert "warning: BULKUSERS_TOKEN is set and goes before this file" in call(*login).err
    assert "an-old-one" not in (folder / "coursedog.properties").read_text()


def test_a_run_that_is_going_on_is_not_called_interrupted(call: Call, folder: Path, sandbox: str) -> None:
    """Its journal lies beside its report as long as it goes on."""
    write_users(folder, "A,B,a@example.edu,events,")
    (folder / "coursedog.properties").write_text(f"base_url = {sandbox}\nschool = example_university\ntoken = t\n")
    with Journal.create(folder / "results.json.journal", {"base_url": sandbox}):
        called = call("run", "users.csv", "--no-notify")
    assert called.code == 11
    assert "results.json.journal belongs to a run that is going on" in called.err
    assert "interrupted" not in called.err


def test_a_wrong_password_is_told_without_it(call: Call, sandbox: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 4, the cause, and no secret."""
    monkeypatch.setenv("BULKUSERS_PASSWORD", "not-the-password")
    called = call("login", "--base-url", sandbox, "--school", "s", "--email", "admin@example.edu")
    assert called.code == 4
    assert "does not accept" in called.err
    assert "not-the-password" not in called.err


def test_options_go_before_the_environment_and_that_before_the_properties(
    call: Call, folder: Path, sandbox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one order for every setting, seen in what the report says was used."""
    write_users(folder, "A,B,a@example.edu,events,")
    (folder / "coursedog.properties").write_text(f"base_url = {sandbox}\nschool = from_properties\ntoken = t\n")

    def used(*options: str) -> str:
        call("run", "users.csv", *options)
        run = json.loads((folder / "results.json").read_bytes())["run"]
        return f"{run['school']} {run['options']['concurrency']}"

    assert used() == "from_properties 20"
    monkeypatch.setenv("BULKUSERS_SCHOOL", "from_environment")
    monkeypatch.setenv("BULKUSERS_CONCURRENCY", "3")
    assert used() == "from_environment 3"
    assert used("--school", "from_option", "--concurrency", "2") == "from_option 2"


def test_a_token_without_a_target_is_not_sent_to_a_rehearsal(call: Call, folder: Path) -> None:
    """A job that forgot `--env` must not seem to have worked."""
    write_users(folder, "A,B,a@example.edu,events,")
    (folder / "coursedog.properties").write_text("token = t\nschool = s\n")
    called = call("run", "users.csv")
    assert called.code == 4
    assert "--env staging" in called.err


@pytest.mark.parametrize("name", ["SCHOOL", "EMAIL", "PASSWORD", "TOKEN"])
def test_half_a_configuration_is_no_rehearsal(
    call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Whoever names a school or an account means a real place."""
    write_users(folder, "A,B,a@example.edu,events,")
    monkeypatch.setenv(f"BULKUSERS_{name}", "something")
    called = call("run", "users.csv")
    assert called.code == 4
    assert "nothing says where to send" in called.err
    assert not (folder / "results.json").exists()


def test_a_quiet_rehearsal_has_to_be_asked_for(call: Call, folder: Path) -> None:
    """A nightly job that lost its environment would seem to have worked."""
    write_users(folder, "A,B,a@example.edu,events,")
    called = call("run", "users.csv", "--quiet")
    assert (called.code, "nothing is configured" in called.err) == (4, True)
    assert call("run", "users.csv", "--quiet", "--env", "sandbox").code == 0


@pytest.mark.parametrize(
    ("options", "variables", "place"),
    [
        ("--env sandbox", {"BASE_URL": "http://127.0.0.1:1"}, "sandbox inside this program (from an option)"),
        ("--env staging", {"BASE_URL": "http://127.0.0.1:1"}, "staging, https://staging.coursedog.com/api/v1 (from an"),
        ("--base-url http://127.0.0.1:1", {"ENV": "sandbox"}, "custom, http://127.0.0.1:1 (from an option)"),
        ("", {"BASE_URL": "http://127.0.0.1:1"}, "custom, http://127.0.0.1:1 (from the environment)"),
        ("", {}, "sandbox inside this program (from coursedog.properties)"),
    ],
)
def test_where_to_send_is_what_was_said_nearest(
    call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch, options: str, variables: dict[str, str], place: str
) -> None:
    """An option goes before the environment also where one names an environment and the other a URL."""
    (folder / "coursedog.properties").write_text("env = sandbox\n")
    for name, value in variables.items():
        monkeypatch.setenv(f"BULKUSERS_{name}", value)
    assert f"environment: {place}" in call("doctor", *options.split()).out


@pytest.mark.parametrize("where", ["options", "environment"])
def test_two_places_said_alike_are_wrong_usage(
    call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Nobody can know which is meant."""
    write_users(folder, "A,B,a@example.edu,events,")
    said = {"--env": "sandbox", "--base-url": "http://127.0.0.1:1"}
    options = [word for pair in said.items() for word in pair] if where == "options" else []
    if not options:
        monkeypatch.setenv("BULKUSERS_ENV", said["--env"])
        monkeypatch.setenv("BULKUSERS_BASE_URL", said["--base-url"])
    called = call("run", "users.csv", *options)
    assert (called.code, "leave one out" in called.err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["run"], 2, "USERS.csv"),
        (["run", "users.csv", "--env", "moon"], 2, "moon"),
        (["run", "users.csv", "--concurrency", "0"], 2, "concurrency"),
        (["run", "missing.csv"], 3, "missing.csv"),
        (["run", "missing.csv"], 3, "→ is the name right? `bulkusers template` gives a file to start from"),
        (["run", "."], 3, "cannot read"),
        (["run", "users.csv", "--env", "staging"], 4, "no school"),
        (["run", "users.csv", "--env", "staging", "--school", "A B"], 4, "A B"),
        (["run", "users.csv", "--env", "staging", "--school", "s"], 4, "bulkusers login"),
        (["run", "users.csv", "--base-url", "http://example.edu", "--school", "s"], 4, "https"),
        (["run", "users.csv", "--api-profile", "missing.toml"], 4, "missing.toml"),
        (["run", "users.csv", "--properties", "missing"], 4, "missing"),
        (["run", "users.csv", "--report", "missing/results.json"], 12, "missing"),
        (["run", "users.csv", "--delimiter", "x"], 3, "delimiter"),
        (["run", "users.csv", "--encoding", "klingon"], 3, "klingon"),
        (["report", "missing.json"], 3, "missing.json"),
        (["report", "missing.json"], 3, "→ bulkusers run writes one"),
        (["check", "missing.csv"], 3, "missing.csv"),
        (["login"], 4, "--env"),
        (["login", "--env", "staging", "--school", "s"], 4, "--email"),
        (["sandbox", "--switch", "duplicate=500"], 2, "duplicate"),
        (["frobnicate"], 2, "frobnicate"),
    ],
)
def test_every_refusal_names_its_cause(call: Call, folder: Path, arguments: list[str], code: int, words: str) -> None:
    """The exit code says whose turn it is, the words what to do; nothing is printed on stdout."""
    write_users(folder, "A,B,a@example.edu,events,")
    called = call(*arguments)
    assert (called.code, called.out) == (code, "")
    assert words in called.err
    assert "Traceback" not in called.err


@pytest.mark.parametrize(
    ("command", "wanted"),
    [("run", "USERS.csv"), ("report", "RESULTS.json..."), ("undo", "RESULTS.json"), ("export", "")],
)
def test_usage_names_what_a_command_wants(call: Call, command: str, wanted: str) -> None:
    """In the words of its help."""
    usage = call(command, "--help").out.splitlines()[0]
    assert usage.partition(f" {command} [OPTIONS]")[2].strip() == wanted


def test_quiet_is_silent_when_all_is_well_and_not_otherwise(call: Call, folder: Path) -> None:
    """Cron mails whatever is printed, so only trouble is."""
    write_users(folder, "A,B,a@example.edu,events,")
    called = call("run", "users.csv", "--env", "sandbox", "--quiet")
    assert (called.code, called.out, called.err) == (0, "", "")
    write_users(folder, "A,B,a@example.edu,event,")
    called = call("run", "users.csv", "--env", "sandbox", "--quiet")
    assert called.code == 6
    assert "bulkusers run results.rejects.csv --env sandbox" in called.out


@pytest.mark.parametrize("command", [("run", "--env", "sandbox"), ("plan", "--env", "sandbox"), ("check",)])
def test_notices_about_a_good_file_are_not_said_where_it_is_quiet(
    call: Call, folder: Path, command: tuple[str, ...]
) -> None:
    """Else cron would mail them every night; a run's report has them."""
    write_users(folder, 'A,B,a@example.edu,events,"r1,r2",', "A,B,b@example.edu,,,inactive", header=f"{HEADER},Status")
    name, *options = command
    called = call(name, "users.csv", *options)
    assert called.err.count("warning: ") == 2
    called = call(name, "users.csv", *options, "--quiet")
    assert (called.code, called.out, called.err) == (0, "", "")
    if name == "run":
        warnings = json.loads((folder / "results.json").read_bytes())["warnings"]
        assert {warning["code"] for warning in warnings} == {"several-roles", "inactive-products"}


def test_logs_for_collectors_are_json_lines(call: Call, folder: Path) -> None:
    """Every line on stderr is an object, the last one with the counts and the exit code; stdout is empty."""
    write_users(folder, "A,B,a@example.edu,events,")
    called = call("run", "users.csv", "--env", "sandbox", "--log-format", "json")
    events = [json.loads(line) for line in called.err.splitlines()]
    assert called.out == ""
    assert events[-1]["exit_code"] == 0
    assert events[-1]["counts"]["created"] == 1
    assert json.loads(call("run", "missing.csv", "--log-format", "json").err.splitlines()[0])["level"] == "error"


def test_standard_input_is_a_file_like_any_other(folder: Path) -> None:
    """`-` is read to its end before anything is sent."""
    users = f"{HEADER}\nA,B,a@example.edu,events,\n"
    done = spawn("run", "-", "--env", "sandbox", stdin=None, input=users)
    assert done.returncode == 0, done.stderr
    assert [row["status"] for row in rows_of(folder / "results.json")] == ["created"]


@pytest.mark.parametrize("env", [{"LC_ALL": "C", "PYTHONUTF8": "0"}, {"PYTHONIOENCODING": "ascii"}])
def test_a_terminal_that_knows_ascii_only_is_no_obstacle(folder: Path, env: dict[str, str]) -> None:
    """Names and arrows that cannot be shown are replaced, and the run goes on."""
    write_users(folder, "Zoë,Ünal,a@example.edu,event,", "Zoë,Ünal,b@example.edu,events,")
    done = spawn("run", "users.csv", "--env", "sandbox", env=env)
    assert done.returncode == 6, done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_who_has_gone_does_not_stop_a_run(folder: Path) -> None:
    """Pipes whose reader has left, streams that are closed: the report is written all the same."""
    write_users(folder, "A,B,a@example.edu,events,")
    for redirect in (">&- 2>&-", "| true", "2>&1 | true"):
        command = f"{sys.executable} -m bulkusers run users.csv --env sandbox -o r.json {redirect}"
        subprocess.run(["bash", "-c", command], check=False, timeout=60)  # noqa: S607 - the system's own shell
        assert [row["status"] for row in rows_of(folder / "r.json")] == ["created"]
        (folder / "r.json").unlink()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_a_run_in_order(folder: Path, call: Call, number: signal.Signals, code: int) -> None:
    """What is under way is finished, the rest is unprocessed, the report is written, and the exit code tells."""
    (folder / "users.csv").write_text(call("template", "--rows", "2000").out)
    process = subprocess.Popen(
        [*PROGRAM, "run", "users.csv", "--env", "sandbox", "--rate", "200"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    journal = folder / "results.json.journal"
    wait_for(lambda: journal.exists() and journal.stat().st_size > 1000)
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == code, err
    assert b"asked to stop" in out
    counts = json.loads((folder / "results.json").read_bytes())["counts"]
    assert counts["unprocessed"] > 0
    assert sum(counts.values()) == 2 * counts["rows"] == 4000


def wait_for(holds: Callable[[], bool], seconds: float = 15.0) -> None:
    """Wait until something holds."""
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "it never came to hold"
        time.sleep(0.01)


def test_a_question_is_asked_on_a_terminal_only(folder: Path, sandbox: str) -> None:
    """On a terminal `run` asks about mails, and Enter means no; `--no-notify` needs no question."""
    write_users(folder, "A,B,a@example.edu,events,")
    (folder / "coursedog.properties").write_text(f"base_url = {sandbox}\nschool = example_university\ntoken = t\n")
    assert b"registration mail to each" in on_terminal("run", "users.csv", typed=b"\n")
    assert json.loads((folder / "results.json").read_bytes())["run"]["options"]["notify"] is False
    assert b"Sending to 127.0.0.1" in on_terminal("run", "users.csv", typed=b"y\n")
    assert json.loads((folder / "results.json").read_bytes())["run"]["options"]["notify"] is True
    assert b"registration mail to each" not in on_terminal("run", "users.csv", "--no-notify", typed=b"")


@pytest.mark.parametrize("mode", [["--existing", "overwrite"], ["--lists", "replace"]])
def test_taking_values_from_many_is_asked_about(
    folder: Path, sandbox: str, monkeypatch: pytest.MonkeyPatch, mode: list[str]
) -> None:
    """With the place and the school; Enter means no, and nothing is sent. Up to ten users need no question."""
    monkeypatch.setenv("BULKUSERS_PASSWORD", "sandbox")
    (folder / "coursedog.properties").write_text(
        f"base_url = {sandbox}\nschool = example_university\nemail = admin@example.edu\n"
    )
    rows = [f"Example,User {n:05},user{n:05}@example.edu,catalog,example-admin" for n in range(1, 22)]
    run = ("run", "users.csv", "--no-notify", *mode)
    write_users(folder, *rows[:10])
    assert b"would lose" not in on_terminal(*run, typed=b"", code=0)
    assert {row["status"] for row in rows_of(folder / "results.json")} == {"updated"}
    write_users(folder, *rows[10:])
    shown = on_terminal(*run, typed=b"\n", code=8)
    assert b"11 users of 127.0.0.1" in shown
    assert b"(example_university) would lose" in shown
    assert len(rows_of(folder / "results.json")) == 10
    on_terminal(*run, typed=b"y\n", code=0)
    assert [row["status"] for row in rows_of(folder / "results.json")] == ["updated"] * 11


def test_ctrl_c_at_a_question_is_an_answer(folder: Path, sandbox: str) -> None:
    """It ends with 130 like everywhere, and nothing was sent."""
    write_users(folder, "A,B,a@example.edu,events,")
    (folder / "coursedog.properties").write_text(f"base_url = {sandbox}\nschool = example_university\ntoken = t\n")
    shown = on_terminal("run", "users.csv", typed=b"", then=(b"[y/N]", b"\x03"), code=130)
    assert b"SIGINT" in shown
    assert not (folder / "results.json").exists()


def test_the_report_cannot_take_the_place_of_the_users(call: Call, folder: Path) -> None:
    """`-o users.csv` is a slip of the hand, and the file is all there is."""
    write_users(folder, "A,B,a@example.edu,events,")
    called = call("run", "users.csv", "--env", "sandbox", "-o", "./users.csv")
    assert called.code == 2
    assert (folder / "users.csv").read_text().startswith("First Name")


def on_terminal(
    *arguments: str, typed: bytes, then: tuple[bytes, bytes] = (b"", b""), code: int | None = None
) -> bytes:
    """Run a command on a terminal of 80 columns, type, then type what answers a cue; return what it showed.

    The answer is typed each second until the program ends, as a person does whose Ctrl-C had no effect: Python forgets
    one that comes between its last look at signals and its wait for a line.
    """
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        [*PROGRAM, *arguments],
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
        preexec_fn=take_terminal,  # noqa: PLW1509 - this process has one thread
    )
    os.close(its)
    os.write(ours, typed)
    cue, answer = then
    shown, late = b"", time.monotonic() + 60
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        try:
            while True:
                is_silent = not select.select([terminal], [], [], 1)[0]
                if not is_silent and not (piece := read_terminal(terminal)):
                    break
                is_cued = cue in shown
                shown += b"" if is_silent else piece
                if answer and cue in shown and (is_silent or not is_cued):
                    os.write(ours, answer)
                assert time.monotonic() < late, shown
        finally:
            if late < time.monotonic():
                process.kill()
            ended = process.wait(20)
    assert ended == code or code is None
    return shown


def take_terminal() -> None:
    """Make the terminal on our standard input the one whose Ctrl-C we get."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def read_terminal(terminal: IO[bytes]) -> bytes:
    """Read what a terminal shows next; nothing once its program has ended."""
    try:
        return terminal.read(4096)
    except OSError:  # Linux says EIO when the last program has closed it
        return b""


def commands() -> dict[str, set[str]]:
    """Return every command and its options, as the program has them."""
    from typer.main import get_command

    group: Any = get_command(app)
    return {
        name: {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        for name, command in group.commands.items()
    }


def test_readme_and_help_name_the_same_commands_and_options() -> None:
    """What is promised is there, and what is there is promised."""
    readme = README.read_text(encoding="utf-8")
    said_commands = set(re.findall(r"^\| `bulkusers (\w+)", readme, re.MULTILINE))
    assert said_commands == set(commands())
    said_options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", readme))
    foreign = {"--editable", "--now", "--quick"}  # of other programs
    real = {option for options in commands().values() for option in options if option.startswith("--")}
    real |= {"--version", "--help"}
    assert said_options - foreign - real == set()
    assert real - said_options - {"--help"} == set()


def test_every_option_is_an_environment_variable_by_one_rule() -> None:
    """`--max-duration` is BULKUSERS_MAX_DURATION, and so for each option that is there."""
    from typer.main import get_command

    group: Any = get_command(app)
    for command in group.commands.values():
        for parameter in command.params:
            if parameter.param_type_name == "option" and parameter.name != "help":
                assert parameter.envvar == "BULKUSERS_" + parameter.opts[0].removeprefix("--").replace("-", "_").upper()


def test_help_is_readable_on_80_columns() -> None:
    """Every page of help fits a terminal."""
    for name in ["", *commands()]:
        done = spawn(*name.split(), "--help", env={"COLUMNS": "80"})
        assert done.returncode == 0
        assert max(len(line) for line in done.stdout.splitlines()) <= 80


def test_secrets_are_never_options() -> None:
    """Whoever lists the machine's processes must not see a token or a password."""
    assert not {
        option for options in commands().values() for option in options if "token" in option or "pass" in option
    }
