"""What stops a run before its end, and what makes it stop."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from bulkusers.answers import FORBIDDEN, WRONG_PLACE
from bulkusers.errors import AccessError, ApiError, BulkUsersError, CapError, TransportError
from bulkusers.models import Outcome, Request, Response, Send

ALIKE: Final = 10  # first rows refused in the same way: it is not the rows


class Brake:
    """Stops a run: nothing new is sent, what is under way is finished, the rest is `unprocessed`."""

    def __init__(self) -> None:
        self.reason: BulkUsersError | None = None
        self.pulled = asyncio.Event()
        self._wakers: list[Callable[[], None]] = []

    def pull(self, reason: BulkUsersError) -> None:
        """Stop for `reason`; the first is the cause, later ones are its echoes."""
        if self.reason is None:
            self.reason = reason
            self.pulled.set()
            for wake in self._wakers:
                wake()

    def on_pull(self, wake: Callable[[], None]) -> None:
        """Call `wake` when the brake is pulled: nobody is to go on waiting for something to send."""
        self._wakers.append(wake)

    async def sleep(self, seconds: float) -> None:
        """Wait, but no longer than until the run stops.

        Raises:
            TransportError: the run stops; what was to follow the wait is not to be sent.

        """
        with suppress(TimeoutError):
            await asyncio.wait_for(self.pulled.wait(), seconds)
        if self.reason is not None:
            raise TransportError("the run is stopping", sent=False)


REFUSALS: Final = ("refused-3", "refused-4")  # a 5xx is no refusal: that the API is down is for the breaker to find


class Suspicion:
    """Notices outcomes that say more of the run than of their users, and pulls the brake."""

    def __init__(self, brake: Brake) -> None:
        self._brake = brake
        self._streak: list[str] = []  # codes since the last that differed, at most ALIKE
        self._only = True  # no other outcome came before the streak

    def __call__(self, outcome: Outcome) -> None:
        """Look at one user's outcome; a `models.Record`."""
        if not outcome.code:
            self._streak.clear()
            self._only = False
            return
        if self._streak and outcome.code != self._streak[-1]:
            self._streak.clear()
            self._only = False
        if len(self._streak) < ALIKE:
            self._streak.append(outcome.code)
        length = len(self._streak)
        if outcome.code == FORBIDDEN and (self._only or length >= 3):
            self._brake.pull(
                AccessError(
                    "the API does not let this account write users (403)",
                    "use an account whose role has the permission, and get its token with: bulkusers login",
                )
            )
        elif outcome.code.startswith(REFUSALS) and self._only and length >= ALIKE:
            self._brake.pull(
                CapError(
                    f"the first {ALIKE} rows were all refused alike: {outcome.message}",
                    WRONG_PLACE,
                )
            )


def braking(send: Send, brake: Brake) -> Send:
    """Return a `Send` that stops the run where the API cannot be spoken to at all, such as for its certificate."""

    async def send_or_stop(request: Request) -> Response:
        try:
            return await send(request)
        except TransportError:
            raise
        except ApiError as error:
            brake.pull(error)
            raise TransportError(str(error), error.hint, sent=False) from None

    return send_or_stop
