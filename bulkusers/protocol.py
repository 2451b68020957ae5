"""What is said to the API and what its answers mean; pure, and the only part that knows.

One user's conversation is a generator: it yields a `Request`, is sent the `Response` (or thrown the `TransportError`
that came instead), and returns the user's `Outcome`. It reads like the API's documentation and is tested by playing
the API's part.

Sources: the vendor's article "Uploading Users in Bulk via API" (create, then update; an e-mail is a user; an update
overwrites the whole record; `disableRegistrationMail`; sessions and tokens). All else is the API profile.
"""

from collections.abc import Generator

import orjson

from bulkusers.answers import (
    GONE,
    Conversation,
    Wish,
    ask,
    conclude,
    created,
    describe,
    json_of,
    left_alone,
    not_done,
    read,
    record_of,
    replace,
    unknown,
)
from bulkusers.errors import AccessError, OutageError, TransportError
from bulkusers.meaning import Meaning, classify
from bulkusers.models import SETTLE, Existing, Image, Json, Outcome, Request, Response, Secret, Status, User
from bulkusers.profile import Profile
from bulkusers.rules import Rules, change, holds, is_exactly, loses


def place(user: User, rules: Rules, *, begun: bool = False, absent: bool = False) -> Conversation:
    """Create one user, or bring the existing one up to date; look first where an interrupted run has `begun`.

    `absent` says that there was seen to be no such user; the API still knows better.
    """
    record = rules.record(user)
    doubt = "an interrupted run had begun with this user" if begun else ""
    for _ in range(1 + rules.retries):
        if doubt:
            outcome_or_none = yield from _look_for_created(user, rules, record, doubt, absent=absent)
            if outcome_or_none is not None:
                return outcome_or_none
            absent = True
        request = rules.create(record)
        answer = yield from ask(request)
        match classify(request, answer, rules.profile):
            case Meaning.DONE if made := record_of(user, answer, rules):
                return (yield from created(user, record | made))  # with what the API fills in
            case Meaning.EXISTS | Meaning.MAYBE_EXISTS if doubt:
                break  # the one that exists may be our own, come late
            case (Meaning.EXISTS | Meaning.MAYBE_EXISTS) as meaning:
                return (yield from _update(user, rules, answer, certain=meaning is Meaning.EXISTS))
            case Meaning.DONE | Meaning.LOST:
                doubt = describe(answer)  # it may have been done: look before it is sent again
            case _ if doubt:
                return unknown(user, doubt)  # this one was refused, but an earlier one may have been taken
            case _:
                return not_done(user, answer, rules)
    return (yield from _look_for_created(user, rules, record, doubt, absent=absent)) or unknown(user, doubt)


def update(user: User, rules: Rules, known: Json) -> Conversation:
    """Bring a user up to date whose record was seen already; begin anew where it is gone."""
    outcome = yield from _bring_up_to_date(user, rules, known)
    return outcome if outcome.code != GONE else (yield from place(user, rules))


def _update(user: User, rules: Rules, refusal: Response | TransportError, *, certain: bool) -> Conversation:
    """Update the user because of whom a create was refused; or pass on the refusal if there is no such user."""
    if certain and rules.existing is Existing.SKIP:
        return left_alone(user)
    found = yield from read(user, rules)
    if isinstance(found, Outcome):
        return found
    if found is not None:
        return (yield from _bring_up_to_date(user, rules, found))
    if not certain:
        return not_done(user, refusal, rules)
    return conclude(
        user, Status.FAILED, "exists-not-found", "the API says that this user exists, and that there is none",
        "run the same file again; if it stays so, the path of one user in the API profile is wrong",
    )  # fmt: skip


def _bring_up_to_date(user: User, rules: Rules, found: Json) -> Conversation:
    if rules.existing is Existing.SKIP:
        return left_alone(user)
    changes = change(found, user, rules)
    if changes is None:
        return conclude(
            user, Status.FAILED, "record-unexpected", "the user's present record has a shape that cannot be merged",
            "nothing was changed; compare the fields of the API profile with what the API answers",
        )  # fmt: skip
    record, changed = changes
    if not changed:
        return conclude(user, Status.UNCHANGED)
    loss = loses(found, record, changed)

    def again(there: Json) -> Json | None:
        # somebody may have changed the record meanwhile: what is put there again begins with what is there now
        nonlocal loss
        anew = change(there, user, rules)
        if anew is None:
            return None
        loss = loss or loses(there, *anew)
        return anew[0]

    outcome = yield from replace(user, rules, found, record, changed, again)
    return outcome._replace(loses=True) if loss and outcome.status is Status.UPDATED else outcome


def _look_for_created(
    user: User, rules: Rules, record: Json, doubt: str, *, absent: bool
) -> Generator[Wish, Response, Outcome | None]:
    """Find out what became of a create whose answer is lost; None where it was certainly not done."""
    found = yield from read(user, rules)
    if found is None:
        yield SETTLE  # a late write would have shown by then
        found = yield from read(user, rules)
    if found is None:
        return None
    if isinstance(found, Outcome):
        return unknown(user, doubt)
    if is_exactly(found, record, rules) or (absent and holds(found, record, rules)):
        return (yield from created(user, found, certain=absent))
    if holds(found, record, rules):  # it may be our own all the same, with what the API fills in
        yield Image(user.row, user.email, None, found, certain=False)
        if rules.existing is Existing.SKIP:  # whoever made it: to say that it was left alone could be untrue
            return conclude(user, Status.UNCHANGED)
    return (yield from _bring_up_to_date(user, rules, found))


def log_in(profile: Profile, email: str, password: Secret) -> Generator[Request, Response, Secret]:
    """Return a new token for an account; at most one request for each key that a password may be sent under.

    Raises:
        AccessError: the account or its password is wrong, or the answer holds no token.
        OutageError: the API cannot answer now.

    """
    names = profile.login
    answer = Response(0)
    for key in names.password:
        body = orjson.dumps({names.email: email, key: password.reveal()})
        answer = yield Request("POST", names.path, body, authorized=False)
        if answer.status not in {400, 404}:  # those two are what the wrong key gets
            break
    said = json_of(answer)
    token = said.get(names.token) if isinstance(said, dict) else None
    if answer.status in {200, 201} and isinstance(token, str) and token.isascii() and token.isprintable() and token:
        return Secret(token)
    if answer.status in {401, 403}:
        raise AccessError(
            "the API does not accept this e-mail and password",
            hint="try them in the web app; without BULKUSERS_PASSWORD in the environment, bulkusers login asks",
        )
    if answer.status >= 500 or answer.status == 429:
        raise OutageError(f"the API cannot log anybody in now ({answer.status})", hint="try again later")
    raise AccessError(
        f"logging in failed: the API answered {answer.status} without a token",
        hint="is the base URL right? it ends in /api/v1",
    )
