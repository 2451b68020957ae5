"""Runs that know all users before their first write: only what changes is sent, and no more than is allowed."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from runs import equal_line, line, send_lines, sending, settings_for, statuses, writes

from bulkusers import Existing, Report, read_report
from bulkusers.brake import Brake
from bulkusers.errors import CapError, Interrupted
from bulkusers.forecast import Forecast
from bulkusers.models import BREATH, Outcome, Share
from bulkusers.sandbox import Fault, Sandbox, Switches, serve
from bulkusers.tally import Tally
from bulkusers.undo import open_done, undo

Behind = Callable[[Forecast], bool]


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    """Serve a sandbox that knows a hundred example users."""
    async with serve(Sandbox(users=100)) as sandbox:
        yield sandbox


def behind(change: Callable[[], object]) -> Behind:
    """Return an approval that does something after the list of users was read and before the first write."""

    def approve(_: Forecast) -> bool:
        change()
        return True

    return approve


async def test_five_thousand_rows_of_which_one_in_a_hundred_changed(tmp_path: Path) -> None:
    """A request for each change and fewer than five besides; none of them again; a plain run sends ten thousand."""
    rows = [equal_line(n, first="Renamed" if n % 100 == 7 else "Example") for n in range(1, 5_001)]
    async with serve(Sandbox(users=5_000)) as sandbox:
        report = await send_lines(sandbox, tmp_path, *rows, changed_only=True)
        assert (report.counts["updated"], report.counts["unchanged"]) == (50, 4_950)
        assert writes(sandbox) == ["PUT"] * 50
        assert len(sandbox.ledger) < 50 + 5
        assert sum(record["firstName"] == "Renamed" for record in sandbox.users.values()) == 50

        sandbox.ledger.clear()
        report = await send_lines(sandbox, tmp_path, *rows, changed_only=True)
        assert report.counts["unchanged"] == 5_000
        assert writes(sandbox) == []
        assert len(sandbox.ledger) < 5
        assert report.http["requests"] == len(sandbox.ledger)

        sandbox.ledger.clear()
        report = await send_lines(sandbox, tmp_path, *(row.replace("Renamed", "Again") for row in rows))
        assert (report.counts["updated"], report.counts["unchanged"]) == (50, 4_950)
        assert len(sandbox.ledger) == 2 * 5_000 + 50


async def test_the_time_of_a_run_begins_with_its_first_request(sandbox: Sandbox, tmp_path: Path) -> None:
    """Reading all users takes time, too, and counts in the requests per second."""
    sandbox.switches = Switches(latency=0.3)
    report = await send_lines(sandbox, tmp_path, equal_line(1), changed_only=True)
    assert report.http["requests"] == 3  # users, roles, departments
    assert report.run["seconds"] >= 0.3


async def test_new_users_are_created_with_one_request_each(sandbox: Sandbox, tmp_path: Path) -> None:
    """What is not in the list is created; what is refused or stands twice in the file is counted as in any run."""
    rows = [equal_line(1), line(2), *(line(number) for number in range(200, 210)), line(200), line(300, first="")]
    report = await send_lines(sandbox, tmp_path, *rows, changed_only=True)
    assert {status: count for status, count in report.counts.items() if count} == {
        "rows": 14,
        "created": 10,
        "updated": 1,
        "unchanged": 1,
        "skipped": 1,
        "rejected": 1,
    }
    assert sorted(writes(sandbox)) == ["POST"] * 10 + ["PUT"]
    assert sum(row.get("attempts", 0) for row in report.rows()) == 11
    assert report.run["options"]["changed_only"] is True


async def test_existing_users_are_skipped_without_a_request(sandbox: Sandbox, tmp_path: Path) -> None:
    """The list says who exists."""
    rows = [line(1), line(2), line(200)]
    report = await send_lines(sandbox, tmp_path, *rows, changed_only=True, existing=Existing.SKIP)
    assert statuses(report) == {2: "skipped", 3: "skipped", 4: "created"}
    assert writes(sandbox) == ["POST"]


@pytest.mark.parametrize("duplicate", [409, 422])
async def test_who_was_created_behind_its_back_is_read_and_merged(
    sandbox: Sandbox, tmp_path: Path, duplicate: int
) -> None:
    """The API knows better than the list: one is brought up to date and keeps what it has, one is equal already."""
    sandbox.switches = Switches(duplicate=duplicate)
    own = {"email": "user00200@example.edu", "firstName": "Own", "lastName": "User", "products": ["catalog"], "x": 1}

    def create() -> None:
        sandbox.users["user00200@example.edu"] = own
        sandbox.users["user00201@example.edu"] = sandbox.users["user00003@example.edu"] | {
            "email": "user00201@example.edu",
            "lastName": "User 00201",
            "externalId": "000201",
            "department": "0100",
        }

    report = await send_lines(sandbox, tmp_path, line(200), line(201), changed_only=True, approve=behind(create))
    assert statuses(report) == {2: "updated", 3: "unchanged"}
    after = sandbox.users["user00200@example.edu"]
    assert (after["x"], after["products"], after["firstName"]) == (1, ["catalog", "scheduling"], "Example")


async def test_what_the_api_keeps_itself_may_be_missing_in_its_list(sandbox: Sandbox, tmp_path: Path) -> None:
    """The time of a change in a user's own record does not make the list another one."""
    body = sandbox.users["user00001@example.edu"] | {"updatedAt": "now"}
    sandbox.faults = [Fault(method="GET", path="*/user00001@*", action="wrong_body", body=body)]
    report = await send_lines(sandbox, tmp_path, line(1), changed_only=True)
    assert statuses(report) == {2: "updated"}


@contextmanager
def watching(tally: Tally) -> Iterator[list[int]]:
    """Note how many rows are done whenever the loop has time for anybody else."""
    seen: list[int] = []

    def note() -> None:
        seen.append(tally.done)
        again.append(asyncio.get_running_loop().call_soon(note))

    again: list[asyncio.Handle] = []
    note()
    yield seen
    again[-1].cancel()
    note()
    again[-1].cancel()


async def test_rows_without_a_request_leave_time_for_others(tmp_path: Path) -> None:
    """After a hundred of them a signal is heeded, be they found equal or done already."""
    brake = Brake()

    class Stopping(Tally):
        def __call__(self, outcome: Outcome) -> None:
            super().__call__(outcome)
            if self.done == 1000:
                brake.pull(Interrupted("SIGTERM", 15))

    rows = [*(equal_line(number) for number in range(1, 1001)), line(2000)]
    async with serve(Sandbox(users=1000)) as sandbox:
        for first, tally in ((True, Stopping(1001)), (False, Tally(1001))):
            more = {"brake": brake} if first else {"resume": True}
            with watching(tally) as seen:
                report = await send_lines(sandbox, tmp_path, *rows, changed_only=True, tally=tally, **more)
            assert (report.counts["unchanged"], report.counts["created"]) == (1000, 0 if first else 1)
            assert max(after - before for before, after in pairwise(seen)) <= BREATH


async def test_who_was_deleted_behind_its_back_is_created_anew(sandbox: Sandbox, tmp_path: Path) -> None:
    """An update that finds nobody begins with that user from the beginning."""

    def delete() -> None:
        del sandbox.users["user00002@example.edu"]

    report = await send_lines(sandbox, tmp_path, line(2), line(4), changed_only=True, approve=behind(delete))
    assert statuses(report) == {2: "created", 3: "updated"}
    assert sorted(writes(sandbox)) == ["POST", "PUT", "PUT"]
    assert sandbox.users["user00002@example.edu"]["products"] == ["scheduling"]
    assert sum(row.get("attempts", 0) for row in report.rows()) == 3


async def test_who_was_deleted_and_created_behind_its_back_is_updated(sandbox: Sandbox, tmp_path: Path) -> None:
    """A create that is refused after an update that found nobody ends with a look at who is there."""
    other = {"email": "user00002@example.edu", "firstName": "Own", "lastName": "User", "products": [], "x": 1}
    sandbox.faults = [Fault(method="PUT", action="status", status=404, nth=1)]

    def change() -> None:
        sandbox.users["user00002@example.edu"] = other

    report = await send_lines(sandbox, tmp_path, line(2), changed_only=True, approve=behind(change))
    assert statuses(report) == {2: "updated"}
    assert sandbox.users["user00002@example.edu"]["x"] == 1
    assert sandbox.users["user00002@example.edu"]["firstName"] == "Example"


async def test_a_stopped_run_goes_on_with_what_is_left(sandbox: Sandbox, tmp_path: Path) -> None:
    """Each change is sent once, over both runs; the list is read anew."""
    sandbox.switches = Switches(latency=0.01)
    rows = [line(number) for number in range(1, 121)]
    brake = Brake()

    def stop_soon(_: Forecast) -> bool:
        asyncio.get_running_loop().call_later(0.05, brake.pull, Interrupted("SIGTERM", 15))
        return True

    first = await send_lines(sandbox, tmp_path, *rows, changed_only=True, brake=brake, approve=stop_soon, concurrency=3)
    assert first.exit_code == 143
    assert 0 < first.counts["updated"] < 60
    last = await send_lines(sandbox, tmp_path, *rows, changed_only=True, resume=True)
    assert (last.exit_code, last.counts["created"]) == (0, 20)
    assert last.counts["updated"] + last.counts["unchanged"] == 100
    assert last.counts["updated"] == sum(number % 3 != 0 for number in range(1, 101))
    assert len(writes(sandbox)) == last.counts["updated"] + 20


@pytest.mark.parametrize("changed_only_first", [True, False])
async def test_a_killed_run_goes_on_with_what_is_left(
    sandbox: Sandbox, tmp_path: Path, changed_only_first: bool
) -> None:
    """After a kill -9 in the middle, who was begun is looked for first, and nobody is created twice or mailed."""
    sandbox.switches = Switches(latency=0.01)
    rows = [line(number) for number in range(1, 301)]
    async with asyncio.timeout(60), sending(sandbox, tmp_path, *rows, changed_only=changed_only_first):
        while len(sandbox.users) < 160:  # noqa: ASYNC110 - the ledger has no event
            await asyncio.sleep(0.002)
    async with asyncio.timeout(60), sending(sandbox, tmp_path, *rows, changed_only=True) as process:
        assert await process.wait() == 0
    assert len(sandbox.users) == 300
    assert all("scheduling" in record["products"] for record in sandbox.users.values())
    created = [entry for entry in sandbox.ledger if entry.method == "POST" and entry.wrote]
    assert len(created) == 200
    ends = statuses(read_report(tmp_path / "results.json"))
    assert {ends[row] for row in range(102, 302)} == {"created"}  # also those that the second list showed already


CAPS: list[tuple[dict[str, Any], bool]] = [
    ({"max_creates": "5", "max_updates": "10"}, True),
    ({"max_creates": "4"}, False),
    ({"max_updates": "9"}, False),
    ({"max_creates": "100", "max_updates": "9"}, False),
    ({"max_creates": "25%", "max_updates": "50%"}, True),
    ({"max_creates": "24.9%"}, False),
    ({"max_updates": "49%"}, False),
    ({"max_creates": "0"}, False),
    ({"max_updates": "0%"}, False),
    ({"max_creates": "100%", "max_updates": "100%"}, True),
]


async def send_capped(sandbox: Sandbox, folder: Path, **settings: Any) -> Report:  # noqa: ANN401 - any setting
    """Run twenty rows: five new users, ten changes, three equal rows, a row that stands twice, one without a name."""
    new = [line(number) for number in range(200, 205)]
    changed = [equal_line(number, first="Renamed") for number in range(1, 11)]
    rows = [*new, *changed, equal_line(20), equal_line(21), equal_line(22), line(200), line(300, first="")]
    shares = {name: Share(value) for name, value in settings.items() if name.startswith("max_")}
    return await send_lines(sandbox, folder, *rows, **settings | shares)


@pytest.mark.parametrize("changed_only", [True, False])
@pytest.mark.parametrize(("caps", "fits"), CAPS)
async def test_caps_are_kept(
    sandbox: Sandbox, tmp_path: Path, caps: dict[str, str], fits: bool, changed_only: bool
) -> None:
    """Exactly at a cap a run goes on; one above it is refused before the first write, and leaves no report."""
    if fits:
        report = await send_capped(sandbox, tmp_path, **caps, changed_only=changed_only)
        assert (report.counts["created"], report.counts["updated"], report.exit_code) == (5, 10, 6)
        return
    before = dict(sandbox.users)
    with pytest.raises(CapError, match=r"--max-(creates|updates) allows") as caught:
        await send_capped(sandbox, tmp_path, **caps, changed_only=changed_only)
    assert caught.value.exit_code == 8
    assert "plan" in caught.value.hint
    assert writes(sandbox) == []
    assert sandbox.ledger
    assert sandbox.users == before
    assert not list(tmp_path.glob("results*"))


@pytest.mark.parametrize("changed_only", [True, False])
@pytest.mark.parametrize("yes", [True, False])
async def test_nothing_is_sent_before_somebody_approves(
    sandbox: Sandbox, tmp_path: Path, yes: bool, changed_only: bool
) -> None:
    """What is shown is what then happens, or nothing happens: exit 8."""
    shown: list[dict[str, int]] = []

    def approve(forecast: Forecast) -> bool:
        shown.append(dict(forecast.counts))
        assert writes(sandbox) == []
        return yes

    if yes:
        report = await send_capped(sandbox, tmp_path, approve=approve, changed_only=changed_only)
        assert shown == [report.counts]
        return
    with pytest.raises(CapError, match="nobody said yes") as caught:
        await send_capped(sandbox, tmp_path, approve=approve, changed_only=changed_only)
    assert caught.value.exit_code == 8
    assert len(shown) == 1
    assert writes(sandbox) == []


async def test_caps_come_before_the_question(sandbox: Sandbox, tmp_path: Path) -> None:
    """Nobody is asked about what is not allowed anyway."""
    asked: list[Forecast] = []

    def approve(forecast: Forecast) -> bool:
        asked.append(forecast)
        return True

    with pytest.raises(CapError, match="max-creates"):
        await send_capped(sandbox, tmp_path, approve=approve, max_creates="1")
    assert asked == []


async def test_a_resumed_run_keeps_its_caps(sandbox: Sandbox, tmp_path: Path) -> None:
    """They are about what is still to be done; the journal stays for the next try."""
    sandbox.switches = Switches(latency=0.01)
    brake = Brake()

    def stop_soon(_: Forecast) -> bool:
        asyncio.get_running_loop().call_later(0.04, brake.pull, Interrupted("SIGTERM", 15))
        return True

    rows = [line(number) for number in range(200, 300)]
    first = await send_lines(sandbox, tmp_path, *rows, brake=brake, approve=stop_soon, concurrency=2)
    left = 100 - first.counts["created"]
    assert 0 < left < 100
    sent = len(writes(sandbox))
    with pytest.raises(CapError):
        await send_lines(sandbox, tmp_path, *rows, resume=True, max_creates=Share(str(left - 1)))
    assert len(writes(sandbox)) == sent
    last = await send_lines(sandbox, tmp_path, *rows, resume=True, max_creates=Share(str(left)))
    assert (last.exit_code, last.counts["created"]) == (0, 100)
    assert len(writes(sandbox)) == 100


@pytest.mark.parametrize("how", [{"changed_only": True}, {"max_creates": Share("9")}, {"approve": behind(int)}, {}])
async def test_ids_that_the_school_does_not_have_are_a_warning(
    sandbox: Sandbox, tmp_path: Path, how: dict[str, Any]
) -> None:
    """Wherever users are listed anyway; the report says in which rows, and repeats no cell."""
    rows = [line(201, roles="typo-1,typo-2"), line(202, roles="typo-1", department="9999"), equal_line(3)]
    report = await send_lines(sandbox, tmp_path, *rows, **how)
    told = [(each["code"], each["count"], list(each["rows"])) for each in report.warnings if "ids" in each["code"]]
    assert told == ([("ids-unknown", 3, [2, 3]), ("ids-unknown", 1, [3])] if how else [])
    assert "typo" not in report.path.read_text()
    assert any("/roles" in entry.path for entry in sandbox.ledger) is bool(how)


async def test_losses_are_told_once_and_only_where_they_happened(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replacement that is sent twice loses once, one that is refused loses nothing."""
    monkeypatch.setattr("bulkusers.api.SETTLE", 0.01)
    sandbox.faults = [
        Fault(method="PUT", path="*/user00001@*", action="reset_before", nth=1),
        Fault(method="PUT", path="*/user00002@*", action="status", status=422),
    ]
    rows = [line(1, roles=""), line(2, roles=""), line(3, roles="")]
    report = await send_lines(sandbox, tmp_path, *rows, existing=Existing.OVERWRITE)
    assert statuses(report) == {2: "updated", 3: "rejected", 4: "updated"}
    (warning,) = report.warnings
    assert (warning["code"], warning["count"], warning["rows"]) == ("values-lost", 2, [2, 4])
    assert [row.get("loses") for row in report.rows()] == [True, None, True]


async def test_a_resumed_run_tells_the_losses_of_both_its_parts(sandbox: Sandbox, tmp_path: Path) -> None:
    """What a row lost is written down with its outcome."""
    sandbox.switches = Switches(latency=0.01)
    rows = [line(number, roles="") for number in range(1, 41)]
    brake = Brake()
    asyncio.get_running_loop().call_later(0.3, brake.pull, Interrupted("SIGTERM", 15))
    how: dict[str, Any] = {"existing": Existing.OVERWRITE, "concurrency": 2}
    first = await send_lines(sandbox, tmp_path, *rows, brake=brake, **how)
    assert 0 < first.warnings[0]["count"] == first.counts["updated"] < 40
    last = await send_lines(sandbox, tmp_path, *rows, resume=True, **how)
    assert (last.warnings[0]["count"], last.warnings[0]["rows"]) == (40, [2, 3, 4, 5, 6])


async def test_an_undo_loses_nothing(sandbox: Sandbox, tmp_path: Path) -> None:
    """It takes away what was put there, and warns of nothing."""
    await send_lines(sandbox, tmp_path, line(1), line(2))
    with open_done(tmp_path / "results.json") as done:
        report = await undo(done, settings_for(sandbox), report=tmp_path / "undo.json")
    assert (report.counts["updated"], report.warnings) == (2, [])


async def test_roles_and_departments_that_cannot_be_read_stop_nobody(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They serve for a warning; each is asked for once, and an error of theirs is no outage."""
    monkeypatch.setattr("bulkusers.pace.FIRST_WAIT", 0.05)
    monkeypatch.setattr("bulkusers.pace.LONGEST_OUTAGE", 0.3)
    sandbox.faults = [Fault(path=path, action="status", status=500) for path in ("*/general/roles", "*/departments")]
    report = await send_lines(sandbox, tmp_path, line(201), changed_only=True)
    assert (report.exit_code, statuses(report)) == (0, {2: "created"})
    assert len([entry for entry in sandbox.ledger if entry.fault]) == 2
