"""What many workers do together when the API is fast, busy, or down; in a loop where hours pass at once."""

import asyncio
import math
import time
from collections.abc import Callable
from itertools import pairwise

import pytest
from conftest import RunAtOnce
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bulkusers.errors import BulkUsersError, OutageError, TimeUpError, TransportError
from bulkusers.models import Request, Response, Send
from bulkusers.throttle import Traffic

REQUEST = Request("GET", "/")
GOOD = Response(200)
LOST = TransportError("the connection broke", sent=True)
NEVER_SENT = TransportError("no connection to the API", sent=False)
Said = Response | TransportError


def busy(after: float | None = None, status: int = 429) -> Response:
    """Return an answer that asks to wait."""
    return Response(status, headers={} if after is None else {"Retry-After": str(after)})


class Scene:
    """An API that says what `says(second, count of the request)` returns, and workers who send to it."""

    def __init__(self, says: Callable[[float, int], Said], rate: float, chance: float, latency: float) -> None:
        self.says = says
        self.latency = latency
        self.starts: list[float] = []
        self.ends: list[float] = []
        self.sender: asyncio.Task[None] | None = None  # of the latest request
        self.heard: list[Said] = []
        self.got: list[Said] = []  # by the workers, from the guard
        self.stops: list[BulkUsersError] = []
        self.traffic = Traffic(rate, self.stops.append, lambda: bool(self.stops), lambda: chance)
        self.send: Send = self.traffic.guard(self.answer)

    async def answer(self, _: Request) -> Response:
        """Play the API's part."""
        loop = asyncio.get_running_loop()
        number = len(self.starts)
        self.starts.append(loop.time())
        self.sender = asyncio.current_task()
        said = self.says(loop.time(), number)
        await asyncio.sleep(self.latency)
        self.ends.append(loop.time())
        self.heard.append(said)
        if isinstance(said, TransportError):
            raise said
        return said

    async def work(self, until: float = math.inf) -> None:
        """Send one request after another."""
        while asyncio.get_running_loop().time() < until and not self.stops:
            try:
                self.got.append(await self.send(REQUEST))
            except TransportError as error:
                self.got.append(error)

    async def play(self, until: float = math.inf, workers: int = 20) -> None:
        """Let workers send until a moment, or until the run stops."""
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(self.work(until))

    def started(self, begin: float, end: float = math.inf) -> int:
        """Return how many requests started after `begin` and before `end`."""
        return sum(begin < start < end for start in self.starts)

    def busiest_second(self, begin: float = 0.0) -> int:
        """Return the most requests that started within any window of one second after `begin`."""
        starts = [start for start in self.starts if start >= begin]
        most = first = 0
        for last, start in enumerate(starts):
            while starts[first] <= start - 1:
                first += 1
            most = max(most, last - first + 1)
        return most


SetScene = Callable[..., Scene]


@pytest.fixture
def set_scene() -> SetScene:
    """Return a function that sets a scene: what the API says, how fast it may be asked, how slowly it answers."""

    def make(
        says: Callable[[float, int], Said] = lambda _now, _number: GOOD,
        *,
        rate: float = 50,
        chance: float = 0.5,
        latency: float = 0.01,
    ) -> Scene:
        return Scene(says, rate, chance, latency)

    return make


def test_two_thousand_a_second_are_reached_and_not_passed(run_at_once: RunAtOnce, set_scene: SetScene) -> None:
    """Timers are coarser than that; whoever starts together with another makes up for it."""
    scene = set_scene(rate=2000, latency=0.001)
    run_at_once(scene.play(10))
    assert scene.busiest_second() <= 2001
    assert scene.started(-1, 10) >= 0.98 * 10 * 2000


def test_turns_come_in_the_order_of_asking(run_at_once: RunAtOnce, set_scene: SetScene) -> None:
    """Nobody is overtaken, and a cancelled worker takes no turn from the others."""
    scene = set_scene(rate=10)
    order: list[int] = []

    async def ask(number: int) -> None:
        await scene.send(REQUEST)
        order.append(number)

    async def run() -> None:
        tasks = [asyncio.create_task(ask(number)) for number in range(20)]
        await asyncio.sleep(0.45)
        for task in tasks[10:15]:
            task.cancel()
        await asyncio.wait(tasks)

    run_at_once(run())
    assert order == [*range(10), *range(15, 20)]
    assert scene.starts[-1] < 15 / 10


def test_whoever_comes_when_a_turn_is_due_does_not_take_it(run_at_once: RunAtOnce, set_scene: SetScene) -> None:
    """The line's timer is coarser than the pace: a turn may be due before those in line hear of it."""
    scene = set_scene(rate=2000)
    order: list[str] = []

    async def answer(request: Request) -> Response:
        order.append(request.path)
        return GOOD

    async def run() -> None:
        send = scene.traffic.guard(answer)
        early = asyncio.gather(*(send(Request("GET", "/early")) for _ in range(12)))
        await asyncio.sleep(0.0008)
        assert len(order) == 11, "one is in line"
        await send(Request("GET", "/late"))
        await early

    run_at_once(run())
    assert order == ["/early"] * 12 + ["/late"]


def test_nothing_wrong_costs_nothing(set_scene: SetScene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a limit, a good answer takes no timer, no future and no task."""
    scene = set_scene(rate=0, latency=0)
    ready = asyncio.new_event_loop()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something was made for a request")

    async def answer(_: Request) -> Response:
        return GOOD

    async def run() -> None:
        send = scene.traffic.guard(answer)
        for name in ("call_later", "call_at", "create_future", "create_task"):
            monkeypatch.setattr(ready, name, refuse)
        for _ in range(1000):
            assert await send(REQUEST) is GOOD
        monkeypatch.undo()

    ready.run_until_complete(run())
    ready.close()


def test_what_was_sent_is_remembered_for_a_second(run_at_once: RunAtOnce, set_scene: SetScene) -> None:
    """A run of a million rows without a limit takes no more memory than a short one."""
    scene = set_scene(rate=0, latency=0.1)
    run_at_once(scene.play(30))
    assert len(scene.starts) > 5000
    assert len(scene.traffic._pace._starts) <= 220  # noqa: SLF001 - memory is all that shows


@pytest.mark.parametrize("status", [429, 503])
def test_nothing_goes_out_during_a_pause(run_at_once: RunAtOnce, set_scene: SetScene, status: int) -> None:
    """One worker hears "wait 20 seconds", and all wait, up to a second longer; then it is sent again, by itself."""
    scene = set_scene(lambda _, number: busy(20, status) if number == 100 else GOOD)
    run_at_once(scene.play(60))
    pause = scene.ends[scene.heard.index(busy(20, status))]
    assert scene.started(pause, pause + 20) == 0
    assert 0 < scene.started(pause + 20, pause + 21) < 25
    assert set(map(id, scene.got)) == {id(GOOD)}, "the guard passes no 429 on"
    assert len(scene.got) == len(scene.starts) - 1
    assert scene.stops == []


def test_a_turn_that_comes_with_a_pause_is_not_taken(run_at_once: RunAtOnce, set_scene: SetScene) -> None:
    """A worker has it, but before it knows, another hears that all are to wait."""
    scene = set_scene(rate=1)

    async def run() -> None:
        loop = asyncio.get_running_loop()
        refused: asyncio.Future[Response] = loop.create_future()

        async def answer(_: Request) -> Response:
            return await refused

        first = asyncio.ensure_future(scene.traffic.guard(answer)(REQUEST))
        await asyncio.sleep(0.1)
        second = asyncio.ensure_future(scene.send(REQUEST))
        await asyncio.sleep(0.1)
        traffic = scene.traffic

        def refuse() -> None:
            if traffic._delay(loop.time()) > 0:  # noqa: SLF001 - the moment between having a turn and knowing it
                loop.call_soon(refuse)
            else:
                refused.set_result(busy(20))
                traffic._let_on()  # noqa: SLF001 - as the timer does

        loop.call_at(1, refuse)
        assert await second is GOOD
        first.cancel()

    run_at_once(run())
    assert scene.starts[0] > 21


def test_many_refusals_at_once_are_one_pause(run_at_once: RunAtOnce, set_scene: SetScene) -> None:
    """The pace is halved once, and not once for each worker who was refused."""
    scene = set_scene(lambda now, _: busy(5) if 10 <= now < 10.4 else GOOD, latency=0.5)
    run_at_once(scene.play(40))
    assert scene.heard.count(busy(5)) > 5
    first, last = (f(e for e, said in zip(scene.ends, scene.heard, strict=True) if said != GOOD) for f in (min, max))
    assert scene.started(first, last + 5) == 0
    assert 20 <= scene.busiest_second(15) <= 26


def test_a_halved_pace_creeps_back(run_at_once: RunAtOnce, set_scene: SetScene) -> None:
    """A tenth of what was asked for every half minute, until it is that again, and never more."""
    scene = set_scene(lambda _, number: busy(10) if number == 500 else GOOD, chance=0.0)
    run_at_once(scene.play(300))
    end = scene.ends[scene.heard.index(busy(10))] + 10
    counts = [scene.started(end + 30 * step, end + 30 * (step + 1)) / 30 for step in range(8)]
    assert counts == pytest.approx([25, 30, 35, 40, 45, 50, 50, 50], rel=0.02)
    assert scene.busiest_second() <= 51


def test_without_a_limit_half_of_what_was_sent_is_the_pace(run_at_once: RunAtOnce, set_scene: SetScene) -> None:
    """What the API could not bear is known from the last second; in the end there is no limit again."""
    scene = set_scene(lambda _, number: busy(10) if number == 200 else GOOD, rate=0, chance=0.0, latency=0.45)
    run_at_once(scene.play(240))
    end = scene.ends[scene.heard.index(busy(10))] + 10
    counts = [scene.started(end + 30 * step, end + 30 * (step + 1)) / 30 for step in range(7)]
    assert counts == pytest.approx([20, 24, 28, 32, 36, 44, 44], rel=0.05)
    assert scene.traffic._pace.rate == 0  # noqa: SLF001 - twenty workers cannot show that there is none


def test_a_pace_is_never_slower_than_one_a_second(run_at_once: RunAtOnce, set_scene: SetScene) -> None:
    """However often the API says that it is too busy."""
    scene = set_scene(lambda _, number: busy(0) if number < 40 else GOOD, rate=10)
    run_at_once(scene.play(100))
    assert scene.heard.count(busy(0)) == 40
    recovered = max(end for end, said in zip(scene.ends, scene.heard, strict=True) if said != GOOD)
    assert scene.started(recovered, recovered + 25) >= 20


@pytest.mark.parametrize("rate", [0.2, 0.5, 1.0])
def test_a_slow_pace_is_not_made_slower(run_at_once: RunAtOnce, set_scene: SetScene, rate: float) -> None:
    """Nor faster: who asks for less than one a second gets that."""
    scene = set_scene(lambda _, number: busy(1) if number == 3 else GOOD, rate=rate)
    run_at_once(scene.play(200, workers=2))
    assert len(scene.starts) == pytest.approx(200 * rate, abs=4)
    assert scene.busiest_second() <= 2


def test_a_pause_grows_where_the_api_does_not_say_how_long(run_at_once: RunAtOnce, set_scene: SetScene) -> None:
    """One second, two, four, up to half a minute; a success ends the series."""
    scene = set_scene(lambda _, number: busy() if number < 7 or number == 8 else GOOD, chance=0.0)
    run_at_once(scene.play(150, workers=1))
    gaps = [after - before for before, after in pairwise(scene.starts[:10])]
    assert gaps == pytest.approx([1, 2, 4, 8, 16, 30, 30, 1, 1], abs=0.1)


def test_a_pause_lasts_a_little_longer_by_chance(run_at_once: RunAtOnce, set_scene: SetScene) -> None:
    """Two programs that were refused together do not come back together."""
    for chance in (0.0, 0.25, 0.999):
        scene = set_scene(lambda _, number: busy(10) if number == 0 else GOOD, chance=chance)
        run_at_once(scene.play(12, workers=1))
        assert scene.starts[1] == pytest.approx(10 + chance, abs=0.05)


@pytest.mark.parametrize(("after", "minutes"), [(301, 6), (3600, 60)])
def test_an_api_that_asks_for_too_long_a_pause_ends_the_run(
    run_at_once: RunAtOnce, set_scene: SetScene, after: float, minutes: int
) -> None:
    """The run can be resumed; whoever waits is told at once."""
    scene = set_scene(lambda _, number: busy(after) if number == 100 else GOOD)
    run_at_once(scene.play())
    (stop,) = scene.stops
    assert isinstance(stop, TimeUpError)
    assert (stop.exit_code, str(stop)) == (10, f"the API asks to wait {minutes} minutes")
    assert max(scene.ends) < 5


def test_a_pause_of_five_minutes_is_waited_for(run_at_once: RunAtOnce, set_scene: SetScene) -> None:
    """That is the longest."""
    scene = set_scene(lambda _, number: busy(300) if number == 100 else GOOD)
    run_at_once(scene.play(310))
    assert scene.stops == []
    assert scene.started(302.1) > 0


@pytest.mark.parametrize("answer", [busy(), busy(0), busy(20), busy(status=503)])
def test_five_minutes_of_nothing_but_busy_end_the_run(
    run_at_once: RunAtOnce, set_scene: SetScene, answer: Response
) -> None:
    """An API that answers nobody else is down."""
    scene = set_scene(lambda now, _: answer if now > 10 else GOOD)
    run_at_once(scene.play())
    (stop,) = scene.stops
    assert isinstance(stop, OutageError)
    assert stop.exit_code == 7
    assert 310 <= max(scene.ends) < 345


def test_busy_and_bad_by_turns_are_not_five_minutes_of_busy(run_at_once: RunAtOnce, set_scene: SetScene) -> None:
    """Whatever else is wrong is another trouble, with another patience."""
    scene = set_scene(lambda _, number: LOST if number in {9, 18} else busy(20) if number < 27 else GOOD)
    run_at_once(scene.play(600, workers=1))
    assert scene.stops == []
    assert scene.heard.count(busy(20)) == 25


def test_one_success_in_five_minutes_is_enough(run_at_once: RunAtOnce, set_scene: SetScene) -> None:
    """A slow run is better than none."""
    scene = set_scene(lambda _, number: GOOD if number % 9 == 0 else busy(20))
    run_at_once(scene.play(1500))
    assert scene.stops == []
    assert scene.heard.count(GOOD) > 5


@pytest.mark.parametrize("bad", [NEVER_SENT, LOST, Response(502)])
def test_an_outage_of_a_minute_costs_ten_requests_at_most(
    run_at_once: RunAtOnce, set_scene: SetScene, bad: Said
) -> None:
    """With twenty workers at fifty a second; and the run goes on by itself."""
    scene = set_scene(lambda now, _: bad if 10 <= now < 70 else GOOD)
    run_at_once(scene.play(130))
    assert 5 <= scene.heard.count(bad) <= 10
    assert scene.stops == []
    assert scene.started(101, 130) > 0.98 * 29 * 50


def test_probes_come_one_at_a_time_and_ever_more_slowly(run_at_once: RunAtOnce, set_scene: SetScene) -> None:
    """After 30 s, 60 s, 120 s, 240 s, 300 s, and a last one when a quarter of an hour is over: it ends the run."""
    scene = set_scene(lambda now, _: NEVER_SENT if now >= 10 else GOOD, latency=0.0)
    run_at_once(scene.play())
    (stop,) = scene.stops
    assert isinstance(stop, OutageError)
    assert stop.exit_code == 7
    down = [start for start in scene.starts if start >= 10]
    assert [start - down[0] for start in down[5:]] == pytest.approx([30, 90, 210, 450, 750, 900], abs=0.2)


def test_while_a_probe_is_under_way_nobody_else_sends(run_at_once: RunAtOnce, set_scene: SetScene) -> None:
    """However long it takes."""
    scene = set_scene(lambda now, _: NEVER_SENT if 10 <= now < 20 else GOOD)

    async def run() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(scene.play(100))
            await asyncio.sleep(30)
            scene.latency = 25

    run_at_once(run())
    assert scene.started(11, 65) == 1
    assert scene.started(65, 70) > 15


@pytest.mark.parametrize("bad", [LOST, Response(500), Response(502), Response(504)])
def test_ten_bad_results_of_the_last_twenty_are_an_outage(
    run_at_once: RunAtOnce, set_scene: SetScene, bad: Said
) -> None:
    """Every other one bad: after nine nobody has noticed, after ten nobody sends."""
    scene = set_scene(lambda now, number: bad if number % 2 and now < 15 else GOOD, rate=10)
    run_at_once(scene.play(60, workers=1))
    assert scene.heard.count(bad) == 10
    assert scene.started(3, 31) == 0
    assert scene.started(31, 60) > 250


@pytest.mark.parametrize("bad", [LOST, NEVER_SENT, Response(500)])
def test_a_row_that_fails_among_others_is_no_outage(run_at_once: RunAtOnce, set_scene: SetScene, bad: Said) -> None:
    """One of three is that row's trouble; its error is passed on as it is."""
    scene = set_scene(lambda _, number: bad if number % 3 == 0 else GOOD)
    run_at_once(scene.play(60))
    assert len(scene.starts) > 0.98 * 60 * 50
    assert scene.got.count(bad) == pytest.approx(len(scene.starts) / 3, abs=1)


@pytest.mark.parametrize("status", [200, 302, 400, 401, 403, 404, 409, 422])
def test_an_answer_below_500_is_no_outage(run_at_once: RunAtOnce, set_scene: SetScene, status: int) -> None:
    """The API is there, whatever it thinks of the request."""
    scene = set_scene(lambda _now, _number: Response(status))
    run_at_once(scene.play(10))
    assert len(scene.starts) > 0.98 * 10 * 50


def test_late_failures_do_not_bring_an_outage_back(run_at_once: RunAtOnce, set_scene: SetScene) -> None:
    """What was under way when the API went down may be told long after it is back."""
    scene = set_scene(lambda now, _: NEVER_SENT if 10 <= now < 20 else GOOD)
    slow = Scene(lambda _now, _number: LOST, 0, 0.5, 60)
    send_slowly = scene.traffic.guard(slow.answer)

    async def run() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(scene.play(100))
            await asyncio.sleep(9)
            lost = await asyncio.gather(*(send_slowly(REQUEST) for _ in range(20)), return_exceptions=True)
            assert set(lost) == {LOST}

    run_at_once(run())
    assert min(slow.ends) > 60
    assert scene.started(50, 100) > 0.98 * 50 * 50 - 20


def test_failures_that_were_under_way_do_not_lengthen_an_outage(run_at_once: RunAtOnce, set_scene: SetScene) -> None:
    """Twenty fail at once; the fifth is enough, and what comes after it tells nothing new."""
    scene = set_scene(lambda now, _: NEVER_SENT if 10 <= now < 20 else GOOD, rate=0, latency=0.5)
    run_at_once(scene.play(50))
    assert 20 <= scene.heard.count(NEVER_SENT) <= 24
    assert scene.started(11, 40) == 0
    assert scene.started(40, 41) == 1
    assert scene.started(41, 42) >= 20


def test_a_late_success_does_not_end_an_outage(run_at_once: RunAtOnce, set_scene: SetScene) -> None:
    """It tells of the time before; only the probe tells of now."""
    scene = set_scene(lambda now, _: NEVER_SENT if 10 <= now < 20 else GOOD)
    slow = Scene(lambda _now, _number: GOOD, 0, 0.5, 15)

    async def run() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(scene.play(60))
            await asyncio.sleep(5)
            assert await scene.traffic.guard(slow.answer)(REQUEST) is GOOD

    run_at_once(run())
    assert 19 < slow.ends[0] < 21
    assert scene.started(11, 40) == 0


def test_everybody_goes_on_after_the_probe(run_at_once: RunAtOnce, set_scene: SetScene) -> None:
    """Also where whoever probed has nothing more to send."""
    scene = set_scene(lambda now, _: NEVER_SENT if now < 20 else GOOD)

    async def run() -> None:
        await asyncio.gather(*(scene.send(REQUEST) for _ in range(5)), return_exceptions=True)
        async with asyncio.timeout(60):
            assert await asyncio.gather(*(scene.send(REQUEST) for _ in range(3))) == [GOOD] * 3

    run_at_once(run())


def test_each_outage_is_counted_from_its_own_beginning(run_at_once: RunAtOnce, set_scene: SetScene) -> None:
    """A success between two makes the second a new one: it is probed as soon, and has its own quarter of an hour."""
    scene = set_scene(lambda now, _: NEVER_SENT if 10 <= now < 60 or 950 <= now < 970 else GOOD, rate=5)
    run_at_once(scene.play(1000))
    assert scene.stops == []
    second = [start for start in scene.starts if start >= 950]
    assert second[5] - second[0] == pytest.approx(31, abs=0.5)
    assert scene.started(982) > 80


def test_results_before_an_outage_are_not_held_against_the_api_after_it(
    run_at_once: RunAtOnce, set_scene: SetScene
) -> None:
    """One bad result after it is one bad result."""
    scene = set_scene(lambda _, number: LOST if number < 8 or number == 10 else GOOD, rate=10)
    run_at_once(scene.play(60, workers=1))
    assert scene.started(31, 60) > 0.95 * 10 * 28


@pytest.mark.parametrize(
    "script", [[LOST] * 7, [*[NEVER_SENT] * 4, LOST, *[NEVER_SENT] * 2], [*[NEVER_SENT] * 4, GOOD, *[NEVER_SENT] * 4]]
)
def test_less_than_five_unsent_and_eight_bad_in_a_row_are_no_outage(
    run_at_once: RunAtOnce, set_scene: SetScene, script: list[Said]
) -> None:
    """A request without an answer was sent at least: somebody is there."""
    scene = set_scene(lambda _, number: script[number] if number < len(script) else GOOD, rate=10)
    run_at_once(scene.play(10, workers=1))
    assert scene.started(-1, 10) > 95


def test_a_probe_that_finds_the_api_busy_is_followed_by_another(run_at_once: RunAtOnce, set_scene: SetScene) -> None:
    """Busy is neither down nor back: the pause is kept, then one request tries again."""
    scene = set_scene(lambda now, _: NEVER_SENT if 10 <= now < 20 else busy(7, 503) if 20 <= now < 45 else GOOD)
    run_at_once(scene.play(60))
    down = [start for start in scene.starts if start >= 10]
    assert down[5] == pytest.approx(40, abs=0.2)
    assert down[6] == pytest.approx(47.5, abs=0.2)
    assert scene.started(48, 60) > 0.9 * 12 * 25
    assert scene.stops == []


def test_a_cancelled_probe_leaves_its_turn_to_another(run_at_once: RunAtOnce, set_scene: SetScene) -> None:
    """A worker that is ended in the middle of it must not keep all others waiting for ever."""
    scene = set_scene(lambda now, _: NEVER_SENT if 10 <= now < 20 else GOOD)

    async def run() -> None:
        tasks = [asyncio.ensure_future(scene.work(60)) for _ in range(20)]
        await asyncio.sleep(30)
        scene.latency = 10
        await asyncio.sleep(12)
        scene.latency = 0.01
        assert scene.started(30, 42) == 1
        assert scene.sender is not None
        cancelled = scene.sender
        cancelled.cancel()
        _, hanging = await asyncio.wait(tasks, timeout=100)
        assert not hanging
        assert [task for task in tasks if task.cancelled()] == [cancelled]

    run_at_once(run())
    assert scene.started(42, 60) > 0.98 * 18 * 50


def test_a_worker_cancelled_as_its_probe_begins_leaves_its_turn(run_at_once: RunAtOnce, set_scene: SetScene) -> None:
    """Its turn had come, but it was ended before it knew."""
    scene = set_scene(lambda now, _: NEVER_SENT if now < 20 else GOOD, latency=0.0)

    async def run() -> None:
        for _ in range(5):
            with pytest.raises(TransportError):
                await scene.send(REQUEST)
        first, second = (asyncio.ensure_future(scene.send(REQUEST)) for _ in range(2))
        await asyncio.sleep(1)
        timer = scene.traffic._timer  # noqa: SLF001 - the moment between having a turn and knowing it
        assert timer is not None
        asyncio.get_running_loop().call_at(timer.when() + 1e-10, first.cancel)
        assert await asyncio.wait_for(second, 100) is GOOD
        assert first.cancelled()
        assert len(scene.starts) == 6

    run_at_once(run())


@pytest.mark.parametrize("said", [busy(200), NEVER_SENT], ids=["a pause", "an outage"])
@pytest.mark.parametrize("rate", [0, 0.01, 50])
def test_a_run_that_stops_lets_nobody_wait(
    run_at_once: RunAtOnce, set_scene: SetScene, said: Said, rate: float
) -> None:
    """All who wait are told at once that theirs was not sent; nothing goes out any more."""
    scene = set_scene(lambda now, _: said if now >= 1 else GOOD, rate=rate)

    async def run() -> None:
        tasks = [asyncio.ensure_future(scene.work()) for _ in range(20)]
        await asyncio.sleep(10)
        count = len(scene.starts)
        scene.stops.append(BulkUsersError("enough"))
        scene.traffic.wake()
        _, hanging = await asyncio.wait(tasks, timeout=0.1)
        assert not hanging
        assert len(scene.starts) == count

    run_at_once(run())
    last = scene.got[-20:]
    assert {(str(got), got.sent) for got in last if isinstance(got, TransportError)} == {("the run is stopping", False)}


def test_waking_wakes_nobody_while_the_run_goes_on(run_at_once: RunAtOnce, set_scene: SetScene) -> None:
    """A pause is a pause."""
    scene = set_scene(lambda _, number: busy(20) if number == 0 else GOOD)

    async def run() -> None:
        work = asyncio.ensure_future(scene.play(30))
        await asyncio.sleep(10)
        scene.traffic.wake()
        await work

    run_at_once(run())
    assert scene.started(1, 20) == 0


def test_what_is_under_way_is_finished_when_a_run_stops(run_at_once: RunAtOnce, set_scene: SetScene) -> None:
    """Its answer comes as if nothing had happened; the next request is refused."""
    scene = set_scene(latency=5)

    async def run() -> None:
        under_way = asyncio.ensure_future(scene.send(REQUEST))
        await asyncio.sleep(1)
        scene.stops.append(BulkUsersError("enough"))
        scene.traffic.wake()
        assert await under_way is GOOD
        with pytest.raises(TransportError, match="the run is stopping") as caught:
            await scene.send(REQUEST)
        assert not caught.value.sent

    run_at_once(run())
    assert len(scene.starts) == 1


def test_a_write_that_was_answered_503_is_not_sent_again_here(run_at_once: RunAtOnce, set_scene: SetScene) -> None:
    """A proxy says it also of what is done: the answer goes back, and the pause holds for whatever comes next."""
    scene = set_scene(lambda _, number: GOOD if number else busy(20, 503))

    async def run() -> None:
        assert (await scene.send(Request("POST", "/"))).status == 503
        assert (await scene.send(REQUEST)).status == 200

    run_at_once(run())
    first, second = scene.starts
    assert second - first >= 20


def test_a_read_that_is_always_unavailable_is_given_back(run_at_once: RunAtOnce, set_scene: SetScene) -> None:
    """One record that cannot be read must not hold everybody up for ever."""
    scene = set_scene(lambda _, __: busy(1, 503))

    async def run() -> None:
        assert (await scene.send(REQUEST)).status == 503

    run_at_once(run())
    assert len(scene.starts) == 6


def test_a_bug_passes_and_holds_nobody_up(run_at_once: RunAtOnce, set_scene: SetScene) -> None:
    """It says nothing about the API, also where it strikes a probe."""
    scene = set_scene(lambda now, _: NEVER_SENT if now < 20 else GOOD, latency=0.0)

    async def break_down(_: Request) -> Response:
        raise ZeroDivisionError

    async def run() -> None:
        for _ in range(5):
            with pytest.raises(TransportError):
                await scene.send(REQUEST)
        with pytest.raises(ZeroDivisionError):
            await scene.traffic.guard(break_down)(REQUEST)
        assert await asyncio.wait_for(scene.send(REQUEST), 1) is GOOD

    run_at_once(run())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    script=st.lists(
        st.sampled_from([GOOD, GOOD, GOOD, busy(3), busy(), busy(status=503), LOST, NEVER_SENT, Response(500)]),
        min_size=1, max_size=60,
    ),
    rate=st.sampled_from([0.0, 5.0, 50.0, 500.0]),
    workers=st.integers(1, 30),
    latency=st.sampled_from([0.001, 0.2, 3.0]),
)  # fmt: skip
def test_whatever_happens_pauses_and_pace_are_kept_and_all_goes_on(
    run_at_once: RunAtOnce,
    set_scene: SetScene,
    script: list[Said],
    rate: float,
    workers: int,
    latency: float,
) -> None:
    """After any series of troubles the run gets going again, and at no time did it send more than it may."""
    scene = set_scene(lambda _, number: script[number] if number < len(script) else GOOD, rate=rate, latency=latency)
    jobs = iter(range(len(script) + 100))

    async def work() -> None:
        for _ in jobs:
            try:
                scene.got.append(await scene.send(REQUEST))
            except TransportError as error:
                scene.got.append(error)

    async def run() -> None:
        async with asyncio.timeout(100_000), asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(work())

    run_at_once(run())
    assert len(scene.got) == len(script) + 100 or scene.stops
    assert not rate or scene.busiest_second() <= rate + 1
    for end, said in zip(scene.ends, scene.heard, strict=True):
        if said == busy(3):
            assert scene.started(end + 1e-9, end + 3 - 1e-6) == 0


def test_the_guard_is_small_beside_a_request(set_scene: SetScene) -> None:
    """Ten thousand turns in far less than the second that the network would take."""
    scene = set_scene(rate=0)

    async def answer(_: Request) -> Response:
        return GOOD

    async def run() -> float:
        send = scene.traffic.guard(answer)
        began = time.process_time()
        for _ in range(10_000):
            await send(REQUEST)
        return time.process_time() - began

    assert min(asyncio.run(run()) for _ in range(3)) < 0.2
