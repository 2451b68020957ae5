"""What is sent again and what never is, how long a wait is, and what pays for it."""

import asyncio
import math
from collections.abc import Callable
from datetime import datetime
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from bulkusers.errors import TransportError
from bulkusers.models import Request, Response
from bulkusers.retry import DATES, LONGEST_WAIT, Budget, backoff, retry_after, retrying

NOW = 784111777.0  # Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110
READ = Request("GET", "/")
WRITE = Request("POST", "/")
LOST = TransportError("the connection broke", sent=True)
NEVER_SENT = TransportError("no connection to the API", sent=False)
FORMS = ("%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y")
DATE = st.builds(datetime.strftime, st.datetimes(datetime(1000, 1, 1)), st.sampled_from(FORMS))  # noqa: DTZ001 - GMT is said in the forms
NEARLY_A_DATE = st.sampled_from(DATES).flatmap(lambda form: st.from_regex(form, fullmatch=True))  # the 99th of May, too
Said = Response | TransportError
Play = Callable[..., tuple[Said, list[Request], list[float]]]


@pytest.fixture
def play() -> Play:
    """Return a function that sends a request to an API that says these things in turn.

    It returns what came of it, what was sent, and what was waited.
    """

    def play(
        request: Request, *said: Said, retries: int = 5, budget: Budget | None = None
    ) -> tuple[Said, list[Request], list[float]]:
        left, sent, waits = list(said), [], []

        async def send(request: Request) -> Response:
            sent.append(request)
            answer = left.pop(0)
            if isinstance(answer, TransportError):
                raise answer
            return answer

        async def pause(seconds: float) -> None:
            waits.append(seconds)

        async def run() -> Said:
            again = retrying(send, retries=retries, budget=budget or Budget(), pause=pause, chance=lambda: 1.0)
            try:
                return await again(request)
            except TransportError as error:
                return error

        return asyncio.run(run()), sent, waits

    return play


@pytest.mark.parametrize(
    ("wish", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        (" 7 ", 7),
        ("007", 7),
        ("Sun, 06 Nov 1994 08:49:47 GMT", 10),
        ("Sunday, 06-Nov-94 08:49:47 GMT", 10),
        ("Sun Nov  6 08:49:47 1994", 10),
        ("Sun, 06 Nov 1994 08:49:60 GMT", 22),  # a leap second
        ("Sun, 06 Nov 1994 08:00:00 GMT", 0),  # over
        ("Tuesday, 08-Nov-44 08:49:37 GMT", LONGEST_WAIT),  # fifty years ahead is still ahead
        ("Tuesday, 08-Nov-45 08:49:37 GMT", 0),  # 1945
        ("9" * 5000, LONGEST_WAIT),
        ("1" + "0" * 100_000, LONGEST_WAIT),
    ],
)
def test_seconds_and_the_three_forms_of_dates_are_understood(wish: str, seconds: float) -> None:
    """Whatever RFC 9110 lets an API say is turned into seconds from now."""
    assert retry_after({"Retry-After": wish}, NOW) == seconds


@pytest.mark.parametrize(
    "wish",
    ["", "inf", "nan", "-1", "+1", "1e9999", "1.5", "1_000", "٣", "0x10", "12 s", "soon", "Foo Nov  6 08:49:47",
     "Sun, 06 Abc 1994 08:49:37 GMT", "Wed, 31 Feb 2024 00:00:00 GMT", "Sun, 06 Nov 1994 25:00:00 GMT",
     "Sun, 06 Nov 1994 08:49:37 +0100", "Sun, 06 Nov 0000 08:49:37 GMT", "Sun Nov   08:49:37 1994"],
)  # fmt: skip
def test_what_cannot_be_read_asks_for_nothing(wish: str) -> None:
    """Neither a float that hangs a run for ever nor a date that is none is a number of seconds."""
    assert retry_after({"Retry-After": wish}, NOW) is None


def test_no_header_asks_for_nothing() -> None:
    """An answer may be silent."""
    assert retry_after({}, NOW) is None


def test_a_date_counts_from_the_date_of_the_answer() -> None:
    """The API's clock and ours may be hours apart."""
    headers = {"Retry-After": "Sun, 06 Nov 1994 08:50:37 GMT", "Date": "Sun, 06 Nov 1994 08:49:37 GMT"}
    assert retry_after(headers, NOW + 5 * 3600) == 60
    assert retry_after(headers | {"Date": "today"}, NOW + 10) == 50


def test_a_header_is_found_however_it_is_spelt() -> None:
    """The names of headers know no case, and the mapping of a real answer knows that."""
    assert retry_after(CIMultiDict({"retry-AFTER": "3"}), NOW) == 3


def test_a_clock_beyond_the_calendar_does_no_harm() -> None:
    """Nobody can tell the century there."""
    assert retry_after({"Retry-After": "Sunday, 06-Nov-94 08:49:47 GMT"}, math.inf) is None


@given(
    st.text()
    | st.from_regex(r"[0-9A-Za-z:, -]{1,40}", fullmatch=True)
    | st.integers(0, 10**12).map(str)
    | DATE
    | NEARLY_A_DATE,
    st.text() | DATE | NEARLY_A_DATE | st.integers(0, 2**37).map(lambda moment: formatdate(moment, usegmt=True)),
    st.floats(-1e12, 1e12),
)
def test_no_header_breaks_or_hangs_anything(wish: str, date: str, now: float) -> None:
    """Whatever stands in them, the wait is finite and not negative, or unsaid."""
    seconds = retry_after({"Retry-After": wish, "Date": date}, now)
    assert seconds is None or 0 <= seconds <= LONGEST_WAIT


@given(st.integers(0, 100_000_000), st.integers(0, 100_000_000))
def test_every_moment_is_read_as_it_is_written(answered: int, wait: int) -> None:
    """What a date says is the difference to the answer's own, to the second."""
    headers = {"Retry-After": formatdate(answered + wait, usegmt=True), "Date": formatdate(answered, usegmt=True)}
    assert retry_after(headers, NOW) == wait


@given(st.integers(0, 10**9), st.floats(0, 1))
def test_a_backoff_stays_within_its_bounds(attempt: int, chance: float) -> None:
    """It is never more than half a minute, nor than its attempt's own share."""
    assert 0 <= backoff(attempt, chance) <= 30
    assert backoff(attempt, chance) <= backoff(attempt, 1.0) <= backoff(attempt + 1, 1.0)
    assert backoff(attempt, 1.0) <= 0.5 * 2 ** min(attempt, 30)


def test_a_backoff_doubles_up_to_half_a_minute() -> None:
    """The first is at most half a second."""
    assert [backoff(attempt, 1.0) for attempt in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert backoff(3, 0.25) == 1


@given(st.lists(st.booleans(), max_size=300))
def test_a_budget_never_pays_for_more_than_a_fifth_of_the_successes(events: list[bool]) -> None:
    """Beyond the twenty retries that it begins with, each takes five successes."""
    budget, paid = Budget(), 0
    for success in events:
        if success:
            budget.earn()
        else:
            paid += budget.take()
    assert min(events.count(False), 20) <= paid <= 20 + sum(events) / 5


def test_a_budget_saves_nothing_beyond_its_hundred() -> None:
    """However long all goes well, twenty retries are the most that can come at once."""
    budget = Budget()
    for _ in range(1000):
        budget.earn()
    assert sum(budget.take() for _ in range(100)) == 20


@pytest.mark.parametrize("request_", [READ, WRITE, Request("PUT", "/"), Request("DELETE", "/")])
def test_what_was_never_sent_is_sent_again(play: Play, request_: Request) -> None:
    """Whatever it is, the API cannot have taken it; each wait is longer than the one before."""
    came, sent, waits = play(request_, NEVER_SENT, NEVER_SENT, NEVER_SENT, Response(201))
    assert came == Response(201)
    assert sent == [request_] * 4
    assert waits == [0.5, 1, 2]


@pytest.mark.parametrize("trouble", [LOST, *(Response(status) for status in (500, 502, 504, 520))])
def test_a_read_is_repeated_until_it_tells_something(play: Play, trouble: Said) -> None:
    """Reading twice changes nothing."""
    came, sent, _ = play(READ, trouble, trouble, Response(404))
    assert came == Response(404)
    assert len(sent) == 3


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
@pytest.mark.parametrize("trouble", [LOST, Response(500), Response(502), Response(504)])
def test_a_write_that_may_have_been_taken_is_sent_once(play: Play, method: str, trouble: Said) -> None:
    """Its conversation looks first."""
    came, sent, waits = play(Request(method, "/"), trouble)
    assert came is trouble
    assert (len(sent), waits) == (1, [])


@pytest.mark.parametrize("status", [200, 302, 400, 401, 403, 404, 429, 503])
def test_other_answers_pass(play: Play, status: int) -> None:
    """They are for others to understand: too busy and a dead token are not a retry's business."""
    came, sent, _ = play(READ, Response(status))
    assert came == Response(status)
    assert len(sent) == 1


@pytest.mark.parametrize("retries", [0, 1, 3])
@pytest.mark.parametrize("trouble", [LOST, NEVER_SENT, Response(502)])
def test_retries_are_counted(play: Play, retries: int, trouble: Said) -> None:
    """After the last, what came is passed on."""
    came, sent, _ = play(READ, *[trouble] * 9, retries=retries)
    assert came is trouble
    assert len(sent) == 1 + retries


def test_a_budget_ends_retries_for_everybody(play: Play) -> None:
    """Twenty retries without a success are all there are; five successes buy one more."""
    budget = Budget()
    _, sent, _ = play(READ, *[LOST] * 40, retries=30, budget=budget)
    assert len(sent) == 21
    assert len(play(READ, Response(502), budget=budget)[1]) == 1
    for _ in range(5):
        play(READ, Response(200), budget=budget)
    assert len(play(READ, LOST, LOST, budget=budget)[1]) == 2


def test_a_run_that_stops_during_a_pause_sends_nothing_more() -> None:
    """What interrupts the pause is passed on."""
    sent: list[Request] = []

    async def send(request: Request) -> Response:
        sent.append(request)
        raise NEVER_SENT

    async def pause(_: float) -> None:
        raise TransportError("the run is stopping", sent=False)

    async def run() -> None:
        with pytest.raises(TransportError, match="stopping"):
            await retrying(send, retries=5, budget=Budget(), pause=pause)(WRITE)

    asyncio.run(run())
    assert sent == [WRITE]
