"""Where secrets and people's data are after a run, whatever went wrong: everything that was written is searched.

A token and a password are nowhere but in `coursedog.properties`. First and last names and external ids are nowhere
but in the before-images, and in the rejects, there only those of rejected rows. What a server says never reaches a
terminal or a log raw.
"""

import asyncio
import os
import re
import signal
import sys
import unicodedata
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest
from test_cli import wait_for

from bulkusers.cli.app import main
from bulkusers.report import read_report
from bulkusers.sandbox import Fault, Sandbox, serve

ACCOUNT: Final = "account-planted@example.edu"
PASSWORD: Final = 'Pw9"geheim"\\ä'  # JSON writes it in another way than people do
TOKEN: Final = re.compile(r"sandbox-[0-9a-f]{32}|geheim")
PERSON: Final = re.compile(r"(?:Firstplanted|Lastplanted|XID-planted-)[0-9]+", re.IGNORECASE)
ROWS: Final = range(2, 22)
BAD: Final = {4, 9}  # rows that cannot be sent
HEADER: Final = "First Name,Last Name,Email,Products,External ID"
PROGRAM: Final = "import sys\nfrom bulkusers.cli.app import main\nsys.exit(main())"
CRASH: Final = "import {0} as module\ndef crash(*_, **__): raise ZeroDivisionError\nmodule.{1} = crash\n"
FULL_DISK: Final = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))\n"
WORDS: Final = {
    "error": "\x1b]0;owned\x07\x1b[31mBearer {token} {token} {password} no role for Firstplanted2 LASTPLANTED2 "
    "(XID-planted-2)\r\n\x00\x9b\u202e\u2028\u200bfor planted2@example.edu"
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One thing that goes wrong, and the exit code that shows that it did."""

    name: str
    code: int
    faults: tuple[Fault, ...] = ()
    words: int = 0  # the status of a refusal of the first row that repeats everything
    before: str = ""  # runs in the process before the program
    signals: tuple[signal.Signals, ...] = ()  # sent once users were begun, and time for each to be heard
    without: tuple[str, ...] = ()  # variables of the environment that are not there
    more: Mapping[str, str] = field(default_factory=dict)  # variables that are


HANG: Final = (Fault(method="POST", path="*/users", action="hang"),)
OF_THE_REPORT: Final = {"results.json", "report of results.json"}
FORMS: Final = ("text", "json")
ONCE: Final = {"BULKUSERS_RETRIES": "0"}
RESET: Final = (Fault(method="POST", action="reset_after", nth=1),)
SCENES: Final = (
    Scene(name="a good day", code=6),
    Scene(name="a dead token and no password", code=4, more={"BULKUSERS_PASSWORD": ""}, words=401),
    Scene(name="a token that dies", code=6, faults=(Fault(path="*/users", action="kill_token", nth=3),)),
    Scene(name="a login", code=6, without=("BULKUSERS_TOKEN",)),
    Scene(name="a wrong password", code=4, without=("BULKUSERS_TOKEN",), more={"BULKUSERS_PASSWORD": "not-geheim"}),
    *(Scene(name=f"words with {status}", code=code, words=status) for status, code in ((403, 4), (422, 6), (500, 6))),
    Scene(name="HTML", code=5, faults=(Fault(action="html", path="*/users*"),), more=ONCE),
    Scene(name="garbage", code=5, faults=(Fault(action="garbage", times=2),), more=ONCE),
    Scene(name="a reset", code=6, faults=RESET),
    Scene(name="a redirect", code=5, faults=(Fault(method="POST", action="redirect", nth=1),)),
    Scene(
        name="a redirected login",
        code=4,
        faults=(Fault(path="*/sessions", action="redirect", status=307),),
        without=("BULKUSERS_TOKEN",),
    ),
    Scene(name="a full disk", code=12, before=FULL_DISK),
    Scene(name="kill -9", code=-9, faults=HANG, signals=(signal.SIGKILL,)),
    Scene(name="a second Ctrl-C", code=130, faults=HANG, signals=(signal.SIGINT, signal.SIGINT)),
    Scene(name="a bug beside the token", code=1, before=CRASH.format("bulkusers.client", "Client._write")),
    Scene(name="a bug beside an error", code=1, before=CRASH.format("bulkusers.client", "_reason"), faults=RESET),
    Scene(name="a bug beside a user", code=1, before=CRASH.format("bulkusers.rules", "Rules.create")),
)


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    """Serve a school whose account is the planted one."""
    sandbox = Sandbox()
    sandbox.email, sandbox.password = ACCOUNT, PASSWORD
    async with serve(sandbox) as sandbox:
        yield sandbox


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a users file and a place for whatever is temporary."""
    (tmp_path / "tmp").mkdir()
    lines = [
        f"Firstplanted{row},Lastplanted{row},planted{row}@example.edu,{product},XID-planted-{row}"
        for row in ROWS
        for product in (["event"] if row in BAD else ["events"])
    ]
    (tmp_path / "users.csv").write_text("\n".join([HEADER, *lines]) + "\n")
    return tmp_path


class Process:
    """The program, started in a folder; and what it said."""

    def __init__(self, folder: Path, sandbox: Sandbox, scene: Scene) -> None:
        self.folder = folder
        self.scene = scene
        known = {name: value for name, value in os.environ.items() if not name.startswith("BULKUSERS_")}
        ours = {
            "BULKUSERS_BASE_URL": sandbox.url,
            "BULKUSERS_SCHOOL": sandbox.school,
            "BULKUSERS_EMAIL": ACCOUNT,
            "BULKUSERS_PASSWORD": PASSWORD,
            "BULKUSERS_TOKEN": sandbox.new_token(),
            "TMPDIR": str(folder / "tmp"),
        }
        self.environment = {
            name: value for name, value in {**known, **ours, **scene.more}.items() if name not in scene.without
        }
        self.token = ours["BULKUSERS_TOKEN"]

    async def run(self, *arguments: str) -> tuple[int | None, str]:
        """Run a command to its end, with the scene's signals on the way; return its exit code and what it said."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", self.scene.before + PROGRAM, *arguments),
            cwd=self.folder,
            env=self.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        journal = self.folder / "results.json.journal"
        async with asyncio.timeout(30):
            if self.scene.signals:
                await asyncio.to_thread(wait_for, lambda: journal.exists() and b'"row"' in journal.read_bytes())
            for number in self.scene.signals:
                process.send_signal(number)
                await asyncio.sleep(0.3)
            said, _ = await process.communicate()
        return process.returncode, said.decode()


def repeat_everything(status: int, token: str) -> Fault:
    """Return a refusal of the first row in whose words is everything that must not be told."""
    error = WORDS["error"].replace("{token}", token).replace("{password}", PASSWORD)
    return Fault(method="POST", path="*/users", action="status", status=status, body={"error": error}, nth=1)


def texts_of(folder: Path) -> dict[str, str]:
    """Return all that stands in a folder but the users: each file's content, by a name that holds its own."""
    return {
        str(path.relative_to(folder)): f"{path.relative_to(folder)}\n{path.read_bytes().decode()}"
        for path in folder.rglob("*")
        if path.is_file() and path.name != "users.csv"
    }


def read_back(folder: Path, capfd: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Show report and journal in every form; return what was shown."""
    shown = {}
    for path in (folder / "results.json", folder / "results.json.journal"):
        for form in ("text", "json", "csv", "md"):
            for failed in ((), ("--failed",)):
                if path.exists():
                    main_or_exit(["report", str(path), "--format", form, *failed])
                    shown[f"report of {path.name} as {form} {failed}"] = "".join(capfd.readouterr())
    return shown


def main_or_exit(arguments: list[str]) -> None:
    """Run a command inside this process, however it ends."""
    try:
        main(arguments)
    except SystemExit:
        return


def find_leaks(texts: Mapping[str, str], rejected: set[int]) -> list[str]:
    """Return where something stands that must not, and what it is."""
    leaks = []
    for where, text in texts.items():
        leaks += [f"{where}: {found}" for found in TOKEN.findall(text)]
        people = set(PERSON.findall(text))
        if where.endswith(".before.jsonl"):
            people = set()  # what an undo puts back
        elif where.endswith(".rejects.csv"):
            people = {person for person in people if int(re.sub(r"\D", "", person)) not in rejected}
        leaks += [f"{where}: {person}" for person in people]
        lines = text.replace("\r\n", "\n")  # a CSV's
        raw = {char for char in lines if unicodedata.category(char)[0] == "C" or char == "\u2028"} - {"\n"}
        leaks += [f"{where}: a raw U+{ord(char):04X}" for char in raw]
    return leaks


@pytest.mark.parametrize(
    ("scene", "form"),
    [
        pytest.param(scene, form, id=f"{scene.name} in {form}")
        for place, scene in enumerate(SCENES)
        for form in FORMS
        if scene.words or form == FORMS[place % 2]  # what a server says, in both; else by turns
    ],
)
async def test_nothing_is_told_whatever_goes_wrong(
    folder: Path, sandbox: Sandbox, capfd: pytest.CaptureFixture[str], scene: Scene, form: str
) -> None:
    """All outputs at their loudest, every file that is left, and its name; also while the run goes on."""
    process = Process(folder, sandbox, scene)
    sandbox.faults = (repeat_everything(scene.words, process.token),) if scene.words else scene.faults
    options = ("--verbose", "--log-format", form, "--concurrency", "1", "--rate", "0", "--timeout", "1")
    code, said = await process.run("run", "users.csv", *options)
    assert code == scene.code, said
    texts = texts_of(folder) | read_back(folder, capfd) | {"said": said}
    assert {name for name in texts if name.startswith("tmp/") and not name.endswith(".lock")} == set()
    report = folder / "results.json"
    rows = list(read_report(report).rows()) if report.exists() else []
    assert find_leaks(texts, {row["row"] for row in rows if row["status"] == "rejected"}) == []
    # who sent is a part of the report, and of nothing else
    assert {name.split(" as ")[0] for name, text in texts.items() if ACCOUNT in text} <= OF_THE_REPORT


@pytest.mark.parametrize("fault", [None, "html", "garbage", "reset_after", "redirect", "wrong_body", "words"])
async def test_a_login_tells_nothing_and_keeps_the_token_alone(
    folder: Path, sandbox: Sandbox, fault: str | None
) -> None:
    """The one place for a token is `coursedog.properties`, and for a password none."""
    process = Process(folder, sandbox, Scene(name="login", code=0, without=("BULKUSERS_TOKEN",)))
    if fault == "words":
        error = WORDS["error"].replace("{password}", PASSWORD)
        sandbox.faults = [Fault(path="*/sessions", action="status", status=403, body={"error": error})]
    elif fault is not None:
        sandbox.faults = [Fault(path="*/sessions", action=fault)]
    code, said = await process.run("login", "--verbose")
    assert (code == 0) is (fault is None), said
    texts = texts_of(folder) | {"said": said}
    properties = texts.pop("coursedog.properties", "")
    assert find_leaks(texts, set()) == []
    assert len(TOKEN.findall(properties)) == (fault is None)
    assert "geheim" not in properties
