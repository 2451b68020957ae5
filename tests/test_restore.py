"""What takes one user's changes back, with the API's part played by a list of records."""

from collections.abc import Sequence
from typing import Any, Final

import orjson
import pytest

from bulkusers.images import Changes
from bulkusers.models import Image, Json, Outcome, Request, Response, Status
from bulkusers.profile import load_profile
from bulkusers.restore import take_back
from bulkusers.rules import Rules

RULES: Final = Rules(load_profile(), "test_school")
EMAIL: Final = "ann@example.edu"


def record(name: str, **more: Any) -> Json:  # noqa: ANN401 - any field
    """Return a record that a last name tells from others."""
    return {"email": EMAIL, "lastName": name, **more}


def play(found: Json | None, images: Sequence[Image]) -> tuple[Outcome, Json | None]:
    """Take the changes back of a user who is `found`, with an API that does all; return the outcome, and the record."""
    conversation = take_back(Changes(2, EMAIL, tuple(images)), RULES)
    there = found
    try:
        wish = next(conversation)
        while True:
            if not isinstance(wish, Request):
                wish = next(conversation)
                continue
            if wish.method == "PUT":
                there = orjson.loads(wish.body or b"")
            wish = conversation.send(Response(404) if there is None else Response(200, orjson.dumps(there)))
    except StopIteration as end:
        outcome: Outcome = end.value
        return outcome, there


def image(before: str | None, sent: str, *, certain: bool = True) -> Image:
    """Return the image of a change from one name to another."""
    return Image(2, EMAIL, None if before is None else record(before), record(sent), certain)


CREATED: Final = image(None, "B")
SEEN: Final = image(None, "B", certain=False)


@pytest.mark.parametrize(
    ("images", "end"),
    [
        ((image("A", "B"),), "A"),
        ((image("A", "B"), image("A", "B")), "A"),  # sent again
        ((image("A", "X"), image("X", "B")), "A"),  # a resumed run went on with what it had sent
        ((image("A", "X"), image("C", "B")), "C"),  # a colleague came between
        ((image("A", "X"), image("C", "X"), image("X", "B")), "C"),
        ((image("A", "B"), SEEN), "A"),  # a resumed run found what the killed one had put there
        ((image("A", "X"), image(None, "A", certain=False), image("A", "B")), "A"),  # ... or had not
        ((image("A", "X"), image(None, "C", certain=False), image("C", "B")), "C"),
    ],
)
def test_what_comes_back_is_what_the_run_had_not_put_there(images: Sequence[Image], end: str) -> None:
    """The latest of it: the run itself, killed or not, is no stranger to itself."""
    outcome, there = play(record("B", updatedAt="now"), images)
    assert (outcome.status, there) == (Status.UPDATED, record(end))


@pytest.mark.parametrize("images", [(CREATED,), (CREATED, SEEN), (image("A", "X"), CREATED), (SEEN, CREATED)])
def test_whom_the_run_created_is_retired(images: Sequence[Image]) -> None:
    """Also where a resumed run found the user, and where somebody had deleted the one who was there before."""
    outcome, there = play(record("B"), images)
    assert (outcome.status, there) == (Status.UPDATED, record("B", status="inactive", products=[]))


@pytest.mark.parametrize("images", [(SEEN,), (SEEN, SEEN), (SEEN, image("B", "A")), (SEEN, image("B", "C"))])
def test_whom_the_run_may_have_created_is_left_as_first_seen(images: Sequence[Image]) -> None:
    """What the run changed after that is taken back; the outcome says that it may have been more."""
    last = images[-1].sent
    outcome, there = play(last, images)
    assert there == record("B")
    assert outcome.code == "maybe-not-created"
    assert outcome.status is (Status.SKIPPED if last == there else Status.UPDATED)
    outcome, there = play(record("by hand"), images)
    assert (outcome.status, outcome.code, there) == (Status.SKIPPED, "changed-since", record("by hand"))


def test_of_whom_nothing_is_known_only_a_look_is_taken() -> None:
    """Who is there may have been there before; who is not was not created."""
    outcome, there = play(record("A"), ())
    assert (outcome.status, outcome.code, there) == (Status.SKIPPED, "maybe-created", record("A"))
    assert play(None, ())[0].status is Status.UNCHANGED
