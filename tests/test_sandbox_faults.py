"""What goes wrong on purpose goes wrong as ordered, and only then."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import orjson
import pytest

from bulkusers.sandbox import Fault, Sandbox, Switches, load_faults, serve
from bulkusers.sandbox.faults import Script

NEW = {"email": "ada@example.edu", "firstName": "Ada", "lastName": "Lovelace", "products": ["scheduling"]}


class Caller:
    """Asks one sandbox, and never asks twice."""

    def __init__(self, sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        self.sandbox = sandbox
        self.headers: dict[str, str] = {}  # of the last answer
        self.token = sandbox.new_token()
        session._retry_connection = False  # noqa: SLF001 - there is no public switch
        self._session = session

    async def __call__(self, method: str = "POST", path: str = "/example_university/users") -> tuple[int, bytes]:
        """Return the status and the body of an answer; a POST creates a user, unless it logs in."""
        login = {"email": self.sandbox.email, "plaintextPassword": self.sandbox.password}
        async with self._session.request(
            method,
            self.sandbox.url + path,
            data=None if method == "GET" else orjson.dumps(login if path == "/sessions" else NEW),
            headers={"Authorization": f"Bearer {self.token}"},
            allow_redirects=False,
        ) as answer:
            self.headers = dict(answer.headers)
            return answer.status, await answer.read()

    @property
    def created(self) -> bool:
        """Whether the sandbox has the user whom a POST creates."""
        return "ada@example.edu" in self.sandbox.users

    @property
    def last(self) -> tuple[int, bool, str]:
        """What the ledger says of the last request: status, wrote, fault."""
        entry = self.sandbox.ledger[-1]
        return entry.status, entry.wrote, entry.fault


Ask = Callable[..., Awaitable[Caller]]


@pytest.fixture
async def ask() -> AsyncIterator[Ask]:
    """Serve a sandbox that plays these faults, and return who asks it."""
    async with AsyncExitStack() as stack:

        async def start(*faults: Fault, switches: Switches = Switches(), users: int = 0) -> Caller:  # noqa: B008 - frozen
            made = Sandbox(faults=faults, switches=switches, users=users)
            sandbox = await stack.enter_async_context(serve(made))
            return Caller(sandbox, await stack.enter_async_context(aiohttp.ClientSession()))

        yield start


def plays(faults: Sequence[Fault], *requests: tuple[str, str], seed: int = 0, now: float = 0.0) -> list[str]:
    """Return the action that each request of a list meets."""
    script = Script(faults, seed=seed, started=0.0)
    met = [script.next_fault(method, path, now) for method, path in requests]
    return ["" if fault is None else fault.action for fault in met]


# --- actions


async def test_action_status(ask: Ask) -> None:
    """The answer is as ordered, text as it is and the rest as JSON, and nothing is done."""
    call = await ask(
        Fault(action="status", nth=1),
        Fault(action="status", nth=2, status=503, body="<b>down</b>", headers={"Retry-After": "7"}),
        Fault(action="status", nth=3, status=200, body=[]),
    )
    assert await call() == (500, b'{"error":"Something went wrong"}')
    assert await call() == (503, b"<b>down</b>")
    assert call.headers["Retry-After"] == "7"
    assert call.headers["Content-Type"].startswith("text/html")
    assert await call() == (200, b"[]")
    assert call.last == (200, False, "status")
    assert not call.created
    assert (await call())[0] == 201


async def test_action_status_can_come_after_the_write(ask: Ask) -> None:
    """A gateway that gives up does not undo what was done behind it."""
    call = await ask(Fault(action="status", status=502, write=True))
    assert (await call())[0] == 502
    assert call.last == (502, True, "status")
    assert call.created


async def test_action_delay(ask: Ask) -> None:
    """The write is done at once, the true answer comes late."""
    call = await ask(Fault(action="delay", seconds=0.1))
    answer = asyncio.create_task(call())
    await asyncio.sleep(0.05)
    assert call.created
    assert not answer.done()
    assert (await answer)[0] == 201
    entry = call.sandbox.ledger[0]
    assert entry.until - entry.at >= 0.095


@pytest.mark.parametrize(("action", "created"), [("reset_before", False), ("reset_after", True)])
async def test_actions_reset_before_and_reset_after(ask: Ask, action: str, created: bool) -> None:
    """The client sees the same reset, whether the write was done or not."""
    call = await ask(Fault(action=action, times=1))
    with pytest.raises(aiohttp.ClientOSError) as cut:
        await call()
    assert isinstance(cut.value, ConnectionResetError) or "reset by peer" in str(cut.value)
    assert call.created is created
    assert call.last == (0, created, action)


async def test_a_reset_is_one_of_tcp(ask: Ask) -> None:
    """The connection is not closed in order: reading ends in an error, not at an end."""
    call = await ask(Fault(action="reset_before"))
    port = int(call.sandbox.url.split(":")[2].split("/")[0])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /api/v1/example_university/users HTTP/1.1\r\nHost: sandbox\r\n\r\n")
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()


async def test_action_cut_body(ask: Ask) -> None:
    """The write is done, the head is whole, and half the body is missing."""
    call = await ask(Fault(action="cut_body"))
    port = int(call.sandbox.url.split(":")[2].split("/")[0])
    with pytest.raises(aiohttp.ClientError):
        await call()
    assert call.created
    assert call.last == (0, True, "cut_body")

    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (
        f"GET /api/v1/example_university/users HTTP/1.1\r\nHost: sandbox\r\nAuthorization: Bearer {call.token}\r\n\r\n"
    )
    writer.write(head.encode())
    received = await reader.readuntil(b"\r\n\r\n")
    whole = int(received.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    assert received.startswith(b"HTTP/1.1 200 ")
    assert len(await reader.readexactly(whole // 2)) == whole // 2
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()


@pytest.mark.parametrize("status", [None, 502, 0])
async def test_action_late_commit(ask: Ask, status: int | None) -> None:
    """The answer is a 504, another, or a reset, and the write comes after it."""
    call = await ask(Fault("POST", action="late_commit", seconds=0.2, status=status))
    if status == 0:
        with pytest.raises(aiohttp.ClientOSError):
            await call()
    else:
        assert (await call())[0] == (status or 504)
    assert call.last == (504 if status is None else status, True, "late_commit")
    assert not call.created
    await asyncio.sleep(0.25)
    assert call.created


async def test_action_kill_token(ask: Ask) -> None:
    """The account's tokens die before the request is looked at, so that it and all others are refused."""
    call = await ask(Fault(action="kill_token", nth=2), switches=Switches(dead_token=403))
    assert (await call("GET"))[0] == 200
    assert (await call())[0] == 403
    assert call.last == (403, False, "kill_token")
    assert (await call("GET"))[0] == 403
    call.token = call.sandbox.new_token()
    assert (await call())[0] == 201


async def test_action_html(ask: Ask) -> None:
    """A login page with the best of statuses, and nothing is done."""
    call = await ask(Fault(action="html"))
    status, body = await call()
    assert status == 200
    assert body.startswith(b"<!doctype html>")
    assert call.headers["Content-Type"] == "text/html; charset=utf-8"
    assert not call.created


@pytest.mark.parametrize("status", [None, 307])
async def test_action_redirect(ask: Ask, status: int | None) -> None:
    """The answer points elsewhere; by default to a page that answers 200, and the ledger has who follows."""
    call = await ask(Fault(action="redirect", status=status))
    assert (await call())[0] == (status or 302)
    assert call.headers["Location"] == "/login"
    assert not call.created
    async with (
        aiohttp.ClientSession() as session,
        session.get(call.sandbox.url.removesuffix("/api/v1") + "/login") as page,
    ):
        assert page.status == 200
    assert [entry.path for entry in call.sandbox.ledger] == ["/api/v1/example_university/users", "/login"]


async def test_action_garbage(ask: Ask) -> None:
    """What comes is not HTTP."""
    call = await ask(Fault(action="garbage"))
    with pytest.raises(aiohttp.ClientResponseError, match="400"):
        await call()
    assert call.last == (0, False, "garbage")
    assert not call.created


async def test_action_wrong_body(ask: Ask) -> None:
    """The status is true and the write is done, but the body is another's, or another altogether."""
    call = await ask(Fault(action="wrong_body", nth=1), Fault(action="wrong_body", nth=2, body=[], status=201))
    status, body = await call()
    assert status == 201
    assert orjson.loads(body)["email"] == "somebody.else@example.edu"
    assert call.created
    assert "somebody.else@example.edu" not in call.sandbox.users
    assert await call("GET") == (201, b"[]")


async def test_action_hang(ask: Ask) -> None:
    """No answer comes, and once the client is gone the request is over."""
    call = await ask(Fault(action="hang"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await call()
    assert not call.created
    await asyncio.sleep(0.05)
    entry = call.sandbox.ledger[0]
    assert 0.09 <= entry.until - entry.at < 0.3
    assert call.last == (0, False, "hang")


async def test_action_edit(ask: Ask) -> None:
    """Somebody else was faster: the notes are changed, and the request is lost; nobody has no notes."""
    call = await ask(Fault("PUT", action="edit"), users=1)
    (before,) = call.sandbox.users.values()
    for email in ("user00001@example.edu", "nobody@example.edu"):
        with pytest.raises(aiohttp.ClientError):
            await call("PUT", f"/example_university/users/{email}")
    assert list(call.sandbox.users.values()) == [before | {"notes": "changed by a colleague"}]
    assert call.last == (0, False, "edit")


async def test_a_login_can_go_wrong_too(ask: Ask) -> None:
    """A login that is not carried out kills no token, one whose answer is lost does."""
    call = await ask(
        Fault("POST", "/sessions", action="status", status=503, nth=1),
        Fault("POST", "/sessions", action="reset_after", nth=2),
    )
    assert (await call(path="/sessions"))[0] == 503
    assert (await call("GET"))[0] == 200
    with pytest.raises(aiohttp.ClientOSError):
        await call(path="/sessions")
    assert (await call("GET"))[0] == 401


async def test_what_is_behind_never_goes_wrong(ask: Ask) -> None:
    """Who drives the sandbox is not hit by the faults that were ordered."""
    call = await ask(Fault(action="status"))
    assert (await call("GET", "/_sandbox/state"))[0] == 200


# --- which request meets which fault


def test_a_fault_selects_by_method_and_path() -> None:
    """A glob is matched against the decoded path, with and without the base."""
    create, read = ("POST", "/example_university/users"), ("GET", "/example_university/users/a+b@example.edu")
    for fault, met in [
        (Fault("POST", action="hang"), ["hang", ""]),
        (Fault(path="*/users", action="hang"), ["hang", ""]),
        (Fault(path="*/users/*@example.edu", action="hang"), ["", "hang"]),
        (Fault(path="/api/v1/*/users/a+b@example.edu", action="hang"), ["", "hang"]),
        (Fault("PUT", "*", action="hang"), ["", ""]),
    ]:
        assert plays([fault], create, read) == met


async def test_a_path_is_decoded_before_it_is_matched(ask: Ask) -> None:
    """An e-mail is written in a script as people write it."""
    call = await ask(Fault(path="*/users/user00001@example.edu", action="status", status=418), users=1)
    assert (await call("GET", "/example_university/users/user00001%40example.edu"))[0] == 418


def test_nth_every_and_times_count_the_selected_requests() -> None:
    """Others in between do not count, and conditions add up."""
    post, get = ("POST", "/x"), ("GET", "/x")
    assert plays([Fault("POST", action="hang", nth=2)], post, get, post, post) == ["", "", "hang", ""]
    assert plays([Fault("POST", action="hang", every=2)], *[post] * 5) == ["", "hang", "", "hang", ""]
    assert plays([Fault(action="hang", times=2)], *[post] * 4) == ["hang", "hang", "", ""]
    assert plays([Fault(action="hang", every=2, times=1)], *[post] * 4) == ["", "hang", "", ""]


def test_the_first_fault_that_is_due_is_played_and_all_of_them_count() -> None:
    """A later line's second request is the second, although an earlier line took the first."""
    script = [Fault(action="html", nth=1), Fault(action="hang", nth=2), Fault(action="garbage")]
    assert plays(script, *[("GET", "/x")] * 3) == ["html", "hang", "garbage"]


def test_start_and_stop_are_a_window_of_time() -> None:
    """Outside of it requests are not even counted."""
    fault = Fault(action="hang", start=1.0, stop=2.0)
    assert [plays([fault], ("GET", "/x"), now=now) for now in (0.9, 1.0, 1.9, 2.0)] == [[""], ["hang"], ["hang"], [""]]


async def test_the_time_of_a_script_begins_with_serving(ask: Ask) -> None:
    """A window opens so many seconds after the server did, or after the script was replaced."""
    call = await ask(Fault(action="status", stop=0.2))
    assert (await call())[0] == 500
    await asyncio.sleep(0.25)
    assert (await call())[0] == 201
    call.sandbox.faults = [Fault(action="status", status=503, stop=0.2)]
    assert (await call())[0] == 503


def test_a_share_is_the_same_for_a_seed_in_whatever_order_requests_come() -> None:
    """What a request is decides, not when it comes; another seed hits others."""
    faults = [Fault(action="hang", share=0.3)]
    requests = [("GET", f"/x/{number}") for number in range(400)]
    met = plays(faults, *requests, seed=1)
    assert plays(faults, *reversed(requests), seed=1) == met[::-1]
    assert plays(faults, *requests, seed=2) != met
    assert 80 <= met.count("hang") <= 160
    again = plays(faults, *[("GET", "/x")] * 50, seed=1)
    assert set(again) == {"", "hang"}


@pytest.mark.parametrize(("share", "met"), [(0, ""), (1, "hang")])
def test_a_share_of_none_or_all(share: float, met: str) -> None:
    """The ends of the scale are exact."""
    assert set(plays([Fault(action="hang", share=share)], *[("GET", "/x")] * 50)) == {met}


# --- scripts


async def test_another_process_can_replace_the_script(ask: Ask) -> None:
    """A script comes as JSON, and a wrong one leaves the old one in place."""
    call = await ask(Fault(action="hang"))
    async with aiohttp.ClientSession() as session:
        for script, status in ((b'[{"action": "status", "status": 503}]', 200), (b'[{"action": "explode"}]', 400)):
            async with session.post(f"{call.sandbox.url}/_sandbox/faults", data=script) as answer:
                assert answer.status == status
    assert call.sandbox.faults == (Fault(action="status", status=503),)
    assert (await call())[0] == 503


def test_a_script_is_read_from_a_file(tmp_path: Path) -> None:
    """Each object has the fields of a fault."""
    path = tmp_path / "faults.json"
    entry = {"method": "POST", "path": "*/users", "every": 50, "times": 3, "action": "late_commit", "seconds": 2}
    path.write_bytes(orjson.dumps([entry, {"action": "html"}]))
    assert load_faults(path) == [
        Fault("POST", "*/users", every=50, times=3, action="late_commit", seconds=2),
        Fault(action="html"),
    ]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (b"[", "faults.json: unexpected"),
        (b"{}", "faults.json: a script of faults is a JSON list"),
        (b"[7]", "fault 1 is not an object with an action"),
        (b'[{"action": "html"}, {"nth": 1}]', "fault 2 is not an object with an action"),
        (b'[{"action": "explode"}]', "fault 1: a fault's action is one of status, delay, "),
        (b'[{"action": []}]', "fault 1: a fault's action is one of "),
        (b'[{"action": "html", "verb": "GET"}]', "fault 1: there is no field 'verb', only method, path, "),
        (b'[{"action": "html", "method": "get"}]', "a fault's method is a method in capitals"),
        (b'[{"action": "html", "path": 1}]', "a fault's path is a glob, not 1"),
        (b'[{"action": "html", "nth": 0}]', "a fault's nth is a whole number from 1, not 0"),
        (b'[{"action": "html", "every": true}]', "a fault's every is a whole number from 1, not True"),
        (b'[{"action": "html", "times": 1.5}]', "a fault's times is a whole number from 1, not 1.5"),
        (b'[{"action": "html", "share": 2}]', "a fault's share is a number from 0 to 1, not 2"),
        (b'[{"action": "html", "start": -1}]', "a fault's start is a number of seconds, not -1"),
        (b'[{"action": "html", "stop": "x"}]', "a fault's stop is a number of seconds, not 'x'"),
        (b'[{"action": "delay", "seconds": null}]', "a fault's seconds is a number of seconds up to 3600, not None"),
        (b'[{"action": "status", "status": 99}]', "a fault's status is a whole number from 200 to 599, or 0, not 99"),
        (b'[{"action": "status", "headers": {"A": 1}}]', "a fault's headers is an object of texts"),
        (b'[{"action": "redirect", "location": null}]', "a fault's location is an address, not None"),
        (b'[{"action": "html", "write": 1}]', "a fault's write is true or false, not 1"),
        (b'[{"action": "delay", "write": false}]', "a fault's write cannot be false for delay"),
    ],
)
def test_a_wrong_script_is_refused_with_what_is_wrong(tmp_path: Path, script: bytes, words: str) -> None:
    """The message names the entry and the field."""
    path = tmp_path / "faults.json"
    path.write_bytes(script)
    with pytest.raises(ValueError, match=r"faults\.json: ") as refusal:
        load_faults(path)
    assert words in str(refusal.value)


def test_a_script_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """The message says that it cannot be read, and why."""
    with pytest.raises(ValueError, match=r"cannot read .*none\.json: No such file"):
        load_faults(tmp_path / "none.json")
