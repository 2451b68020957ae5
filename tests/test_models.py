"""The values that travel through a run, and that none of them shows what it must not."""

import traceback
from dataclasses import dataclass

import pytest
from conftest import MakeOutcome, MakeSettings, MakeUser

from bulkusers.models import Request, Response, Secret

TOKEN = "eyJ-not-to-be-seen"


@dataclass(frozen=True)
class Holder:
    """Something that a secret is part of."""

    secret: Secret


@pytest.mark.parametrize(
    "shown",
    [
        repr(Secret(TOKEN)),
        str(Secret(TOKEN)),
        f"{Secret(TOKEN)}",
        f"{Secret(TOKEN)!r:>10}",
        "%s %r" % (Secret(TOKEN), Secret(TOKEN)),  # noqa: UP031 - logging formats this way
        repr([Secret(TOKEN)]),
        repr(Holder(Secret(TOKEN))),
        repr(ValueError(Secret(TOKEN))),
    ],
)
def test_a_secret_shows_itself_nowhere(shown: str) -> None:
    """Every way to print it, alone or as a part of something, prints stars."""
    assert "***" in shown
    assert TOKEN not in shown


def test_a_secret_is_not_in_a_traceback() -> None:
    """Not even in one that prints the local variables of every frame."""

    def fail(secret: Secret) -> None:
        raise ValueError(f"cannot use {secret}")

    with pytest.raises(ValueError, match="cannot use") as caught:
        fail(Secret(TOKEN))
    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert "secret = ***" in shown
    assert TOKEN not in shown.replace(f'Secret("{TOKEN}")', "")


def test_a_secret_is_revealed_to_those_who_ask() -> None:
    """It is the same word, true where there is one, equal to its like and to no plain word."""
    assert Secret(TOKEN).reveal() == TOKEN
    assert Secret(TOKEN)
    assert not Secret()
    assert repr(Secret()) == "(none)"
    assert Secret(TOKEN) == Secret(TOKEN) != Secret("other")
    assert Secret(TOKEN) != TOKEN
    assert len({Secret(TOKEN), Secret(TOKEN)}) == 1


def test_settings_show_no_secret(make_settings: MakeSettings) -> None:
    """Their representation goes into logs and tracebacks."""
    settings = make_settings(token=Secret(TOKEN), password=Secret("hunter2"), email="api@example.edu")
    assert TOKEN not in repr(settings)
    assert "hunter2" not in repr(settings)
    assert settings.token.reveal() == TOKEN


def test_requests_and_responses_show_no_data() -> None:
    """Bodies and headers hold people's data, passwords and tokens."""
    assert "hunter2" not in repr(Request("POST", "/sessions", b'{"password": "hunter2"}'))
    assert "hunter2" not in repr(Response(200, b"hunter2", {"Set-Cookie": "hunter2"}))


def test_values_cannot_be_changed(make_user: MakeUser, make_outcome: MakeOutcome) -> None:
    """What one worker was given stays what it is."""
    for value in (make_user(), make_outcome()):
        with pytest.raises(AttributeError):
            value.row = 9  # type: ignore[misc] # that is what is tried
