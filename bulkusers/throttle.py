"""When requests may start, all workers together: the pace, pauses that the API asks for, and outages."""

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from bulkusers.errors import BulkUsersError, OutageError, TimeUpError, TransportError
from bulkusers.meaning import BUSY_STATUSES, READS
from bulkusers.models import Request, Response, Send
from bulkusers.pace import LONGEST_OUTAGE, Breaker, Pace
from bulkusers.retry import backoff, retry_after

GRAIN: Final = 0.001  # seconds; timers that are set finer make an event loop spin
LONGEST_PAUSE: Final = 300.0  # seconds; beyond, the run is better resumed later
MOST_BUSY: Final = 300.0  # seconds that the API may be too busy without one success
MOST_UNAVAILABLE: Final = 5  # answers of 503 to one read
NO_ERA: Final = -1  # told to those who were woken without a turn
RESUME: Final = "go on later: run again with --resume"


def _never() -> bool:
    """Be no conversation that is under way."""
    return False


class Traffic:
    """Decides when each request of all workers starts, from what became of those before.

    `stop` ends the run, `stopped` tells whether it is to end; who stops it calls `wake`, so that nobody goes on
    waiting. Whoever waits stands in one line with one timer. While nothing is wrong there is neither.
    """

    def __init__(
        self,
        rate: float,
        stop: Callable[[BulkUsersError], None],
        stopped: Callable[[], bool],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._stop_run = stop
        self._stopped = stopped
        self._chance = chance
        self._pace = Pace(rate)
        self._breaker = Breaker()
        self._line: deque[asyncio.Future[int]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._era = 0  # of pauses and outages: what started in an earlier one tells nothing new
        self._paused_until = 0.0
        self._pauses = 0  # since the last success
        self._busy_since: float | None = None  # with nothing but "too busy" ever since

    def guard(self, send: Send, under_way: Callable[[], bool] = _never) -> Send:
        """Return a `Send` that waits for its turn, and sends again what the API was too busy for (429, 503).

        What is `under_way` when the run is to end may go on, unless it would have to wait for the API.

        A write that was answered 503 is handed back after the pause has begun: proxies say it also of what is done.
        So is a read that meets 503 again and again while others pass.

        Raises:
            TransportError: no answer came, or the run stops before it is this request's turn.

        """

        async def send_in_turn(request: Request) -> Response:
            unavailable = 0
            while True:
                era = self._find_turn(under_way)
                while era is None:
                    era = await self._stand_in_line(under_way)
                try:
                    answer = await send(request)
                except TransportError as error:
                    self._learn_bad(era, sent=error.sent)
                    raise
                except (asyncio.CancelledError, Exception):  # it says nothing about the API
                    self._give_back(era)
                    raise
                if answer.status in BUSY_STATUSES:
                    self._hold_back(answer, era)
                    unavailable += answer.status == 503
                    if unavailable and (request.method not in READS or unavailable > MOST_UNAVAILABLE):
                        return answer
                    continue
                if answer.status < 500:
                    self._learn_good(era)
                else:
                    self._learn_bad(era, sent=True)
                return answer

        return send_in_turn

    def guard_lightly(self, send: Send) -> Send:
        """Return a `Send` that waits for its turn, and from whose failures nothing is learned.

        Raises:
            TransportError: no answer came, or the run stops before it is this request's turn.

        """

        async def send_in_turn(request: Request) -> Response:
            era = self._find_turn(_never)
            while era is None:
                era = await self._stand_in_line(_never)
            try:
                return await send(request)
            finally:
                self._give_back(era)

        return send_in_turn

    def wake(self) -> None:
        """Let nobody wait any longer, if the run is to end."""
        if self._stopped():
            for waiting in self._line:
                if not waiting.done():
                    waiting.set_result(NO_ERA)
            self._line.clear()

    def _find_turn(self, under_way: Callable[[], bool]) -> int | None:
        """Return the era if a request may start at once, None if it has to wait."""
        now = asyncio.get_running_loop().time()
        if self._stopped() and (not under_way() or self._hold(now) > 0):
            raise TransportError("the run is stopping", sent=False)
        return None if self._line or self._delay(now) > 0 else self._take(now)

    async def _stand_in_line(self, under_way: Callable[[], bool]) -> int | None:
        """Wait for a turn; return its era, or None if it has passed by then."""
        mine: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._line.append(mine)
        if self._timer is None:
            self._let_on()
        try:
            era = await mine
        except asyncio.CancelledError:
            if not mine.cancelled():  # the turn had come already
                self._give_back(mine.result())
            raise
        if era == self._era and (under_way() or not self._stopped()):
            return era
        return self._find_turn(under_way)

    def _delay(self, now: float) -> float:
        return max(self._hold(now), self._pace.delay(now))

    def _hold(self, now: float) -> float:
        """Return the seconds until the API may be asked anything."""
        return max(self._paused_until - now, self._breaker.delay(now))

    def _take(self, now: float) -> int:
        self._pace.take(now)
        self._breaker.take()
        return self._era

    def _let_on(self) -> None:
        """Let those who may start now do so, and look again when the next may."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = asyncio.get_running_loop().time()
        while self._line:
            if not self._line[0].done():  # a cancelled worker takes no turn
                delay = self._delay(now)
                if delay > 0:
                    if delay < math.inf:
                        self._timer = asyncio.get_running_loop().call_later(max(delay, GRAIN), self._let_on)
                    return
                self._line[0].set_result(self._take(now))
            self._line.popleft()

    def _learn_good(self, era: int) -> None:
        self._pauses = 0
        self._busy_since = None
        if era == self._era:
            was_open = self._breaker.open
            self._breaker.learn_good()
            if was_open:
                self._begin_era()

    def _learn_bad(self, era: int, *, sent: bool) -> None:
        self._busy_since = None
        if era != self._era:
            return
        now = asyncio.get_running_loop().time()
        self._breaker.learn_bad(now, sent=sent)
        if self._breaker.open:
            self._begin_era()
        if self._breaker.is_spent(now):
            self._stop(OutageError(f"the API has been down for {LONGEST_OUTAGE / 60:.0f} minutes", RESUME))

    def _hold_back(self, answer: Response, era: int) -> None:
        """Pause for all workers as long as the API asks, or longer each time if it does not say."""
        now = asyncio.get_running_loop().time()
        wish = retry_after(answer.headers, time.time())
        if self._busy_since is None:
            self._busy_since = now
        if wish is not None and wish > LONGEST_PAUSE:
            self._stop(TimeUpError(f"the API asks to wait {math.ceil(wish / 60)} minutes", RESUME))
        elif now - self._busy_since >= MOST_BUSY:
            self._stop(OutageError(f"the API has been too busy for {MOST_BUSY / 60:.0f} minutes", RESUME))
        if era != self._era:  # one more answer to what began before the pause
            self._paused_until = max(self._paused_until, now + (wish or 0.0))
            return
        self._pauses += 1
        wait = backoff(self._pauses, 1.0) if wish is None else wish
        self._paused_until = now + wait + self._chance()
        self._pace.halve(now, self._paused_until)
        self._breaker.give_back()
        self._begin_era()

    def _give_back(self, era: int) -> None:
        """Leave an unused turn to the next in line."""
        if era == self._era:
            self._breaker.give_back()
            self._let_on()

    def _begin_era(self) -> None:
        self._era += 1
        self._let_on()

    def _stop(self, reason: BulkUsersError) -> None:
        self._stop_run(reason)
        self.wake()
