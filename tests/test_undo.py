"""A run's changes taken back, against a real sandbox; kills and faults are the torture's."""

import json
from collections.abc import AsyncIterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from runs import equal_line, line, send_lines, settings_for, statuses, writes

from bulkusers import Report
from bulkusers.errors import SourceError, StorageError
from bulkusers.sandbox import Fault, Sandbox, serve
from bulkusers.undo import foresee_undo, open_done, undo

ROWS = [line(1), line(2, first="Renamed"), equal_line(3), line(201), line(202)]  # two updated, one equal, two created
LOST = Fault(method="POST", path="*/users", action="reset_after", nth=4)  # the create of user 201


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    """Serve a sandbox that knows a hundred example users."""
    async with serve(Sandbox(users=100)) as sandbox:
        yield sandbox


async def take_back(sandbox: Sandbox, folder: Path, name: str = "results.json", **options: Any) -> Report:  # noqa: ANN401 - undo's own
    """Undo the run whose report has this name, into a report of another one."""
    sandbox.ledger.clear()
    with open_done(folder / name) as done:
        return await undo(done, settings_for(sandbox), report=folder / f"undo-of-{name}", **options)


def user(number: int) -> str:
    """Return an example user's e-mail."""
    return f"user{number:05}@example.edu"


async def test_everything_comes_back_and_those_who_were_created_are_retired(sandbox: Sandbox, tmp_path: Path) -> None:
    """Byte for byte; nobody is deleted, as the vendor advises."""
    before = deepcopy(sandbox.users)
    await send_lines(sandbox, tmp_path, *ROWS)
    created = deepcopy({email: sandbox.users[email] for email in (user(201), user(202))})
    report = await take_back(sandbox, tmp_path)
    assert (report.exit_code, statuses(report)) == (0, {2: "updated", 3: "updated", 5: "updated", 6: "updated"})
    assert json.dumps({email: sandbox.users[email] for email in before}) == json.dumps(before)
    for email, record in created.items():
        assert sandbox.users[email] == record | {"status": "inactive", "products": []}
    again = await take_back(sandbox, tmp_path)
    assert (again.counts["unchanged"], writes(sandbox)) == (4, [])


async def test_those_who_were_created_can_be_deleted(sandbox: Sandbox, tmp_path: Path) -> None:
    """Then the school is as it was; also where an undo had made them inactive before."""
    before = deepcopy(sandbox.users)
    await send_lines(sandbox, tmp_path, *ROWS)
    await take_back(sandbox, tmp_path)
    report = await take_back(sandbox, tmp_path, delete_created=True)
    assert (report.counts["updated"], sandbox.users) == (2, before)


@pytest.mark.parametrize("delete_created", [False, True])
async def test_an_undo_can_be_undone(sandbox: Sandbox, tmp_path: Path, delete_created: bool) -> None:
    """Its own before-images bring back what the run had made; who was deleted is created anew, without a mail."""
    await send_lines(sandbox, tmp_path, *ROWS)
    after = deepcopy(sandbox.users)
    await take_back(sandbox, tmp_path, delete_created=delete_created)
    report = await take_back(sandbox, tmp_path, "undo-of-results.json")
    assert report.exit_code == 0
    own = {"_id", "createdAt"} if delete_created else set()
    for email, record in after.items():
        assert {name: sandbox.users[email][name] for name in record.keys() - own} == {
            name: record[name] for name in record.keys() - own
        }
    assert sandbox.mails == []


async def test_whom_somebody_changed_since_is_left_and_named(sandbox: Sandbox, tmp_path: Path) -> None:
    """With the fields that differ; whom somebody deleted is not brought back."""
    await send_lines(sandbox, tmp_path, *ROWS)
    sandbox.users[user(1)] = by_hand = sandbox.users[user(1)] | {"notes": "by hand"}
    sandbox.users[user(201)] = sandbox.users[user(201)] | {"roles": ["example-admin"]}
    del sandbox.users[user(2)]
    report = await take_back(sandbox, tmp_path)
    rows = {row["row"]: row for row in report.rows()}
    assert statuses(report) == {2: "skipped", 3: "skipped", 5: "skipped", 6: "updated"}
    assert {rows[row]["code"] for row in (2, 3, 5)} == {"changed-since"}
    assert "notes" in rows[2]["message"]
    assert (sandbox.users[user(1)], user(2) in sandbox.users) == (by_hand, False)


async def test_who_may_have_been_there_before_is_left(sandbox: Sandbox, tmp_path: Path) -> None:
    """A create whose answer was lost is no proof: nobody is retired for that."""
    sandbox.faults = [LOST]
    await send_lines(sandbox, tmp_path, *ROWS, concurrency=1)
    made = sandbox.users[user(201)]
    for delete_created in (False, True):
        report = await take_back(sandbox, tmp_path, delete_created=delete_created)
        assert {row["row"]: row.get("code") for row in report.rows()}[5] == "maybe-not-created"
        assert sandbox.users[user(201)] == made


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize("action", ["reset_after", "reset_before", "html"])
async def test_a_lost_answer_is_looked_for(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, action: str
) -> None:
    """Whatever becomes of the first write, in the end the school is as it was."""
    monkeypatch.setattr("bulkusers.api.SETTLE", 0.05)
    before = deepcopy(sandbox.users)
    await send_lines(sandbox, tmp_path, *ROWS)
    sandbox.faults = [Fault(method=method, action=action, nth=1)]
    report = await take_back(sandbox, tmp_path, delete_created=True)
    assert (report.exit_code, sandbox.users) == (0, before)


async def test_a_dry_run_says_the_same_and_sends_nothing_but_reads(sandbox: Sandbox, tmp_path: Path) -> None:
    """Row by row, also what would be deleted."""
    await send_lines(sandbox, tmp_path, *ROWS)
    sandbox.users[user(1)] = sandbox.users[user(1)] | {"notes": "by hand"}
    seen: dict[int, str] = {}
    for delete_created in (False, True):
        sandbox.ledger.clear()
        held = deepcopy(sandbox.users)
        with open_done(tmp_path / "results.json") as done:
            tally, outcomes = await foresee_undo(done, settings_for(sandbox), delete_created=delete_created)
        assert (writes(sandbox), sandbox.users) == ([], held)
        seen = {outcome.row: str(outcome.status) for outcome in outcomes}
        assert seen == {2: "skipped", 3: "updated", 5: "updated", 6: "updated"}
        assert tally.counts["updated"] == 3
    report = await take_back(sandbox, tmp_path, delete_created=True)
    assert statuses(report) == seen


async def test_what_cannot_be_undone_says_why(sandbox: Sandbox, tmp_path: Path) -> None:
    """A rehearsal's users are gone; without before-images there is nothing to put back."""
    await send_lines(sandbox, tmp_path, *ROWS, environment="sandbox")
    with pytest.raises(SourceError, match="rehearsal"), open_done(tmp_path / "results.json"):
        pass
    await send_lines(sandbox, tmp_path, line(1, first="Again"))
    (tmp_path / "results.before.jsonl").unlink()
    with (
        pytest.raises(StorageError, match=r"there is no .*results\.before\.jsonl"),
        open_done(tmp_path / "results.json"),
    ):
        pass
