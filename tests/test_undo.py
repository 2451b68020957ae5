"""A run's changes taken back, against a real sandbox; kills and faults are the torture's."""

import asyncio
import json
from collections.abc import AsyncIterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeOutcome
from runs import equal_line, line, send_lines, sending, settings_for, statuses, writes

from bulkusers import Report
from bulkusers.books import Books, images_of, journal_of
from bulkusers.brake import Brake
from bulkusers.errors import Interrupted, LockedError, SourceError, StorageError
from bulkusers.journal import Journal
from bulkusers.models import Status
from bulkusers.sandbox import Fault, Sandbox, Switches, serve
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


async def test_who_was_deleted_and_created_anew_can_be_taken_back_again(sandbox: Sandbox, tmp_path: Path) -> None:
    """Whatever the API fills in when it creates the user anew."""
    await send_lines(sandbox, tmp_path, line(201))
    await take_back(sandbox, tmp_path, delete_created=True)
    sandbox.switches = Switches(defaults="filled")
    await take_back(sandbox, tmp_path, "undo-of-results.json")
    assert sandbox.users[user(201)]["timezone"] == "UTC"
    report = await take_back(sandbox, tmp_path, "undo-of-undo-of-results.json")
    assert (report.exit_code, sandbox.users[user(201)]["status"]) == (0, "inactive")


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


@pytest.mark.parametrize("delete_created", [False, True])
async def test_what_the_api_keeps_itself_and_fills_in_is_no_change(
    sandbox: Sandbox, tmp_path: Path, delete_created: bool
) -> None:
    """The time of the last change is new each time, and a new user has a field that nobody sent."""
    before = deepcopy(sandbox.users)
    sandbox.switches = Switches(updated_at="kept", defaults="filled")
    await send_lines(sandbox, tmp_path, *ROWS)
    assert sandbox.users[user(201)]["timezone"] == "UTC"
    report = await take_back(sandbox, tmp_path, delete_created=delete_created)
    assert (report.exit_code, report.counts["updated"]) == (0, 4)
    for email, record in before.items():
        assert sandbox.users[email] | {"updatedAt": None} == record | {"updatedAt": None}
    assert (user(201) in sandbox.users) is not delete_created
    again = await take_back(sandbox, tmp_path, "undo-of-results.json")
    assert (again.exit_code, sandbox.users[user(201)]["timezone"]) == (0, "UTC")


async def test_what_a_colleague_changed_while_the_run_went_on_comes_back(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An update was lost, somebody changed the user, and the run sent it again: what is put back is that change."""
    monkeypatch.setattr("bulkusers.api.SETTLE", 0.02)
    before = deepcopy(sandbox.users)
    sandbox.faults = [Fault(method="PUT", action="edit", nth=2), Fault(method="PUT", action="reset_before", nth=3)]
    report = await send_lines(sandbox, tmp_path, line(1), line(2, first="Renamed"), concurrency=1)
    assert statuses(report) == {2: "updated", 3: "updated"}
    report = await take_back(sandbox, tmp_path)
    assert (report.exit_code, statuses(report)) == (0, {2: "updated", 3: "updated"})
    before[user(2)] |= {"notes": "changed by a colleague"}
    assert sandbox.users == before


async def test_each_run_takes_back_its_own(sandbox: Sandbox, tmp_path: Path) -> None:
    """Also where a report has no images of its own, and another run's lie in their place."""
    await send_lines(sandbox, tmp_path, line(1))
    (tmp_path / "results.json").rename(tmp_path / "first.json")
    images_of(tmp_path / "results.json").rename(images_of(tmp_path / "first.json"))
    await send_lines(sandbox, tmp_path, line(2, first="Renamed"))
    images_of(tmp_path / "results.json").rename(images_of(tmp_path / "first.json"))
    with pytest.raises(SourceError, match="another run"):
        await take_back(sandbox, tmp_path, "first.json")
    assert sandbox.ledger == []


async def kill_while_creating(sandbox: Sandbox, folder: Path, *lines: str) -> None:
    """Kill a run when the sandbox has made user 203, and before it has said so."""
    sandbox.faults = [Fault(method="POST", action="delay", seconds=30, nth=3)]
    async with asyncio.timeout(60), sending(sandbox, folder, *lines) as process:
        while user(203) not in sandbox.users or not journal_of(folder / "results.json").read_bytes().count(b"status"):  # noqa: ASYNC110 - the ledger has no event
            await asyncio.sleep(0.01)
        process.kill()
        await process.wait()
    sandbox.faults = []


async def test_whom_a_killed_run_may_have_created_is_listed(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image of a creation comes after it: who was begun and has none is named, unless nobody is there."""
    monkeypatch.setattr("bulkusers.api.SETTLE", 0.02)
    await kill_while_creating(sandbox, tmp_path, line(201), line(202), line(203))
    journal = tmp_path / "results.json.journal"
    report = await take_back(sandbox, tmp_path, journal.name)
    rows = {row["row"]: row for row in report.rows()}
    assert (rows[4]["status"], rows[4]["code"], report.exit_code) == ("skipped", "maybe-created", 6)
    assert sandbox.users[user(203)]["products"] == ["scheduling"]
    del sandbox.users[user(203)]
    report = await take_back(sandbox, tmp_path, journal.name)
    assert (statuses(report)[4], report.exit_code) == ("unchanged", 0)


async def test_whom_a_run_called_unknown_is_listed(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where nobody else was changed; and who appears late is looked for twice."""
    monkeypatch.setattr("bulkusers.api.SETTLE", 0.3)
    lost = Fault(method="POST", path="*/users", action="late_commit", seconds=30.0)
    sandbox.faults = [lost, Fault(method="GET", action="status", status=500)]
    report = await send_lines(sandbox, tmp_path, line(201), retries=0)
    assert statuses(report) == {2: "unknown"}
    sandbox.faults = []
    task = asyncio.create_task(take_back(sandbox, tmp_path))
    while not sandbox.ledger or sandbox.ledger[-1].method != "GET" or not sandbox.ledger[-1].until:  # noqa: ASYNC110 - the ledger has no event
        await asyncio.sleep(0)
    sandbox.settle()
    report = await task
    assert [row["code"] for row in report.rows()] == ["maybe-created"]
    assert (report.exit_code, writes(sandbox)) == (6, [])


async def test_a_run_that_was_taken_back_is_not_gone_on_with(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its journal or by the report of one that stopped; it can be begun anew, and its undo can go on."""
    monkeypatch.setattr("bulkusers.api.SETTLE", 0.02)
    await kill_while_creating(sandbox, tmp_path, line(201), line(202), line(203))
    await take_back(sandbox, tmp_path, "results.json.journal")
    lines = [line(201), line(202), line(203)]
    with pytest.raises(SourceError, match="taken back"):
        await send_lines(sandbox, tmp_path, *lines, resume=True)
    assert writes(sandbox).count("POST") == 0
    sandbox.ledger.clear()
    sandbox.faults = [Fault(method="PUT", action="delay", seconds=0.1)]
    brake = Brake()
    task = asyncio.create_task(send_lines(sandbox, tmp_path, line(1), line(2), brake=brake, concurrency=1))
    while "PUT" not in writes(sandbox):  # noqa: ASYNC110 - the ledger has no event
        await asyncio.sleep(0.01)
    brake.pull(Interrupted("SIGTERM", 15))
    assert statuses(await task) == {2: "updated", 3: "unprocessed"}
    await take_back(sandbox, tmp_path)
    with pytest.raises(SourceError, match="taken back"):
        await send_lines(sandbox, tmp_path, line(1), line(2), resume=True)


async def test_a_run_that_was_moved_aside_can_be_taken_back(sandbox: Sandbox, tmp_path: Path) -> None:
    """The nightly case: one was killed, and the next one has come to its end."""
    before = deepcopy(sandbox.users)
    sandbox.faults = [Fault(method="PUT", action="delay", seconds=30, nth=2)]
    async with asyncio.timeout(60), sending(sandbox, tmp_path, line(1), line(2)) as process:
        while writes(sandbox).count("PUT") < 2:  # noqa: ASYNC110 - the ledger has no event
            await asyncio.sleep(0.01)
        process.kill()
        await process.wait()
    sandbox.faults = []
    await send_lines(sandbox, tmp_path, line(4, first="Renamed"))
    (journal,) = tmp_path.glob("results.*.json.journal")
    for name in (journal.name, "results.json"):
        assert (await take_back(sandbox, tmp_path, name)).exit_code == 0
    assert sandbox.users == before


async def test_who_is_to_be_deleted_late_is_deleted_once(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is lost and the deletion comes late: it is waited for, and not sent again."""
    monkeypatch.setattr("bulkusers.api.SETTLE", 0.5)
    await send_lines(sandbox, tmp_path, line(201))
    sandbox.faults = [Fault(method="DELETE", action="late_commit", status=0, seconds=0.2)]
    report = await take_back(sandbox, tmp_path, delete_created=True)
    assert (statuses(report), writes(sandbox)) == ({2: "updated"}, ["DELETE"])
    assert user(201) not in sandbox.users


async def test_an_undo_warns_of_no_losses(sandbox: Sandbox, tmp_path: Path) -> None:
    """What a run had put there is to go."""
    await send_lines(sandbox, tmp_path, line(1), line(2, roles="example-admin"))
    report = await take_back(sandbox, tmp_path)
    assert (report.counts["updated"], report.warnings) == (2, [])


async def test_images_that_change_meanwhile_are_told(sandbox: Sandbox, tmp_path: Path) -> None:
    """A plain error, as it is of every other file; what was added is not taken away."""
    await send_lines(sandbox, tmp_path, line(1), line(2))
    images = images_of(tmp_path / "results.json")
    whole = images.read_bytes()
    for changed in (whole[:100], whole + whole.splitlines(keepends=True)[-1]):
        images.write_bytes(whole)
        with open_done(tmp_path / "results.json") as done:
            images.write_bytes(changed)
            if len(changed) < len(whole):
                with pytest.raises(StorageError, match="cut short"):
                    await foresee_undo(done, settings_for(sandbox))
            with pytest.raises(StorageError, match="has changed since"):
                await undo(done, settings_for(sandbox), report=tmp_path / "undo.json")
        assert images.read_bytes() == changed


async def test_nobody_goes_on_with_a_run_that_is_being_taken_back(sandbox: Sandbox, tmp_path: Path) -> None:
    """From the first look at it on: what it changed since would not come back."""
    await send_lines(sandbox, tmp_path, line(1), line(2))
    journal = journal_of(tmp_path / "results.json")
    Journal.create(journal, {"base_url": sandbox.url, "school": sandbox.school}).close()
    with open_done(tmp_path / "results.json"), pytest.raises(LockedError):
        Journal.reopen(journal, {})
    again = Journal.reopen(journal, {})
    assert again is not None
    again.close()


async def test_an_undo_that_stopped_before_it_began_leaves_the_run_as_it_is(sandbox: Sandbox, tmp_path: Path) -> None:
    """Nothing was taken back, so one may still go on with the run."""
    await send_lines(sandbox, tmp_path, line(1), line(2))
    before = images_of(tmp_path / "results.json").read_bytes()
    brake = Brake()
    brake.pull(Interrupted("SIGTERM", 15))
    report = await take_back(sandbox, tmp_path, brake=brake)
    assert (report.counts["unprocessed"], writes(sandbox)) == (2, [])
    assert images_of(tmp_path / "results.json").read_bytes() == before


async def test_a_run_that_goes_on_is_not_taken_back(sandbox: Sandbox, tmp_path: Path) -> None:
    """By its journal, or by an older report of the same name."""
    await send_lines(sandbox, tmp_path, line(1))
    report = tmp_path / "results.json"
    with Journal.create(journal_of(report), {"base_url": sandbox.url, "school": sandbox.school, "id": "1"}):
        for results in (report, journal_of(report)):
            with pytest.raises(LockedError), open_done(results):
                pass


async def test_a_run_that_changed_nobody_says_so(sandbox: Sandbox, tmp_path: Path, make_outcome: MakeOutcome) -> None:
    """By its report or its journal; where something was changed, images that are missing are another matter."""
    await send_lines(sandbox, tmp_path, equal_line(3))
    brake = Brake()
    brake.pull(Interrupted("SIGTERM", 15))
    for name in ("results.json", "results.json.journal"):
        with pytest.raises(SourceError, match="changed nobody"), open_done(tmp_path / name):
            pass
        await send_lines(sandbox, tmp_path, line(1), brake=brake)
    with Books.begin(tmp_path / "empty.json", {"base_url": sandbox.url, "school": sandbox.school}):
        pass  # killed before it had sent anything
    with pytest.raises(SourceError, match="changed nobody"), open_done(tmp_path / "empty.json.journal"):
        pass
    with Journal.create(tmp_path / "begun", {"base_url": sandbox.url, "school": sandbox.school, "id": "1"}) as journal:
        journal(make_outcome(2, Status.UPDATED))
    with pytest.raises(StorageError, match="there is no"), open_done(tmp_path / "begun"):
        pass


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
