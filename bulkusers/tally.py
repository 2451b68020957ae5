"""What is counted while a run goes on: outcomes, problems, requests."""

import asyncio
import math
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from bulkusers.errors import BulkUsersError, TransportError
from bulkusers.models import Notice, Outcome, Request, Response, Rows, Send, Status

VALUES_LOST: Final = "values-lost"  # the warning that belongs into every summary
MOST_PROBLEMS: Final = 200  # kinds of problem told apart; the rest is counted by code
GRAIN: Final = 1.02  # ratio between neighbouring latency buckets: percentiles are right to 2 %
AGAIN: Final = {Status.FAILED, Status.UNKNOWN}  # running again helps
IN_TROUBLE: Final = AGAIN | {Status.REJECTED}


@dataclass(slots=True)
class Problem(Rows):
    """One kind of trouble and the rows that have it."""

    status: str
    code: str
    message: str  # of the first such row
    hint: str
    count: int = 0
    rows: list[int] = field(default_factory=list)


class Tally:
    """Counts the outcomes of a file of `rows` rows; a `models.Record`."""

    def __init__(self, rows: int) -> None:
        self.counts: dict[str, int] = {"rows": rows} | {str(status): 0 for status in Status}
        self.losses = Notice(VALUES_LOST, "users lost values that stood in their records")
        self._problems: dict[tuple[str, str, str], Problem] = {}

    def __call__(self, outcome: Outcome) -> None:
        """Count one outcome."""
        self.counts[outcome.status] += 1
        if outcome.code:
            self._count_problem(outcome)
        if outcome.loses:
            self.losses.add(outcome.row)

    def _count_problem(self, outcome: Outcome) -> None:
        # sentences that differ in a row number or an id are one problem
        key = (str(outcome.status), outcome.code, re.sub(r"\d+", "#", outcome.message))
        if key not in self._problems and len(self._problems) >= MOST_PROBLEMS:
            key = (key[0], key[1], "")
        problem = self._problems.setdefault(key, Problem(*key[:2], outcome.message, outcome.hint))
        problem.add(outcome.row)

    @property
    def done(self) -> int:
        """How many rows have their outcome."""
        return sum(self.counts[status] for status in Status)

    def problems(self) -> list[Problem]:
        """Return the problems, those that need a person first, then the most frequent."""
        return sorted(self._problems.values(), key=lambda p: (p.status not in IN_TROUBLE, -p.count))


@dataclass(slots=True)
class Meter:
    """Counts requests and how long their answers took."""

    requests: int = 0
    retries: int = 0  # of what was never sent, of reads, and of logins
    by_status: Counter[int] = field(default_factory=Counter)
    lost: int = 0  # requests without an answer
    longest: float = 0.0  # milliseconds
    _buckets: Counter[int] = field(default_factory=Counter)

    def answered(self, status: int, seconds: float) -> None:
        """Count one answer."""
        ms = seconds * 1000
        self.by_status[status] += 1
        self.longest = max(self.longest, ms)
        self._buckets[round(math.log(max(ms, 0.01), GRAIN))] += 1

    def _percentiles(self, *shares: float) -> Iterator[float]:
        answers = self._buckets.total()
        for share in shares:
            seen = 0
            for bucket in sorted(self._buckets):
                seen += self._buckets[bucket]
                if seen >= share * answers:
                    yield min(GRAIN**bucket, self.longest)
                    break
            else:
                yield 0.0

    def summary(self, seconds: float) -> dict[str, Any]:
        """Return the report's `http` object for a run of `seconds`."""
        p50, p95, p99 = self._percentiles(0.50, 0.95, 0.99)
        return {
            "requests": self.requests,
            "retries": self.retries,
            "throttled": self.by_status[429],
            "lost": self.lost,
            "by_status": {str(status): count for status, count in sorted(self.by_status.items())},
            "latency_ms": {
                "p50": round(p50, 2), "p95": round(p95, 2), "p99": round(p99, 2), "max": round(self.longest, 2),
            },
            "requests_per_second": round(self.requests / seconds, 1) if seconds else 0.0,
        }  # fmt: skip


def metered(send: Send, meter: Meter) -> Send:
    """Return a `Send` that counts the requests which the API may have seen, and their answers."""

    async def send_and_count(request: Request) -> Response:
        began = time.perf_counter()
        try:
            answer = await send(request)
        except TransportError as error:
            meter.requests += error.sent
            meter.lost += error.sent
            raise
        except asyncio.CancelledError:  # cut off in the middle
            meter.requests += 1
            meter.lost += 1
            raise
        meter.requests += 1
        if request.into is None:
            meter.answered(answer.status, time.perf_counter() - began)
        else:  # a list takes as long as it is long, and tells nothing of how late a write may be
            meter.by_status[answer.status] += 1
        return answer

    return send_and_count


def exit_code(counts: dict[str, int], stopped: BulkUsersError | None) -> int:
    """Return the run's exit code: the most severe wins.

    A row that is counted twice or not at all is a bug, and a bug is told before everything else.
    """
    if counts["rows"] != sum(counts[status] for status in Status):
        return 1
    if stopped is not None:
        return stopped.exit_code
    if any(counts[status] for status in AGAIN):
        return 5
    return 6 if counts[Status.REJECTED] else 0
