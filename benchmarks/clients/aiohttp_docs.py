"""aiohttp as its documentation teaches it: one session, `async with` around each request, `json=` and `.json()`."""

import asyncio
import sys
from collections.abc import Iterator
from typing import Any

import aiohttp

from benchmarks.users import read_users


async def work(session: aiohttp.ClientSession, url: str, users: Iterator[dict[str, Any]]) -> None:
    """Create users until there are none."""
    for user in users:
        async with session.post(url, json={**user, "disableRegistrationMail": True}) as response:
            response.raise_for_status()
            await response.json()


async def main(path: str, base: str, workers: int) -> None:
    """Send a file."""
    async with aiohttp.ClientSession(headers={"Authorization": "Bearer benchmark"}) as session:
        users = read_users(path)
        await asyncio.gather(*(work(session, f"{base}/school/users", users) for _ in range(workers)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
