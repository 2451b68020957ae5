"""One `httpx.AsyncClient` and as many tasks as there are workers."""

import asyncio
import sys
from collections.abc import Iterator
from typing import Any

import httpx

from benchmarks.users import read_users


async def work(client: httpx.AsyncClient, users: Iterator[dict[str, Any]]) -> None:
    """Create users until there are none."""
    for user in users:
        response = await client.post("/school/users", json={**user, "disableRegistrationMail": True})
        response.raise_for_status()
        response.json()


async def main(path: str, base: str, workers: int) -> None:
    """Send a file."""
    async with httpx.AsyncClient(base_url=base, headers={"Authorization": "Bearer benchmark"}, timeout=30) as client:
        users = read_users(path)
        await asyncio.gather(*(work(client, users) for _ in range(workers)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
