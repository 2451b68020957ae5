"""`plan` and `undo` as people use them: what they print and exit with."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from runs import HEADER, equal_line, line

from bulkusers.cli.app import main
from bulkusers.cli.screen import Screen
from bulkusers.cli.undo import name_report
from bulkusers.restore import take_back

Call = Callable[..., tuple[int, str, str]]
ROWS = [line(1), line(2, first="Renamed", roles="Example Scheduler"), equal_line(3), line(201), line(202)]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in a folder with a users file, and a sandbox in another process."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("BULKUSERS_")]:
        monkeypatch.delenv(name)
    (tmp_path / "users.csv").write_text("\n".join([HEADER, *ROWS]) + "\n")
    command = [sys.executable, "-m", "bulkusers", "sandbox", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found is not None
        told = {
            "BASE_URL": found[0],
            "SCHOOL": "example_university",
            "EMAIL": "admin@example.edu",
            "PASSWORD": "sandbox",
        }
        for name, value in told.items():
            monkeypatch.setenv(f"BULKUSERS_{name}", value)
        yield tmp_path
        process.terminate()


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Call:
    """Return a way to run a command inside this process."""

    def call(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        try:
            code: Any = main(arguments)
        except SystemExit as end:
            code = end.code
        said = capfd.readouterr()
        return int(code), said.out, said.err

    return call


def test_a_plan_fits_a_screen_and_names_the_next_commands(call: Call) -> None:
    """Who would change in what, which ids are unknown, how many mails and requests; nothing was sent."""
    code, out, _ = call("plan", "users.csv")
    assert code == 0
    assert len(out.splitlines()) < 40
    assert max(map(len, out.splitlines())) <= 80
    for words in (
        "2 created", "2 updated", "1 unchanged", "change roles", "gain roles example-viewer",
        "role Example Scheduler: unknown, did you mean example-scheduler?", "Mails: none (--notify sends 2)",
        "Nothing was sent.", "bulkusers plan users.csv --details", "bulkusers run users.csv",
    ):  # fmt: skip
        assert words in out, words
    assert call("run", "users.csv", "-n")[1] == out


def test_details_say_old_and_new(call: Call) -> None:
    """Field by field, for those who would change."""
    _, out, _ = call("plan", "users.csv", "--details", "--existing", "overwrite")
    assert "row 3  user00002@example.edu  would be updated" in out
    assert "    firstName: Example → Renamed" in out
    assert "    roles: +Example Scheduler -example-scheduler" in out
    assert "would lose values that stand in their records" in out


def test_a_plan_that_could_not_be_made_says_how_to_make_it(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """What to mend, who looks closer, and the command once more."""
    code, _, err = call("plan", "users.csv", "--school", "another", "--existing", "skip")
    assert code == 4
    assert err.splitlines()[-2:] == [
        "  → bulkusers doctor looks closer",
        "  → then: bulkusers plan users.csv --school another --existing skip",
    ]
    monkeypatch.setenv("BULKUSERS_TOKEN", "dead")
    monkeypatch.delenv("BULKUSERS_PASSWORD")
    code, _, err = call("plan", "users.csv")
    assert code == 4
    assert "get a new one with: bulkusers login" in err
    assert err.splitlines()[-1] == "  → then: bulkusers plan users.csv"
    assert "doctor" not in err


def test_programs_get_json_and_an_exit_code(call: Call) -> None:
    """The same counts as a report; 9 where a run would change something, and 0 once it did."""
    code, out, _ = call("plan", "users.csv", "--json", "--detailed-exitcode", "--notify")
    made = json.loads(out)
    assert (code, made["plan"]["exit_code"], made["plan"]["mails"]) == (9, 9, 2)
    assert made["counts"]["created"] == 2
    assert [row["status"] for row in made["rows"]] == ["updated", "updated", "unchanged", "created", "created"]
    assert {"field": "firstName", "old": "Example", "new": "Renamed"} in made["rows"][1]["changes"]
    assert made["unknown_ids"][0]["id"] == "Example Scheduler"
    assert call("run", "users.csv", "--changed-only")[0] == 0
    report = json.loads(Path("results.json").read_text())
    assert {name: count for name, count in report["counts"].items() if count} == {
        name: count for name, count in made["counts"].items() if count
    }
    assert call("plan", "users.csv", "--detailed-exitcode", "--quiet")[:2] == (0, "")


def test_an_overwrite_says_who_lost_something(call: Call) -> None:
    """Where nobody can be asked, the summary says how many did; and so does the report whenever it is read."""
    code, out, _ = call("run", "users.csv", "--existing", "overwrite")
    assert (code, "3 users lost values that stood in their records" in out) == (0, True)
    assert "3 users lost values" in call("report", "results.json")[1]
    assert "lost values" not in call("run", "users.csv")[1]


def test_unknown_ids_are_told_even_where_it_is_quiet(call: Call) -> None:
    """A role that does not exist gives nobody access; a plain run reads no list to compare with."""
    code, out, _ = call("run", "users.csv", "--changed-only", "--quiet")
    assert (code, "1 role id that the school does not have or use" in out) == (0, True)
    assert "(row 3)" in out
    assert "1 role id that the school" in call("report", "results.json")[1]
    events = call("run", "users.csv", "--changed-only", "--log-format", "json")[2].splitlines()
    assert [warning["code"] for warning in json.loads(events[-1])["warnings"]] == ["ids-unknown"]
    assert call("run", "users.csv", "--quiet")[:2] == (0, "")


def test_a_cap_refuses_and_says_how_to_allow_it(call: Call) -> None:
    """Exit 8, and nothing is written."""
    code, _, err = call("run", "users.csv", "--max-updates", "1")
    assert code == 8
    assert "2 users would be updated, and --max-updates allows 1" in err
    assert "--max-updates 2" in err
    assert not Path("results.json").exists()


def test_a_dry_run_says_that_a_cap_would_refuse(call: Call) -> None:
    """With the run's exit code; the commands that it names are ones that there are."""
    options = ("--max-updates", "1", "--concurrency", "3", "--lists", "replace")
    code, out, _ = call("run", "users.csv", "-n", *options)
    assert code == call("run", "users.csv", *options)[0] == 8
    assert "2 users would be updated, and --max-updates allows 1" in " ".join(out.split())
    assert "bulkusers plan users.csv --lists replace --details" in out
    assert "bulkusers run" not in out
    code, out, _ = call("run", "users.csv", "-n", "--max-updates", "2", "--concurrency", "3")
    assert code == 0
    assert "bulkusers run users.csv --concurrency 3 --max-updates 2" in out
    out = call("plan", "users.csv", "--details", "--detailed-exitcode", "--rate", "20")[1]
    assert "bulkusers plan users.csv --rate 20 --detailed-exitcode --details" in out
    assert "bulkusers run users.csv --rate 20\n" in out


def test_an_undo_asks_shows_and_does(call: Call) -> None:
    """Without a terminal it wants a --yes; a dry run shows each; afterwards the plan is as it was before the run."""
    before = json.loads(call("plan", "users.csv", "--json")[1])["rows"][:3]
    assert call("run", "users.csv", "--quiet")[0] == 0
    code, _, err = call("undo", "results.json")
    assert (code, "add --yes" in err) == (2, True)
    code, out, _ = call("undo", "results.json", "--dry-run")
    assert (code, "row 5  user00201@example.edu  would be updated (products, status)" in out) == (0, True)
    assert "Nothing was sent." in out
    code, out, _ = call("undo", "results.json", "--yes")
    assert (code, "4 updated" in out, "Report: results.undo.json" in out) == (0, True, True)
    assert json.loads(call("plan", "users.csv", "--json")[1])["rows"][:3] == before
    code, _, err = call("undo", "results.json", "--yes", "--school", "another_school")
    assert (code, "the report says where" in err) == (4, True)


def test_no_undo_reports_in_the_place_of_what_it_takes_back(
    call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable that names a nightly run's report would; what to say instead is said, and then does it."""
    monkeypatch.setenv("BULKUSERS_REPORT", "nightly.json")
    assert call("run", "users.csv", "--quiet", "--max-duration", "1s", "--rate", "4")[0] == 10
    before = {path: path.read_bytes() for path in folder.iterdir()}
    elsewhere = ["-o", str(folder / ".." / folder.name / "nightly.json")]
    own = ["-o", "nightly.before.jsonl"]
    for words in (["nightly.json"], ["nightly.json", *elsewhere], ["nightly.json.journal"], ["nightly.json", *own]):
        code, _, err = call("undo", *words, "--yes")
        assert (code, "-o nightly.undo.json" in err) == (2, True)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert call("undo", "nightly.json", "--yes", "-o", "nightly.undo.json", "--rate", "0")[0] == 0
    assert (folder / "nightly.json").read_bytes() == before[folder / "nightly.json"]


def test_two_reports_that_differ_in_their_end_are_taken_back_each_by_itself(call: Call) -> None:
    """Neither has the other's before-images."""
    Path("later.csv").write_text("\n".join([HEADER, line(4, first="Later")]) + "\n")
    assert call("run", "users.csv", "--quiet", "-o", "k.json")[0] == 0
    assert call("run", "later.csv", "--quiet", "-o", "k")[0] == 0
    code, out, _ = call("undo", "k.json", "--yes")
    assert (code, "4 updated" in out) == (0, True)
    code, out, _ = call("undo", "k", "--yes")
    assert (code, "1 updated" in out) == (0, True)


def test_an_undo_beside_an_interrupted_one_says_what_it_does(call: Call) -> None:
    """It begins anew and moves the other's journal aside, as a run does."""
    call("run", "users.csv", "--quiet")
    Path("results.undo.json.journal").write_bytes(b"")
    code, _, err = call("undo", "results.json", "--yes", "--quiet")
    assert (code, "results.undo.json.journal is an interrupted run's" in err) == (0, True)


def test_an_undo_names_whom_it_leaves(call: Call) -> None:
    """Who was changed by another run since is listed with the fields; the exit code says that somebody was left."""
    call("run", "users.csv", "--quiet")
    Path("later.csv").write_text("\n".join([HEADER, line(2, first="Later")]) + "\n")
    call("run", "later.csv", "--quiet", "--report", "later.json")
    code, out, _ = call("undo", "results.json", "--yes")
    assert (code, call("undo", "results.json", "--dry-run")[0]) == (6, 6)
    assert "Left as they are: 1 user" in out
    assert "row 3  user00002@example.edu" in out
    assert "firstName" in out
    for shown in (call("report", "results.undo.json"), call("report", "results.undo.json", "--failed")):
        assert "row 3  user00002@example.edu" in shown[1]
    assert "user00001" not in shown[1]


def test_an_undo_of_a_run_that_changed_nobody_names_the_one_before(call: Call) -> None:
    """After two nights in which nothing changed, the report that was moved aside first is the one that is meant."""
    for _ in range(3):
        call("run", "users.csv", "--quiet")
    Path("results.undo.json").write_text("{}")
    Path("results.undo.before.jsonl").write_text("{}")
    code, _, err = call("undo", "results.json", "--yes")
    [changed] = [path.name for path in Path().glob("results.[0-9]*.before.jsonl")]
    former = changed.replace(".before.jsonl", ".json")
    assert (code, "changed nobody" in err, f"is {former}" in err) == (3, True, True)
    assert call("undo", former, "--yes")[0] == 0


def test_whom_an_undo_would_delete_is_called_so(call: Call) -> None:
    """And whom the undo of that would create, too."""
    call("run", "users.csv", "--quiet")
    assert "user00201@example.edu  would be deleted\n" in call("undo", "results.json", "-n", "--delete-created")[1]
    call("undo", "results.json", "--yes", "--delete-created", "--quiet")
    assert "user00201@example.edu  would be created\n" in call("undo", "results.undo.json", "-n")[1]


def test_an_undo_that_goes_on_with_nothing_asks(call: Call) -> None:
    """Only one that was begun was asked about."""
    call("run", "users.csv", "--quiet")
    code, _, err = call("undo", "results.json", "--resume")
    assert (code, "add --yes" in err) == (2, True)
    assert not Path("results.undo.json").exists()


def test_an_undo_that_nobody_wants_is_not_done(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 8, as of a run."""
    call("run", "users.csv", "--quiet")
    for name, answer in (("is_interactive", True), ("confirm", lambda *_: False)):
        monkeypatch.setattr(Screen, name, answer)
    code, _, err = call("undo", "results.json")
    assert (code, "nobody said yes" in err) == (8, True)
    assert not Path("results.undo.json").exists()


def test_an_undo_of_an_undo_goes_on_as_it_says(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has a report of its own; one that stopped names the command, and its journal can be read."""
    assert call("run", "users.csv", "--quiet")[0] == 0
    assert call("undo", "results.json", "--yes", "--quiet")[0] == 0
    true = take_back
    taken: list[int] = []

    def take_back_and_stop(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - as restore has it
        taken.append(1)
        if len(taken) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return true(*arguments, **options)

    monkeypatch.setattr("bulkusers.undo.take_back", take_back_and_stop)
    code, out, _ = call("undo", "results.undo.json", "--yes", "--concurrency", "1")
    assert code == 143
    (command,) = re.findall(r"bulkusers (undo .*--resume.*)", out)
    code, out, _ = call("report", "results.undo.undo.json.journal")
    assert (code, "updated" in out) == (0, True)
    assert call(*shlex.split(command))[0] == 0
    counts = json.loads(Path("results.undo.undo.json").read_text())["counts"]
    assert counts["updated"] == 4
    assert json.loads(Path("results.undo.json").read_text())["run"]["input"]["path"] == "results.json"


@pytest.mark.parametrize(
    ("results", "report"),
    [
        ("results.json", "results.undo.json"),
        ("results.json.journal", "results.undo.json"),
        ("results.undo.json", "results.undo.undo.json"),
        ("results.2026-11-24", "results.2026-11-24.undo.json"),
        ("results.2026-11-25T09-13-27Z.json.journal", "results.2026-11-25T09-13-27Z.undo.json"),
    ],
)
def test_an_undo_has_a_report_of_its_own(results: str, report: str) -> None:
    """Beside the run's, and in nobody's place."""
    assert name_report(Path("folder") / results) == Path("folder") / report
