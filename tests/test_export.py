"""Current users as a file: whole, and such that a run of it changes nothing."""

import asyncio
import csv
import io
import json
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from test_cli import spawn

from bulkusers import Lists, Secret, Settings, open_source, upload
from bulkusers.api import open_for_reading
from bulkusers.brake import Brake
from bulkusers.cli.app import main
from bulkusers.cli.output import csv_lines
from bulkusers.columns import COLUMNS, FORMULA_STARTS
from bulkusers.models import email_key
from bulkusers.profile import load_profile
from bulkusers.rules import Rules
from bulkusers.sandbox import Fault, Sandbox, Switches, serve
from bulkusers.sheet import Sheet
from bulkusers.snapshot import take_snapshot

Record = dict[str, Any]
TITLES = [column.title for column in COLUMNS]
PLAIN: Record = {
    "email": "plain@example.edu",
    "firstName": "Ann",
    "lastName": "Lee",
    "products": ["events", "catalog"],
    "roles": ["0012", "r-2"],
    "department": "0100",
    "secondaryDepartments": ["0300"],
    "externalId": "000123",
    "status": "inactive",
    "notes": "kept",
}

# what has hurt somebody's file before
TEXTS = (
    "=1+1", "+49", "-", "@x", "'=1", "''=1", "'Neil", "O'Neil", " blank ", "\u00a0=x", "a,b", 'a "b" c', "a\nb", "a\rb",
    "\x00", "e\u0301", "=\u0338", "'\u200b=", "0012", "1.23E+11", "1,23E+11", "active", "Active", " active", "INACTIVE",
    "pending", "scheduling", "Scheduling", "unheard-of", "", "  ", ",", ";", "|", "\t", "\ufeff", "x" * 10_001, "#N/A",
)  # fmt: skip
EMAILS = (
    "Odd.Case@Example.EDU", "+plus@example.edu", "=equal@example.edu", "'+quoted@example.edu", "o'neil@example.edu",
    " blank@example.edu ", "e\u0301te\u0301@example.edu", "no-address", "a,b@example.edu", '"a b"@example.edu',
    "line\nbreak@example.edu", "zero\u200bwidth@example.edu", "\u200bedge@example.edu", "..", "semi;colon@example.edu",
)  # fmt: skip
texts: st.SearchStrategy[str] = st.sampled_from(TEXTS) | st.text(max_size=6)
scalars: st.SearchStrategy[Any] = (
    texts | st.none() | st.integers(-9, 10**12) | st.booleans() | st.just({"id": "x"}) | st.just(["x"])
)
lists: st.SearchStrategy[Any] = (
    st.lists(texts, max_size=3)
    | st.lists(st.sampled_from(("scheduling", "events", "a", "b")), min_size=1, max_size=4)
    | st.lists(scalars, max_size=2)
    | scalars
)
records: st.SearchStrategy[Record] = st.fixed_dictionaries(
    {"email": st.sampled_from(EMAILS) | st.integers(1, 99).map("user{}@example.edu".format)},
    optional={
        "firstName": scalars | st.just("Ann"),
        "lastName": scalars | st.just("Lee"),
        "products": st.just(["scheduling"]) | lists,
        "roles": lists,
        "department": scalars,
        "secondaryDepartments": lists,
        "externalId": scalars,
        "status": st.sampled_from(("active", "inactive")) | scalars,
        "notes": scalars,
    },
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder, with nothing configured."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("BULKUSERS_")]:
        monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    """Serve a sandbox that knows three example users."""
    async with serve(Sandbox(users=3)) as sandbox:
        yield sandbox


async def call(sandbox: Sandbox, *arguments: str) -> Any:  # noqa: ANN401 - as subprocess.run
    """Run `bulkusers export` as a process of its own against a sandbox."""
    target = {"BULKUSERS_BASE_URL": sandbox.url, "BULKUSERS_SCHOOL": sandbox.school}
    env = target | {"BULKUSERS_TOKEN": sandbox.new_token(), "PYTHONIOENCODING": "utf-8"}
    return await asyncio.to_thread(spawn, "export", *arguments, env=env)


async def export_and_run(users: list[Record], folder: Path) -> None:
    """Export users, run the file both ways, and see that nothing changed and that the warnings were true."""
    async with serve(Sandbox()) as sandbox:
        sandbox.users.update({user["email"]: user for user in users})
        before = json.dumps(sandbox.users)
        settings: dict[str, Any] = {"base_url": sandbox.url, "school": sandbox.school, "rate": 0}
        settings["token"] = Secret(sandbox.new_token())
        async with open_for_reading(Settings(**settings), Brake()) as api:
            snapshot = await api.read(take_snapshot(Rules(load_profile(), sandbox.school)))
        sheet = Sheet(load_profile())
        with snapshot:
            rows = [sheet.row(record) for record in snapshot]
        file = folder / "users.csv"
        file.write_text("".join(f"{line}\n" for line in csv_lines(TITLES, rows)), encoding="utf-8", newline="")
        assert not any(cell.startswith(FORMULA_STARTS) for row in rows for cell in row)
        for each in Lists:
            with open_source(file, allow_empty=True) as source:
                report = await upload(source, Settings(**settings, lists=each), report=folder / "r.json")
            said = list(report.rows())
            assert {row["status"] for row in said} <= {"unchanged", "rejected"}, said
            assert all(row["message"] for row in said if row["status"] == "rejected")
            rejected = [row for row in said if row["status"] == "rejected"]
            assert len(rejected) == sheet.refused - rows.count([""] * len(TITLES))
            (folder / "r.json").unlink()
        assert not any(entry.wrote or entry.method == "PUT" for entry in sandbox.ledger)
        assert json.dumps(sandbox.users) == before


@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(records, min_size=1, max_size=12, unique_by=lambda record: email_key(record["email"])))
def test_a_run_of_an_export_changes_nothing(users: list[Record]) -> None:
    """Whatever the records hold, every row is unchanged or rejected, and no user is written."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(export_and_run(users, Path(folder)))


@pytest.mark.parametrize("text", TEXTS)
async def test_no_hostile_text_is_written_back(tmp_path: Path, text: str) -> None:
    """Each alone, in every field and as every list's element: first, only and last."""
    fields: list[Record] = [{name: text} for name in ("firstName", "lastName", "department", "externalId", "status")]
    fields += [{name: [text]} for name in ("products", "roles", "secondaryDepartments")]
    fields += [{"products": [text, "events"]}, {"roles": [text, "a"]}, {"roles": ["a", text]}]
    users = [PLAIN | {"email": f"u{number}@example.edu"} | each for number, each in enumerate(fields)]
    await export_and_run(users, tmp_path)


@pytest.mark.parametrize("email", EMAILS)
async def test_no_hostile_email_makes_a_second_user(tmp_path: Path, email: str) -> None:
    """The user is found as what it is, or its row is rejected."""
    await export_and_run([PLAIN | {"email": email}], tmp_path)


def test_what_a_cell_can_say_is_said() -> None:
    """Leading zeros, odd case and every list; formulas behind an apostrophe; a partner of "nothing changes"."""
    sheet = Sheet(load_profile())
    assert sheet.row(PLAIN) == [
        "Ann", "Lee", "plain@example.edu", "events,catalog", "000123", "0100", "0300", "0012,r-2", "inactive"
    ]  # fmt: skip
    odd = {"email": "+Odd@Example.EDU", "firstName": "=1", "lastName": "'=2", "department": " 7 ", "roles": ["-1", "b"]}
    assert sheet.row(PLAIN | odd) == [
        "'=1", "'=2", "'+Odd@Example.EDU", "events,catalog", "000123", "7", "0300", "'-1,b", "inactive"
    ]  # fmt: skip
    assert (sheet.users, sheet.partial, sheet.refused) == (2, 0, 0)


def test_statuses_are_said_in_the_words_of_a_file(folder: Path) -> None:
    """Whatever the API calls active and inactive."""
    (folder / "own.toml").write_text('[values]\nactive = "A"\ninactive = "Gone"\n')
    sheet = Sheet(load_profile(folder / "own.toml"))
    assert [sheet.row(PLAIN | {"status": word})[-1] for word in ("A", "Gone", "active")] == ["active", "inactive", ""]


@pytest.mark.parametrize(
    ("field", "value", "title", "refused"),
    [
        ("externalId", 123, "External ID", False),
        ("externalId", "1.23E+11", "External ID", False),
        ("department", "a\nb", "Department", False),
        ("roles", ["a,b", "c"], "Role IDs", False),
        ("roles", [1], "Role IDs", False),
        ("roles", {"a": True}, "Role IDs", False),
        ("roles", ["a", ""], "Role IDs", False),
        ("secondaryDepartments", "0300", "Secondary Departments", False),
        ("status", "Inactive", "Status", True),  # no products: only an inactive user may have none
        ("status", "pending", "Status", True),
        ("products", ["events", "unheard-of"], "Products", True),
        ("firstName", "a\rb", "First Name", True),
        ("lastName", 5, "Last Name", True),
        ("lastName", "half a letter \ud800", "Last Name", True),
        ("email", "e\u0301@example.edu", "Email", True),
    ],
)
def test_what_a_cell_cannot_say_is_left_blank_and_counted(field: str, value: object, title: str, refused: bool) -> None:
    """Rather nothing than something else; by column, and whether a run will reject the row."""
    sheet = Sheet(load_profile())
    rest: Record = {"products": []} if field == "status" else {"status": "active"}
    user: Record = {**PLAIN, **rest, field: value}
    assert sheet.row(user)[TITLES.index(title)] == ""
    assert (sheet.partial, sheet.blanks, sheet.refused) == (1, {title: 1}, refused)


@pytest.mark.parametrize("value", [None, "", "  ", [], [""]])
def test_nothing_to_say_is_nothing_to_warn_about(value: object) -> None:
    """However the API writes "nothing"."""
    sheet = Sheet(load_profile())
    field = "roles" if isinstance(value, list) else "department"
    sheet.row(PLAIN | {field: value})
    assert (sheet.partial, sheet.refused) == (0, 0)


async def test_current_users_go_to_stdout_in_the_columns_of_the_template(sandbox: Sandbox) -> None:
    """CSV is all that is on stdout; nothing but GETs are sent."""
    done = await call(sandbox)
    assert done.returncode == 0, done.stderr
    rows = list(csv.reader(io.StringIO(done.stdout)))
    assert rows[0] == TITLES
    assert [row[2] for row in rows[1:]] == list(sandbox.users)
    assert done.stderr == "3 users exported.\n"
    assert {entry.method for entry in sandbox.ledger} == {"GET"}


async def test_warnings_name_columns_and_numbers_and_nobody(sandbox: Sandbox) -> None:
    """How many users, which columns, and what a run makes of it."""
    sandbox.users["x@example.edu"] = PLAIN | {"email": "x@example.edu", "roles": ["a,b"], "externalId": 5}
    sandbox.users["y@example.edu"] = PLAIN | {"email": "y@example.edu", "firstName": None}
    done = await call(sandbox, "--quiet")
    assert done.returncode == 0
    assert "1 user with values that no cell can say" in done.stderr
    assert "External ID (1), Role IDs (1)" in done.stderr
    assert "1 user whose row a run of this file will reject" in done.stderr
    assert "First Name (1)" in done.stderr
    assert "@example.edu" not in done.stderr


async def test_json_has_every_record_whole_one_a_line(sandbox: Sandbox) -> None:
    """As the API wrote it, with fields that no column has; also where there is nobody."""
    sandbox.users["x@example.edu"] = {"email": "x@example.edu", "n": 1.50, "letters": "é\u2028", "deep": [{"a": None}]}
    done = await call(sandbox, "--format", "json")
    assert json.loads(done.stdout) == list(sandbox.users.values())
    assert [json.loads(line.rstrip(",")) for line in done.stdout.split("\n")[1:-2]] == list(sandbox.users.values())
    sandbox.users.clear()
    assert json.loads((await call(sandbox, "--format", "json")).stdout) == []


async def test_json_of_an_api_that_breaks_its_lines_is_one_record_a_line(sandbox: Sandbox) -> None:
    """A pretty-printed answer means the same."""
    body = '[{\n "email": "a@example.edu",\r\n "notes": "a\\nb"}\n]'
    sandbox.faults = [Fault(action="html", body=body, headers={"Content-Type": "application/json"})]
    done = await call(sandbox, "--format", "json")
    lines = done.stdout.splitlines()
    assert (lines[0], len(lines), lines[2]) == ("[", 3, "]"), done.stderr
    assert json.loads(lines[1]) == {"email": "a@example.edu", "notes": "a\nb"}
    assert "a@example.edu" in (await call(sandbox)).stdout


async def test_a_file_is_its_owners_and_an_older_one_stays(sandbox: Sandbox, folder: Path) -> None:
    """Mode 0600, whole or not at all; the older file is moved aside."""
    (folder / "users.csv").write_text("older")
    done = await call(sandbox, "-o", "users.csv")
    assert (done.returncode, done.stdout) == (0, "")
    assert (folder / "users.csv").stat().st_mode & 0o777 == 0o600
    assert len((folder / "users.csv").read_text().splitlines()) == 4
    others = [path for path in folder.iterdir() if path.name != "users.csv"]
    assert [path.read_text() for path in others] == ["older"]


async def test_a_list_that_is_not_whole_is_not_exported(sandbox: Sandbox, folder: Path) -> None:
    """Exit 4, nothing on stdout, and the older file is where it was."""
    sandbox.switches = Switches(list_shape="data", cut_list=1)
    (folder / "users.csv").write_text("older")
    done = await call(sandbox, "-o", "users.csv")
    assert (done.returncode, done.stdout) == (4, "")
    assert "there are 3 users, and lists 2" in done.stderr
    assert [path.read_text() for path in folder.iterdir()] == ["older"]


@pytest.mark.parametrize("list_shape", ["map", "list", "data", "length"])
async def test_every_shape_and_every_page_is_exported(sandbox: Sandbox, list_shape: str) -> None:
    """All users, whether they come at once or by two."""
    sandbox.switches = Switches(list_shape=list_shape, page_size=2)
    done = await call(sandbox)
    assert len(done.stdout.splitlines()) == 4, done.stderr


async def test_a_place_that_cannot_be_written_is_found_before_the_first_request(sandbox: Sandbox) -> None:
    """Exit 12."""
    done = await call(sandbox, "-o", "missing/users.csv")
    assert done.returncode == 12
    assert sandbox.ledger == []


def test_with_nothing_configured_there_is_nothing_to_export(capfd: pytest.CaptureFixture[str]) -> None:
    """A rehearsal's sandbox would be taken for a school; asked for by name, it is fine."""
    assert main(["export"]) == 4
    said = capfd.readouterr()
    assert said.out == ""
    assert "bulkusers login --env staging" in said.err
    with pytest.raises(SystemExit) as end:
        main(["export", "--env", "sandbox"])
    assert end.value.code == 0
    assert len(capfd.readouterr().out.splitlines()) == 101


def test_a_token_without_a_target_is_refused(capfd: pytest.CaptureFixture[str], folder: Path) -> None:
    """A job that forgot `--env` must not seem to have worked."""
    (folder / "coursedog.properties").write_text("token = t\nschool = s\n")
    assert main(["export"]) == 4
    assert "--env staging" in capfd.readouterr().err
