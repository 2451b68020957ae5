"""How a token that died is replaced while the run goes on."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from bulkusers.errors import AccessError, ApiError, BulkUsersError
from bulkusers.models import Request, Response, Secret, Send

WORTH: Final = 20  # good answers that a login must buy
PATIENCE: Final = 3  # logins in a row that may buy fewer

RIVAL: Final = "logging in to the web app with the same user kills the token: a separate API user helps"


class Bearer(Protocol):
    """Whatever sends the token with each request."""

    token: Secret


LogIn = Callable[[], Awaitable[Secret]]
"""Gets a new token; raises `errors.ApiError` where there is none to be had."""


class Tokens:
    """Replaces the bearer's token when the API no longer accepts it: one login for all workers.

    `stop` is called where that cannot help; then, and ever after, a 401 is an answer like any other.
    """

    def __init__(self, bearer: Bearer, log_in: LogIn | None, stop: Callable[[BulkUsersError], None]) -> None:
        self._bearer = bearer
        self._log_in = log_in
        self._stop = stop
        self._given_up = False
        self._turn = asyncio.Lock()  # a worker that is cancelled in it leaves it to the next
        self._logins = 0  # which token it is; the API may give the same one twice
        self._bought = 0  # good answers since the last login
        self._poor = 0  # logins in a row that bought too few

    def authenticating(self, send: Send) -> Send:
        """Return a `Send` that logs in and sends again where the token is not accepted: a 401 means "not done"."""

        async def send_with_token(request: Request) -> Response:
            while True:
                token = self._logins
                answer = await send(request)
                if answer.status != 401 or not request.authorized:
                    self._bought += request.authorized and answer.status < 500 and token == self._logins
                    return answer
                if not await self._renew(token):
                    return answer

        return send_with_token

    async def _renew(self, refused: int) -> bool:
        """See to it that there is another token than the refused one; tell whether there is."""
        async with self._turn:
            if refused != self._logins:
                return True  # it died before, and somebody has logged in since
            if not self._given_up:
                self._given_up = not await self._replace()
            return not self._given_up

    async def _replace(self) -> bool:
        """Get a new token, unless that is in vain."""
        if self._log_in is None:
            self._stop(
                AccessError(
                    "the API does not accept the token (401), and there is no password to get a new one with",
                    f"a token dies after 24 hours, and {RIVAL}; get a new one with: bulkusers login",
                )
            )
            return False
        if self._logins:
            self._poor = self._poor + 1 if self._bought < WORTH else 0
        if self._poor >= PATIENCE:
            self._stop(
                AccessError(
                    f"{PATIENCE} new tokens in a row died at once (401): somebody else logs in as this user",
                    f"{RIVAL}; close the web app, or take another user, and run again",
                )
            )
            return False
        try:
            self._bearer.token = await self._log_in()
        except ApiError as error:
            self._stop(error)
            return False
        self._logins += 1
        self._bought = 0
        return True
