"""What the tests of whole runs have in common: rows, a run of them against a sandbox, and what it looks like there."""

import asyncio
import csv
import io
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from bulkusers import Report, Secret, Settings, open_source, upload
from bulkusers.brake import Brake
from bulkusers.run import Approve
from bulkusers.sandbox import Sandbox
from bulkusers.tally import Tally

HEADER: Final = "First Name,Last Name,Email,Products,External ID,Department,Secondary Departments,Role IDs,Status"


def line(number: int, **cells: str) -> str:
    """Return a row for one of the sandbox's example users, or for a new one; every third is equal to the record."""
    row = {
        "first": "Example",
        "last": f"User {number:05}",
        "email": f"user{number:05}@example.edu",
        "products": "scheduling",
        "external_id": f"{number:06}",
        "department": "0100" if number % 2 else "0200",
        "secondary": "",
        "roles": "example-viewer",
        "status": "",
    } | cells
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(row.values())
    return text.getvalue()


def settings_for(sandbox: Sandbox, **settings: Any) -> Settings:  # noqa: ANN401 - any setting
    """Return settings for a run against the sandbox, as fast as it can be, any of them said otherwise."""
    defaults: dict[str, Any] = {
        "base_url": sandbox.url,
        "school": sandbox.school,
        "token": Secret(sandbox.new_token()),
        "rate": 0,
    }
    return Settings(**defaults | settings)


async def send_lines(
    sandbox: Sandbox,
    folder: Path,
    *lines: str,
    header: str = HEADER,
    brake: Brake | None = None,
    approve: Approve | None = None,
    resume: bool = False,
    tally: Tally | None = None,
    **settings: Any,  # noqa: ANN401 - any setting
) -> Report:
    """Run some lines of CSV against the sandbox; the report lies in the folder."""
    file = folder / "users.csv"
    file.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    with open_source(file) as source:
        return await upload(
            source,
            settings_for(sandbox, **settings),
            report=folder / "results.json",
            resume=resume,
            brake=brake,
            approve=approve,
            tally=tally,
        )


def statuses(report: Report) -> dict[int, str]:
    """Return each row's status."""
    return {row["row"]: row["status"] for row in report.rows()}


def writes(sandbox: Sandbox) -> list[str]:
    """Return the methods of the requests that could change something."""
    return [entry.method for entry in sandbox.ledger if entry.method != "GET"]


def equal_line(number: int, **cells: str) -> str:
    """Return a row that says of one of the sandbox's example users what the record says."""
    products, roles = ("scheduling", "example-viewer") if number % 3 == 0 else ("curriculum", "example-scheduler")
    return line(number, **{"products": products, "roles": roles, "secondary": "0300", "status": "active"} | cells)


SENDER: Final = """
import asyncio, sys
from pathlib import Path
from bulkusers import Existing, Secret, Settings, open_source, upload
url, token, folder, existing, changed_only = sys.argv[1:]
settings = Settings(
    base_url=url, school="example_university", token=Secret(token), rate=0,
    existing=Existing(existing), changed_only=changed_only == "yes",
)
with open_source(Path(folder) / "users.csv") as source:
    report = asyncio.run(upload(source, settings, report=Path(folder) / "results.json", resume=True))
sys.exit(report.exit_code)
"""


@asynccontextmanager
async def sending(
    sandbox: Sandbox, folder: Path, *lines: str, existing: str = "merge", changed_only: bool = False
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run some lines of CSV in a process of its own, going on with what a killed one has left; kill it afterwards."""
    (folder / "users.csv").write_text("\n".join([HEADER, *lines]) + "\n", encoding="utf-8")
    arguments = [sandbox.url, sandbox.new_token(), str(folder), existing, "yes" if changed_only else "no"]
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", SENDER, *arguments)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
