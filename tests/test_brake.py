"""What stops a run before its end, and what does not."""

import asyncio
from collections.abc import Callable
from functools import partial

import pytest
from conftest import MakeOutcome, RunAtOnce

from bulkusers.answers import FORBIDDEN
from bulkusers.brake import Brake, Suspicion, braking
from bulkusers.errors import AccessError, ApiError, BulkUsersError, CapError, OutageError, TransportError
from bulkusers.models import Request, Response, Status

REQUEST = Request("GET", "/")
Stop = Callable[..., tuple[BulkUsersError | None, int]]


@pytest.fixture
def stop(make_outcome: MakeOutcome) -> Stop:
    """Return a function that takes outcomes' codes in turn ("" is a good one) and says what stopped, after how many."""

    def stop(*codes: str) -> tuple[BulkUsersError | None, int]:
        brake = Brake()
        suspect = Suspicion(brake)
        for count, code in enumerate(codes, start=1):
            suspect(make_outcome(count + 1, Status.REJECTED if code else Status.CREATED, code))
            if brake.reason is not None:
                return brake.reason, count
        return None, len(codes)

    return stop


def test_a_first_row_that_is_forbidden_stops(stop: Stop) -> None:
    """The account may not write anybody."""
    reason, rows = stop(FORBIDDEN, "")
    assert isinstance(reason, AccessError)
    assert (reason.exit_code, rows) == (4, 1)
    assert "permission" in reason.hint


def test_three_forbidden_rows_in_a_row_stop(stop: Stop) -> None:
    """The permission was taken away."""
    reason, rows = stop("", FORBIDDEN, FORBIDDEN, "", FORBIDDEN, FORBIDDEN, FORBIDDEN, "")
    assert isinstance(reason, AccessError)
    assert rows == 7


def test_single_forbidden_rows_are_their_own_trouble(stop: Stop) -> None:
    """An account may be allowed most users and not some."""
    assert stop("", *[FORBIDDEN, FORBIDDEN, ""] * 20) == (None, 61)
    assert stop("refused-400", FORBIDDEN, FORBIDDEN) == (None, 3)


def test_ten_first_rows_refused_alike_stop(stop: Stop) -> None:
    """It is not the rows: nobody wants 50,000 equal errors."""
    reason, rows = stop(*["refused-404"] * 20)
    assert isinstance(reason, CapError)
    assert (reason.exit_code, rows) == (8, 10)
    assert "this is refused-404" in str(reason)


def test_an_api_that_is_down_refuses_nobody(stop: Stop) -> None:
    """Many requests may be under way when it goes down; the breaker waits for it, and the rest goes on."""
    assert stop(*["refused-502"] * 40) == (None, 40)


@pytest.mark.parametrize("first", ["", "exists", "refused-400", "answer-lost"])
def test_rows_refused_alike_later_do_not_stop(stop: Stop, first: str) -> None:
    """Where any row ended otherwise before, the rest may truly be bad."""
    assert stop(first, *["refused-422"] * 100) == (None, 101)
    assert stop(*["refused-422"] * 9, first, *["refused-422"] * 100) == (None, 110)


def test_good_rows_alike_do_not_stop(stop: Stop) -> None:
    """A million of them are a good day, and so are a thousand that exist already."""
    assert stop(*[""] * 1000) == (None, 1000)
    assert stop(*["exists"] * 1000) == (None, 1000)


def test_the_first_reason_is_the_cause() -> None:
    """Later ones are its echoes."""
    brake = Brake()
    first = OutageError("first")
    brake.pull(first)
    brake.pull(CapError("second"))
    assert brake.reason is first


def test_those_who_wait_are_woken_once() -> None:
    """At the first reason, and at no echo of it."""
    brake = Brake()
    woken: list[str] = []
    for name in ("one", "two"):
        brake.on_pull(partial(woken.append, name))
    assert woken == []
    brake.pull(OutageError("first"))
    brake.pull(OutageError("second"))
    assert woken == ["one", "two"]


def test_a_wait_ends_when_the_run_stops(run_at_once: RunAtOnce) -> None:
    """Undisturbed it takes its time; what was to follow it is not sent once the run stops."""

    async def run() -> None:
        brake, clock = Brake(), asyncio.get_running_loop()
        await brake.sleep(60)
        assert 60 <= clock.time() < 60.1
        clock.call_later(5, brake.pull, OutageError("down"))
        for _ in range(2):
            with pytest.raises(TransportError) as caught:
                await brake.sleep(60)
            assert not caught.value.sent
            assert 65 <= clock.time() < 65.1

    run_at_once(run())


async def test_an_api_that_cannot_be_spoken_to_stops_the_run_unsent() -> None:
    """The request counts as never sent, and the reason keeps its exit code and hint."""
    brake = Brake()
    certificate = AccessError("the certificate is not trusted", "name its CA")

    async def refuse(_: Request) -> Response:
        raise certificate

    with pytest.raises(TransportError, match="the certificate is not trusted") as caught:
        await braking(refuse, brake)(REQUEST)
    assert (caught.value.sent, caught.value.hint) == (False, "name its CA")
    assert brake.reason is certificate


async def test_a_single_lost_answer_stops_nothing() -> None:
    """It comes through as it is, and so does an answer."""
    brake = Brake()
    lost: ApiError = TransportError("reset", sent=True)

    async def lose(_: Request) -> Response:
        raise lost

    async def answer(_: Request) -> Response:
        return Response(201)

    with pytest.raises(TransportError) as caught:
        await braking(lose, brake)(REQUEST)
    assert caught.value is lost
    assert (await braking(answer, brake)(REQUEST)).status == 201
    assert brake.reason is None
