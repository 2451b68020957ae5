"""When requests may start: the pace, pauses and outages, in a loop whose time passes at once."""

import asyncio
from collections.abc import Callable, Iterator

import pytest
from conftest import RunAtOnce

from bulkusers.brake import Brake
from bulkusers.errors import OutageError, TimeUpError, TransportError
from bulkusers.models import Request, Response
from bulkusers.throttle import Traffic

Answer = Response | TransportError
REQUEST = Request("GET", "/")
OK = Response(200)
REFUSED = TransportError("Connection refused", sent=False)


class Api:
    """An API that notes when each request starts, and answers as it is told, in no time unless it is slow."""

    def __init__(
        self, answer: Callable[[float], Answer] = lambda _: OK, *, rate: float = 10, seconds: float = 0
    ) -> None:
        self.starts: list[float] = []
        self.most_under_way = 0
        self._under_way = 0
        self._answer = answer
        self._seconds = seconds
        self.brake = Brake()
        traffic = Traffic(rate, self.brake.pull, self.brake.pulled.is_set, chance=lambda: 0.0)
        self.brake.on_pull(traffic.wake)
        self.send = traffic.guard(self._take)

    async def _take(self, _: Request) -> Response:
        now = asyncio.get_running_loop().time()
        self.starts.append(now)
        self._under_way += 1
        self.most_under_way = max(self.most_under_way, self._under_way)
        try:
            await asyncio.sleep(self._seconds)
        finally:
            self._under_way -= 1
        answer = self._answer(now)
        if isinstance(answer, TransportError):
            raise answer
        return answer

    async def work(self, seconds: float, workers: int = 20) -> None:
        """Let workers send one request after another for a time, or until the run stops."""
        end = asyncio.get_running_loop().time() + seconds

        async def work() -> None:
            while asyncio.get_running_loop().time() < end and self.brake.reason is None:
                try:
                    await self.send(REQUEST)
                except TransportError:
                    await asyncio.sleep(0.01)  # whoever failed goes on with the next user

        await asyncio.gather(*(work() for _ in range(workers)))

    def starts_in(self, begin: float, end: float) -> int:
        """Return how many requests started in a span of time."""
        return sum(begin <= start < end for start in self.starts)

    def busiest_second(self) -> int:
        """Return the most requests that started within any window of one second."""
        return max(self.starts_in(begin, begin + 1) for begin in self.starts)


@pytest.mark.parametrize("rate", [0.5, 1, 10, 50, 333])
def test_no_second_sees_more_than_the_rate(run_at_once: RunAtOnce, rate: float) -> None:
    """In every window of a second there are at most `rate` starts and one more, and the rate is made use of."""
    api = Api(rate=rate)
    run_at_once(api.work(10))
    assert api.busiest_second() <= rate + 1
    assert api.starts_in(0, 10) >= 0.95 * 10 * rate


def test_an_idle_minute_saves_nothing_up(run_at_once: RunAtOnce) -> None:
    """After a pause, requests start as slowly as at the beginning."""
    api = Api()

    async def run() -> None:
        await api.send(REQUEST)
        await asyncio.sleep(60)
        await asyncio.gather(*(api.send(REQUEST) for _ in range(30)))

    run_at_once(run())
    assert len(api.starts) == 31
    assert api.busiest_second() <= 11


def test_a_slow_answer_holds_nobody_else_up(run_at_once: RunAtOnce) -> None:
    """The pace is of starts: requests that wait for their answers take no turn from others."""
    api = Api(seconds=5)

    async def run() -> None:
        await asyncio.gather(*(api.send(REQUEST) for _ in range(10)))

    run_at_once(run())
    assert max(api.starts) < 1.1
    assert api.most_under_way == 10


def test_no_rate_is_no_limit(run_at_once: RunAtOnce) -> None:
    """A thousand requests start in the same instant."""
    api = Api(rate=0)

    async def run() -> None:
        await asyncio.gather(*(api.send(REQUEST) for _ in range(1000)))

    run_at_once(run())
    assert len(api.starts) == 1000
    assert max(api.starts) < 0.1


def test_a_busy_api_is_left_alone_as_long_as_it_asks_by_everybody(run_at_once: RunAtOnce) -> None:
    """The request that was turned away is sent again and answered; the pace halves and creeps back."""
    answers: Iterator[Answer] = iter([*[OK] * 50, Response(429, headers={"Retry-After": "20"})])
    api = Api(lambda _: next(answers, OK))
    run_at_once(api.work(400))
    pause = next(end for begin, end in zip(api.starts, api.starts[1:], strict=False) if end - begin > 19)
    assert 24 < pause < 26
    assert api.starts_in(5.2, pause) == 0
    assert api.starts_in(pause, pause + 20) == pytest.approx(100, abs=4)
    assert api.starts_in(380, 400) == pytest.approx(200, abs=4)
    assert api.brake.reason is None


def test_an_api_that_asks_for_too_much_patience_ends_the_run(run_at_once: RunAtOnce) -> None:
    """It is better resumed later, and nobody goes on waiting."""
    api = Api(lambda _: Response(503, headers={"Retry-After": "3600"}))
    run_at_once(api.work(10_000))
    assert isinstance(api.brake.reason, TimeUpError)
    assert "60 minutes" in str(api.brake.reason)
    assert max(api.starts) < 1


def test_an_api_that_is_too_busy_for_five_minutes_ends_the_run(run_at_once: RunAtOnce) -> None:
    """It is asked less and less often until then."""
    api = Api(lambda _: Response(429))
    run_at_once(api.work(10_000))
    assert isinstance(api.brake.reason, OutageError)
    assert "too busy for 5 minutes" in str(api.brake.reason)
    assert 300 <= max(api.starts) < 400
    assert len(api.starts) < 200


def test_one_request_after_another_probes_an_api_that_is_down(run_at_once: RunAtOnce) -> None:
    """After five that could not be sent nobody else sends; a probe that is answered ends the outage."""
    api = Api(lambda now: REFUSED if now < 200 else OK, rate=50)
    run_at_once(api.work(250))
    down = [start for start in api.starts if start < 209]
    assert len(down) < 5 + 20 + 3
    assert [round(start) for start in down if start > 1] == [30, 90]
    assert [round(start) for start in api.starts if start > 100][:1] == [210]
    assert api.starts_in(211, 250) > 0.95 * 39 * 50
    assert api.brake.reason is None


def test_a_probe_is_one_request_alone(run_at_once: RunAtOnce) -> None:
    """The fifth failure in a row opens the line for nobody but the probe, however long that takes."""
    api = Api(lambda _: REFUSED)
    run_at_once(api.work(20, workers=1))
    assert api.starts_in(0, 20) == 5
    slow = Api(lambda _: REFUSED, seconds=5)
    run_at_once(slow.work(70))
    assert slow.starts_in(10, 70) == 1


def test_an_api_that_is_down_for_a_quarter_of_an_hour_ends_the_run(run_at_once: RunAtOnce) -> None:
    """The rest is better sent later."""
    api = Api(lambda _: REFUSED)
    run_at_once(api.work(10_000))
    assert isinstance(api.brake.reason, OutageError)
    assert "--resume" in api.brake.reason.hint
    assert 890 < max(api.starts) < 910


def test_a_few_failures_among_successes_are_no_outage(run_at_once: RunAtOnce) -> None:
    """Every third request fails, and the others go on at full speed."""
    count = iter(range(10_000))
    api = Api(lambda _: Response(500) if next(count) % 3 == 0 else OK)
    run_at_once(api.work(60))
    assert len(api.starts) > 0.95 * 600


def test_nobody_waits_for_a_turn_when_the_run_stops(run_at_once: RunAtOnce) -> None:
    """Those in line end at once, with a request that was never sent."""
    api = Api(rate=0.01)

    async def run() -> None:
        asyncio.get_running_loop().call_later(5, api.brake.pull, OutageError("enough"))
        ends = await asyncio.gather(*(api.send(REQUEST) for _ in range(20)), return_exceptions=True)
        lost = [end for end in ends if isinstance(end, TransportError)]
        assert len(lost) == 19
        assert not any(error.sent for error in lost)
        assert asyncio.get_running_loop().time() < 6

    run_at_once(run())
    assert len(api.starts) == 1
