"""The traps of the stack: what aiohttp, servers and Python do that nobody would expect, each sprung for real.

Every test here fails without the one line that avoids its trap. Those that lie in files and signals are sprung
elsewhere: what `csv` lets pass in `test_source_files.py`, half a file and a full disk in `test_files.py`, SIGINT,
SIGTERM and SIGHUP in `test_cli.py` and `test_cli_edges.py`, a certificate in `test_run.py`.
"""

import asyncio
import gzip
import logging
import os
import socket
import ssl
import stat
import struct
import subprocess
import time
import traceback
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from email.utils import formatdate
from pathlib import Path
from typing import Any, Final

import aiohttp.connector
import orjson
import pytest
import trustme
from test_cli import PROGRAM

from bulkusers import Report, Secret, Settings, open_source, upload
from bulkusers.api import get_token
from bulkusers.brake import Brake
from bulkusers.client import MAX_ANSWER, connect
from bulkusers.errors import Interrupted, TransportError
from bulkusers.models import Request, Response
from bulkusers.profile import load_profile
from bulkusers.rules import Rules
from bulkusers.sandbox import Fault, Sandbox, serve

TOKEN: Final = "Tk9-planted-token"
PASSWORD: Final = "Pw9-planted-password"
EMAIL: Final = "ann@example.edu"
CREATE: Final = Request("POST", "/s/users", b'{"email":"ann@example.edu"}')
READ: Final = Request("GET", "/s/users/ann%40example.edu")
RESET: Final = struct.pack("ii", 1, 0)  # linger for no time: closing sends a RST
HEADER: Final = "First Name,Last Name,Email,Products"

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Listen = Callable[..., Awaitable[str]]
Run = Callable[..., Awaitable[Report]]


def said(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    """Return an answer as it goes over the wire."""
    return b"\r\n".join((b"HTTP/1.1 " + status, *headers, b"Content-Length: %d" % len(body), b"", body))


def reset(writer: asyncio.StreamWriter) -> None:
    """Cut a connection with a TCP reset."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


async def hear(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Return a request's head and body."""
    head = await reader.readuntil(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.splitlines() if line.lower().startswith(b"content-length:")]
    return head, await reader.readexactly(int(lengths[0]) if lengths else 0)


def always(answer: bytes, heard: list[bytes] | None = None) -> Talk:
    """Return a server's part: to say the same to every request, and keep what it heard."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await hear(reader)
            if heard is not None:
                heard.append(b"".join(request))
            writer.write(answer)

    return talk


async def reset_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reset the connection after the first few bytes."""
    await reader.read(10)
    reset(writer)


async def hang(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Say nothing until the client has gone."""
    await reader.read(-1)


@pytest.fixture
async def listen() -> AsyncIterator[Listen]:
    """Return a function that starts a server which does nothing but what it is told to, and returns its URL."""
    servers: list[asyncio.Server] = []

    async def start(talk: Talk, tls: ssl.SSLContext | None = None) -> str:
        async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(OSError, EOFError):
                await talk(reader, writer)
                await writer.drain()
            writer.close()

        servers.append(await asyncio.start_server(serve_one, "127.0.0.1", 0, ssl=tls))
        return f"http{'s' if tls else ''}://127.0.0.1:{servers[-1].sockets[0].getsockname()[1]}"

    yield start
    for server in servers:
        server.close()
    await asyncio.sleep(0.01)  # those who talk hear that the client has gone


async def send(url: str, *requests: Request, **settings: Any) -> list[Response]:  # noqa: ANN401 - any setting
    """Send requests one after another over one pool of connections; return the answers."""
    with_defaults: dict[str, Any] = {"base_url": url, "school": "s", "token": Secret(TOKEN), "timeout": 1.0} | settings
    async with connect(Settings(**with_defaults)) as client:
        return [await client.send(request) for request in requests]


async def fail(url: str, *requests: Request, **settings: Any) -> TransportError:  # noqa: ANN401 - any setting
    """Send requests, the last of which gets no answer; return the error."""
    with pytest.raises(TransportError) as caught:
        await send(url, *requests, **settings)
    return caught.value


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    """Serve an empty school."""
    async with serve(Sandbox()) as sandbox:
        yield sandbox


@pytest.fixture
def run(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a run of one new user against the sandbox, or wherever the settings say."""
    monkeypatch.setattr("bulkusers.api.SETTLE", 0.3)

    async def run(brake: Brake | None = None, *, resume: bool = False, **settings: Any) -> Report:  # noqa: ANN401 - any setting
        (tmp_path / "users.csv").write_text(f"{HEADER}\nAnn,Lee,{EMAIL},events\n")
        defaults: dict[str, Any] = {
            "base_url": sandbox.url,
            "school": sandbox.school,
            "token": Secret(sandbox.new_token()),
        }
        with open_source(tmp_path / "users.csv") as source:
            return await upload(
                source,
                Settings(**defaults | {"notify": True} | settings),
                report=tmp_path / "results.json",
                resume=resume,
                brake=brake,
            )

    return run


def status_of(report: Report) -> str:
    """Return what became of the one row."""
    (row,) = report.rows()
    status: str = row["status"]
    return status


@pytest.mark.parametrize("status", [b"301 M", b"302 F", b"303 S", b"307 T", b"308 P"])
async def test_no_redirect_leads_anywhere(listen: Listen, status: bytes) -> None:
    """A POST that aiohttp follows becomes a GET, or takes its body along: neither is heard where it points."""
    heard: list[bytes] = []
    elsewhere = await listen(always(said(b'{"email":"ann@example.edu"}'), heard))
    url = await listen(always(said(b"", b"Location: " + elsewhere.encode() + b"/there", status=status)))
    for method in ("POST", "PUT", "GET", "DELETE"):
        (answer,) = await send(url, Request(method, "/s/users", CREATE.body if method in {"POST", "PUT"} else None))
        assert answer.status == int(status[:3])
    assert heard == []


async def test_a_redirected_login_takes_the_password_nowhere(run: Run, listen: Listen) -> None:
    """A 307 asks for the body to be sent again, to another host."""
    heard: list[bytes] = []
    elsewhere = await listen(always(said(b'{"token":"t"}', status=b"201 Created"), heard))
    url = await listen(always(said(b"", b"Location: " + elsewhere.encode(), status=b"307 Temporary Redirect")))
    report = await run(base_url=url, token=Secret(), email="admin@example.edu", password=Secret(PASSWORD))
    assert (report.exit_code, status_of(report), heard) == (4, "unprocessed", [])


@pytest.mark.parametrize(
    "fault",
    [
        Fault(method="POST", action="reset_after"),
        Fault(method="POST", action="cut_body"),
        Fault(method="POST", action="status", status=500, write=True),
        Fault(method="POST", action="status", status=502, write=True),
        Fault(method="POST", action="status", status=504, write=True),
        Fault(method="POST", action="status", status=200, body="", write=True),
        Fault(method="POST", action="late_commit", status=502, seconds=0.15),
        Fault(method="POST", action="late_commit", status=0, seconds=0.15),
        Fault(method="POST", action="delay", seconds=1.0),
    ],
    ids=lambda fault: f"{fault.action} {fault.status}",
)
async def test_a_create_whose_answer_is_lost_is_done_once(run: Run, sandbox: Sandbox, fault: Fault) -> None:
    """It is looked for until a late write must have shown: neither failed, nor sent again, nor mailed twice."""
    sandbox.faults = [fault]
    assert status_of(await run(timeout=0.3)) == "created"
    assert [entry.method for entry in sandbox.ledger].count("POST") == 1
    assert sandbox.mails == [EMAIL]


async def test_a_create_that_is_cut_off_is_unknown_until_it_is_looked_for(
    run: Run, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelling a request does not undo it."""
    monkeypatch.setattr("bulkusers.workers.DRAIN", 0.1)
    sandbox.faults = [Fault(method="POST", action="delay", seconds=60)]
    brake = Brake()
    asyncio.get_running_loop().call_later(0.2, brake.pull, Interrupted("SIGTERM", 15))
    assert status_of(await run(brake)) == "unknown"
    assert list(sandbox.users) == [EMAIL]
    assert status_of(await run(resume=True)) == "created"
    assert [entry.method for entry in sandbox.ledger].count("POST") == 1


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "POST"])
async def test_what_a_dropped_connection_takes_along_is_not_sent_again_behind_our_back(
    listen: Listen, method: str
) -> None:
    """A kept connection drops at its second request; aiohttp would send all but a POST once more by itself."""
    heard: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hear(reader)
        writer.write(said(b"{}"))
        heard.append((await hear(reader))[0])

    body = b"{}" if method in {"PUT", "POST"} else None
    error = await fail(await listen(talk), READ, Request(method, "/s/users/x", body))
    assert error.sent
    assert len(heard) == 1


async def test_a_connection_is_left_before_the_server_closes_it(
    listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Servers on Node close what was idle for 5 seconds; a POST that meets that is lost."""
    opened: list[int] = []
    idle = [0.0]
    monkeypatch.setattr(aiohttp.connector, "monotonic", lambda: time.monotonic() + sum(idle))

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.append(1)
        await always(said(b"{}"))(reader, writer)

    settings = Settings(base_url=await listen(talk), school="s", token=Secret(TOKEN))
    async with connect(settings) as client:
        for seconds, connections in ((0.0, 1), (3.0, 1), (4.5, 2)):
            idle.append(seconds)
            await client.send(CREATE)
            assert len(opened) == connections


@pytest.mark.parametrize(
    "garbage", [b"\x15\x03\x01 what\r\n\r\n", b"HTTP/1.1 \xff\r\n\r\n", b"HTTP/1.1 201 C\r\nno\r\n\r\n"]
)
async def test_garbage_is_no_refusal(run: Run, listen: Listen, garbage: bytes) -> None:
    """What aiohttp makes of it says `status == 400`: no server ever said that, and the write may have been done."""
    url = await listen(always(garbage))
    assert (await fail(url, CREATE)).sent
    assert status_of(await run(base_url=url, retries=0)) == "unknown"


@pytest.mark.parametrize("answer", [b"what\r\n\r\n", b"", said(b"no gzip", b"Content-Encoding: gzip")])
async def test_no_error_tells_what_was_sent(listen: Listen, caplog: pytest.LogCaptureFixture, answer: bytes) -> None:
    """`repr` of aiohttp's errors holds the token, `str` the address with the e-mail; a traceback would show them."""
    caplog.set_level(logging.DEBUG)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hear(reader)
        writer.write(answer)

    error = await fail(await listen(talk), READ)
    told = "".join(traceback.format_exception(error)) + repr(error) + caplog.text
    assert "ann" not in told
    assert TOKEN not in told
    assert "aiohttp" not in told.replace("aiohttp.ClientSession", "")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    """Return what a server of a private CA needs, and the CA's own certificate."""
    ca, path = trustme.CA(), tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    return context, path


@pytest.fixture
def full_backlog() -> Iterator[str]:
    """Return the URL of a server that takes no more connections: packets to it are dropped."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.settimeout(0)
            each.connect_ex(server.getsockname())
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        for each in waiting:
            each.close()


async def test_no_connection_means_that_nothing_was_sent(full_backlog: str) -> None:
    """Refused, unknown host, and a time-out that ends the request while its connection is still being made."""
    for url in ("http://127.0.0.1:1", "https://nowhere.invalid", full_backlog):
        assert not (await fail(url, CREATE, timeout=0.3)).sent, url


@pytest.mark.parametrize("talk", [reset_at_once, hang, always(said(b""))], ids=["reset", "hangs", "no TLS"])
async def test_a_broken_handshake_means_that_nothing_was_sent(
    listen: Listen, authority: tuple[ssl.SSLContext, Path], talk: Talk
) -> None:
    """The server saw no more than that somebody came."""
    url = (await listen(talk)).replace("http:", "https:")
    assert not (await fail(url, CREATE, ca_file=authority[1], timeout=0.3)).sent


@pytest.mark.parametrize("answer", [said(b"", status=b"403 No"), b"what\r\n\r\n", b"", None, said(b"")])
async def test_a_proxy_that_lets_nobody_through_means_that_nothing_was_sent(
    listen: Listen, answer: bytes | None
) -> None:
    """It refuses, talks garbage, goes, hangs, or leads nowhere: all it saw is where we wanted to go."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hear(reader)
        if answer is None:
            await reader.read(-1)
        writer.write(answer or b"")

    proxy = await listen(talk)
    assert not (await fail("https://api.invalid", CREATE, proxy=proxy, timeout=0.3)).sent


async def test_whoever_waits_for_a_connection_has_sent_nothing(listen: Listen) -> None:
    """The pool has one, and another request has it."""
    settings = Settings(base_url=await listen(hang), school="s", token=Secret(TOKEN), timeout=0.3, concurrency=1)
    async with connect(settings) as client:
        errors = await asyncio.gather(client.send(CREATE), client.send(CREATE), return_exceptions=True)
    assert [isinstance(error, TransportError) and error.sent for error in errors] == [True, False]


@pytest.mark.parametrize("secure", [False, True])
async def test_what_went_out_may_have_been_taken(
    listen: Listen, authority: tuple[ssl.SSLContext, Path], secure: bool
) -> None:
    """Whatever cut the answer off, and in the middle of a large body, too."""

    async def reset_then(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hear(reader)
        reset(writer)

    async def close_then(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await hear(reader)

    large = Request("POST", "/s/users", b"x" * 900_000)
    for talk, request in ((reset_then, CREATE), (close_then, CREATE), (hang, CREATE), (reset_at_once, large)):
        url = await listen(talk, authority[0] if secure else None)
        assert (await fail(url, request, ca_file=authority[1], timeout=0.5)).sent, talk


async def test_a_pause_without_end_is_none(run: Run, sandbox: Sandbox) -> None:
    """`float` reads "inf"; a run that believes it hangs for ever."""
    sandbox.faults = [Fault(method="POST", action="status", status=429, headers={"Retry-After": "inf"}, times=1)]
    async with asyncio.timeout(10):
        assert status_of(await run()) == "created"


async def test_a_pause_until_a_date_is_counted_on_the_servers_clock(run: Run, sandbox: Sandbox) -> None:
    """Theirs is a day behind; a second there is a second here."""
    there = time.time() - 86400
    headers = {"Date": formatdate(there, usegmt=True), "Retry-After": formatdate(there + 1, usegmt=True)}
    sandbox.faults = [Fault(method="POST", action="status", status=429, headers=headers, times=1)]
    assert status_of(await run()) == "created"
    first, second = (entry.at for entry in sandbox.ledger)
    assert 1.0 <= second - first < 3.0


async def test_a_pause_that_is_too_long_ends_the_run(run: Run, sandbox: Sandbox) -> None:
    """An hour on a clock that is a day ahead is an hour, and the run can be resumed then."""
    there = time.time() + 86400
    headers = {"Date": formatdate(there, usegmt=True), "Retry-After": formatdate(there + 3600, usegmt=True)}
    sandbox.faults = [Fault(method="POST", action="status", status=429, headers=headers)]
    report = await run()
    assert (report.exit_code, status_of(report)) == (10, "unprocessed")
    assert report.run["stopped"]["reason"] == "the API asks to wait 60 minutes"


@pytest.mark.parametrize(
    "email", ["../../admin", "a/../../b@example.edu", "%2e%2e", "a?b#c@example.edu", "a b+c@x.edu"]
)
async def test_no_e_mail_leads_out_of_its_path(listen: Listen, email: str) -> None:
    """Libraries resolve dots, and decode and encode anew what they think is a URL; the server sees one segment."""
    heard: list[bytes] = []
    url = await listen(always(said(b"{}"), heard))
    request = Rules(load_profile(), "s").read(email)
    await send(f"{url}/api/v1", request)
    (path,) = (words.split()[1].decode() for words in heard)
    assert path == f"/api/v1{request.path}"
    segment = path.removeprefix("/api/v1/s/users/")
    assert _decode(segment) == email.encode()
    assert not set("/?#") & set(segment)


def _decode(segment: str) -> bytes:
    """Decode what is percent-encoded, without a library that may know better."""
    first, *rest = segment.encode().split(b"%")
    return first + b"".join(bytes([int(part[:2], 16)]) + part[2:] for part in rest)


@pytest.mark.parametrize("email", [".", ".."])
def test_dots_alone_make_no_request(email: str) -> None:
    """No encoding keeps them from being resolved."""
    with pytest.raises(ValueError, match="no e-mail"):
        Rules(load_profile(), "s").read(email)


async def test_a_netrc_is_not_read_and_a_cookie_not_kept(
    listen: Listen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both would stand beside the token, or in its place."""
    (tmp_path / ".netrc").write_text("default login somebody password else\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NETRC", raising=False)
    heard: list[bytes] = []
    url = await listen(always(said(b'{"token":"t"}', b"Set-Cookie: session=other; Path=/", status=b"201 C"), heard))
    # a cookie sticks to a name, not to an address
    url = url.replace("127.0.0.1", "localhost")
    settings = Settings(base_url=url, school="s", email=EMAIL, password=Secret(PASSWORD), token=Secret(TOKEN))
    async with connect(settings) as client:
        await get_token(settings, client.send)
        await client.send(CREATE)
    log_in, create = (request.lower() for request in heard)
    assert b"authorization" not in log_in
    assert f"authorization: bearer {TOKEN}\r\n".lower().encode() in create
    assert b"cookie" not in create


async def test_a_small_answer_that_unpacks_to_a_large_one_is_refused(listen: Listen) -> None:
    """A proxy in a bad mood must not fill the memory; an ordinary packed answer is read."""
    packed = gzip.compress(bytes(300 << 20), compresslevel=9)
    assert len(packed) < MAX_ANSWER
    ordinary = orjson.dumps({"email": EMAIL})
    fine = await listen(always(said(gzip.compress(ordinary), b"Content-Encoding: gzip")))
    assert [answer.body for answer in await send(fine, READ)] == [ordinary]
    url = await listen(always(said(packed, b"Content-Encoding: gzip")))
    tracemalloc.start()
    try:
        error = await fail(url, READ, timeout=10.0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "too large" in str(error)
    assert peak < 32 << 20


def test_no_umask_opens_a_file_to_others(tmp_path: Path) -> None:
    """A stopped run leaves a report, rejects, a journal, and a lock: all of them for their owner only."""
    (tmp_path / "users.csv").write_text(f"{HEADER}\nAnn,Lee,{EMAIL},events\nBob,May,bob@example.edu,event\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BULKUSERS_")}
    done = subprocess.run(
        [*PROGRAM, "run", "users.csv", "--base-url", "http://127.0.0.1:1", "--school", "s", "--max-duration", "1s"],
        cwd=tmp_path,
        env=environment | {"BULKUSERS_TOKEN": TOKEN, "TMPDIR": str(tmp_path)},
        umask=0,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 10, done.stderr
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir() if path.name != "users.csv"}
    assert {"results.json", "results.json.journal", "results.rejects.csv"} < modes.keys()
    assert any(name.endswith(".lock") for name in modes)
    assert set(modes.values()) == {0o600}


HEAD = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\n"


async def test_a_late_answer_of_unknown_length_is_no_answer(listen: Listen) -> None:
    """Half of it and then nothing: where it is cut for that, it looks like a whole one."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD % b"200 OK" + b'Connection: close\r\n\r\n{"email": "a@exam')
        await reader.read()  # until the client has had enough

    error = await fail(await listen(talk), Request("GET", "/s/users/a"), timeout=0.2)
    assert (error.sent, str(error)) == (True, "the API did not answer in time")


async def test_an_answer_that_nobody_asked_for_is_never_taken_for_the_next(listen: Listen) -> None:
    """What comes on an idle connection says nothing about whoever is asked for next."""
    number = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal number
        while True:
            await reader.readuntil(b"\r\n\r\n")
            number += 1
            writer.write(HEAD % b"200 OK" + b"Content-Length: 1\r\n\r\n%d" % number)
            await writer.drain()
            await asyncio.sleep(0.02)  # by then the connection lies idle
            writer.write(HEAD % b"404 Not Found" + b"Content-Length: 2\r\n\r\n{}")

    async with connect(Settings(base_url=await listen(talk), school="s", token=Secret(TOKEN))) as client:
        answers = []
        for _ in range(3):
            answers.append(await client.send(Request("GET", "/s/users/a")))
            await asyncio.sleep(0.05)
    assert [(answer.status, answer.body) for answer in answers] == [(200, b"1"), (200, b"2"), (200, b"3")]


async def test_what_comes_before_an_answer_is_not_the_answer(listen: Listen) -> None:
    """A server may say that it is still there (RFC 9110 15.2)."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n" + HEAD % b"200 OK" + b"Content-Length: 2\r\n\r\n{}")

    (answer,) = await send(await listen(talk), Request("GET", "/s/users/a"))
    assert (answer.status, answer.body) == (200, b"{}")
