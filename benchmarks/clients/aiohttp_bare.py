"""The yardstick: aiohttp's ClientSession, tuned, on uvloop, and nothing of what a person needs to trust it."""

import asyncio
import sys
from collections.abc import Iterator
from typing import Any

import aiohttp
import orjson
import uvloop
from yarl import URL

from benchmarks.users import read_users


async def work(session: aiohttp.ClientSession, url: URL, users: Iterator[dict[str, Any]]) -> None:
    """Create users until there are none; read, merge and replace who exists."""
    for user in users:
        answer = await session.post(url, data=orjson.dumps({**user, "disableRegistrationMail": True}))
        said = orjson.loads(await answer.read())
        if answer.status == 409:
            one = URL(f"{url}/{user['email']}", encoded=True)
            answer = await session.get(one)
            found = orjson.loads(await answer.read())
            answer = await session.put(one, data=orjson.dumps({**found, **user}))
            said = orjson.loads(await answer.read())
        assert answer.ok, said


async def main(path: str, base: str, workers: int) -> None:
    """Send a file."""
    connector = aiohttp.TCPConnector(limit=workers)
    headers = {"Authorization": "Bearer benchmark", "Content-Type": "application/json"}
    async with aiohttp.ClientSession(
        connector=connector,
        headers=headers,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
    ) as session:
        users, url = read_users(path), URL(f"{base}/school/users")
        await asyncio.gather(*(work(session, url, users) for _ in range(workers)))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
