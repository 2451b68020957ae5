"""The network, seen from the other end of a real connection."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import unquote

import pytest
from conftest import MakeSettings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bulkusers.cli.loop import run_in_loop
from bulkusers.client import Client, connect
from bulkusers.errors import SettingsError, TransportError
from bulkusers.models import Request, Response, Secret
from bulkusers.profile import load_profile
from bulkusers.rules import Rules

HOSTILE = st.sampled_from(
    [".", "..", "/", "\\", "%2e%2e", "%2F", "?", "#", "@", ":", "//", ";", "\r\n", "\0", " ", "+", "&", "=", "é", "a"]
)
EMAIL = (st.lists(HOSTILE, min_size=1, max_size=6).map("".join) | st.text(min_size=1, max_size=64)).filter(
    lambda email: email not in {".", ".."}  # those make no request at all
)
SCHOOL = st.from_regex(r"[a-z0-9_-]{1,64}", fullmatch=True) | st.text(max_size=8) | HOSTILE


@asynccontextmanager
async def listen() -> AsyncIterator[tuple[str, list[str]]]:
    """Answer every request without a body with 404; yield the base URL, and a list that gets each request's line."""
    lines: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        lines.append(head.partition(b"\r\n")[0].decode("latin-1"))
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}/api/v1", lines


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(EMAIL, min_size=1, max_size=5), SCHOOL)
def test_no_email_and_no_school_leave_the_users_path_on_the_wire(
    make_settings: MakeSettings, emails: list[str], school: str
) -> None:
    """What arrives at the server is one segment behind the school's users, and means that e-mail and no other."""

    async def ask() -> list[str]:
        async with listen() as (base_url, lines):
            where = make_settings(base_url=base_url, school=school)
            async with connect(where) as client:
                for email in emails:
                    await client.send(Rules(load_profile(), where.school).read(email))
            return lines

    try:
        lines = asyncio.run(ask())
    except SettingsError:  # no School Unique ID
        assert not re.fullmatch("[a-z0-9_-]{1,64}", school)
        return
    targets = [re.fullmatch(rf"GET /api/v1/{school}/users/([A-Za-z0-9_.~%-]+) HTTP/1\.1", line) for line in lines]
    segments = [target[1] for target in targets if target]
    assert [unquote(segment, errors="strict") for segment in segments] == emails
    assert not {".", ".."} & set(segments)


async def send_once(client: Client, method: str = "POST") -> Response | TransportError:
    """Send a request; return its answer, or what came instead."""
    try:
        return await client.send(Request(method, "/s/users", b"{}"))
    except TransportError as error:
        return error


def test_a_connection_that_breaks_before_its_turn_is_over_has_sent_nothing(
    make_settings: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that closes at once: what could not be written is told as such, and no callback fails for it."""

    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def send_many() -> list[Response | TransportError]:
        async with await asyncio.start_server(close, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with connect(make_settings(base_url=f"http://127.0.0.1:{port}", timeout=2)) as client:
                return [said for _ in range(40) for said in await asyncio.gather(*map(send_once, [client] * 5))]

    said = run_in_loop(send_many())
    assert {type(one) for one in said} == {TransportError}
    assert any(not one.sent for one in said if isinstance(one, TransportError))
    assert caplog.records == []


def test_a_server_that_speaks_first_is_left_alone(make_settings: MakeSettings) -> None:
    """What it says is no answer to anything, and nobody goes on connecting to it for ever."""
    calls = 0

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        calls += 1
        writer.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
        await reader.read()
        writer.close()

    async def send() -> Response | TransportError:
        async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with connect(make_settings(base_url=f"http://127.0.0.1:{port}", concurrency=3)) as client:
                return await asyncio.wait_for(send_once(client), 10)

    said = run_in_loop(send())
    assert isinstance(said, TransportError)
    assert (str(said), said.sent) == ("no connection to the API (the server speaks before it is asked)", False)
    assert calls <= 4


async def test_a_token_that_was_replaced_meanwhile_is_struck_out_too(make_settings: MakeSettings) -> None:
    """The API may repeat the one that it was sent, while another worker has logged in anew."""
    came, go = asyncio.Event(), asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        came.set()
        await go.wait()
        writer.write(b"HTTP/1.1 403 No\r\nContent-Length: 7\r\nConnection: close\r\n\r\nold-one")
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        settings = make_settings(base_url=f"http://127.0.0.1:{port}", token=Secret("old-one"))
        async with connect(settings) as client:
            sending = asyncio.create_task(send_once(client))
            await came.wait()
            client.token = Secret("new-one")
            go.set()
            said = await sending
    assert isinstance(said, Response)
    assert said.body == b"***"
