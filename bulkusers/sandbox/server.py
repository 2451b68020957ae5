"""The server: real sockets on loopback, and the requests that look behind the scenes."""

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import orjson
from aiohttp import web

from bulkusers.sandbox import wire
from bulkusers.sandbox.api import NOT_FOUND, Answer
from bulkusers.sandbox.faults import read_faults
from bulkusers.sandbox.service import Sandbox

BEHIND: Final = "/api/v1/_sandbox/"  # not the API's: neither in the ledger nor touched by faults and switches
KEEP_ALIVE: Final = 5.0  # seconds until an idle connection is closed, as servers on Node do
GRACE: Final = 0.1  # seconds for requests that are being served when the server stops


@asynccontextmanager
async def serve(sandbox: Sandbox, *, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Sandbox]:
    """Serve on loopback in the running loop; port 0 takes a free one.

    Raises:
        ValueError: the host is not this machine's loopback.

    """
    if not _is_loopback(host):
        raise ValueError(f"the sandbox serves on loopback only, not on {host}")

    async def respond(request: web.BaseRequest) -> web.StreamResponse:
        if request.raw_path.startswith(BEHIND):
            return wire.make_response(_look_behind(sandbox, request, await request.read()))
        return await sandbox.respond(request)

    server = web.Server(respond, handler_cancellation=True, access_log=None, keepalive_timeout=KEEP_ALIVE)
    runner = web.ServerRunner(server, shutdown_timeout=GRACE)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, backlog=1024).start()
        address, bound = runner.addresses[0][:2]
        sandbox.begin(f"http://{f'[{address}]' if ':' in address else address}:{bound}/api/v1")
        yield sandbox
    finally:
        await runner.cleanup()
        sandbox.end()


async def serve_forever(sandbox: Sandbox, port: int, ready: Callable[[Sandbox], None]) -> None:
    """Serve until cancelled; `ready` is called once the server listens."""
    async with serve(sandbox, port=port):
        ready(sandbox)
        await asyncio.Event().wait()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _look_behind(sandbox: Sandbox, request: web.BaseRequest, body: bytes) -> Answer:
    """Answer one of the requests that only a sandbox has, for whoever drives it from another process."""
    try:
        match request.method, request.raw_path.removeprefix(BEHIND):
            case "GET", "state":
                return Answer(200, sandbox.state.dump())
            case "GET", "ledger":
                return Answer(200, b"".join(orjson.dumps(entry) + b"\n" for entry in sandbox.ledger))
            case "DELETE", "ledger":
                sandbox.ledger.clear()
            case "POST", "web-login":
                sandbox.kill_tokens()
            case "POST", "faults":
                sandbox.faults = read_faults(body)
            case "POST", "switches":
                sandbox.switches = sandbox.switches.change(_read_object(body))
            case "POST", "settle":
                sandbox.settle()
            case "POST", "save":
                _save(sandbox)
            case _:
                return NOT_FOUND
    except ValueError as error:
        return Answer(400, {"error": str(error)})
    return Answer(200, {"done": True})


def _read_object(body: bytes) -> dict[str, object]:
    value = orjson.loads(body)
    if not isinstance(value, dict):
        raise ValueError("switches are a JSON object")  # noqa: TRY004 - one kind of error for a bad request
    return value


def _save(sandbox: Sandbox) -> None:
    if sandbox.state_file is None:
        raise ValueError("the sandbox was started without a state file")
    sandbox.save()
