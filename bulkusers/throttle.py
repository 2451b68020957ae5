"""When requests may start, all workers together: the pace, pauses that the API asks for, and outages."""

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Final

from bulkusers.errors import BulkUsersError, OutageError, TimeUpError, TransportError
from bulkusers.meaning import BUSY_STATUSES, READS
from bulkusers.models import Request, Response, Send
from bulkusers.retry import backoff, retry_after

BURST: Final = 0.005  # seconds' worth of requests that may start at once; makes up for the timer's grain
SHARE: Final = 0.995  # of the rate that is used: what burst and rate let through in any second stays within the rate
GRAIN: Final = 0.001  # seconds; timers that are set finer make an event loop spin
STEP: Final = 30.0  # seconds after which a slowed pace goes up by a tenth of what it was
LONGEST_PAUSE: Final = 300.0  # seconds; beyond, the run is better resumed later
MOST_BUSY: Final = 300.0  # seconds that the API may be too busy without one success
MOST_UNAVAILABLE: Final = 5  # answers of 503 to one read
STREAK: Final = 5  # requests in a row that could not be sent: the API is down
WINDOW: Final = 20  # latest results that are looked at
MOST_BAD: Final = 10  # of them that may be bad: then the API is down
BAD_RUN: Final = 8  # bad results in a row: then it is down, too, and two more requests fit into its first minute
FIRST_WAIT: Final = 30.0  # seconds until the first probe; doubles with each that fails
LONGEST_WAIT: Final = 300.0  # seconds between probes
NO_ERA: Final = -1  # told to those who were woken without a turn
LONGEST_OUTAGE: Final = 900.0  # seconds without a success
RESUME: Final = "go on later: run again with --resume"


class Pace:
    """At most `rate` starts in any second, 0 meaning no limit; halved when the API says so, and slowly recovered.

    A leaky bucket of `rate` per second lets almost twice as many through in its first second. A small bucket that
    leaks a hair slower never does, and still reaches 99.5 % of the rate from 10/s to 2,000/s.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate  # now
        self._asked = rate
        self._top = rate  # what a slowed pace recovers to
        self._stepped = 0.0  # when it last recovered
        self._level = 0.0  # of the bucket, when it was last filled
        self._filled = 0.0
        self._starts: deque[float] = deque()  # within the last second, where no limit was asked for

    def delay(self, now: float) -> float:
        """Return the seconds until the next start; 0 or less where it may be now."""
        if self.rate != self._asked:
            self._recover(now)
        if not self.rate:
            return 0.0
        return (self._level - BURST * self.rate) / (SHARE * self.rate) - (now - self._filled)

    def take(self, now: float) -> None:
        """Take note of a start."""
        if self.rate:
            self._level = 1 + max(self._level - SHARE * self.rate * (now - self._filled), 0.0)
            self._filled = now
        if not self._asked:
            self._starts.append(now)
            self._forget(now)

    def halve(self, now: float, until: float) -> None:
        """Go half as fast, though not below one a second, and begin to recover after `until`."""
        if not self.rate:
            self._forget(now)
            self.rate = self._top = max(len(self._starts), 2.0)  # what was really sent
        self.rate = max(self.rate / 2, min(self.rate, 1.0))
        self._stepped = until

    def _forget(self, now: float) -> None:
        while self._starts and self._starts[0] <= now - 1:
            self._starts.popleft()

    def _recover(self, now: float) -> None:
        while now >= self._stepped + STEP:
            self._stepped += STEP
            self.rate += self._top / 10
            if self.rate >= self._top:
                self.rate = self._asked
                return


class Breaker:
    """Opens when the API is down, so that nobody sends; then one request after another probes whether it is back."""

    def __init__(self) -> None:
        self.open = False
        self._probing = False  # the one request is under way
        self._next = 0.0  # when it may start
        self._wait = FIRST_WAIT
        self._streak = 0  # requests that could not be sent, in a row
        self._recent: deque[bool] = deque(maxlen=WINDOW)  # whether they were bad
        self._since: float | None = None  # the first bad result after the latest good one

    def delay(self, now: float) -> float:
        """Return the seconds until the next start; infinity where that depends on the probe."""
        if not self.open:
            return 0.0
        return math.inf if self._probing else self._next - now

    def take(self) -> None:
        """Take note of a start: while the API is down, it is the probe."""
        self._probing = self.open

    def give_back(self) -> None:
        """Take note that the probe told nothing; the next request is another."""
        self._probing = False

    def learn_good(self) -> None:
        """Take note of a good answer: the probe's shows that the API is back."""
        self._streak = 0
        self._since = None
        self._recent.append(False)
        if self.open:
            self.open = self._probing = False
            self._recent.clear()

    def learn_bad(self, now: float, *, sent: bool) -> None:
        """Take note of a request that could not be sent, or got no good answer."""
        self._since = now if self._since is None else self._since
        if self.open:
            self._probing = False
            self._wait = min(2 * self._wait, LONGEST_WAIT)
        else:
            self._streak = 0 if sent else self._streak + 1
            self._recent.append(True)
            run = list(islice(reversed(self._recent), BAD_RUN))
            if self._streak < STREAK and sum(self._recent) < MOST_BAD and (len(run) < BAD_RUN or not all(run)):
                return
            self.open = True
            self._wait = FIRST_WAIT
        self._next = min(now + self._wait, self._since + LONGEST_OUTAGE)

    def is_spent(self, now: float) -> bool:
        """Tell whether the API has been down for too long."""
        return self.open and self._since is not None and now >= self._since + LONGEST_OUTAGE


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

    def guard(self, send: Send, under_way: Callable[[], bool] = lambda: False) -> Send:
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
