"""How fast requests may start, and whether at all: pure arithmetic, on a clock that is handed in."""

import math
from collections import deque
from itertools import islice
from typing import Final

BURST: Final = 0.005  # seconds' worth of requests that may start at once; makes up for the timer's grain
SHARE: Final = 0.995  # of the rate that is used: what burst and rate let through in any second stays within the rate
STEP: Final = 30.0  # seconds after which a slowed pace goes up by a tenth of what it was
STREAK: Final = 5  # requests in a row that could not be sent: the API is down
WINDOW: Final = 20  # latest results that are looked at
MOST_BAD: Final = 10  # of them that may be bad: then the API is down
BAD_RUN: Final = 8  # bad results in a row: then it is down, too, and two more requests fit into its first minute
FIRST_WAIT: Final = 30.0  # seconds until the first probe; doubles with each that fails
LONGEST_WAIT: Final = 300.0  # seconds between probes
LONGEST_OUTAGE: Final = 900.0  # seconds without a success


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
