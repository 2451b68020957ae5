"""How fast requests may start, all workers together."""

from typing import Final

from aiolimiter import AsyncLimiter

from bulkusers.models import Request, Response, Send

BURST: Final = 0.005  # seconds' worth of requests that may start at once; makes up for the timer's grain
SHARE: Final = 0.995  # of the rate that is used: what burst and rate let through in any second stays within the rate


def paced(send: Send, rate: float) -> Send:
    """Return a `Send` that starts at most `rate` requests in any second; 0 means no limit, and no limiter in the way.

    A leaky bucket of `rate` per second lets almost twice as many through in its first second. A small bucket that
    leaks a hair slower never does, and still reaches 99.5 % of the rate from 10/s to 2,000/s.
    """
    if not rate:
        return send
    # below one a second the bucket would not hold a whole request
    limiter = AsyncLimiter(1 + BURST * rate, (1 + BURST * rate) / (SHARE * rate))

    async def send_in_turn(request: Request) -> Response:
        await limiter.acquire()
        return await send(request)

    return send_in_turn
