"""What the tests of whole runs have in common: rows, a run of them against a sandbox, and what it looks like there."""

import csv
import io
from pathlib import Path
from typing import Any, Final

from bulkusers import Report, Secret, Settings, open_source, upload
from bulkusers.brake import Brake
from bulkusers.run import Approve
from bulkusers.sandbox import Sandbox

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
        )


def statuses(report: Report) -> dict[int, str]:
    """Return each row's status."""
    return {row["row"]: row["status"] for row in report.rows()}


def writes(sandbox: Sandbox) -> list[str]:
    """Return the methods of the requests that could change something."""
    return [entry.method for entry in sandbox.ledger if entry.method != "GET"]
