"""The network: the only part that speaks HTTP, and the one place where its errors become ours."""

import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import BinaryIO, Final

import aiohttp
from aiohttp.connector import Connection
from yarl import URL

from bulkusers.errors import AccessError, SettingsError, TransportError
from bulkusers.files import scratch_space
from bulkusers.models import Request, Response
from bulkusers.settings import Settings
from bulkusers.version import __version__

KEEP_ALIVE: Final = 4.0  # seconds; servers on Node close idle connections after 5, and a POST on such a one is lost
CONNECT: Final = 10.0  # seconds at most until there is a connection
MAX_ANSWER: Final = 1 << 20  # bytes of one answer, unpacked; a record has a few hundred
MAX_LIST: Final = 1 << 30  # bytes of a list of records, unpacked; it goes to the disk


SENDING: Final[ContextVar[bool]] = ContextVar("sending")  # whether the request of this task is on its way


class Noted(aiohttp.ClientRequest):
    """A request that notes when it is about to go out, before its first byte.

    No kind of error tells whether a request was sent: a time-out may also be one of the connection or of a proxy. The
    trace hooks of aiohttp do, at a quarter of a request's CPU time; this costs next to nothing.
    """

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        """Send the request on a connection that stands."""
        SENDING.set(True)
        return await super().send(conn)


class Client:
    """One connection pool, one token. `send` is the `models.Send` to the API, and raises `TransportError`."""

    def __init__(self, session: aiohttp.ClientSession, settings: Settings) -> None:
        self._session = session
        self._base = settings.base_url.rstrip("/")
        self._proxy = settings.proxy or None
        self._password = settings.password
        connect = min(settings.timeout, CONNECT)
        self._timeout = aiohttp.ClientTimeout(total=settings.timeout, sock_connect=connect)
        # a list may take long, as long as it keeps coming
        self._patience = aiohttp.ClientTimeout(total=None, sock_read=settings.timeout, sock_connect=connect)
        self.token = settings.token

    async def send(self, request: Request) -> Response:
        """Send one request, once, and return the whole answer whatever its status.

        Raises:
            TransportError: no answer came; its `sent` tells whether the API may have seen the request.
            AccessError: the certificate is not to be trusted.

        """
        SENDING.set(False)
        try:
            answer = await self._session.request(
                request.method,
                URL(self._base + request.path, encoded=True),
                data=request.body,
                headers=self._headers(request),
                proxy=self._proxy,
                allow_redirects=False,  # a POST that is redirected becomes a GET, whose 200 looks like "created"
                timeout=self._timeout if request.into is None else self._patience,
            )
            async with answer:
                body = await _read(answer, request.into if answer.ok else None)
                return Response(answer.status, body if answer.ok else self._strike(body), answer.headers)
        # Nothing of aiohttp's errors is kept: they hold the token, and URLs with e-mails.
        except aiohttp.ClientConnectorCertificateError:
            raise AccessError(
                "the server's certificate is not to be trusted",
                hint="if your network re-signs traffic, name its CA with --ca-file; checking cannot be turned off",
            ) from None
        except (aiohttp.ClientError, TimeoutError) as error:
            if not SENDING.get():
                raise _explain_unsent(error) from None
            if isinstance(error, TimeoutError):
                raise TransportError("the API did not answer in time", sent=True) from None
            raise TransportError(f"the connection broke ({_reason(error)})", sent=True) from None

    def _strike(self, body: bytes) -> bytes:
        """Strike our own secrets out of a refusal: the API's words go into reports."""
        for secret in filter(None, (self.token.reveal(), self._password.reveal())):
            # JSON writes quotes, backslashes and letters beyond ASCII in ways of its own
            for form in (secret, json.dumps(secret, ensure_ascii=False)[1:-1], json.dumps(secret)[1:-1]):
                body = body.replace(form.encode(), b"***")
        return body

    def _headers(self, request: Request) -> dict[str, str]:
        headers = {"Content-Type": "application/json"} if request.body is not None else {}
        if request.authorized:
            headers["Authorization"] = f"Bearer {self.token.reveal()}"
        return headers


async def _read(answer: aiohttp.ClientResponse, into: BinaryIO | None) -> bytes:
    """Read an answer piece by piece: a small compressed one may unpack to more than memory holds."""
    whole = b""
    size, most = 0, MAX_ANSWER if into is None else MAX_LIST
    if into is not None:
        with scratch_space():
            into.seek(0)  # an earlier attempt may have left something
            into.truncate()
    while piece := await answer.content.readany():
        size += len(piece)
        if size > most:
            answer.close()
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
    async with aiohttp.ClientSession(
        connector=connector,
        request_class=Noted,
        cookie_jar=aiohttp.DummyCookieJar(),  # a cookie would stand above the token
        trust_env=False,  # a ~/.netrc entry would, too; proxies are named in the settings
        headers={"User-Agent": f"bulkusers/{__version__}", "Accept": "application/json"},
    ) as session:
        # aiohttp sends PUT and GET again by itself when a kept connection drops; the only sender here is us
        session._retry_connection = False  # noqa: SLF001 - there is no public switch; a test counts at the server
        yield Client(session, settings)


def _trust(settings: Settings) -> ssl.SSLContext | None:
    if settings.ca_file is None:
        return None
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(settings.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"the CA file {settings.ca_file} cannot be used: {error.strerror or 'not PEM'}") from None
    return context
