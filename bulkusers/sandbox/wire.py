"""What happens on the connection itself: answers, and everything that is none."""

import asyncio
import socket
import struct
from typing import Final, NoReturn

import orjson
from aiohttp import web

from bulkusers.sandbox.api import Answer

NO_LINGER: Final = struct.pack("ii", 1, 0)  # on, 0 seconds: closing discards what is unsent, and sends a RST
SEEN: Final = 0.01  # seconds in which a client reads what came before a reset


def make_response(answer: Answer) -> web.Response:
    """Turn an answer into HTTP."""
    kind, body = _encode(answer)
    return web.Response(status=answer.status, body=body, headers={"Content-Type": kind, **answer.headers})


def _encode(answer: Answer) -> tuple[str, bytes]:
    match answer.body:
        case str() as text:
            return "text/html; charset=utf-8", text.encode()
        case bytes() as lines:
            return "application/x-ndjson", lines
        case value:
            return "application/json; charset=utf-8", orjson.dumps(value)


async def reset(request: web.BaseRequest) -> NoReturn:
    """Cut the connection with a TCP reset, as a crashed server or a firewall does."""
    if request.transport is not None:
        connection = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        request.transport.abort()
    await hang()


async def cut(request: web.BaseRequest, answer: Answer) -> NoReturn:
    """Send the head and half the body of an answer, and reset the connection."""
    kind, body = _encode(answer)
    response = web.StreamResponse(status=answer.status, headers={"Content-Type": kind, **answer.headers})
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    await asyncio.sleep(SEEN)
    await reset(request)


async def send_garbage(request: web.BaseRequest) -> NoReturn:
    """Send what is not HTTP, and close the connection."""
    if request.transport is not None:
        request.transport.write(b"\x15\x03\x01\x00\x02\x02\x50 this is not HTTP\r\n\r\n")
        request.transport.close()
    await hang()


async def hang() -> NoReturn:
    """Send nothing until the client goes, which cancels this."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError("nobody sets that future")
