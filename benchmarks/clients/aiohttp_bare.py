"""The yardstick: aiohttp as bare and as tuned as it gets, and nothing of what a person needs to trust it."""

import asyncio
import csv
import sys
from collections.abc import Iterator

import aiohttp
import orjson
import uvloop
from yarl import URL


async def work(session: aiohttp.ClientSession, url: URL, rows: Iterator[list[str]]) -> None:
    """Create users until there are none."""
    for first, last, email, products, *_ in rows:
        body = orjson.dumps(
            {
                "firstName": first,
                "lastName": last,
                "email": email,
                "products": products.split(","),
                "disableRegistrationMail": True,
            }
        )
        answer = await session.post(url, data=body)
        user = orjson.loads(await answer.read())
        assert answer.status == 201, user


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
        with open(path, newline="", encoding="utf-8") as file:
            rows = csv.reader(file)
            next(rows)
            url = URL(f"{base}/school/users")
            await asyncio.gather(*(work(session, url, rows) for _ in range(workers)))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
