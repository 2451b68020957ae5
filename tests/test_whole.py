"""The whole job, as two people at two terminals do it: a sandbox, a login, ten thousand mixed rows, the report."""

import csv
import json
import os
import random
import re
import subprocess
import sys
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

PROGRAM = [sys.executable, "-m", "bulkusers"]
EXISTING = 4_000
TITLES = ["First Name", "Last Name", "Email", "Products", "External ID", "Department", "Role IDs"]


def row(number: int, **cells: str) -> list[str]:
    """Return the cells of a user whom the sandbox may know."""
    known = {
        "first": "Example",
        "last": f"User {number:05}",
        "email": f"user{number:05}@example.edu",
        "products": "scheduling",
        "external_id": f"{number:06}",
        "department": "0100" if number % 2 else "0200",
        "roles": "example-viewer",
    }
    return list((known | cells).values())


def draw_rows() -> tuple[list[list[str]], Counter[str]]:
    """Return ten thousand rows and what must become of them; every third user of the sandbox equals its row."""
    users = [(row(number), "unchanged" if number % 3 == 0 else "updated") for number in range(1, EXISTING + 1)]
    users += [(row(number), "created") for number in range(EXISTING + 1, EXISTING + 5_001)]
    bad = [{"products": "schedulin"}, {"email": "no-address"}, {"first": ""}, {"external_id": "1.23E+11"}]
    users += [(row(20_000 + number, **bad[number % 4]), "rejected") for number in range(400)]
    random.Random(7).shuffle(users)
    users += [(users[number][0], "skipped") for number in range(0, 9_000, 30) if users[number][1] != "rejected"]
    for number in range(missing := 10_000 - len(users)):
        # two of a kind, or three, that differ: nobody can know which is right
        cells = row(30_000 + min(number // 2, missing // 2 - 1), last=f"Either {number}")
        users.append((cells, "rejected"))
    return [cells for cells, _ in users], Counter(expected for _, expected in users)


def call(folder: Path, *arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
    """Run a command in a folder, with nothing in the environment but what is named."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BULKUSERS_")}
    return subprocess.run(
        [*PROGRAM, *arguments], cwd=folder, env=clean | env, capture_output=True, text=True, check=False, timeout=100
    )


def users_of(url: str) -> dict[str, dict[str, Any]]:
    """Return every record that the sandbox holds."""
    with urllib.request.urlopen(f"{url}/_sandbox/state") as answer:  # noqa: S310 - the sandbox's own URL
        users: dict[str, dict[str, Any]] = json.loads(answer.read())["users"]
        return users


def test_ten_thousand_mixed_rows(tmp_path: Path) -> None:
    """Every count is right, a second run changes nothing, and nobody lost a role, a department or an unknown field."""
    rows, expected = draw_rows()
    assert len(rows) == 10_000
    with (tmp_path / "users.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([TITLES, *rows])
    command = [*PROGRAM, "sandbox", "--port", "0", "--users", str(EXISTING)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as sandbox:
        assert sandbox.stdout is not None
        match = re.search(r"http://\S+", sandbox.stdout.readline())
        assert match is not None
        url = match[0]
        try:
            check_both_runs(tmp_path, url, expected)
        finally:
            sandbox.terminate()


def check_both_runs(folder: Path, url: str, expected: Counter[str]) -> None:
    """Log in, send the file twice, and compare reports and records."""
    before = users_of(url)
    account = ["--base-url", url, "--school", "example_university", "--email", "admin@example.edu"]
    logged_in = call(folder, "login", *account, BULKUSERS_PASSWORD="sandbox")
    assert logged_in.returncode == 0, logged_in.stderr
    first = call(folder, "run", "users.csv", "--concurrency", "20", "--rate", "0")
    assert first.returncode == 6, first.stderr
    assert call(folder, "report", "results.json").stdout == first.stdout
    counts = json.loads((folder / "results.json").read_bytes())["counts"]
    assert {status: count for status, count in counts.items() if count} == {"rows": 10_000, **expected}

    after = users_of(url)
    assert len(after) == EXISTING + expected["created"]
    for email, record in before.items():
        for name, value in record.items():
            kept = after[email][name]
            if isinstance(value, list):
                assert set(value) <= set(kept), (email, name)
            else:
                assert kept == value, (email, name)

    second = call(folder, "run", "users.csv", "--concurrency", "20", "--rate", "0", "-o", "second.json")
    assert second.returncode == 6
    again = json.loads((folder / "second.json").read_bytes())["counts"]
    fine = expected["created"] + expected["updated"] + expected["unchanged"]
    assert (again["unchanged"], again["created"], again["updated"]) == (fine, 0, 0)
    assert users_of(url) == after
