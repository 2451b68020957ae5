"""All users are read whole, or the reading is refused: through real sockets, whatever the API does to its list."""

import asyncio
import itertools
import resource
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from conftest import MakeRules, MakeUser, file_size_limit
from runs import line, send_lines, settings_for, statuses, writes

from bulkusers import Existing, Secret, Status
from bulkusers.api import open_api, open_for_reading
from bulkusers.brake import Brake
from bulkusers.errors import (
    AccessError,
    BulkUsersError,
    Interrupted,
    OutageError,
    ShapeError,
    StorageError,
    TransportError,
)
from bulkusers.forecast import make_forecast
from bulkusers.models import Json, Request, Response
from bulkusers.sandbox import Fault, Sandbox, Switches, serve
from bulkusers.settings import make_rules
from bulkusers.snapshot import Snapshot, take_snapshot

USERS = 25
LIST = "/example_university/users"
Take = Callable[..., Awaitable[dict[str, Json]]]


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    """Serve a sandbox that knows some example users."""
    async with serve(Sandbox(users=USERS)) as sandbox:
        yield sandbox


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for nothing longer than a moment."""
    monkeypatch.setattr("bulkusers.retry.FIRST_BACKOFF", 0.01)
    monkeypatch.setattr("bulkusers.pace.FIRST_WAIT", 0.05)
    monkeypatch.setattr("bulkusers.pace.LONGEST_OUTAGE", 0.3)


@pytest.fixture
def take(sandbox: Sandbox) -> Take:
    """Return a function that takes a snapshot, under any settings, and returns what is in it by e-mail."""

    async def take(brake: Brake | None = None, **settings: Any) -> dict[str, Json]:  # noqa: ANN401 - any setting
        made = settings_for(sandbox, **settings)
        async with open_for_reading(made, brake or Brake()) as api:
            with await api.read(take_snapshot(make_rules(made))) as snapshot:
                records = {record["email"]: record for record in snapshot}
                assert len(snapshot) == len(records)
                assert all(snapshot.find(email.upper()) == record for email, record in records.items())
                return records

    return take


def lists(sandbox: Sandbox) -> int:
    """Return how often the list was asked for, page by page."""
    return sum(entry.method == "GET" and entry.path.endswith("/users") for entry in sandbox.ledger)


SHAPES = [
    (shape, page_size)
    for shape in ("map", "list", "data", "length")
    for page_size in (0, 1, 7, 24, 25, 26)
    if shape != "map" or not page_size
]


@pytest.mark.parametrize(("shape", "page_size"), SHAPES)
async def test_every_shape_and_every_page_is_read(take: Take, sandbox: Sandbox, shape: str, page_size: int) -> None:
    """Record by record what the sandbox holds, in as few requests as the shape allows."""
    sandbox.switches = Switches(list_shape=shape, page_size=page_size)
    assert await take() == sandbox.users
    pages = -(-USERS // page_size) if page_size else 1
    # without a count, only a page that brings nothing new is the end
    assert lists(sandbox) == (pages + 1 if shape == "list" else pages)


@pytest.mark.parametrize("shape", ["map", "list", "data", "length"])
async def test_a_school_without_users(take: Take, sandbox: Sandbox, shape: str) -> None:
    """Nobody is there, and nothing is wrong."""
    sandbox.users.clear()
    sandbox.switches = Switches(list_shape=shape)
    assert await take() == {}


@pytest.mark.parametrize("cut", [1, 10, USERS])
@pytest.mark.parametrize(("shape", "page_size"), [case for case in SHAPES if case[0] in ("data", "length")])
async def test_a_list_with_a_count_is_never_believed_short(
    take: Take, sandbox: Sandbox, shape: str, page_size: int, cut: int
) -> None:
    """However many are missing from its end, and however it is paged."""
    sandbox.switches = Switches(list_shape=shape, page_size=page_size, cut_list=cut)
    with pytest.raises(ShapeError, match=f"25 users, and lists {USERS - cut}") as caught:
        await take()
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("shape", ["map", "list"])
@pytest.mark.parametrize("numbers", [(20, 90), (25, 90), (90, 91, 25)])
async def test_a_list_without_a_count_is_refused_where_a_sample_shows_that_it_is_short(
    sandbox: Sandbox, tmp_path: Path, shape: str, numbers: tuple[int, ...]
) -> None:
    """The first or the last user who would be created is there when asked for alone: nothing is sent."""
    sandbox.switches = Switches(list_shape=shape, cut_list=10)
    with pytest.raises(ShapeError, match="not whole"):
        await send_lines(sandbox, tmp_path, line(3), *map(line, numbers), changed_only=True)
    assert writes(sandbox) == []
    assert not (tmp_path / "results.json").exists()


@pytest.mark.parametrize("existing", Existing)
@pytest.mark.parametrize("duplicate", [409, 400])
@pytest.mark.parametrize("shape", ["map", "list"])
async def test_a_short_list_that_no_sample_shows_leads_to_no_lie(
    sandbox: Sandbox, tmp_path: Path, shape: str, duplicate: int, existing: Existing
) -> None:
    """The first and the last new user are new: those between exist, which the API says when they are created."""
    sandbox.switches = Switches(list_shape=shape, cut_list=10, duplicate=duplicate)
    before = dict(sandbox.users)
    rows = [line(90), line(18), line(20), line(23, secondary="0300"), line(91)]
    report = await send_lines(sandbox, tmp_path, *rows, changed_only=True, existing=existing)
    changed = "skipped" if existing is Existing.SKIP else "updated"
    equal = {Existing.MERGE: "unchanged", Existing.OVERWRITE: "updated", Existing.SKIP: "skipped"}[existing]
    assert statuses(report) == {2: "created", 3: equal, 4: changed, 5: changed, 6: "created"}
    if existing is not Existing.OVERWRITE:
        for email, record in before.items():
            for name, value in record.items():
                after = sandbox.users[email][name]
                assert set(value) <= set(after) if isinstance(value, list) else value == after


async def test_a_list_that_lags_is_as_old_as_its_samples(sandbox: Sandbox, tmp_path: Path) -> None:
    """Who was created a moment ago is not in it yet; the create is refused, and nobody is there twice."""
    rows = [line(number) for number in range(80, 90)]
    await send_lines(sandbox, tmp_path, *rows)
    sandbox.switches = Switches(read_lag=60)
    report = await send_lines(sandbox, tmp_path, *rows, changed_only=True)
    assert set(statuses(report).values()) <= {"unchanged", "failed"}  # never created again
    assert len(sandbox.users) == USERS + 10
    assert report.exit_code in {0, 5}


@pytest.mark.parametrize("page_size", [0, 10])
@pytest.mark.parametrize("shape", ["map", "list", "data"])
async def test_a_user_in_two_spellings_is_refused(take: Take, sandbox: Sandbox, shape: str, page_size: int) -> None:
    """Nobody knows which of them a row means, be they on one page or on two."""
    sandbox.users["USER00001@example.edu"] = sandbox.users["user00001@example.edu"] | {
        "email": "USER00001@example.edu",
        "firstName": "Another",
    }
    sandbox.switches = Switches(list_shape=shape, page_size=page_size)
    with pytest.raises(ShapeError, match=f"record {USERS + 1} of its list"):
        await take()


async def test_a_user_who_is_listed_twice_is_refused(take: Take, sandbox: Sandbox) -> None:
    """On one page; on two, the list may have moved between them."""
    first, second, *_ = sandbox.users.values()
    sandbox.faults = [Fault(method="GET", path=LIST, action="wrong_body", body=[first, second, first])]
    with pytest.raises(ShapeError, match="a user twice"):
        await take()
    pages = [[first, second], [second, sandbox.users["user00009@example.edu"]], []]
    sandbox.faults = [
        Fault(method="GET", path=LIST, action="wrong_body", body=body, nth=number)
        for number, body in enumerate(pages, 1)
    ]
    assert list(await take()) == ["user00001@example.edu", "user00002@example.edu", "user00009@example.edu"]


@pytest.mark.parametrize("page_size", [0, 10])
async def test_a_page_that_is_not_there_is_the_end_of_a_list_without_a_count(
    take: Take, sandbox: Sandbox, page_size: int
) -> None:
    """An API may answer 404 instead of an empty page; where it has counted more users, they are missed."""
    pages = 3 if page_size else 1
    fault = Fault(method="GET", path=LIST, action="status", status=404, nth=pages + 1)
    sandbox.switches = Switches(list_shape="list", page_size=page_size)
    sandbox.faults = [fault]
    assert await take() == sandbox.users
    assert lists(sandbox) == pages + 1
    sandbox.switches = Switches(list_shape="data", page_size=10)
    sandbox.faults = [replace(fault, nth=3)]
    with pytest.raises(ShapeError, match="25 users, and lists 20"):
        await take()


@pytest.mark.parametrize("action", ["reset_before", "reset_after", "cut_body", "garbage"])
@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize("shape", ["list", "length"])
async def test_what_broke_in_the_middle_is_asked_for_again(
    take: Take, sandbox: Sandbox, shape: str, nth: int, action: str
) -> None:
    """Whole: no record is there twice, none is mixed of two answers."""
    sandbox.switches = Switches(list_shape=shape, page_size=10)
    sandbox.faults = [Fault(method="GET", path=LIST, action=action, nth=nth)]
    assert await take() == sandbox.users
    assert lists(sandbox) == (5 if shape == "list" else 4)


async def test_a_shorter_answer_after_a_longer_one_leaves_nothing_of_it(take: Take, sandbox: Sandbox) -> None:
    """What came of the broken answer is gone before the next one is written."""
    sandbox.faults = [Fault(method="GET", path=LIST, action="cut_body", nth=1)]
    task = asyncio.ensure_future(take())
    while not any(entry.fault for entry in sandbox.ledger):  # noqa: ASYNC110 - the ledger has no event
        await asyncio.sleep(0.001)
    sandbox.users.clear()
    assert await task == {}


async def test_a_token_that_dies_between_two_pages_is_replaced(take: Take, sandbox: Sandbox) -> None:
    """One login, and the page is asked for again."""
    sandbox.switches = Switches(list_shape="data", page_size=10)
    sandbox.faults = [Fault(method="GET", path=LIST, action="kill_token", nth=2)]
    assert await take(email=sandbox.email, password=Secret(sandbox.password)) == sandbox.users
    assert writes(sandbox) == ["POST"]
    assert [entry.status for entry in sandbox.ledger] == [200, 401, 201, 200, 200]


async def test_a_token_that_dies_without_a_password_is_told(take: Take, sandbox: Sandbox) -> None:
    """There is nothing to log in with: exit 4."""
    sandbox.switches = Switches(list_shape="data", page_size=10)
    sandbox.faults = [Fault(method="GET", path=LIST, action="kill_token", nth=2)]
    with pytest.raises(AccessError, match="token") as caught:
        await take()
    assert caught.value.exit_code == 4


REFUSALS: list[tuple[dict[str, Any], type[BulkUsersError], int, str]] = [
    ({"action": "status", "status": 403}, AccessError, 4, "403"),
    ({"action": "status", "status": 404}, ShapeError, 4, "no list of users"),
    ({"action": "status", "status": 400}, ShapeError, 4, "400"),
    ({"action": "redirect"}, ShapeError, 4, "302"),
    ({"action": "redirect", "status": 308}, ShapeError, 4, "308"),
    ({"action": "html"}, ShapeError, 4, "log-in page"),
    ({"action": "wrong_body", "body": {"error": "no"}}, ShapeError, 4, "'error'"),
    ({"action": "wrong_body", "body": [{"id": 1}]}, ShapeError, 4, "without 'email'"),
    ({"action": "wrong_body", "body": {"1": {"email": " "}}}, ShapeError, 4, "without 'email'"),
    ({"action": "wrong_body"}, ShapeError, 4, "neither"),
    ({"action": "status", "status": 500}, OutageError, 7, "500"),
    ({"action": "status", "status": 206}, OutageError, 7, "206"),
    ({"action": "reset_before"}, TransportError, 7, "connection broke"),
]


@pytest.mark.parametrize(("fault", "kind", "code", "words"), REFUSALS)
async def test_what_is_no_list_ends_with_its_own_error(
    take: Take, sandbox: Sandbox, fault: dict[str, Any], kind: type[BulkUsersError], code: int, words: str
) -> None:
    """Each has its sentence, its hint where there is something to do, and its exit code; no redirect is followed."""
    sandbox.faults = [Fault(method="GET", path=LIST, **fault)]
    with pytest.raises(kind, match=words) as caught:
        await take(retries=1)
    assert caught.value.exit_code == code
    assert caught.value.hint or kind is TransportError
    assert {entry.path for entry in sandbox.ledger} == {f"/api/v1{LIST}"}
    assert lists(sandbox) == (2 if code == 7 and fault.get("status") != 206 else 1)


@pytest.mark.parametrize(("fault", "kind", "code", "words"), REFUSALS)
async def test_a_run_that_cannot_see_its_users_sends_nothing(
    sandbox: Sandbox, tmp_path: Path, fault: dict[str, Any], kind: type[BulkUsersError], code: int, words: str
) -> None:
    """The same error ends a run that sends only what changes, with no write and no report."""
    sandbox.faults = [Fault(method="GET", path=LIST, **fault)]
    with pytest.raises(kind, match=words) as caught:
        await send_lines(sandbox, tmp_path, line(4), changed_only=True, retries=1)
    assert caught.value.exit_code == code
    assert writes(sandbox) == []
    assert not list(tmp_path.glob("results*"))


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"action": "status", "status": 403}, AccessError),
        ({"action": "status", "status": 500}, OutageError),
        ({"action": "html"}, ShapeError),
        ({"action": "wrong_body", "status": 200}, ShapeError),
        ({"action": "redirect"}, ShapeError),
        ({"action": "reset_before"}, TransportError),
    ],
)
@pytest.mark.parametrize("number", [4, 90])
async def test_a_sample_that_tells_nothing_proves_nothing(
    sandbox: Sandbox, tmp_path: Path, number: int, fault: dict[str, Any], kind: type[BulkUsersError]
) -> None:
    """Where one user cannot be read, nothing is sent, and the reason is the true one."""
    sandbox.faults = [Fault(method="GET", path=f"{LIST}/*", **fault)]
    with pytest.raises(kind, match=r"^(?!.*not whole)"):
        await send_lines(sandbox, tmp_path, line(number), changed_only=True, retries=1)
    assert writes(sandbox) == []


async def test_a_list_that_shows_less_of_a_user_is_not_believed(sandbox: Sandbox, tmp_path: Path) -> None:
    """A record put back without what its list leaves out would lose it."""
    short = {email: {"email": email, "firstName": record["firstName"]} for email, record in sandbox.users.items()}
    sandbox.faults = [Fault(method="GET", path=LIST, action="wrong_body", body=short)]
    with pytest.raises(ShapeError, match="something else"):
        await send_lines(sandbox, tmp_path, line(4), changed_only=True)
    assert writes(sandbox) == []


async def test_a_list_that_is_too_large_is_refused(
    take: Take, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk has an end; a list of ordinary size passes."""
    monkeypatch.setattr("bulkusers.client.MAX_LIST", 5_000)
    with pytest.raises(TransportError, match="too large") as caught:
        await take(retries=0)
    assert caught.value.exit_code == 7
    for email in list(sandbox.users)[5:]:
        del sandbox.users[email]
    assert await take() == sandbox.users


@pytest.mark.parametrize(("page_size", "size"), [(0, 0), (0, 100), (0, 8_192), (0, -1), (5, 5_000), (5, 9_000)])
async def test_a_full_disk_is_told(take: Take, sandbox: Sandbox, page_size: int, size: int) -> None:
    """Wherever it is full: in the answer, in its last byte, in what is kept of all pages."""
    sandbox.switches = Switches(list_shape="data", page_size=page_size)
    if size < 0:
        size += len(orjson.dumps({"data": list(sandbox.users.values()), "totalCount": USERS}))
    with file_size_limit(size), pytest.raises(StorageError, match="File too large") as caught:
        await take()
    assert caught.value.exit_code == 12
    assert "TMPDIR" in caught.value.hint


def test_no_folder_for_it_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is begun."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with pytest.raises(StorageError, match="No such file"):
        Snapshot()


async def test_no_file_is_left_open(take: Take, sandbox: Sandbox) -> None:
    """However it ends, what was on the disk is gone."""

    def count_open() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    await take()
    before = count_open()
    for fault in ([], [Fault(method="GET", path=LIST, action="html")]):
        sandbox.faults = fault
        for _ in range(5):
            await asyncio.gather(take(), return_exceptions=True)
    await asyncio.sleep(0.05)
    assert count_open() <= before + 2  # connections that are being closed


@pytest.mark.parametrize("action", ["hang", "status"])
async def test_a_stopped_run_does_not_wait_for_its_list(sandbox: Sandbox, tmp_path: Path, action: str) -> None:
    """It ends at once, with a report that says of every row that it was never sent."""
    sandbox.faults = [Fault(method="GET", path=LIST, action=action, status=503 if action == "status" else None)]
    brake = Brake()
    asyncio.get_running_loop().call_later(0.1, brake.pull, Interrupted("SIGTERM", 15))
    async with asyncio.timeout(5):
        report = await send_lines(sandbox, tmp_path, line(3), line(4), brake=brake, changed_only=True)
    assert (report.exit_code, set(statuses(report).values())) == (143, {"unprocessed"})
    assert writes(sandbox) == []


async def test_a_record_that_could_not_be_sent_back_is_its_own_trouble(sandbox: Sandbox, tmp_path: Path) -> None:
    """Nested beyond what can be written, it fails alone, and the run goes on."""
    deep = '{"email": "user00004@example.edu", "preferences": ' + "[" * 400 + "]" * 400 + "}"
    sandbox.faults = [Fault(method="GET", path="*/user00004@*", action="wrong_body", body=deep)]
    report = await send_lines(sandbox, tmp_path, line(4), line(5))
    assert statuses(report) == {2: Status.FAILED, 3: Status.UPDATED}


async def test_a_stopped_run_does_not_wait_for_a_long_reading(sandbox: Sandbox) -> None:
    """Whatever is worked on lets others run, and is given up where the run stops."""
    brake = Brake()
    asyncio.get_running_loop().call_later(0.02, brake.pull, Interrupted("SIGTERM", 15))

    def work() -> Generator[None, Response, None]:
        for _ in range(1_000_000):
            yield None

    async with open_api(settings_for(sandbox), brake) as api:
        with pytest.raises(TransportError, match="stopping"):
            await api.read(work())


def test_a_long_list_is_read_a_hundred_users_at_a_time(make_rules: MakeRules, make_user: MakeUser) -> None:
    """Others have their turn between, also while it is foreseen what becomes of them."""
    rules = make_rules()
    reading = take_snapshot(rules)
    request = next(reading)
    assert isinstance(request, Request)
    assert request.into is not None
    request.into.write(orjson.dumps({str(n): {"email": f"user{n}@example.edu"} for n in range(1000)}))
    assert [reading.send(Response(200)), *itertools.islice(reading, 9)] == [None] * 10
    with pytest.raises(StopIteration) as end:
        next(reading)
    with end.value.value as snapshot:
        rows = [make_user(row) for row in range(1000)]
        assert list(make_forecast(rows, 1000, rules, snapshot)) == [None] * 10


def test_a_snapshot_is_small() -> None:
    """A thousand users of a kilobyte take some hundred bytes of memory each."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with Snapshot() as snapshot:
        for number in range(20_000):
            assert snapshot.add(f"user{number}@example.edu", f'{{"n": {number}, "notes": "{"x" * 1000}"}}')
        snapshot.begin_page()
        assert not snapshot.add("user7@example.edu", "{}")
        with pytest.raises(ShapeError, match="only in how they are written"):
            snapshot.add("USER7@example.edu ", "{}")
        snapshot.flush()
        assert snapshot.find("User19999@example.edu") == {"n": 19_999, "notes": "x" * 1000}
        assert snapshot.find("nobody@example.edu") is None
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < 20_000 * 500
