"""The network: the only part that speaks HTTP, and the one place where its errors become ours."""

import asyncio
import json
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from errno import EPROTO
from typing import BinaryIO, Final

import aiohttp
from aiohttp.connector import Connection
from aiohttp.http import HttpProcessingError
from yarl import URL

from bulkusers.errors import AccessError, SettingsError, TransportError
from bulkusers.files import scratch_space
from bulkusers.models import Request, Response, Secret
from bulkusers.settings import Settings
from bulkusers.version import __version__

KEEP_ALIVE: Final = 4.0  # seconds; servers on Node close idle connections after 5, and a POST on such a one is lost
CONNECT: Final = 10.0  # seconds at most until there is a connection
MAX_ANSWER: Final = 1 << 20  # bytes of one answer, unpacked; a record has a few hundred
LATE: Final = "the API did not answer in time"
MAX_LIST: Final = 1 << 30  # bytes of a list of records, unpacked; it goes to the disk
TARGET: Final = re.compile("[!-~]+")  # what a request line may hold: no blank, no line end (RFC 9112 3.2)


class Watchdog:
    """Cuts connections whose answer is late; one timer for all, as one for each costs a tenth of a request."""

    def __init__(self, patience: float) -> None:
        self._patience = patience  # seconds, the same for all: who began first is late first
        self._deadlines: dict[Connection, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, connection: Connection) -> None:
        """Begin to wait for an answer."""
        loop = asyncio.get_running_loop()
        self._deadlines[connection] = loop.time() + self._patience
        if self._timer is None:
            self._timer = loop.call_later(self._patience, self._look)

    def forget(self, connection: Connection) -> bool:
        """Stop waiting; tell whether the answer was not late."""
        return self._deadlines.pop(connection, None) is not None

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        for connection, deadline in list(self._deadlines.items()):
            if deadline > loop.time():
                self._timer = loop.call_at(deadline, self._look)
                return
            del self._deadlines[connection]
            if connection.transport is not None:
                connection.transport.abort()  # whoever waits is told that the connection broke

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()


class Letter:
    """A request on its way to one connection; `posted` tells whether the system has it, and with it perhaps the API."""

    __slots__ = ("_content", "_transport", "posted")

    def __init__(self, transport: asyncio.Transport, content: bytes) -> None:
        self._transport = transport
        self._content = content
        self.posted = False

    def post(self) -> None:
        """Write it, unless the connection has broken meanwhile."""
        if not self._transport.is_closing():
            self.posted = True
            self._transport.write(self._content)


class Client:
    """One connection pool, one token. `send` is the `models.Send` to the API, and raises `TransportError`.

    Connections, TLS, proxies and the reading of answers are aiohttp's; the few bytes of a request are written here, at
    once. That is 24 us of CPU for a request instead of 60 through a `ClientSession`, and there is nothing to switch
    off: no redirects (a POST that is redirected becomes a GET, whose 200 looks like "created"), no cookies and no
    ~/.netrc, which would stand above the token, no PUT that is sent again behind our back when a connection drops.
    """

    def __init__(self, connector: aiohttp.TCPConnector, settings: Settings) -> None:
        self._connector = connector
        self._password = settings.password
        self._timeout = settings.timeout
        self._most = settings.concurrency
        self._until_connected = aiohttp.ClientTimeout(connect=min(settings.timeout, CONNECT))
        self._watchdog = Watchdog(settings.timeout)
        base = URL(settings.base_url, encoded=True)
        self._path = base.raw_path.rstrip("/")
        # where every connection leads; never sent itself
        self._server = aiohttp.ClientRequest(
            "GET",
            base,
            headers={"User-Agent": f"bulkusers/{__version__}", "Accept": "application/json"},
            # plain http goes to this machine only, where a proxy has no business
            proxy=URL(settings.proxy) if settings.proxy and base.scheme == "https" else None,
            loop=asyncio.get_running_loop(),
        )
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in self._server.headers.items())
        self.token = settings.token

    async def send(self, request: Request) -> Response:
        """Send one request, once, and return the whole answer whatever its status.

        Raises:
            TransportError: no answer came; its `sent` tells whether the API may have seen the request.
            AccessError: the certificate is not to be trusted.

        """
        token = self.token
        written = self._write(request, token)
        # Nothing of aiohttp's errors is kept: they hold URLs with e-mails.
        try:
            connection = await self._connect()
        except aiohttp.ClientConnectorCertificateError:
            raise AccessError(
                "the server's certificate is not to be trusted",
                hint="if your network re-signs traffic, name its CA with --ca-file; checking cannot be turned off",
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            raise _explain_unsent(error) from None
        if request.into is None:
            self._watchdog.watch(connection)
        assert connection.transport is not None
        letter = Letter(connection.transport, written)
        answer, failure = None, LATE
        try:
            answer = await self._exchange(connection, letter, request.into)
        except (aiohttp.ClientError, HttpProcessingError, OSError) as error:
            if not isinstance(error, TimeoutError):
                failure = f"the connection broke ({_reason(error)})"
        finally:
            # an answer of unknown length that the watchdog has cut looks like a whole one
            in_time = request.into is not None or self._watchdog.forget(connection)
            if answer is not None and in_time:
                connection.release()
            else:
                connection.close()
        if answer is None or not in_time:
            raise TransportError(failure if in_time else LATE, sent=letter.posted)
        if 200 <= answer.status < 300:
            return answer
        return answer._replace(body=_strike(answer.body, token, self.token, self._password))

    async def _connect(self) -> Connection:
        """Return a connection on which nothing is left to be read: it would be taken for the next answer."""
        for _ in range(1 + self._most):  # so many may lie in the pool
            connection = await self._connector.connect(self._server, [], self._until_connected)
            if connection.protocol is not None and not connection.protocol.should_close:
                return connection
            connection.close()
        raise ConnectionError(EPROTO, "the server speaks before it is asked")

    def _write(self, request: Request, token: Secret) -> bytes:
        """Return a request as it goes over the wire (RFC 9112 2.1)."""
        path = self._path + request.path
        if not TARGET.fullmatch(path):
            raise ValueError("a path is percent-encoded")
        head = f"{request.method} {path} HTTP/1.1\r\n{self._headers}"
        if request.authorized:
            head += f"Authorization: Bearer {token.reveal()}\r\n"
        if request.body is None:
            return f"{head}\r\n".encode()
        return (
            f"{head}Content-Type: application/json\r\nContent-Length: {len(request.body)}\r\n\r\n".encode()
            + request.body
        )

    async def _exchange(self, connection: Connection, letter: Letter, into: BinaryIO | None) -> Response:
        """Write a request and read its answer."""
        protocol = connection.protocol
        assert protocol is not None
        # a list may take long, as long as it keeps coming
        protocol.set_response_params(read_until_eof=True, read_timeout=None if into is None else self._timeout)
        # all requests of one turn of the loop go out together, and whoever is at the other end wakes up once: that is a
        # fifth of the CPU time of a row that is created
        asyncio.get_running_loop().call_soon(letter.post)
        protocol.start_timeout()
        message, content = await protocol.read()
        while 100 <= message.code < 200 and message.code != 101:  # the answer proper is still to come
            message, content = await protocol.read()
        if not letter.posted:  # it is no answer to this
            raise aiohttp.ServerDisconnectedError
        body = await _read(content, into if 200 <= message.code < 300 else None)
        return Response(message.code, body, message.headers)

    def close(self) -> None:
        """Wait for nothing any more."""
        self._watchdog.close()


def _strike(body: bytes, *secrets: Secret) -> bytes:
    """Strike our own secrets out of a refusal: the API's words go into reports."""
    for secret in filter(None, {secret.reveal() for secret in secrets}):
        # JSON writes quotes, backslashes and letters beyond ASCII in ways of its own
        for form in (secret, json.dumps(secret, ensure_ascii=False)[1:-1], json.dumps(secret)[1:-1]):
            body = body.replace(form.encode(), b"***")
    return body


async def _read(content: aiohttp.StreamReader, into: BinaryIO | None) -> bytes:
    """Read an answer piece by piece: a small compressed one may unpack to more than memory holds."""
    whole = b""
    size, most = 0, MAX_ANSWER if into is None else MAX_LIST
    if into is not None:
        with scratch_space():
            into.seek(0)  # an earlier attempt may have left something
            into.truncate()
    while not content.at_eof():
        piece = await content.readany()
        size += len(piece)
        if size > most:
            raise TransportError("the answer is too large to be one of the API's", sent=True)
        if into is None:
            whole += piece
        else:
            with scratch_space():
                into.write(piece)
    return whole


def _explain_unsent(error: Exception) -> TransportError:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return TransportError(
            "no connection to the API (its host's name is not known)",
            hint="is the host in the base URL spelled right, and is this machine online?",
            sent=False,
        )
    return TransportError(
        f"no connection to the API ({_reason(error)})",
        hint="is the base URL right, and does the network let this machine out (HTTPS_PROXY)?",
        sent=False,
    )


def _reason(error: Exception) -> str:
    """Name an error without its details: the system's own word where there is one, else its kind."""
    cause = getattr(error, "os_error", error)
    if isinstance(cause, OSError) and cause.strerror and not isinstance(cause, aiohttp.ClientError):
        return cause.strerror
    return type(error).__name__


@asynccontextmanager
async def connect(settings: Settings) -> AsyncIterator[Client]:
    """Open a connection pool to the API for the time of a run.

    Raises:
        SettingsError: the CA file cannot be used.

    """
    connector = aiohttp.TCPConnector(
        limit=settings.concurrency, keepalive_timeout=KEEP_ALIVE, ssl=_trust(settings) or True
    )
    async with connector:
        client = Client(connector, settings)
        try:
            yield client
        finally:
            client.close()


def _trust(settings: Settings) -> ssl.SSLContext | None:
    if settings.ca_file is None:
        return None
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(settings.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"the CA file {settings.ca_file} cannot be used: {error.strerror or 'not PEM'}") from None
    return context
