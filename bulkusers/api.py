"""The way to the API that everybody in one process shares: pace, pauses, outages, tokens, retries, counts."""

import asyncio
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeVar

from bulkusers.answers import Wish
from bulkusers.brake import Brake, braking
from bulkusers.client import Client, connect
from bulkusers.errors import AccessError, ApiError, TransportError
from bulkusers.meaning import BUSY_STATUSES, READS
from bulkusers.models import Request, Response, Secret, Send
from bulkusers.protocol import log_in
from bulkusers.retry import Budget, backoff, retrying
from bulkusers.settings import Settings
from bulkusers.tally import Meter, metered
from bulkusers.throttle import Traffic
from bulkusers.tokens import Tokens
from bulkusers.workers import Writes, converse, counting

LOGINS: Final = 2  # how often a login is sent again whose answer is lost; each is another for the account's lock-out
SETTLE: Final = 2.0  # seconds at least until a late write must have shown; twice the slowest answer if that is more

Result = TypeVar("Result")


class Api:
    """Makes `Send`s that know of each other, and stops all of them where the API cannot be spoken to."""

    def __init__(self, client: Client, settings: Settings, brake: Brake) -> None:
        self.meter = Meter()
        self._client = client
        self._settings = settings
        self._brake = brake
        self._budget = Budget()
        self._traffic = Traffic(settings.rate, brake.pull, brake.pulled.is_set)
        brake.on_pull(self._traffic.wake)
        can_log_in = settings.email and settings.password
        self._tokens = Tokens(client, self._log_in if can_log_in else None, brake.pull)

    def connect(self, writes: Writes) -> Send:
        """Return a worker's way to the API: what the API says is news for all workers, its count of writes its own."""
        return self._retrying(self._tokens.authenticating(self._connect(writes)))

    def _connect(self, writes: Writes) -> Send:
        send = counting(braking(self._client.send, self._brake), writes)
        return self._traffic.guard(metered(send, self.meter), lambda: writes.taken > 0)

    async def read(self, conversation: Generator[Wish, Response, Result], *, vital: bool = True) -> Result:
        """Lead a conversation that only reads, and return its result.

        Where it is not `vital`, a 401 is an answer like any other: the vendor says that it can mean a permission that
        the account lacks, and no login helps with that.

        Raises:
            TransportError: no answer came, or the run stops.

        """
        send = self.connect(Writes()) if vital else self._retrying(self._connect(Writes()))
        return await self._lead(conversation, send)

    async def glance(self, conversation: Generator[Wish, Response, Result]) -> Result:
        """Lead a conversation that nothing depends on: each request goes out once, and its failure stops nobody.

        Raises:
            TransportError: the run stops.

        """
        send = metered(braking(self._client.send, self._brake), self.meter)
        return await self._lead(conversation, self._traffic.guard_lightly(send))

    async def _lead(self, conversation: Generator[Wish, Response, Result], send: Send) -> Result:
        reading = asyncio.create_task(converse(conversation, _reading(send)))
        await self._until_stopped(reading)
        try:
            return await reading
        except asyncio.CancelledError:
            if self._brake.reason is None:
                raise
            raise TransportError("the run is stopping", sent=False) from None

    async def log_in_first(self) -> None:
        """Get the first token where there is none yet, unless the run stops before."""
        if self._settings.token:
            return
        login = asyncio.create_task(self._log_in())
        await self._until_stopped(login)  # nothing is lost with it: who is stopping needs no token
        with suppress(asyncio.CancelledError):
            try:
                self._client.token = await login
            except ApiError as error:
                self._brake.pull(error)

    async def _until_stopped(self, task: "asyncio.Task[Any]") -> None:
        """Wait for something that changes nothing, and cancel it where the run stops before."""
        stop = asyncio.create_task(self._brake.pulled.wait())
        try:
            await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            task.cancel()

    async def settle(self) -> None:
        """Wait until a late write must have shown."""
        await asyncio.sleep(max(SETTLE, 2 * self.meter.longest / 1000))

    async def _log_in(self) -> Secret:
        send = self._traffic.guard(metered(braking(self._client.send, self._brake), self.meter))
        return await get_token(self._settings, self._insisting(self._retrying(send)))

    def _insisting(self, send: Send) -> Send:
        """Return a `Send` for logins: sent again they do no harm, though they are no reads."""

        async def send_again(request: Request) -> Response:
            for attempt in range(min(LOGINS, self._settings.retries)):
                try:
                    answer = await send(request)
                except TransportError as error:
                    if not error.sent:
                        raise
                else:
                    if answer.status < 500 or answer.status in BUSY_STATUSES:  # those were waited for
                        return answer
                await self._pause(backoff(attempt, 1.0))
            return await send(request)

        return send_again

    def _retrying(self, send: Send) -> Send:
        return retrying(send, retries=self._settings.retries, budget=self._budget, pause=self._pause)

    async def _pause(self, seconds: float) -> None:
        """Wait before a request is sent again, unless the run stops: then nothing is."""
        await self._brake.sleep(seconds)
        self.meter.retries += 1


@asynccontextmanager
async def open_api(settings: Settings, brake: Brake) -> AsyncIterator[Api]:
    """Open the way to the API; nothing is sent yet.

    Raises:
        AccessError: there is nothing to log in with.
        SettingsError: the CA file cannot be used.

    """
    if not settings.token and not (settings.email and settings.password):
        raise AccessError(
            "there is no token, and no e-mail and password to get one with",
            hint="bulkusers login, or set BULKUSERS_TOKEN, or BULKUSERS_EMAIL and BULKUSERS_PASSWORD",
        )
    async with connect(settings) as client:
        yield Api(client, settings, brake)


@asynccontextmanager
async def open_for_reading(settings: Settings, brake: Brake) -> AsyncIterator[Api]:
    """Open the way to the API, logged in.

    Raises:
        AccessError: the API does not let us in.
        BulkUsersError: whatever else stopped it.

    """
    async with open_api(settings, brake) as api:
        await api.log_in_first()
        if brake.reason is not None:
            raise brake.reason
        try:
            yield api
        except ApiError:
            if brake.reason is not None:
                raise brake.reason from None  # the first cause; what followed is its echo
            raise


def _reading(send: Send) -> Send:
    """Return a `Send` that is sure to change nothing."""

    async def send_reads(request: Request) -> Response:
        assert request.method in READS, "a read was meant to change nothing"
        return await send(request)

    return send_reads


async def get_token(settings: Settings, send: Send) -> Secret:
    """Log in and return a new token.

    Raises:
        AccessError: the API refuses the account.
        ApiError: the API cannot be reached.

    """
    return await converse(log_in(settings.profile, settings.email, settings.password), send)
