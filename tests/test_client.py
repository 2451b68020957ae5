"""The network, seen from the other end of a real connection."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import unquote

from conftest import MakeSettings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bulkusers.client import connect
from bulkusers.errors import SettingsError
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
