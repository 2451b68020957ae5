"""What is said to the API and what its answers mean; pure, and the only part that knows.

One user's conversation is a generator: it yields a `Request`, is sent the `Response` (or thrown the `TransportError`
that came instead), and returns the user's `Outcome`. It reads like the API's documentation and is tested by playing
the API's part.

Sources: the vendor's article "Uploading Users in Bulk via API" (create, then update; an e-mail is a user; an update
overwrites the whole record; `disableRegistrationMail`; sessions and tokens). All else is the API profile.
"""

import re
import unicodedata
from collections.abc import Generator
from typing import Final

import orjson

from bulkusers.errors import AccessError, OutageError, TransportError
from bulkusers.meaning import Meaning, classify
from bulkusers.models import SETTLE, Existing, Outcome, Request, Response, Secret, Settle, Status, User
from bulkusers.profile import Profile
from bulkusers.rules import Json, Rules, holds, is_only, merge, same_email

Conversation = Generator[Request | Settle, Response, Outcome]

DATA_AT_FAULT: Final = frozenset({400, 409, 413, 422})  # refusals that a better row can cure
# codes that say more of the run than of the user
UNAUTHENTICATED: Final = "unauthenticated"
FORBIDDEN: Final = "forbidden"
NOT_SENT: Final = "not-sent"
INTERRUPTED: Final = (  # code, message, hint
    "interrupted",
    "the run ended before it was seen what became of this user",
    "go on with --resume: it looks first",
)
LOG_IN: Final = (
    "a token dies after 24 hours, and whenever its user logs in to the web app (a separate API user helps); "
    "get a new one with: bulkusers login"
)
EMAIL_LIKE: Final = re.compile(r"[^\s<>\"'(),;:]+@[^\s<>\"'(),;:]+")
BEARER: Final = re.compile(r"Bearer\s+\S+", re.IGNORECASE)
MAX_WORDS: Final = 300  # characters of the API's words that a report repeats


def place(user: User, rules: Rules, *, begun: bool = False) -> Conversation:
    """Create one user, or bring the existing one up to date; look first where an interrupted run has `begun`."""
    doubt = "an interrupted run had begun with this user" if begun else ""
    for _ in range(1 + rules.retries):
        if doubt:
            outcome = yield from _look_for_created(user, rules, doubt)
            if outcome is not None:
                return outcome
        request = rules.create(user)
        answer = yield from _ask(request)
        match classify(request, answer, rules.profile):
            case Meaning.DONE if _is_about(user, answer, rules):
                return _outcome(user, Status.CREATED)
            case Meaning.EXISTS | Meaning.MAYBE_EXISTS if doubt:
                break  # the one that exists may be our own, come late
            case (Meaning.EXISTS | Meaning.MAYBE_EXISTS) as meaning:
                return (yield from _update(user, rules, answer, certain=meaning is Meaning.EXISTS))
            case Meaning.DONE | Meaning.LOST:
                doubt = _describe(answer)  # it may have been done: look before it is sent again
            case _ if doubt:
                return _unknown(user, doubt)  # this one was refused, but an earlier one may have been taken
            case _:
                return _not_done(user, answer, rules)
    outcome = yield from _look_for_created(user, rules, doubt)
    return outcome or _unknown(user, doubt)


def _update(user: User, rules: Rules, refusal: Response | TransportError, *, certain: bool) -> Conversation:
    """Update the user because of whom a create was refused; or pass on the refusal if there is no such user."""
    if certain and rules.existing is Existing.SKIP:
        return _left_alone(user)
    if certain and rules.existing is Existing.OVERWRITE:
        return (yield from _replace(user, rules, user.email, rules.record(user)))
    found = yield from _read(user, rules)
    if isinstance(found, Outcome):
        return found
    if found is not None:
        return (yield from _bring_up_to_date(user, rules, found))
    if not certain:
        return _not_done(user, refusal, rules)
    return _outcome(
        user, Status.FAILED, "exists-not-found", "the API says that this user exists, and that there is none",
        "run the same file again; if it stays so, the path of one user in the API profile is wrong",
    )  # fmt: skip


def _bring_up_to_date(user: User, rules: Rules, found: Json) -> Conversation:
    key = found.get(rules.profile.fields.email, user.email)
    if rules.existing is Existing.SKIP:
        return _left_alone(user)
    if rules.existing is Existing.OVERWRITE:
        return (yield from _replace(user, rules, key, rules.record(user)))
    merged = merge(found, user, rules)
    if merged is None:
        return _outcome(
            user, Status.FAILED, "record-unexpected", "the user's present record has a shape that cannot be merged",
            "nothing was changed; compare the fields of the API profile with what the API answers",
        )  # fmt: skip
    changed = tuple(name for name in merged if merged[name] != found.get(name))
    if not changed:
        return _outcome(user, Status.UNCHANGED)
    return (yield from _replace(user, rules, key, merged, changed))


def _replace(user: User, rules: Rules, key: str, record: Json, changed: tuple[str, ...] = ()) -> Conversation:
    """Put a record in the place of the present one; where the answer is lost, believe only what is seen."""
    doubt = ""
    for _ in range(1 + rules.retries):
        request = rules.replace(key, record)
        answer = yield from _ask(request)
        match classify(request, answer, rules.profile):
            case Meaning.DONE if _is_about(user, answer, rules):
                return _outcome(user, Status.UPDATED, changed=changed)
            case Meaning.DONE | Meaning.LOST:
                doubt = _describe(answer)
            case _ if doubt:
                return _unknown(user, doubt)  # this one was refused, but an earlier one may have been taken
            case _:
                return _not_done(user, answer, rules)
        # fields that the API keeps itself, such as the time of a change, are not compared
        wanted = {name: record[name] for name in changed} or record
        found = yield from _read(user, rules)
        if isinstance(found, dict) and not _is_as_ordered(found, wanted, user, rules):
            yield SETTLE  # it may still come
            found = yield from _read(user, rules)
        if not isinstance(found, dict):
            return _unknown(user, doubt)
        if _is_as_ordered(found, wanted, user, rules):
            return _outcome(user, Status.UPDATED, changed=changed)
        if rules.existing is Existing.MERGE:
            # somebody may have changed the record meanwhile: what is put there again begins with what is there now
            merged = merge(found, user, rules)
            if merged is None:
                return _unknown(user, doubt)
            record = merged
    return _unknown(user, doubt)


def _is_as_ordered(found: Json, sent: Json, user: User, rules: Rules) -> bool:
    """Tell whether a record is what was sent: all that was, and what an overwrite was to clear is gone."""
    return holds(found, sent, rules) and (rules.existing is not Existing.OVERWRITE or is_only(found, user, rules))


def _look_for_created(user: User, rules: Rules, doubt: str) -> Generator[Request | Settle, Response, Outcome | None]:
    """Find out what became of a create whose answer is lost; None where it was certainly not done."""
    found = yield from _read(user, rules)
    if found is None:
        yield SETTLE  # a late write would have shown by then
        found = yield from _read(user, rules)
    if found is None:
        return None
    if isinstance(found, Outcome):
        return _unknown(user, doubt)
    if _is_as_ordered(found, rules.record(user), user, rules):
        return _outcome(user, Status.CREATED)
    return (yield from _bring_up_to_date(user, rules, found))


def _ask(request: Request) -> Generator[Request | Settle, Response, Response | TransportError]:
    """Send a request; return its answer, or the error that came instead."""
    try:
        return (yield request)
    except TransportError as error:
        return error


def _read(user: User, rules: Rules) -> Generator[Request | Settle, Response, Json | Outcome | None]:
    """Return the user's record, None if there is none, or the outcome if that cannot be found out."""
    request = rules.read(user.email)
    answer = yield from _ask(request)
    match classify(request, answer, rules.profile):
        case Meaning.NOT_FOUND:
            return None
        case Meaning.DONE:
            record = _json(answer)
            if isinstance(record, dict) and _is_about(user, answer, rules):
                return record
            return _outcome(
                user, Status.FAILED, "answer-unexpected", "what the API answered is not this user's record",
                "compare the paths and fields of the API profile with what the API answers",
            )  # fmt: skip
        case _:
            return _not_done(user, answer, rules)


def _is_about(user: User, answer: Response | TransportError, rules: Rules) -> bool:
    """Tell what is said of this user from a login page or an apology: a JSON object that names the user, no error."""
    said = _json(answer)
    names = rules.profile.fields
    return isinstance(said, dict) and names.error not in said and same_email(said.get(names.email), user.email)


def _not_done(user: User, answer: Response | TransportError, rules: Rules) -> Outcome:
    """Return the outcome of a user for whom nothing was changed, and it is known why."""
    if isinstance(answer, TransportError):
        code = "no-answer" if answer.sent else NOT_SENT
        return _outcome(user, Status.FAILED, code, str(answer), "nothing was changed for this user; run again later")
    if answer.status == 401:
        return _outcome(user, Status.FAILED, UNAUTHENTICATED, "the API does not accept the token", LOG_IN)
    words = _words(answer, user, rules)
    if answer.status == 403:
        return _outcome(
            user, Status.REJECTED, FORBIDDEN, words, "the account that sends lacks the permission for this user"
        )
    if answer.status in DATA_AT_FAULT:
        return _outcome(user, Status.REJECTED, f"refused-{answer.status}", words, "fix the row as the API says")
    return _outcome(
        user, Status.FAILED, f"refused-{answer.status}", words, "nothing was changed for this user; run again later"
    )


def _describe(answer: Response | TransportError) -> str:
    """Name what came instead of a confirmation."""
    return (
        str(answer) if isinstance(answer, TransportError) else f"the API's answer ({answer.status}) confirmed nothing"
    )


def _words(answer: Response, user: User, rules: Rules) -> str:
    """Return the API's own words, short, printable, and without people's data or secrets."""
    said = _json(answer)
    words = said.get(rules.profile.fields.error) if isinstance(said, dict) else None
    # tidied first: what looks like a blank afterwards, such as a zero-width one, must not hide a name or a token
    words = _tidy(words[: 10 * MAX_WORDS]) if isinstance(words, str) else ""
    if not words:
        return f"the API answered {answer.status}"
    words = EMAIL_LIKE.sub("<e-mail>", words)
    words = BEARER.sub("Bearer ***", words)
    for value in filter(None, map(_tidy, (user.first_name, user.last_name, user.external_id))):
        words = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", "<...>", words, flags=re.IGNORECASE)
    return words if len(words) <= MAX_WORDS else words[: MAX_WORDS - 1] + "…"


def _tidy(text: str) -> str:
    """Return a text in NFC on one line, with one blank for whatever cannot be seen."""
    chars = unicodedata.normalize("NFC", text)
    return " ".join("".join(" " if unicodedata.category(char)[0] in "CZ" else char for char in chars).split())


def _json(answer: Response | TransportError) -> object:
    if isinstance(answer, TransportError):
        return None
    try:
        said: object = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return None
    return said


def _outcome(
    user: User, status: Status, code: str = "", message: str = "", hint: str = "", changed: tuple[str, ...] = ()
) -> Outcome:
    return Outcome(user.row, user.email, status, code, message, hint, changed)


def _left_alone(user: User) -> Outcome:
    return _outcome(user, Status.SKIPPED, "exists", "the user exists and is left alone, as ordered")


def _unknown(user: User, reason: str) -> Outcome:
    return _outcome(
        user, Status.UNKNOWN, "answer-lost", f"{reason}, and it could not be seen whether the change was made",
        "run the same file again: it looks first",
    )  # fmt: skip


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
    said = _json(answer)
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
