"""A school's user API that is never the bottleneck: one process, one dictionary, HTTP parsed by hand.

    python -m benchmarks.server [--core 1] [--delay 0.05] [--users users.csv] [--share 0.5] [--changed 0.01]

It prints its URL, and stops when its standard input ends. It holds users (`POST`, `GET`, `PUT /SCHOOL/users`), answers
after `--delay` seconds, and counts what it saw: `GET /bench` tells, `DELETE /bench` begins anew with the users it had
at its start. `--share` of the rows of `--users` are there at the start, and `--changed` of these differ from the file;
both are evenly spread.
"""

import argparse
import asyncio
import gc
import os
import sys
import time
from array import array
from typing import cast
from urllib.parse import unquote_to_bytes

import orjson
import uvloop

from benchmarks.users import read_users

REASONS = {200: b"OK", 201: b"Created", 404: b"Not Found", 409: b"Conflict"}
# what servers behind a balancer usually say besides
USUAL = (
    b"Content-Type: application/json; charset=utf-8\r\nConnection: keep-alive\r\nDate: Mon, 02 Nov 2026 02:15:00 GMT"
)
HEADS = {
    status: b"HTTP/1.1 %d %s\r\n%s\r\nContent-Length: " % (status, reason, USUAL) for status, reason in REASONS.items()
}
FORMER = b"Former"  # the last name of users who differ from the file


class School:
    """The users, and what was seen of those who asked."""

    def __init__(self, users: dict[bytes, bytes], delay: float) -> None:
        self._at_start = users
        self.delay = delay  # seconds before each answer
        self.begin()

    def begin(self) -> None:
        """Begin anew."""
        self.users = dict(self._at_start)
        self.times = array("d")  # of every request, as it was complete; the clock is the whole machine's
        self.held = 0.0  # seconds that answers were held back, altogether
        self.in_flight = self.most_in_flight = 0  # requests whose answer is held back
        self.received = self.sent = 0  # bytes
        self.busy = time.process_time()

    def answer(self, method: bytes, path: bytes, body: bytes) -> bytes:
        """Answer one request."""
        self.times.append(time.perf_counter())
        _, _, kind, *more = path.split(b"/")
        if kind != b"users":
            return self._say(200, b"{}")
        if method == b"POST":
            return self._create(orjson.loads(body))
        if not more:
            return self._say(200, b"{%s}" % b",".join(b'"%s":%s' % user for user in self.users.items()))
        email = unquote_to_bytes(more[0]).lower()
        if email not in self.users:
            return self._say(404, b'{"error":"not found"}')
        if method == b"PUT":
            self.users[email] = body
        return self._say(200, self.users[email])

    def tell(self, method: bytes) -> bytes:
        """Answer whoever measures."""
        if method == b"DELETE":
            self.begin()
        return self._say(200, orjson.dumps(self.summary()))

    def _create(self, user: dict[str, object]) -> bytes:
        email = str(user["email"]).lower().encode()
        if email in self.users:
            return self._say(409, b'{"error":"user exists"}')
        user.pop("disableRegistrationMail", None)
        record = self.users[email] = orjson.dumps({"_id": f"{len(self.users):024x}", **user})
        return self._say(201, record)

    def _say(self, status: int, body: bytes) -> bytes:
        return b"%s%d\r\n\r\n%s" % (HEADS[status], len(body), body)

    def summary(self) -> dict[str, float]:
        """Return what was seen since the beginning."""
        busy = time.process_time() - self.busy  # before the counting below
        times = self.times
        seconds = times[-1] - times[0] if times else 0.0
        return {
            "requests": len(times),
            "first": times[0] if times else 0.0,
            "seconds": seconds,  # from the first request to the last
            "most_in_1s": most_within(times, 1.0),
            "most_in_100ms": most_within(times, 0.1),
            "mean_delay": self.held / len(times) if times else 0.0,
            "most_in_flight": self.most_in_flight,
            "received": self.received,
            "sent": self.sent,
            "busy": busy,  # seconds of CPU
            "users": len(self.users),
            "former": sum(FORMER in user for user in self.users.values()),  # still called otherwise than in the file
        }


def most_within(times: "array[float]", seconds: float) -> int:
    """Return the most requests in any window of that length."""
    most = first = 0
    for place, now in enumerate(times):
        while times[first] <= now - seconds:
            first += 1
        most = max(most, place - first + 1)
    return most


class Connection(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, school: School, loop: asyncio.AbstractEventLoop) -> None:
        self._school = school
        self._loop = loop
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its class

    def data_received(self, data: bytes) -> None:
        """Answer every request that is complete."""
        self._buffer = self._buffer + data if self._buffer else data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end]
            place = head.lower().find(b"\r\ncontent-length:")
            length = int(head[place + 17 :].split(b"\r\n", 1)[0]) if place >= 0 else 0
            whole = end + 4 + length
            if len(self._buffer) < whole:
                return
            method, path, _ = head.split(b" ", 2)
            if path == b"/bench":
                self._transport.write(self._school.tell(method))
            else:
                self._reply(self._school.answer(method, path, self._buffer[end + 4 : whole]), whole)
            self._buffer = self._buffer[whole:]

    def _reply(self, answer: bytes, received: int) -> None:
        school = self._school
        school.received += received
        school.sent += len(answer)
        if school.delay:
            school.in_flight += 1
            school.most_in_flight = max(school.most_in_flight, school.in_flight)
            self._loop.call_later(school.delay, self._write_late, answer, time.perf_counter())
        else:
            self._transport.write(answer)

    def _write_late(self, answer: bytes, came: float) -> None:
        self._school.in_flight -= 1
        self._school.held += time.perf_counter() - came
        self._transport.write(answer)


def load_users(path: str, share: float, changed: float) -> dict[bytes, bytes]:
    """Return a share of a file's users as the school has them: with more to each, and some called otherwise."""
    users: dict[bytes, bytes] = {}
    for number, record in enumerate(read_users(path)):
        if is_nth(number, share):
            more = {"_id": f"{number:024x}", "phone": "555-0100", "roles": ["kept", *record["roles"]]}
            if is_nth(len(users), changed):
                more["lastName"] = FORMER.decode()
            users[record["email"].lower().encode()] = orjson.dumps({**record, **more})
    return users


def is_nth(number: int, share: float) -> bool:
    """Tell whether a number is one of an evenly spread share of all numbers."""
    return int((number + 1) * share) > int(number * share)


async def serve(school: School, port: int) -> None:
    """Serve until the standard input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(school, loop), "127.0.0.1", port, backlog=1024)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--core", type=int, default=-1, help="to run on")
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--users", default="")
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--changed", type=float, default=1.0)
    options = parser.parse_args()
    if options.core >= 0:
        os.sched_setaffinity(0, {options.core})
    users = load_users(options.users, options.share, options.changed) if options.users else {}
    gc.freeze()
    uvloop.run(serve(School(users, options.delay), options.port))


if __name__ == "__main__":
    main()
