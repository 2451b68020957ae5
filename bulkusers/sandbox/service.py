"""The sandbox itself: how requests are taken apart, answered, spoiled on purpose, and written down."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from aiohttp import hdrs, web

from bulkusers.sandbox import wire
from bulkusers.sandbox.api import NOT_FOUND, Answer, Api, Call
from bulkusers.sandbox.faults import Fault, Script
from bulkusers.sandbox.state import Record, State, fold
from bulkusers.sandbox.switches import Switches

BASE: Final = ("api", "v1")
COLLEAGUE: Final = "colleague@example.edu"  # a second account, whose logins leave the first one's tokens alone
LOGIN_PAGE: Final = "<!doctype html><html><head><title>Log in</title></head><body><h1>Log in</h1></body></html>\n"
STRANGER: Final = {
    "email": "somebody.else@example.edu",
    "firstName": "Somebody",
    "lastName": "Else",
    "products": ["catalog"],
    "roles": ["example-admin"],
    "_id": "f" * 24,
}


@dataclass(slots=True)
class Entry:
    """One request in the ledger, which is in the order of arrival; filled in while the request is served."""

    at: float  # loop.time(), seconds
    method: str
    path: str  # percent-encoded as it came, without the query
    query: str
    in_flight: int  # requests being served when it came in, itself included
    until: float = 0.0  # loop.time(), seconds; 0 while it is being served
    status: int = 0  # what was answered; 0 = nothing yet, or the connection was cut
    wrote: bool = False  # users were changed, or will be
    fault: str = ""  # the action that was played


class Sandbox:
    """A school's API on this machine: what it holds, how it behaves, and what it was asked."""

    def __init__(
        self,
        *,
        users: int = 0,
        switches: Switches = Switches(),  # noqa: B008 - frozen, hence the same for all
        faults: Sequence[Fault] = (),
        seed: int = 0,
        state: Path | None = None,
    ) -> None:
        self.url = ""  # set while it serves
        self.school = "example_university"
        self.email = "admin@example.edu"
        self.password = "sandbox"  # noqa: S105 - it guards nothing
        self.switches = switches
        self.ledger: list[Entry] = []
        self.state = State(users=users, seed=seed)
        self.state_file = state
        if state is not None and state.exists():
            self.state.load(state)
        self._seed = seed
        self._script = Script(faults, seed=seed, started=math.nan)
        self._in_flight = 0
        self._recent: deque[float] = deque()  # when the requests of the last second came, where there is a limit
        self._late: dict[asyncio.TimerHandle, Callable[[float], None]] = {}  # writes that are still to be done

    @property
    def users(self) -> dict[str, Record]:
        """The records by e-mail as stored; open to tests, which may put some in or take some out."""
        return self.state.users

    @property
    def mails(self) -> list[str]:
        """The e-mails of created users who would have been sent a registration mail."""
        return self.state.mails

    @property
    def faults(self) -> tuple[Fault, ...]:
        """The script of faults; setting it starts it from its beginning."""
        return self._script.faults

    @faults.setter
    def faults(self, faults: Sequence[Fault]) -> None:
        started = asyncio.get_running_loop().time() if self.url else math.nan
        self._script = Script(faults, seed=self._seed, started=started)

    def new_token(self) -> str:
        """Return a live token without a login; other tokens stay alive."""
        return self.state.new_token(self.email)

    def kill_tokens(self) -> int:
        """Kill all tokens, as logins to the web app do, and return how many died."""
        return self.state.kill_tokens()

    def settle(self) -> None:
        """Do now, in their order, the writes that were still to be done later."""
        for timer in sorted(self._late, key=lambda timer: timer.when()):
            write = self._late.pop(timer)
            timer.cancel()
            write(asyncio.get_running_loop().time())

    def begin(self, url: str) -> None:
        """Take note that requests come in from now on: the script of faults starts."""
        self.url = url
        self.faults = self.faults

    def end(self) -> None:
        """Take note that no more requests come in: finish what is still to be written, and save."""
        self.url = ""
        self.settle()
        self.save()

    def save(self) -> None:
        """Write the state file, where there is one."""
        if self.state_file is not None:
            self.state.save(self.state_file)

    async def respond(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve one request, and keep the ledger."""
        clock = asyncio.get_running_loop().time
        path, _, query = request.raw_path.partition("?")
        self._in_flight += 1
        entry = Entry(clock(), request.method, path, query, self._in_flight)
        self.ledger.append(entry)
        try:
            return await self._respond(request, entry)
        finally:
            self._in_flight -= 1
            entry.until = clock()

    async def _respond(self, request: web.BaseRequest, entry: Entry) -> web.StreamResponse:
        if self._is_too_fast(entry.at):
            return await self._finish(entry, _slow_down(self.switches.retry_after))
        try:
            body = await request.read() if request.body_exists else b""
        except web.HTTPRequestEntityTooLarge:
            return await self._finish(entry, Answer(413, {"error": "The body is larger than 1 MiB"}))
        parts = tuple(unquote(part) for part in entry.path.split("/")[1:])
        if parts[:2] != BASE:
            return await self._finish(entry, Answer(200, LOGIN_PAGE) if parts == ("login",) else NOT_FOUND)
        call = Call(entry.method, parts[2:], entry.query, _read_token(request), body)
        fault = self._script.next_fault(call.method, "/" + "/".join(call.parts), entry.at)
        if fault is None:
            return await self._finish(entry, self._carry_out(call, entry))
        entry.fault = fault.action
        return await self._misbehave(fault, call, entry, request)

    def _carry_out(self, call: Call, entry: Entry, *, late: float = 0.0) -> Answer:
        """Do what a call asks for, its write `late` seconds after the answer, and return the answer."""
        loop = asyncio.get_running_loop()
        accounts = {fold(COLLEAGUE): self.password, fold(self.email): self.password}
        answer = Api(self.state, self.switches, self.school, accounts, loop.time()).answer(call)
        if (write := answer.write) is None:
            return answer
        entry.wrote = True
        late += self.switches.commit_delay
        if not late:
            write(loop.time())
            return answer

        def write_late() -> None:
            del self._late[timer]
            write(loop.time())

        timer = loop.call_later(self.switches.latency + late, write_late)
        self._late[timer] = write
        return answer

    async def _misbehave(self, fault: Fault, call: Call, entry: Entry, request: web.BaseRequest) -> web.StreamResponse:
        if fault.action == "kill_token":
            self.state.kill_tokens(self.state.account_of(call.token))
        if fault.action == "edit":
            self.state.edit(call.parts[-1], now=asyncio.get_running_loop().time())
        late = fault.seconds if fault.action == "late_commit" else 0.0
        truth = self._carry_out(call, entry, late=late) if fault.writes else None
        match fault.action:
            case "reset_before" | "reset_after" | "edit":
                await wire.reset(request)
            case "late_commit" if fault.status == 0:
                await wire.reset(request)
            case "cut_body" if truth is not None:
                await wire.cut(request, truth)
            case "garbage":
                await wire.send_garbage(request)
            case "hang":
                await wire.hang()
            case "delay":
                await asyncio.sleep(fault.seconds)
        return await self._finish(entry, _disguise(fault, truth))

    async def _finish(self, entry: Entry, answer: Answer) -> web.StreamResponse:
        if self.switches.latency:
            await asyncio.sleep(self.switches.latency)
        entry.status = answer.status
        return wire.make_response(answer)

    def _is_too_fast(self, now: float) -> bool:
        """Tell whether a request exceeds the rate limit; only those that do not are counted."""
        limit = self.switches.rate_limit
        if not limit:
            return False
        while self._recent and self._recent[0] <= now - 1.0:
            self._recent.popleft()
        if len(self._recent) >= limit:
            return True
        self._recent.append(now)
        return False


def _read_token(request: web.BaseRequest) -> str:
    kind, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


def _slow_down(retry_after: str) -> Answer:
    headers = {
        "seconds": {"Retry-After": "1"},
        "date": {"Retry-After": formatdate(math.ceil(time.time() + 1.0), usegmt=True)},
        "none": {},
    }
    return Answer(429, {"error": "Too many requests"}, headers[retry_after])


def _disguise(fault: Fault, truth: Answer | None) -> Answer:
    """Return what a fault makes of the true answer, which is there if the request was carried out."""
    match fault.action:
        case "status" | "late_commit":
            status = fault.status or (500 if fault.action == "status" else 504)
            body = {"error": "Something went wrong"} if fault.body is None else fault.body
            return Answer(status, body, fault.headers)
        case "html":
            return Answer(fault.status or 200, LOGIN_PAGE if fault.body is None else fault.body, fault.headers)
        case "redirect":
            body = {"error": "Moved"} if fault.body is None else fault.body
            return Answer(fault.status or 302, body, {"Location": fault.location, **fault.headers})
        case "wrong_body":
            status = fault.status or (truth.status if truth is not None else 200)
            return Answer(status, STRANGER if fault.body is None else fault.body, fault.headers)
    return NOT_FOUND if truth is None else truth
