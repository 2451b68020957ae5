"""What is sent again, when, and how often."""

import random
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Final

from bulkusers.errors import TransportError
from bulkusers.meaning import BUSY_STATUSES, READS
from bulkusers.models import Request, Response, Send

FIRST_BACKOFF: Final = 0.5  # seconds, at most; doubles with every attempt
LONGEST_BACKOFF: Final = 30.0  # seconds
TOKENS: Final = 100  # what a retry budget holds
PRICE: Final = 5  # tokens for a retry; a success gives one back
LONGEST_WAIT: Final = 1e9  # seconds; whoever asks for more means "never"

MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
MONTH: Final = rf"(?P<month>{'|'.join(MONTHS)})"
TIME: Final = r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
DATES: Final = tuple(
    re.compile(form)
    for form in (
        rf"[A-Z][a-z]{{2}}, (?P<day>[0-9]{{2}}) {MONTH} (?P<year>[0-9]{{4}}) {TIME} GMT",
        rf"[A-Z][a-z]{{5,8}}, (?P<day>[0-9]{{2}})-{MONTH}-(?P<year>[0-9]{{2}}) {TIME} GMT",  # RFC 850
        rf"[A-Z][a-z]{{2}} {MONTH} (?P<day>[ 0-9][0-9]) {TIME} (?P<year>[0-9]{{4}})",  # C's asctime
    )
)


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return how many seconds an answer asks to wait; None where it does not say, or not so that it can be read.

    A date is taken relative to the answer's own, because clocks differ; without one, to `now`, seconds since 1970.
    Source: RFC 9110 10.2.3 and 5.6.7.
    """
    wish = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]+", wish):
        return min(float(wish), LONGEST_WAIT)
    moment = _read_date(wish, now)
    if moment is None:
        return None
    answered = _read_date(headers.get("Date", "").strip(), now)
    return min(max(moment - (now if answered is None else answered), 0.0), LONGEST_WAIT)


def _read_date(text: str, now: float) -> float | None:
    """Return the seconds since 1970 of an HTTP date."""
    found = next((match for form in DATES if (match := form.fullmatch(text))), None)
    if found is None:
        return None
    year = int(found["year"])
    try:
        if len(found["year"]) == 2:
            latest = datetime.fromtimestamp(now, UTC).year + 50  # what would be later is meant to be past
            year = latest - (latest - year) % 100
        return datetime(
            year, 1 + MONTHS.index(found["month"]), int(found["day"]),
            int(found["hour"]), int(found["minute"]), min(int(found["second"]), 59), tzinfo=UTC,
        ).timestamp()  # fmt: skip
    except (ValueError, OverflowError, OSError):  # the 31st of February; a clock beyond the calendar
        return None


def backoff(attempt: int, chance: float) -> float:
    """Return how many seconds to wait before an attempt is repeated, the first being number 0.

    `chance`, between 0 and 1, spreads those who failed together.
    """
    doublings = min(attempt, 10)  # no power of two that is too large for a float
    return chance * min(LONGEST_BACKOFF, FIRST_BACKOFF * 2.0**doublings)


class Budget:
    """Pays for retries out of successes: a few failures are repeated, a storm of them is not."""

    def __init__(self) -> None:
        self._tokens = TOKENS

    def take(self) -> bool:
        """Pay for one retry; tell whether there was enough left."""
        if self._tokens < PRICE:
            return False
        self._tokens -= PRICE
        return True

    def earn(self) -> None:
        """Take note of a success."""
        self._tokens = min(self._tokens + 1, TOKENS)


def retrying(
    send: Send,
    *,
    retries: int,
    budget: Budget,
    pause: Callable[[float], Awaitable[None]],
    chance: Callable[[], float] = random.random,
) -> Send:
    """Return a `Send` that sends again what was never sent, and every read without a usable answer.

    A write that may have been taken is not sent again: only its conversation knows how to find out. The one sender
    of what the API was too busy for (503) is the guard of `throttle`.

    Raises:
        TransportError: no answer came to the last attempt, or the run stops during a pause.

    """

    async def send_again(request: Request) -> Response:
        attempt = 0
        while True:
            try:
                answer = await send(request)
            except TransportError as error:
                repeatable = not error.sent or request.method in READS
                if not repeatable or attempt >= retries or not budget.take():
                    raise
            else:
                if answer.status < 500:
                    budget.earn()
                    return answer
                repeatable = request.method in READS and answer.status not in BUSY_STATUSES
                if not repeatable or attempt >= retries or not budget.take():
                    return answer
            await pause(backoff(attempt, chance()))
            attempt += 1

    return send_again
