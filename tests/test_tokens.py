"""What happens to a token that dies while the run goes on."""

import asyncio
from collections.abc import Callable

import pytest
from conftest import RunAtOnce

from bulkusers.errors import AccessError, ApiError, BulkUsersError, OutageError
from bulkusers.models import Request, Response, Secret, Send
from bulkusers.tokens import Tokens

REQUEST = Request("GET", "/")


class Api:
    """Accepts one token at a time and hands out new ones; also the bearer of the program's own."""

    def __init__(self) -> None:
        self.token = Secret("token 0")
        self.accepted = Secret("token 0")
        self.logins = 0
        self.lasts = 10**9  # answers that a token buys
        self.refusal: ApiError | None = None  # of every login
        self.bought = 0
        self.statuses: list[int] = []
        self.stops: list[BulkUsersError] = []

    async def send(self, request: Request) -> Response:
        """Answer after a second whether the token that was sent is the one."""
        token = self.token
        await asyncio.sleep(1)
        status = 401 if request.authorized and (token != self.accepted or self.bought >= self.lasts) else 200
        self.bought += status == 200
        self.statuses.append(status)
        return Response(status)

    async def log_in(self) -> Secret:
        """Hand out the next token after five seconds."""
        self.logins += 1
        number = self.logins
        await asyncio.sleep(5)
        if self.refusal is not None:
            raise self.refusal
        self.accepted, self.bought = Secret(f"token {number}"), 0
        return self.accepted

    def kill(self) -> None:
        """Accept the present token no longer."""
        self.accepted = Secret("somebody else's")


Sender = Callable[..., Send]


@pytest.fixture
def api() -> Api:
    """Return an API with a token that it accepts."""
    return Api()


@pytest.fixture
def make_send(api: Api) -> Sender:
    """Return a function that makes a `Send` to the API which logs in when it must; or cannot."""

    def make(*, password: bool = True) -> Send:
        return Tokens(api, api.log_in if password else None, api.stops.append).authenticating(api.send)

    return make


def test_twenty_workers_log_in_once(run_at_once: RunAtOnce, api: Api, make_send: Sender) -> None:
    """All are refused at once; one logs in, and all are answered in the end."""
    api.kill()

    async def run() -> None:
        send = make_send()
        answers = await asyncio.gather(*(send(REQUEST) for _ in range(20)))
        assert answers == [Response(200)] * 20

    run_at_once(run())
    assert (api.logins, api.stops) == (1, [])
    assert api.statuses == [401] * 20 + [200] * 20


def test_a_late_refusal_of_an_older_token_logs_nobody_in(run_at_once: RunAtOnce, api: Api) -> None:
    """It says nothing about the present token; the request is sent again with that."""
    api.kill()
    slow = Request("GET", "/slow")

    async def send_slowly(request: Request) -> Response:
        answer = await api.send(request)
        await asyncio.sleep(60 if request is slow and api.logins == 0 else 0)
        return answer

    async def run() -> None:
        send = Tokens(api, api.log_in, api.stops.append).authenticating(send_slowly)
        late = asyncio.ensure_future(send(slow))
        assert await send(REQUEST) == Response(200)
        assert not late.done()
        assert await late == Response(200)

    run_at_once(run())
    assert api.logins == 1
    assert api.statuses == [401, 401, 200, 200]


def test_the_same_token_again_is_a_new_one(run_at_once: RunAtOnce, api: Api) -> None:
    """An API may revive a token instead of making another; late refusals are told apart all the same."""

    async def log_in() -> Secret:
        api.logins += 1
        api.accepted = api.token
        return api.token

    api.kill()

    async def run() -> None:
        send = Tokens(api, log_in, api.stops.append).authenticating(api.send)
        assert await asyncio.gather(*(send(REQUEST) for _ in range(20))) == [Response(200)] * 20

    run_at_once(run())
    assert (api.logins, api.stops) == (1, [])


@pytest.mark.parametrize("lasts", [0, 1, 19])
def test_a_token_that_is_killed_again_and_again_ends_the_run(
    run_at_once: RunAtOnce, api: Api, make_send: Sender, lasts: int
) -> None:
    """Three logins that bought fewer than twenty answers each are enough; the hint says what kills a token."""
    api.lasts = lasts

    async def run() -> None:
        send = make_send()
        for _ in range(4 * lasts):
            assert await send(REQUEST) == Response(200)
        assert await send(REQUEST) == Response(401)
        assert await send(REQUEST) == Response(401)  # and nobody logs in

    run_at_once(run())
    (stop,) = api.stops
    assert isinstance(stop, AccessError)
    assert (stop.exit_code, api.logins) == (4, 3)
    assert "web app" in stop.hint
    assert "separate API user" in stop.hint
    assert api.statuses.count(200) == 4 * lasts


def test_late_answers_to_an_older_token_are_no_merit_of_the_new(run_at_once: RunAtOnce, api: Api) -> None:
    """They were bought by the one before."""

    async def send(request: Request) -> Response:
        if request.path == "/slow":
            await asyncio.sleep(10)
            return Response(200)
        return await api.send(request)

    async def run() -> None:
        send_with_token = Tokens(api, api.log_in, api.stops.append).authenticating(send)
        slow = [asyncio.ensure_future(send_with_token(Request("GET", "/slow"))) for _ in range(30)]
        await asyncio.sleep(1)
        api.lasts = 1
        api.kill()
        assert await send_with_token(REQUEST) == Response(200)
        await asyncio.gather(*slow)
        assert await send_with_token(REQUEST) == Response(200)
        assert await send_with_token(REQUEST) == Response(200)
        assert await send_with_token(REQUEST) == Response(401)

    run_at_once(run())
    assert (api.logins, len(api.stops)) == (3, 1)


def test_tokens_that_buy_enough_may_die_for_ever(run_at_once: RunAtOnce, api: Api, make_send: Sender) -> None:
    """A long run outlives many tokens."""
    api.lasts = 20

    async def run() -> None:
        send = make_send()
        for _ in range(200):
            assert await send(REQUEST) == Response(200)

    run_at_once(run())
    assert (api.logins, api.stops) == (9, [])


def test_a_good_login_forgives_the_poor_ones_before(run_at_once: RunAtOnce, api: Api, make_send: Sender) -> None:
    """Only three in a row tell that somebody else logs in."""

    async def run() -> None:
        send = make_send()
        for lasts in (1, 1, 1, 20, 1, 1, 20):
            api.lasts = lasts
            for _ in range(lasts):
                assert await send(REQUEST) == Response(200)

    run_at_once(run())
    assert (api.logins, api.stops) == (6, [])


def test_without_a_password_the_run_ends(run_at_once: RunAtOnce, api: Api, make_send: Sender) -> None:
    """There is nothing to log in with; the refusals are passed on, and said once."""
    api.kill()

    async def run() -> None:
        send = make_send(password=False)
        assert await asyncio.gather(*(send(REQUEST) for _ in range(20))) == [Response(401)] * 20

    run_at_once(run())
    (stop,) = api.stops
    assert isinstance(stop, AccessError)
    assert stop.exit_code == 4
    assert "web app" in stop.hint
    assert "separate API user" in stop.hint


@pytest.mark.parametrize("refusal", [AccessError("wrong password"), OutageError("cannot log anybody in now")])
def test_a_login_that_fails_ends_the_run(
    run_at_once: RunAtOnce, api: Api, make_send: Sender, refusal: ApiError
) -> None:
    """Its error is the reason; everybody who waited gets the refusal back, and nobody tries again."""
    api.kill()
    api.refusal = refusal

    async def run() -> None:
        send = make_send()
        assert await asyncio.gather(*(send(REQUEST) for _ in range(20))) == [Response(401)] * 20

    run_at_once(run())
    assert (api.stops, api.logins) == ([refusal], 1)


def test_a_worker_that_is_cancelled_in_its_login_leaves_nobody_hanging(
    run_at_once: RunAtOnce, api: Api, make_send: Sender
) -> None:
    """The next one logs in instead."""
    api.kill()

    async def run() -> None:
        send = make_send()
        workers = [asyncio.ensure_future(send(REQUEST)) for _ in range(20)]
        await asyncio.sleep(3)
        workers[0].cancel()
        done, hanging = await asyncio.wait(workers, timeout=600)
        assert not hanging
        assert [worker.result().status for worker in workers if not worker.cancelled()] == [200] * 19
        assert sum(worker.cancelled() for worker in done) == 1

    run_at_once(run())
    assert (api.logins, api.stops) == (2, [])


def test_a_request_without_a_token_is_left_alone(run_at_once: RunAtOnce, api: Api) -> None:
    """The 401 of a login is about the password."""
    log_in = Request("POST", "/sessions", authorized=False)

    async def refuse(_: Request) -> Response:
        return Response(401)

    async def run() -> None:
        assert await Tokens(api, api.log_in, api.stops.append).authenticating(refuse)(log_in) == Response(401)

    run_at_once(run())
    assert (api.logins, api.stops) == (0, [])
