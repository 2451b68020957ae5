"""One user's conversation, with the API's part played by a list of answers."""

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkusers.errors import AccessError, OutageError, TransportError
from bulkusers.models import Existing, Lists, Outcome, Request, Response, Secret, Settle, Status, User
from bulkusers.profile import load_profile
from bulkusers.protocol import log_in, place
from bulkusers.rules import Rules

PROFILE = load_profile()
ADA = User(
    row=2,
    email="Ada.Lovelace@example.edu",
    first_name="Ada",
    last_name="Lovelace",
    products=("scheduling", "catalog"),
    roles=("r-editor",),
    department="0100",
)
THERE = {
    "_id": "64f0",
    "email": "ada.lovelace@example.edu",
    "firstName": "Ada",
    "lastName": "Byron",
    "products": ["events", "scheduling"],
    "roles": ["r-admin"],
    "department": "0900",
    "secondaryDepartments": ["0200"],
    "preferences": {"theme": "dark", "shortcuts": [1, None, 2.5]},
    "status": "active",
}
MERGED = THERE | {
    "lastName": "Lovelace",
    "products": ["events", "scheduling", "catalog"],
    "roles": ["r-admin", "r-editor"],
    "department": "0100",
}
WAITED = Request("settle", "")
SAVED = {"email": "ada.lovelace@example.edu"}
SENT = {
    "_id": "1",
    "email": "Ada.Lovelace@example.edu",
    "firstName": "Ada",
    "lastName": "Lovelace",
    "department": "0100",
    "products": ["catalog", "scheduling"],
    "roles": ["r-editor"],
}
LOST = TransportError("the connection broke", sent=True)
NEVER_SENT = TransportError("no connection to the API", sent=False)


def answer(status: int, body: object = None) -> Response:
    """Return one of the API's answers."""
    return Response(status, b"" if body is None else orjson.dumps(body))


def play(
    *answers: Response | TransportError,
    user: User = ADA,
    existing: Existing = Existing.MERGE,
    lists: Lists = Lists.ADD,
    begun: bool = False,
) -> tuple[Outcome, list[Request]]:
    """Lead a conversation to its end with these answers, all of them; return its outcome and what was asked."""
    conversation = place(user, Rules(PROFILE, "test_school", existing, lists), begun=begun)
    step = next(conversation)
    assert isinstance(step, Request)
    asked = [step]
    for said in answers:
        try:
            step = conversation.throw(said) if isinstance(said, TransportError) else conversation.send(said)
            while not isinstance(step, Request):
                if isinstance(step, Settle):
                    asked.append(WAITED)
                step = next(conversation)
            asked.append(step)
        except StopIteration as end:
            assert said is answers[-1], "it ended before its last answer"
            outcome: Outcome = end.value
            return outcome, asked
    raise AssertionError(f"it asked for more: {asked[-1]}")


def body_of(request: Request) -> dict[str, object]:
    """Return what a request says."""
    assert request.body is not None
    said: dict[str, object] = orjson.loads(request.body)
    return said


def test_a_new_user_takes_one_request() -> None:
    """A POST that is answered 201 is all there is to say; no mail goes out unless asked for."""
    outcome, asked = play(answer(201, THERE))
    assert outcome == Outcome(2, ADA.email, Status.CREATED)
    assert [(request.method, request.path) for request in asked] == [("POST", "/test_school/users")]
    assert body_of(asked[0]) == {
        "email": "Ada.Lovelace@example.edu",
        "firstName": "Ada",
        "lastName": "Lovelace",
        "products": ["scheduling", "catalog"],
        "roles": ["r-editor"],
        "department": "0100",
        "disableRegistrationMail": True,
    }


def test_a_mail_is_sent_only_on_request() -> None:
    """`notify` is the one thing that turns disableRegistrationMail off."""
    request = next(place(ADA, Rules(PROFILE, "test_school", notify=True)))
    assert isinstance(request, Request)
    assert body_of(request)["disableRegistrationMail"] is False


def test_an_existing_user_is_read_merged_and_put_back() -> None:
    """Under merge nothing is lost that the file does not speak of, and lists only grow."""
    outcome, asked = play(answer(409, {"error": "exists"}), answer(200, THERE), answer(200, THERE))
    assert [(request.method, request.path) for request in asked] == [
        ("POST", "/test_school/users"),
        ("GET", "/test_school/users/Ada.Lovelace%40example.edu"),
        ("PUT", "/test_school/users/ada.lovelace%40example.edu"),
    ]
    assert body_of(asked[2]) == THERE | {
        "lastName": "Lovelace",
        "products": ["events", "scheduling", "catalog"],
        "roles": ["r-admin", "r-editor"],
        "department": "0100",
    }
    assert (outcome.status, outcome.changed) == (Status.UPDATED, ("lastName", "products", "roles", "department"))


def test_lists_can_be_replaced_but_a_blank_cell_still_keeps_what_is_there() -> None:
    """`--lists replace` takes the file's lists, and only those that the file has."""
    _, asked = play(answer(409), answer(200, THERE), answer(200, THERE), lists=Lists.REPLACE)
    sent = body_of(asked[2])
    assert (sent["products"], sent["roles"], sent["secondaryDepartments"]) == (
        ["scheduling", "catalog"],
        ["r-editor"],
        ["0200"],
    )


@pytest.mark.parametrize("lists", list(Lists))
def test_nothing_is_sent_when_nothing_would_change(lists: Lists) -> None:
    """A record that holds all of the row already, in whatever order, is left alone."""
    there = THERE | {"lastName": "Lovelace", "products": ["catalog", "scheduling"], "roles": ["r-editor"]}
    outcome, asked = play(answer(409), answer(200, there | {"department": "0100"}), lists=lists)
    assert outcome.status is Status.UNCHANGED
    assert [request.method for request in asked] == ["POST", "GET"]


def test_overwriting_sends_the_row_and_nothing_else() -> None:
    """`--existing overwrite` replaces the record by what the row says; what was there is read only to be kept."""
    outcome, asked = play(answer(409), answer(200, THERE), answer(200, SAVED), existing=Existing.OVERWRITE)
    assert outcome.status is Status.UPDATED
    assert set(outcome.changed) == {*THERE, *body_of(asked[2])} - {"_id", "email", "firstName"}
    assert body_of(asked[2]) == {
        "email": "Ada.Lovelace@example.edu",
        "firstName": "Ada",
        "lastName": "Lovelace",
        "products": ["scheduling", "catalog"],
        "roles": ["r-editor"],
        "department": "0100",
    }


def test_an_overwrite_that_would_change_nothing_is_not_sent() -> None:
    """A record that says just what the row says, and besides only what the API keeps itself, is left alone."""
    outcome, asked = play(answer(409), answer(200, SENT | {"createdAt": "then"}), existing=Existing.OVERWRITE)
    assert outcome.status is Status.UNCHANGED
    assert [request.method for request in asked] == ["POST", "GET"]


def test_skipping_leaves_an_existing_user_alone() -> None:
    """`--existing skip` asks nothing more once the user is known to exist."""
    outcome, asked = play(answer(409), existing=Existing.SKIP)
    assert (outcome.status, outcome.code, len(asked)) == (Status.SKIPPED, "exists", 1)


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("existing", list(Existing))
def test_a_refusal_that_may_mean_exists_is_decided_by_a_read(status: int, existing: Existing) -> None:
    """A 400 or 422 is a duplicate if the user is there, and about the data if not; its words decide nothing."""
    refusal = answer(status, {"error": "user already exists"})
    outcome, asked = play(refusal, answer(404), existing=existing)
    assert (outcome.status, outcome.code, outcome.message) == (
        Status.REJECTED,
        f"refused-{status}",
        "user already exists",
    )
    assert [request.method for request in asked] == ["POST", "GET"]


def test_a_refusal_of_an_existing_user_leads_to_an_update() -> None:
    """A 400 with words about something else is still a duplicate when the user is there."""
    outcome, _ = play(answer(400, {"error": "bad"}), answer(200, THERE), answer(200, THERE))
    assert outcome.status is Status.UPDATED


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": "Role x of ADA.lovelace@example.edu is unknown"}, "Role x of <e-mail> is unknown"),
        ({"error": "Ada LOVELACE (x@y.edu) has Bearer abc.def"}, "<...> <...> (<e-mail>) has Bearer ***"),
        ({"error": "a\x00b\x1b[31m\nc\u202e"}, "a b [31m c"),
        ({"error": "Bearer\u200babc.def \x00 Bearer\x00abc.def"}, "Bearer *** Bearer ***"),
        ({"error": "\x00\u200b"}, "the API answered 422"),
        ({"error": "x" * 500}, "x" * 299 + "…"),
        ({"error": 7}, "the API answered 422"),
        (["no", "object"], "the API answered 422"),
        (None, "the API answered 422"),
    ],
)
def test_the_apis_words_are_short_printable_and_nameless(body: object, message: str) -> None:
    """What the API says goes into reports, so it must neither break a terminal nor name a person."""
    outcome, _ = play(answer(422, body), answer(404))
    assert outcome.message == message


@pytest.mark.parametrize("words", ["Mary Ann", "mary\u200bann", "Mary\xa0 Ann", "Mary\nAnn"])
def test_a_name_of_two_words_is_not_repeated_however_they_are_parted(words: str) -> None:
    """What is between them in the cell and in the API's words need not be the same blank."""
    user = ADA._replace(first_name="Mary\xa0Ann", last_name="Zoë")
    outcome, _ = play(answer(422, {"error": f"{words} Zoe\u0308 is unknown"}), answer(404), user=user)
    assert outcome.message == "<...> <...> is unknown"


def test_a_former_name_is_not_repeated() -> None:
    """What the record holds is as private as what the row says."""
    words = "cannot rename Byron (7) to Lovelace"
    outcome, _ = play(answer(409), answer(200, THERE | {"externalId": "7"}), answer(422, {"error": words}))
    assert outcome.message == "cannot rename <...> (<...>) to <...>"


@pytest.mark.parametrize("status", [301, 302, 307, 404, 405, 418, 429])
def test_any_other_refusal_is_a_failure_and_changes_nothing(status: int) -> None:
    """What says clearly that nothing was done is no fault of the data."""
    outcome, asked = play(answer(status))
    assert (outcome.status, outcome.code, len(asked)) == (Status.FAILED, f"refused-{status}", 1)
    assert ("school's id right" in outcome.hint) is (status == 404)  # there is no such place to create anybody in


@pytest.mark.parametrize(("status", "code"), [(401, "unauthenticated"), (403, "forbidden")])
def test_refusals_of_the_account_have_codes_of_their_own(status: int, code: str) -> None:
    """What says more of the account than of the user can be told apart."""
    outcome, _ = play(answer(status))
    assert outcome.code == code


@pytest.mark.parametrize(
    "lost",
    [
        LOST,
        answer(500),
        answer(502),
        answer(504),
        Response(200, b"<html>Log in</html>"),
        answer(201, []),
        answer(201, {}),
        answer(201, {"success": False}),
        answer(201, SAVED | {"error": "no"}),
        answer(503),
        answer(201, {"email": "someone.else@example.edu"}),
        answer(204),
        answer(299),
    ],
)
class TestALostCreate:
    """A create whose answer is lost, or is none of the API's, may have been done: only a look can tell."""

    def test_is_created_if_the_user_is_there_as_sent(self, lost: Response | TransportError) -> None:
        """Every value that was sent is there: it was done."""
        outcome, asked = play(lost, answer(200, SENT))
        assert outcome.status is Status.CREATED
        assert [request.method for request in asked] == ["POST", "GET"]

    def test_becomes_an_update_if_the_user_is_there_otherwise(self, lost: Response | TransportError) -> None:
        """A user with other values was there before."""
        outcome, asked = play(lost, answer(200, THERE), answer(200, THERE))
        assert outcome.status is Status.UPDATED
        assert [request.method for request in asked] == ["POST", "GET", "PUT"]

    @pytest.mark.parametrize("look", [answer(500), answer(401), LOST, NEVER_SENT, answer(200, [])])
    def test_is_unknown_if_no_look_can_tell(
        self, lost: Response | TransportError, look: Response | TransportError
    ) -> None:
        """Where the record cannot be read, nothing is claimed and nothing sent again."""
        outcome, asked = play(lost, look)
        assert (outcome.status, outcome.code) == (Status.UNKNOWN, "answer-lost")
        assert [request.method for request in asked] == ["POST", "GET"]

    def test_is_sent_again_only_after_two_looks(self, lost: Response | TransportError) -> None:
        """A write may come late: there is a wait between the looks, and a second create only after both."""
        outcome, asked = play(lost, answer(404), answer(404), answer(201, SAVED))
        assert outcome.status is Status.CREATED
        assert [request.method for request in asked] == ["POST", "GET", "settle", "GET", "POST"]

    def test_that_came_late_is_created(self, lost: Response | TransportError) -> None:
        """What the second look finds as sent was done."""
        outcome, asked = play(lost, answer(404), answer(200, SENT))
        assert outcome.status is Status.CREATED
        assert [request.method for request in asked] == ["POST", "GET", "settle", "GET"]

    def test_is_unknown_in_the_end(self, lost: Response | TransportError) -> None:
        """After as many tries as the rules allow, no claim is made."""
        outcome, asked = play(*[lost, answer(404), answer(404)] * 6)
        assert outcome.status is Status.UNKNOWN
        assert sum(request.method == "POST" for request in asked) == 6


@pytest.mark.parametrize("existing", list(Existing))
def test_a_user_who_exists_after_a_lost_create_may_be_our_own(existing: Existing) -> None:
    """A second create that is refused as a duplicate is no proof that somebody was there before."""
    lost: list[Response | TransportError] = [LOST, answer(404), answer(404), answer(409)]
    assert play(*lost, answer(200, SENT), existing=existing)[0].status is Status.CREATED
    assert play(*lost, answer(404), answer(404), existing=existing)[0].status is Status.UNKNOWN


@pytest.mark.parametrize("refusal", [answer(401), answer(403), answer(404), answer(429), NEVER_SENT])
def test_a_refusal_after_a_lost_create_leaves_it_unknown(refusal: Response | TransportError) -> None:
    """What was refused is the second one; the first may still come."""
    assert play(LOST, answer(404), answer(404), refusal)[0].status is Status.UNKNOWN


@pytest.mark.parametrize(
    ("roles", "status"), [(["r-editor"], Status.UPDATED), (["r-editor", "r-more"], Status.UNKNOWN)]
)
def test_an_overwrite_is_seen_only_when_what_it_clears_is_gone(roles: list[str], status: Status) -> None:
    """A record that holds what was sent, and more, is not the one that was ordered."""
    there = SENT | {"roles": roles}
    looks: list[Response | TransportError] = [LOST, answer(200, there)]
    if status is Status.UNKNOWN:
        looks = [*looks, answer(200, there)] * 6
    assert play(answer(409), answer(200, THERE), *looks, existing=Existing.OVERWRITE)[0].status is status


def test_an_overwrite_is_not_done_by_a_user_who_has_more() -> None:
    """A lost create of a user who was there before must not pass for the overwrite that was ordered."""
    outcome, asked = play(
        LOST, answer(200, SENT | {"status": "active"}), answer(200, SAVED), existing=Existing.OVERWRITE
    )
    assert outcome.status is Status.UPDATED
    assert "status" not in body_of(asked[2])


@pytest.mark.parametrize(("there", "status"), [(True, Status.CREATED), (False, Status.UPDATED)])
def test_a_user_whom_an_interrupted_run_had_begun_is_looked_for_first(there: bool, status: Status) -> None:
    """Nothing is created before it is known that the interrupted run did not."""
    outcome, asked = play(*([answer(200, SENT)] if there else [answer(200, THERE), answer(200, SAVED)]), begun=True)
    assert outcome.status is status
    assert asked[0].method == "GET"


@pytest.mark.parametrize("more", [{}, {"timezone": "UTC"}])
@pytest.mark.parametrize("begun", [True, False])
def test_who_may_be_our_own_is_not_called_left_alone(more: dict[str, str], *, begun: bool) -> None:
    """Under `skip`, a user who holds all that was sent, and what the API fills in, may have come from this very run."""
    answers = [answer(200, SENT | more)] if begun else [LOST, answer(200, SENT | more)]
    outcome, _ = play(*answers, existing=Existing.SKIP, begun=begun)
    assert outcome.status in {Status.CREATED, Status.UNCHANGED}


@pytest.mark.parametrize("lost", [LOST, answer(500), answer(503), Response(200, b"<html>"), answer(200, {})])
class TestALostUpdate:
    """A PUT whose answer is lost, or is none of the API's, is believed only when its fields are seen."""

    def test_that_is_seen_is_an_update(self, lost: Response | TransportError) -> None:
        """The fields that were to change have changed; those that the API keeps itself do not matter."""
        outcome, asked = play(answer(409), answer(200, THERE), lost, answer(200, MERGED | {"updatedAt": "now"}))
        assert outcome.status is Status.UPDATED
        assert [request.method for request in asked] == ["POST", "GET", "PUT", "GET"]

    def test_is_sent_again_when_it_is_not_seen_twice(self, lost: Response | TransportError) -> None:
        """It goes out with what is in the record by then."""
        by_then = THERE | {"preferences": {"theme": "light"}}
        outcome, asked = play(
            answer(409), answer(200, THERE), lost, answer(200, THERE), answer(200, by_then), answer(200, SAVED)
        )
        assert outcome.status is Status.UPDATED
        assert [request.method for request in asked] == ["POST", "GET", "PUT", "GET", "settle", "GET", "PUT"]
        assert body_of(asked[6])["preferences"] == {"theme": "light"}

    @pytest.mark.parametrize("look", [answer(404), answer(500), LOST, answer(200, [])])
    def test_is_unknown_where_nothing_can_be_seen(
        self, lost: Response | TransportError, look: Response | TransportError
    ) -> None:
        """No look, no claim."""
        outcome, _ = play(answer(409), answer(200, THERE), lost, look)
        assert outcome.status is Status.UNKNOWN

    def test_is_unknown_when_the_next_one_is_refused(self, lost: Response | TransportError) -> None:
        """The refusal is of the second; the first may still come."""
        outcome, _ = play(answer(409), answer(200, THERE), lost, answer(200, THERE), answer(200, THERE), answer(422))
        assert outcome.status is Status.UNKNOWN


def test_what_was_never_sent_has_failed_and_nothing_more() -> None:
    """No connection means no change, for a create, a read and an update."""
    for before in ([], [answer(409)], [answer(409), answer(200, THERE)]):
        outcome, _ = play(*before, NEVER_SENT)
        assert (outcome.status, outcome.code) == (Status.FAILED, "not-sent")


@pytest.mark.parametrize(
    "there",
    [
        THERE | {"roles": [{"id": "r-admin"}]},
        THERE | {"products": "scheduling"},
        THERE | {"secondaryDepartments": {"0200": True}},
    ],
)
def test_lists_of_an_unknown_shape_are_never_overwritten(there: dict[str, object]) -> None:
    """Where a list cannot be added to, nobody's roles are put at risk."""
    outcome, asked = play(answer(409), answer(200, there), user=ADA._replace(secondary_departments=("0300",)))
    assert (outcome.status, outcome.code) == (Status.FAILED, "record-unexpected")
    assert [request.method for request in asked] == ["POST", "GET"]


def test_a_blank_cell_keeps_a_list_of_an_unknown_shape() -> None:
    """Nothing is to be added to it, so it goes back as it came, or stays where nothing else changes."""
    odd = {"secondaryDepartments": {"0200": True}}
    outcome, _ = play(answer(409), answer(200, MERGED | odd))
    assert outcome.status is Status.UNCHANGED
    _, asked = play(answer(409), answer(200, THERE | odd), answer(200, SAVED))
    assert body_of(asked[-1]) == MERGED | odd


@pytest.mark.parametrize("missing", [None, "absent"])
def test_lists_that_are_not_there_yet_begin_with_the_files(missing: str | None) -> None:
    """A null or missing list is an empty one."""
    there = {key: value for key, value in THERE.items() if key != "roles"}
    _, asked = play(answer(409), answer(200, there if missing else there | {"roles": None}), answer(200, SAVED))
    assert body_of(asked[2])["roles"] == ["r-editor"]


@pytest.mark.parametrize(
    "said", [[], {"data": THERE}, THERE | {"email": "someone.else@example.edu"}, THERE | {"error": "try again later"}]
)
def test_a_record_of_somebody_else_is_never_merged(said: object) -> None:
    """A read that answers with no record, another user's or an apology, ends the conversation."""
    outcome, asked = play(answer(409), answer(200, said))
    assert (outcome.status, outcome.code) == (Status.FAILED, "answer-unexpected")
    assert [request.method for request in asked] == ["POST", "GET"]


def test_a_user_who_exists_and_is_not_there_has_failed() -> None:
    """A 409 and a 404 for the same user contradict each other; nothing is sent on such ground."""
    outcome, _ = play(answer(409), answer(404))
    assert (outcome.status, outcome.code) == (Status.FAILED, "exists-not-found")


@given(st.text(min_size=1, max_size=64).filter(lambda email: email not in {".", ".."}))
def test_no_email_leaves_the_users_path(email: str) -> None:
    """Whatever is in an e-mail, it stays one segment behind the school's users."""
    path = Rules(PROFILE, "test_school").read(email).path
    assert path.startswith("/test_school/users/")
    segment = path.removeprefix("/test_school/users/")
    assert not set(segment) & set("/?#\\ \r\n")
    assert segment not in {"", ".", ".."}


@pytest.mark.parametrize("email", [".", ".."])
def test_dots_are_no_email(email: str) -> None:
    """The two names that would lead out of the users path make no request at all."""
    with pytest.raises(ValueError, match="no e-mail"):
        Rules(PROFILE, "test_school").read(email)


def test_logging_in_tries_each_key_once_and_never_more() -> None:
    """The second key is tried after a 400 or 404 only; an account is never locked out by us."""
    conversation = log_in(PROFILE, "admin@example.edu", Secret("pw"))
    first = next(conversation)
    assert (first.method, first.path, first.authorized) == ("POST", "/sessions", False)
    assert body_of(first) == {"email": "admin@example.edu", "plaintextPassword": "pw"}
    second = conversation.send(answer(404))
    assert body_of(second) == {"email": "admin@example.edu", "password": "pw"}
    with pytest.raises(AccessError):
        conversation.send(answer(404))


def test_logging_in_returns_the_token() -> None:
    """A 201 with a token is the only good answer."""
    conversation = log_in(PROFILE, "admin@example.edu", Secret("pw"))
    next(conversation)
    with pytest.raises(StopIteration) as end:
        conversation.send(answer(201, {"token": "t0"}))
    assert end.value.value == Secret("t0")


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (answer(401), AccessError),
        (answer(403), AccessError),
        (answer(302), AccessError),
        (answer(201, {"token": "a\nb"}), AccessError),
        (answer(201, {"token": ""}), AccessError),
        (answer(201, []), AccessError),
        (Response(200, b"<html>"), AccessError),
        (answer(500), OutageError),
        (answer(429), OutageError),
    ],
)
def test_logging_in_says_why_it_failed(said: Response, error: type[Exception]) -> None:
    """A wrong account, an outage and a page that is no API are told apart, and the password is told to nobody."""
    conversation = log_in(PROFILE, "admin@example.edu", Secret("pw"))
    request = next(conversation)
    assert "pw" not in repr(request)
    with pytest.raises(error):
        conversation.send(said)


@dataclass(frozen=True, slots=True)
class Api:
    """What an API says: one thing to a method, once or always, and the usual things otherwise."""

    method: str
    odd: Response | TransportError
    always: bool
    usual: Mapping[str, Response | TransportError]

    def says(self, method: str, number: int) -> Response | TransportError:
        """Answer a request of a method, the first being number 0."""
        return self.odd if method == self.method and (self.always or not number) else self.usual[method]


class Talk:
    """A conversation that is led to its end."""

    def __init__(self, api: Api, existing: Existing, *, begun: bool) -> None:
        self.begun = begun
        self.steps: list[tuple[str, Response | TransportError | None]] = []
        asked: Counter[str] = Counter()
        conversation = place(ADA, Rules(PROFILE, "test_school", existing, retries=2), begun=begun)
        try:
            step = next(conversation)
            while len(self.steps) < 50:
                if not isinstance(step, Request):
                    self.steps += [("settle", None)] * isinstance(step, Settle)
                    step = next(conversation)
                    continue
                said = api.says(step.method, asked[step.method])
                asked[step.method] += 1
                self.steps.append((step.method, said))
                step = conversation.throw(said) if isinstance(said, TransportError) else conversation.send(said)
        except StopIteration as end:
            self.outcome: Outcome = end.value
            return
        raise AssertionError(f"there is no end to it: {self}")

    def __repr__(self) -> str:
        return f"{[(method, said, getattr(said, 'body', '')) for method, said in self.steps]}"

    def before_each(self, method: str) -> list[list[str]]:
        """Return what happened before each request of a kind, since the one before it."""
        spans: list[list[str]] = [[]]
        for step, said in self.steps:
            if step == method:
                spans.append([])
            else:
                spans[-1].append(f"{step} {said.status}" if isinstance(said, Response) else step)
        return spans[:-1]

    @property
    def doubtful(self) -> bool:
        """Tell whether a write may have been taken, and neither a later answer nor a look cleared that up."""
        doubtful = self.begun
        for method, said in self.steps:
            status = said.status if isinstance(said, Response) else 0
            if isinstance(said, Response) and said.body in CREDIBLE and status in CREDITED[method]:
                doubtful = False
            elif method in {"POST", "PUT"}:
                doubtful |= said is LOST or 100 <= status < 300 or status >= 500
        return doubtful


CREDITED = {"POST": {200, 201}, "PUT": {200}, "GET": {200}}
CREDIBLE = [orjson.dumps(SENT), orjson.dumps(THERE)]  # bodies that are of this user
BODIES = (
    *CREDIBLE,
    b"",
    b"<html>Log in</html>",
    orjson.dumps(SENT | {"email": "someone.else@example.edu"}),
    orjson.dumps([SENT]),
    orjson.dumps({"error": "no"}),
)
ANSWERS: tuple[Response | TransportError, ...] = (
    LOST,
    NEVER_SENT,
    *(Response(status, body) for status in range(100, 600) for body in BODIES),
)
WORLDS: tuple[tuple[dict[str, Response | TransportError], bool], ...] = (  # the usual things; and is it a resumed run?
    ({"POST": answer(409), "GET": answer(200, THERE), "PUT": answer(200, THERE)}, False),
    ({"POST": LOST, "GET": answer(404), "PUT": answer(500)}, False),
    ({"POST": answer(422), "GET": answer(404), "PUT": LOST}, True),
)


@pytest.mark.parametrize("existing", list(Existing))
@pytest.mark.parametrize("method", ["POST", "GET", "PUT"])
def test_whatever_is_answered_has_one_outcome_and_nothing_is_sent_twice_blindly(
    method: str, existing: Existing
) -> None:
    """Every status with every kind of body, once or always, ends in bounded steps and claims no more than was seen."""
    for odd, always, (usual, begun) in itertools.product(ANSWERS, (True, False), WORLDS):
        talk = Talk(Api(method, odd, always, usual), existing, begun=begun)
        assert (talk.outcome.row, talk.outcome.email) == (ADA.row, ADA.email)
        creates = talk.before_each("POST")
        assert all(span == ["GET 404", "settle", "GET 404"] for span in creates[not begun :]), talk
        looks = [[step.split()[0] for step in span] for span in talk.before_each("PUT")[1:]]
        assert all(span == ["GET", "settle", "GET"] for span in looks), talk
        if talk.doubtful:
            assert talk.outcome.status is Status.UNKNOWN, talk
        if talk.outcome.status in {Status.CREATED, Status.UPDATED}:
            last, said = talk.steps[-1]
            assert isinstance(said, Response), talk
            assert said.status in CREDITED[last], talk
            assert said.body in CREDIBLE, talk
