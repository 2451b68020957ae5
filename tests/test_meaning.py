"""What an answer means: exactly one thing, whatever it is, and never "send it again" where that could do harm."""

import itertools

import pytest

from bulkusers.errors import TransportError
from bulkusers.meaning import Meaning, classify
from bulkusers.models import Request, Response
from bulkusers.profile import load_profile

PROFILE = load_profile()
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH")
HARMLESS_TO_REPEAT = {Meaning.NOT_SENT, Meaning.BUSY, Meaning.NO_ANSWER}


@pytest.mark.parametrize("method", METHODS)
def test_every_status_has_exactly_one_meaning(method: str) -> None:
    """From 100 to 599, and beyond what HTTP knows."""
    for status in range(1000):
        assert isinstance(classify(Request(method, "/"), Response(status), PROFILE), Meaning)


@pytest.mark.parametrize(("method", "sent"), list(itertools.product(METHODS, (True, False))))
def test_every_error_has_exactly_one_meaning(method: str, sent: bool) -> None:
    """What was never sent may be sent again; of what was, only a read."""
    meaning = classify(Request(method, "/"), TransportError("lost", sent=sent), PROFILE)
    assert meaning is (
        Meaning.NOT_SENT if not sent else Meaning.NO_ANSWER if method in {"GET", "HEAD"} else Meaning.LOST
    )


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_a_write_is_repeated_blindly_only_where_the_api_says_that_it_was_not_done(method: str) -> None:
    """A success that was not expected, a time-out, a 500 or 503 may hide a write: those are looked at first."""
    for status in [*range(100, 300), *range(500, 600)]:
        meaning = classify(Request(method, "/"), Response(status), PROFILE)
        assert meaning in {Meaning.DONE, Meaning.LOST}
    assert {
        status
        for status in range(1000)
        if classify(Request(method, "/"), Response(status), PROFILE) in HARMLESS_TO_REPEAT
    } == {429}


def test_a_refusal_is_clear() -> None:
    """A redirect or a 4xx says that nothing was done, except where the profile gives it another meaning."""
    said = {status: classify(Request("POST", "/"), Response(status), PROFILE) for status in range(300, 500)}
    others = {status: meaning for status, meaning in said.items() if meaning is not Meaning.REFUSED}
    assert others == {
        400: Meaning.MAYBE_EXISTS,
        401: Meaning.UNAUTHENTICATED,
        409: Meaning.EXISTS,
        422: Meaning.MAYBE_EXISTS,
        429: Meaning.BUSY,
    }
