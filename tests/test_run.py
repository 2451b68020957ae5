"""A whole run through real sockets: a file, the sandbox, the report, and what the sandbox holds afterwards."""

import asyncio
import csv
import os
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web
from runs import HEADER, line, send_lines, statuses, writes

from bulkusers import Existing, Lists, Report, Secret, Settings, Status, open_source, read_report, upload
from bulkusers.brake import Brake
from bulkusers.client import Client
from bulkusers.errors import AccessError, BulkUsersError, Interrupted, SourceError, StorageError, TransportError
from bulkusers.journal import read_progress
from bulkusers.models import Outcome, Request, Response, User
from bulkusers.profile import load_profile
from bulkusers.protocol import place
from bulkusers.report import write_report
from bulkusers.rules import Rules
from bulkusers.sandbox import Fault, Sandbox, Switches, serve
from bulkusers.source import Source
from bulkusers.workers import Work, upload_users

Send = Callable[..., Awaitable[Report]]


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    """Serve a sandbox that knows twenty example users."""
    async with serve(Sandbox(users=20)) as sandbox:
        yield sandbox


@pytest.fixture
def send(sandbox: Sandbox, tmp_path: Path) -> Send:
    """Return a run of some lines of CSV against the sandbox, with any setting said otherwise."""

    async def send(*lines: str, **settings: Any) -> Report:  # noqa: ANN401 - any setting
        return await send_lines(sandbox, tmp_path, *lines, **settings)

    return send


async def test_a_good_day(send: Send, sandbox: Sandbox) -> None:
    """New users are created, existing ones brought up to date, equal ones left alone, and each row says so."""
    report = await send(line(3), line(4), line(50), line(51, email="broken"), line(50))
    assert statuses(report) == {2: "unchanged", 3: "updated", 4: "created", 5: "rejected", 6: "skipped"}
    assert report.counts == Counter(rows=5, unchanged=1, updated=1, created=1, rejected=1, skipped=1) | {
        "failed": 0,
        "unknown": 0,
        "unprocessed": 0,
    }
    assert report.exit_code == 6
    assert sandbox.users["user00050@example.edu"]["externalId"] == "000050"
    assert sandbox.mails == []
    assert read_report(report.path).counts == report.counts


async def test_a_second_run_changes_nothing(send: Send, sandbox: Sandbox) -> None:
    """Whatever a run did is found done by the next one."""
    rows = [line(number) for number in range(1, 41)]
    await send(*rows)
    before = {email: dict(record) for email, record in sandbox.users.items()}
    report = await send(*rows)
    assert report.counts["unchanged"] == 40
    assert sandbox.users == before


async def test_merging_loses_nothing(send: Send, sandbox: Sandbox) -> None:
    """Roles, departments and fields that the file does not know are there afterwards as before."""
    before = dict(sandbox.users["user00001@example.edu"])
    await send(line(1, first="Renamed", department="", roles="example-admin"))
    after = sandbox.users["user00001@example.edu"]
    assert after["firstName"] == "Renamed"
    assert set(before["roles"]) | {"example-admin"} == set(after["roles"])
    assert set(before["products"]) | {"scheduling"} == set(after["products"])
    touched = {"firstName", "roles", "products", "updatedAt"}
    assert {k: v for k, v in after.items() if k not in touched} == {k: v for k, v in before.items() if k not in touched}


async def test_overwriting_makes_the_row_the_record(send: Send, sandbox: Sandbox) -> None:
    """What the row leaves blank is gone."""
    await send(line(1, department="", roles=""), existing=Existing.OVERWRITE)
    after = sandbox.users["user00001@example.edu"]
    assert "roles" not in after or after["roles"] == []
    assert "department" not in after


async def test_skipping_leaves_existing_users_alone(send: Send, sandbox: Sandbox) -> None:
    """Only new users are written."""
    before = dict(sandbox.users["user00001@example.edu"])
    report = await send(line(1, first="Renamed"), line(60), existing=Existing.SKIP)
    assert statuses(report) == {2: "skipped", 3: "created"}
    assert sandbox.users["user00001@example.edu"] == before


async def test_lists_can_be_replaced(send: Send, sandbox: Sandbox) -> None:
    """`lists=replace` takes the file's lists as they are."""
    await send(line(1, products="catalog", roles="example-admin"), lists=Lists.REPLACE)
    after = sandbox.users["user00001@example.edu"]
    assert (after["products"], after["roles"]) == (["catalog"], ["example-admin"])


@pytest.mark.parametrize("notify", [False, True])
async def test_mails_go_to_created_users_only_and_only_on_request(send: Send, sandbox: Sandbox, notify: bool) -> None:
    """One mail a created user when asked for, none otherwise."""
    await send(line(1), line(70), line(71), notify=notify)
    assert sorted(sandbox.mails) == (["user00070@example.edu", "user00071@example.edu"] if notify else [])


@pytest.mark.parametrize("duplicate", [409, 400, 422])
async def test_an_existing_user_is_found_however_the_api_says_so(send: Send, sandbox: Sandbox, duplicate: int) -> None:
    """The three answers that a duplicate may get lead to the same update."""
    sandbox.switches = Switches(duplicate=duplicate)
    report = await send(line(4), line(3))
    assert statuses(report) == {2: "updated", 3: "unchanged"}


async def test_what_the_api_refuses_is_rejected_with_its_words(send: Send, sandbox: Sandbox, tmp_path: Path) -> None:
    """A 422 about the data is the row's own trouble, and stands in the file of rejects with the row."""
    sandbox.switches = Switches(unknown_ids="refuse")
    report = await send(line(80, roles="no-such-role"), line(81))
    assert statuses(report) == {2: "rejected", 3: "created"}
    with (tmp_path / "results.rejects.csv").open(encoding="utf-8", newline="") as file:
        header, row = csv.reader(file)
    assert header == [*HEADER.split(","), "Error", "Hint"]
    assert row[:9] == next(csv.reader([line(80, roles="no-such-role")]))
    assert "role" in row[9]


async def test_rejected_rows_can_be_mended_and_run_again(send: Send, tmp_path: Path) -> None:
    """The file of rejects has the user's own columns, and its two extra ones are no hindrance."""
    await send(line(90, products="schedulin", last="=1+1"), line(91))
    rejects = (tmp_path / "results.rejects.csv").read_text(encoding="utf-8")
    assert "'=1+1" in rejects
    header, mended = rejects.replace("schedulin,", "scheduling,").splitlines()
    report = await send(mended, header=header)
    assert statuses(report) == {2: "created"}
    assert not (tmp_path / "results.rejects.csv").exists()
    assert list(tmp_path.glob("results.*.rejects.csv"))


async def test_a_formula_survives_the_way_through_the_rejects(send: Send, sandbox: Sandbox, tmp_path: Path) -> None:
    """A cell that looks like a formula is sent as it was, also after it was neutralised in our file."""
    await send(line(90, products="schedulin", last="=1+1"))
    header, row = (tmp_path / "results.rejects.csv").read_text(encoding="utf-8").splitlines()
    await send(row.replace("schedulin,", "scheduling,"), header=header)
    assert sandbox.users["user00090@example.edu"]["lastName"] == "=1+1"


async def test_rows_come_back_in_the_order_of_the_file(send: Send, sandbox: Sandbox) -> None:
    """Answers come in any order; the finished report does not."""
    sandbox.faults = [Fault(action="delay", share=0.3, seconds=0.03)]
    report = await send(*(line(number) for number in range(100, 200)))
    assert list(statuses(report)) == list(range(2, 102))


async def test_no_more_requests_are_under_way_than_there_are_workers(send: Send, sandbox: Sandbox) -> None:
    """Concurrency is a promise, and it is used."""
    sandbox.switches = Switches(latency=0.01)
    await send(*(line(number) for number in range(100, 200)), concurrency=7)
    assert max(entry.in_flight for entry in sandbox.ledger) == 7


async def test_requests_never_come_faster_than_the_rate(send: Send, sandbox: Sandbox) -> None:
    """In any one second the API sees at most the rate and 5 %, all workers and all kinds of request together."""
    await send(*(line(number) for number in range(1, 80)), rate=60)
    times = [entry.at for entry in sandbox.ledger]
    most = max(sum(start <= time < start + 1 for time in times) for start in times)
    assert most <= 63
    assert times[-1] - times[0] > 1.2


async def test_attempts_are_the_writes_that_the_api_saw(send: Send, sandbox: Sandbox) -> None:
    """Nothing is sent that the report does not count."""
    report = await send(*(line(number) for number in range(1, 31)))
    assert sum(row["attempts"] for row in report.rows()) == len(writes(sandbox))
    assert report.http["requests"] == len(sandbox.ledger)


async def test_the_file_is_read_no_faster_than_users_are_sent() -> None:
    """Back-pressure: while few are sent, few are read."""
    read: list[int] = []
    done: list[Outcome] = []
    ahead: list[int] = []

    def users() -> Iterator[User]:
        for row in range(2, 202):
            read.append(row)
            yield User(row, f"u{row}@example.edu", "U", "V", ("events",))

    async def answer(_: Request) -> Response:
        ahead.append(len(read) - len(done))
        return Response(422)

    async def no_wait() -> None:
        pass

    rules, brake = Rules(load_profile(), "s"), Brake()
    work: Work[User] = Work(
        place=lambda user, _: place(user, rules),
        connect=lambda _: answer,
        begin=lambda _: None,
        was_begun=lambda _: False,
        record=done.append,
        settle=no_wait,
        brake=brake,
        suspect=lambda _: None,
    )
    await upload_users(users(), work, workers=5)
    assert len(done) == 200
    assert max(ahead) <= 5 + 5 * 2 + 1


@pytest.mark.parametrize("kind", [SourceError, StorageError])
async def test_a_file_that_breaks_while_it_is_sent_ends_the_run_as_a_full_disk_does(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[BulkUsersError]
) -> None:
    """What is under way is finished and in the journal, nothing more is sent, and no report says that it is all."""
    sandbox.faults = [Fault(method="POST", action="delay", seconds=0.3, nth=2)]
    true = Source.users

    def break_off(source: Source) -> Iterator[User | Outcome]:
        yield from islice(true(source), 8)
        raise kind("cannot read users.csv: Input/output error")

    rows = [line(number) for number in range(100, 110)]
    with monkeypatch.context() as patch:
        patch.setattr(Source, "users", break_off)
        with pytest.raises(StorageError, match="Input/output error") as caught:
            await send_lines(sandbox, tmp_path, *rows, concurrency=3)
    assert (caught.value.exit_code, "--resume" in caught.value.hint) == (12, True)
    assert not (tmp_path / "results.json").exists()
    progress = read_progress(tmp_path / "results.json.journal")
    assert 1 < progress["created"] == len(writes(sandbox)) == 8 - progress["unprocessed"]
    report = await send_lines(sandbox, tmp_path, *rows, resume=True)
    assert (report.exit_code, report.counts["created"]) == (0, 10)
    assert len(writes(sandbox)) == 10


async def test_logging_in_with_a_password(send: Send, sandbox: Sandbox) -> None:
    """Without a token the run gets one first, with one request more."""
    report = await send(line(3), token=Secret(), email=sandbox.email, password=Secret(sandbox.password))
    assert statuses(report) == {2: "unchanged"}
    assert report.run["operator"] == sandbox.email
    assert sandbox.ledger[0].path.endswith("/sessions")


async def test_logging_in_the_other_way(send: Send, sandbox: Sandbox) -> None:
    """An API that calls the password `password` is logged in to at the second try."""
    sandbox.switches = Switches(login_key="password")
    report = await send(line(3), token=Secret(), email=sandbox.email, password=Secret(sandbox.password))
    assert report.exit_code == 0


async def test_a_wrong_password_sends_nothing_else(send: Send, sandbox: Sandbox) -> None:
    """A refused login ends the run with every row accounted for."""
    report = await send(line(3), line(4), token=Secret(), email=sandbox.email, password=Secret("wrong"))
    assert (report.exit_code, set(statuses(report).values())) == (4, {"unprocessed"})
    assert len(sandbox.ledger) == 1


async def test_no_token_and_no_password_is_said_before_anything_is_done(send: Send, tmp_path: Path) -> None:
    """There is nothing to try, and no report to write."""
    with pytest.raises(AccessError, match="no token"):
        await send(line(3), token=Secret())
    assert [path.name for path in tmp_path.iterdir()] == ["users.csv"]


async def test_a_dead_token_stops_the_run(send: Send, sandbox: Sandbox) -> None:
    """After a 401 no further user is begun, and the rest is listed as never sent."""
    token = Secret(sandbox.new_token())
    sandbox.kill_tokens()
    report = await send(*(line(number) for number in range(100, 200)), token=token, concurrency=2)
    assert report.exit_code == 4
    assert report.counts["unprocessed"] >= 98
    assert "token" in report.run["stopped"]["reason"]


async def test_a_wrong_school_stops_after_ten_alike_refusals(send: Send, sandbox: Sandbox) -> None:
    """Nobody wants 50,000 equal errors."""
    report = await send(*(line(number) for number in range(100, 200)), school="another", concurrency=1)
    assert report.exit_code == 8
    assert (report.counts["failed"], report.counts["unprocessed"]) == (10, 90)
    assert sandbox.mails == []


async def test_an_api_that_is_not_there_stops_the_run(send: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing listens on the port: a few tries, then probes, then the rest is kept for later."""
    monkeypatch.setattr("bulkusers.pace.FIRST_WAIT", 0.05)
    monkeypatch.setattr("bulkusers.pace.LONGEST_OUTAGE", 0.4)
    report = await send(*(line(number) for number in range(100, 200)), base_url="http://127.0.0.1:9/api/v1")
    assert report.exit_code == 7
    assert report.counts["failed"] + report.counts["unprocessed"] == 100
    assert report.counts["failed"] <= 5
    assert report.http["retries"] > 0
    assert report.http["requests"] == 0


async def test_a_stopped_run_ends_though_nobody_answers(
    send: Send, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All workers hang, many rows are left: after the time for draining, every row has its outcome."""
    monkeypatch.setattr("bulkusers.workers.DRAIN", 0.2)
    sandbox.faults = [Fault(action="hang", method="POST")]
    brake = Brake()
    asyncio.get_running_loop().call_later(0.2, brake.pull, Interrupted("SIGTERM", 15))
    async with asyncio.timeout(10):
        report = await send(*(line(number) for number in range(100, 400)), brake=brake, concurrency=5)
    assert report.exit_code == 143
    assert (report.counts["unknown"], report.counts["unprocessed"]) == (5, 295)


async def test_who_waits_when_a_run_stops_sends_nothing_again(send: Send) -> None:
    """Workers that wait for their turn meanwhile are no retries: the API never failed."""
    brake = Brake()
    asyncio.get_running_loop().call_later(0.3, brake.pull, Interrupted("SIGTERM", 15))
    report = await send(*(line(number) for number in range(100, 200)), brake=brake, rate=5)
    assert report.counts["unprocessed"] > 20
    assert report.http["retries"] == 0


async def test_a_run_whose_report_is_being_written_is_not_cancelled(
    send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second signal then comes too late: the report says how the run ended, and nobody says otherwise."""
    task = asyncio.ensure_future(send(line(3)))

    def write_and_cancel(*arguments: Any) -> None:  # noqa: ANN401 - as the real one
        asyncio.get_running_loop().call_soon(task.cancel)
        write_report(*arguments)

    monkeypatch.setattr("bulkusers.pipeline.write_report", write_and_cancel)
    assert (await task).exit_code == 0


async def test_a_stopped_run_does_not_wait_for_its_login(send: Send, sandbox: Sandbox) -> None:
    """Who is stopping needs no token."""
    sandbox.faults = [Fault(action="hang", path="*/sessions")]
    brake = Brake()
    asyncio.get_running_loop().call_later(0.2, brake.pull, Interrupted("SIGTERM", 15))
    async with asyncio.timeout(5):
        report = await send(line(3), token=Secret(), email=sandbox.email, password=Secret("x"), brake=brake)
    assert (report.exit_code, statuses(report)) == (143, {2: "unprocessed"})


async def test_one_hiccup_at_the_login_is_no_end(send: Send, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """The login could not be sent; it is tried again."""
    monkeypatch.setattr("bulkusers.retry.FIRST_BACKOFF", 0.01)
    calls: list[str] = []
    real = Client.send

    async def flaky(self: Client, request: Request) -> Response:
        calls.append(request.path)
        if len(calls) == 1:
            raise TransportError("no connection to the API", sent=False)
        return await real(self, request)

    monkeypatch.setattr(Client, "send", flaky)
    report = await send(line(3), token=Secret(), email=sandbox.email, password=Secret(sandbox.password))
    assert report.exit_code == 0


@pytest.mark.parametrize(
    ("order", "logins", "code"),
    [
        ({"action": "reset_before", "times": 2}, 3, 0),
        ({"action": "reset_after", "times": 1}, 2, 0),
        ({"action": "status", "status": 502, "times": 2}, 3, 0),
        ({"action": "reset_before", "times": 9}, 3, 7),
        ({"action": "status", "status": 401, "times": 9}, 1, 4),
        ({"action": "status", "status": 423, "times": 9}, 1, 4),
    ],
)
async def test_a_login_whose_answer_is_lost_is_sent_again_twice(
    send: Send,
    sandbox: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    order: dict[str, Any],
    logins: int,
    code: int,
) -> None:
    """One blip is not to cost a night; a refusal is final, for too many of them lock the account."""
    monkeypatch.setattr("bulkusers.retry.FIRST_BACKOFF", 0.01)
    sandbox.faults = [Fault(path="*/sessions", **order)]
    report = await send(line(3), token=Secret(), email=sandbox.email, password=Secret(sandbox.password))
    assert report.exit_code == code
    assert len([entry for entry in sandbox.ledger if entry.path.endswith("/sessions")]) == logins


@pytest.mark.parametrize(
    ("method", "status", "words"),
    [
        ("POST", 413, "session *** is over"),
        ("POST", 302, "session *** is over"),  # what sends us elsewhere is a refusal, too
        ("GET", 206, "the API answered 206"),  # the words of a success are not repeated
    ],
)
async def test_the_apis_words_never_hold_the_token(
    send: Send, sandbox: Sandbox, tmp_path: Path, method: str, status: int, words: str
) -> None:
    """An API that repeats it must not make us tell it."""
    token = sandbox.new_token()
    body = {"error": f"session {token} is over"}
    sandbox.faults = [Fault(action="status", method=method, path="*/users*", status=status, body=body)]
    await send(line(1), token=Secret(token))
    for path in tmp_path.glob("results*"):
        assert token not in path.read_text()
    assert words in (tmp_path / "results.json").read_text()


async def test_an_outage_in_the_middle_is_waited_for(
    send: Send, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the API is down nearly nothing is sent, and when it is back everybody gets there."""
    monkeypatch.setattr("bulkusers.pace.FIRST_WAIT", 0.2)
    monkeypatch.setattr("bulkusers.api.SETTLE", 0.05)
    sandbox.faults = [Fault(action="reset_before", start=0.1, stop=0.6)]
    report = await send(*(line(number) for number in range(100, 300)), rate=200)
    assert (report.exit_code, report.counts["created"]) == (0, 200)
    assert sum(entry.fault != "" for entry in sandbox.ledger) <= 30


@pytest.mark.parametrize("retry_after", ["seconds", "date", "none"])
async def test_an_api_that_is_too_busy_is_waited_for(send: Send, sandbox: Sandbox, retry_after: str) -> None:
    """A 429 costs time and nothing else; the pace goes down."""
    sandbox.switches = Switches(rate_limit=30, retry_after=retry_after)
    report = await send(*(line(number) for number in range(100, 150)), rate=200)
    assert (report.exit_code, report.counts["created"]) == (0, 50)
    assert 1 <= report.http["throttled"] < 30


async def test_a_token_that_dies_is_replaced_by_one_login(send: Send, sandbox: Sandbox) -> None:
    """All workers get a 401 at once; one logs in, and everybody goes on."""
    token = Secret(sandbox.new_token())
    sandbox.faults = [Fault(action="kill_token", nth=30)]
    rows = [line(number) for number in range(100, 200)]
    report = await send(*rows, token=token, email=sandbox.email, password=Secret(sandbox.password))
    assert (report.exit_code, report.counts["created"]) == (0, 100)
    assert sum(entry.path.endswith("/sessions") for entry in sandbox.ledger) == 1


async def test_a_conversation_that_is_under_way_is_led_to_its_end(send: Send, sandbox: Sandbox) -> None:
    """Whose create was answered is not left half done when the run stops; nobody else is begun."""
    brake = Brake()

    async def stop_after_the_first_write() -> None:
        while not writes(sandbox):  # noqa: ASYNC110 - the sandbox has no event for it
            await asyncio.sleep(0.001)
        brake.pull(Interrupted("SIGTERM", 15))

    sandbox.switches = Switches(latency=0.05)
    stopping = asyncio.create_task(stop_after_the_first_write())
    report = await send(line(4), line(5), brake=brake, concurrency=1)
    await stopping
    assert statuses(report) == {2: "updated", 3: "unprocessed"}
    assert writes(sandbox) == ["POST", "PUT"]


async def test_a_stopped_run_finishes_what_is_under_way_and_lists_the_rest(send: Send, sandbox: Sandbox) -> None:
    """The brake loses nothing: what was begun has its outcome, what was not is unprocessed, and both are true."""
    sandbox.switches = Switches(latency=0.005)
    brake = Brake()
    asyncio.get_running_loop().call_later(0.08, brake.pull, Interrupted("SIGTERM", 15))
    report = await send(*(line(number) for number in range(100, 400)), brake=brake, concurrency=4)
    assert report.exit_code == 143
    created = {row["email"] for row in report.rows() if row["status"] == Status.CREATED}
    assert created
    assert created == {email for email in sandbox.users if email > "user00099"}
    assert report.counts["created"] + report.counts["unprocessed"] == 300


async def test_a_stopped_run_leaves_a_journal_that_survives_a_power_cut(
    send: Send, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last lines reach the disk before the run ends, however long it is until the next time to see to it."""
    synced: list[int] = []
    true = os.fdatasync

    def note(descriptor: int) -> None:
        true(descriptor)
        synced.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fdatasync", note)
    monkeypatch.setattr("bulkusers.pipeline.SYNC", 60.0)
    brake = Brake()
    brake.pull(Interrupted("SIGTERM", 15))
    await send(line(3), line(30), brake=brake)
    assert synced[-1:] == [(tmp_path / "results.json.journal").stat().st_size]


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a late write show after a moment, and an outage be over soon."""
    monkeypatch.setattr("bulkusers.api.SETTLE", 0.05)
    monkeypatch.setattr("bulkusers.pace.FIRST_WAIT", 0.1)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("action", ["reset_after", "cut_body", "wrong_body"])
async def test_a_write_whose_answer_is_lost_is_seen_and_not_sent_again(
    send: Send, sandbox: Sandbox, action: str, method: str
) -> None:
    """It was done: a look tells, and the API sees each write once."""
    sandbox.faults = [Fault(method=method, path="*/users*", action=action)]
    numbers = range(100, 120) if method == "POST" else [1, 2, 4, 5, 7, 8]
    report = await send(*(line(number) for number in numbers))
    assert set(statuses(report).values()) == {"created" if method == "POST" else "updated"}
    assert writes(sandbox).count(method) == len(numbers)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("action", ["html", "garbage", "hang", "reset_before", "status"])
async def test_a_write_that_was_not_done_is_sent_again_after_a_look(
    send: Send, sandbox: Sandbox, action: str, method: str
) -> None:
    """Whatever the API said instead of doing it, it is done in the end, and each write that it saw is counted."""
    sandbox.faults = [Fault(method=method, path="*/users*", action=action, times=4)]
    numbers = range(100, 112) if method == "POST" else [1, 2, 4, 5, 7, 8]
    report = await send(*(line(number) for number in numbers), timeout=0.3)
    assert set(statuses(report).values()) == {"created" if method == "POST" else "updated"}
    assert writes(sandbox).count(method) == len(numbers) + 4
    assert sum(row["attempts"] for row in report.rows()) == len(writes(sandbox))


@pytest.mark.usefixtures("soon")
async def test_a_redirect_is_never_followed(send: Send, sandbox: Sandbox) -> None:
    """A 302 is a refusal; the page behind it is not asked for."""
    sandbox.faults = [Fault(method="POST", action="redirect", nth=1)]
    report = await send(line(100))
    assert statuses(report) == {2: "failed"}
    assert len(sandbox.ledger) == 1


async def test_a_server_with_a_wrong_certificate_gets_nothing(tmp_path: Path) -> None:
    """TLS is always verified, and a CA of one's own is the only way to trust more."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    seen: list[str] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        seen.append(request.method)
        return web.Response(body=await request.read(), content_type="application/json", status=201)

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    settings: dict[str, Any] = {
        "base_url": f"https://127.0.0.1:{runner.addresses[0][1]}",
        "school": "s",
        "token": Secret("t"),
    }
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    file = tmp_path / "users.csv"
    file.write_text(f"{HEADER}\n{line(1)}\n")
    try:
        with open_source(file) as source:
            distrusted = await upload(source, Settings(**settings), report=tmp_path / "one.json")
            assert seen == []
            trusted = await upload(source, Settings(**settings, ca_file=ca_file), report=tmp_path / "two.json")
    finally:
        await runner.cleanup()
    assert (distrusted.exit_code, trusted.exit_code) == (4, 0)
    assert "certificate" in distrusted.run["stopped"]["reason"]


async def test_a_report_that_cannot_be_written_is_found_before_the_first_request(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    """Nobody is created whose creation could not be reported."""
    file = tmp_path / "users.csv"
    file.write_text(f"{HEADER}\n{line(100)}\n")
    settings = Settings(base_url=sandbox.url, school=sandbox.school, token=Secret(sandbox.new_token()))
    with open_source(file) as source, pytest.raises(StorageError):
        await upload(source, settings, report=tmp_path / "missing" / "results.json")
    assert sandbox.ledger == []


async def test_older_reports_are_moved_aside(send: Send, tmp_path: Path) -> None:
    """Every run's report stays."""
    for _ in range(3):
        await send(line(3))
    assert len(list(tmp_path.glob("results*.json"))) == 3
    assert not list(tmp_path.glob("*.journal"))


async def test_reports_are_for_their_owner_only(send: Send, tmp_path: Path) -> None:
    """Reports hold e-mail addresses: mode 0600."""
    await send(line(3), line(4, email="broken"))
    for path in tmp_path.glob("results*"):
        assert path.stat().st_mode & 0o777 == 0o600
