"""What all conversations have in common: asking, reading a user, believing an answer or not, saying what came of it."""

import re
import unicodedata
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Final

import orjson

from bulkusers.errors import TransportError
from bulkusers.meaning import Meaning, classify
from bulkusers.models import SETTLE, Image, Item, Json, Outcome, Request, Response, Settle, Status
from bulkusers.rules import Rules, holds, same_email

Wish = Request | Settle | Image | None
"""What a conversation may yield; None lets others run."""
Conversation = Generator[Wish, Response, Outcome]
"""One user's: yields requests, is sent responses, returns the outcome; other wishes get no answer."""

DATA_AT_FAULT: Final = frozenset({400, 409, 413, 422})  # refusals that a better row can cure
# codes that say more of the run than of the user
UNAUTHENTICATED: Final = "unauthenticated"
FORBIDDEN: Final = "forbidden"
NOT_SENT: Final = "not-sent"
GONE: Final = "gone"  # who was to be updated is not there any more
EXISTS: Final = "exists"  # who is left alone for that
INTERRUPTED: Final = (  # code, message, hint
    "interrupted",
    "the run ended before it was seen what became of this user",
    "go on with --resume: it looks first",
)
WRONG_PLACE: Final = "is the school's id right, and the paths in the API profile? bulkusers doctor looks"
LOG_IN: Final = (
    "a token dies after 24 hours, and whenever its user logs in to the web app (a separate API user helps); "
    "get a new one with: bulkusers login"
)
EMAIL_LIKE: Final = re.compile(r"[^\s<>\"'(),;:]+@[^\s<>\"'(),;:]+")
BEARER: Final = re.compile(r"Bearer\s+\S+", re.IGNORECASE)
SHALLOW: Final = 200  # brackets that cannot nest too deeply
MAX_WORDS: Final = 300  # characters of the API's words that a report repeats


def ask(request: Request) -> Generator[Wish, Response, Response | TransportError]:
    """Send a request; return its answer, or the error that came instead."""
    try:
        return (yield request)
    except TransportError as error:
        return error


def read(who: Item, rules: Rules) -> Generator[Wish, Response, Json | Outcome | None]:
    """Return the user's record, None if there is none, or the outcome if that cannot be found out."""
    request = rules.read(who.email)
    answer = yield from ask(request)
    match classify(request, answer, rules.profile):
        case Meaning.NOT_FOUND:
            return None
        case Meaning.DONE:
            record = record_of(who, answer, rules)
            if record is not None:
                return record
            return conclude(
                who, Status.FAILED, "answer-unexpected", "what the API answered is not this user's record",
                "compare the paths and fields of the API profile with what the API answers",
            )  # fmt: skip
        case _:
            return not_done(who, answer, rules)


def record_of(who: Item, answer: Response | TransportError, rules: Rules) -> Json | None:
    """Return the record of this user that an answer is; None for a login page, an apology, or what cannot be kept."""
    said = json_of(answer)
    names = rules.profile.fields
    if not isinstance(said, dict) or names.error in said or not same_email(said.get(names.email), who.email):
        return None
    return said if isinstance(answer, Response) and _can_be_written(said, answer.body) else None


def _can_be_written(record: Json, text: bytes) -> bool:
    """Tell whether a record can be sent back and kept in an image: reading allows for deeper nesting than writing."""
    if text.count(b"[") + text.count(b"{") < SHALLOW:
        return True
    try:
        orjson.dumps([record])  # as deep as it stands in an image
    except orjson.JSONEncodeError:
        return False
    return True


def not_done(who: Item, answer: Response | TransportError, rules: Rules, found: Json = {}) -> Outcome:  # noqa: B006 - never changed
    """Return the outcome of a user for whom nothing was changed, and it is known why; `found` is the user's record."""
    if isinstance(answer, TransportError):
        code = "no-answer" if answer.sent else NOT_SENT
        return conclude(who, Status.FAILED, code, str(answer), "nothing was changed for this user; run again later")
    if answer.status == 401:
        return conclude(who, Status.FAILED, UNAUTHENTICATED, "the API does not accept the token", LOG_IN)
    words = quote_words(answer, (*who.private, *_names_in(found, rules)), rules)
    if answer.status == 403:
        return conclude(
            who, Status.REJECTED, FORBIDDEN, words, "the account that sends lacks the permission for this user"
        )
    if answer.status in DATA_AT_FAULT:
        return conclude(who, Status.REJECTED, f"refused-{answer.status}", words, "fix the row as the API says")
    hint = WRONG_PLACE if answer.status == 404 else "nothing was changed for this user; run again later"
    return conclude(who, Status.FAILED, f"refused-{answer.status}", words, hint)


def replace(
    who: Item, rules: Rules, found: Json, record: Json, changed: tuple[str, ...], again: Callable[[Json], Json | None]
) -> Conversation:
    """Put a record in the place of the one found; where the answer is lost, believe only what is seen.

    `again` says what to put in the place of another one that is there then; None where that cannot be said.
    """
    doubt = ""
    # fields that the API keeps itself, such as the time of a change, are not compared; what is cleared has to be gone
    wanted = {name: record.get(name) for name in changed}
    for _ in range(1 + rules.retries):
        yield Image(who.row, who.email, found, record)
        request = rules.replace(found.get(rules.profile.fields.email, who.email), record)
        answer = yield from ask(request)
        match classify(request, answer, rules.profile):
            case Meaning.DONE if record_of(who, answer, rules) is not None:
                return conclude(who, Status.UPDATED, changed=changed)
            case Meaning.DONE | Meaning.LOST:
                doubt = describe(answer)
            case _ if doubt:
                return unknown(who, doubt)  # this one was refused, but an earlier one may have been taken
            case Meaning.NOT_FOUND:
                return conclude(
                    who, Status.FAILED, GONE, "the user was there a moment ago, and is gone", "run the same file again"
                )
            case _:
                return not_done(who, answer, rules, found)
        there = yield from read(who, rules)
        if isinstance(there, dict) and not holds(there, wanted, rules):
            yield SETTLE  # it may still come
            there = yield from read(who, rules)
        if not isinstance(there, dict):
            return unknown(who, doubt)
        if holds(there, wanted, rules):
            return conclude(who, Status.UPDATED, changed=changed)
        next_record = again(there)
        if next_record is None:
            return unknown(who, doubt)
        found, record = there, next_record
    return unknown(who, doubt)


def describe(answer: Response | TransportError) -> str:
    """Name what came instead of a confirmation."""
    return (
        str(answer) if isinstance(answer, TransportError) else f"the API's answer ({answer.status}) confirmed nothing"
    )


def _names_in(record: Json, rules: Rules) -> Iterator[str]:
    """Yield what no message may repeat of a user's record: it may be other than in the row."""
    names = rules.profile.fields
    for name in (names.first_name, names.last_name, names.external_id):
        if isinstance(value := record.get(name), str):
            yield value


def quote_words(answer: Response, private: Iterable[str], rules: Rules) -> str:
    """Return the API's own words, short, printable, and without secrets or what is private."""
    said = json_of(answer) if answer.status >= 300 else None  # secrets are struck out of refusals only
    words = said.get(rules.profile.fields.error) if isinstance(said, dict) else None
    # tidied first: what looks like a blank afterwards, such as a zero-width one, must not hide a name or a token
    words = _tidy(words[: 10 * MAX_WORDS]) if isinstance(words, str) else ""
    if not words:
        return f"the API answered {answer.status}"
    words = EMAIL_LIKE.sub("<e-mail>", words)
    words = BEARER.sub("Bearer ***", words)
    for value in filter(None, map(_tidy, private)):
        words = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", "<...>", words, flags=re.IGNORECASE)
    return words if len(words) <= MAX_WORDS else words[: MAX_WORDS - 1] + "…"


def _tidy(text: str) -> str:
    """Return a text in NFC on one line, with one blank for whatever cannot be seen."""
    chars = unicodedata.normalize("NFC", text)
    return " ".join("".join(" " if unicodedata.category(char)[0] in "CZ" else char for char in chars).split())


def json_of(answer: Response | TransportError) -> object:
    """Return the JSON of an answer; None where it is none."""
    if isinstance(answer, TransportError):
        return None
    try:
        said: object = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return None
    return said


def conclude(
    who: Item, status: Status, code: str = "", message: str = "", hint: str = "", changed: tuple[str, ...] = ()
) -> Outcome:
    """Return what became of a user."""
    return Outcome(who.row, who.email, status, code, message, hint, changed)


def created(who: Item, record: Json, *, certain: bool = True) -> Conversation:
    """Have it written down who was created, and return that outcome."""
    yield Image(who.row, who.email, None, record, certain)
    return conclude(who, Status.CREATED)


def left_alone(who: Item) -> Outcome:
    """Return the outcome of a user who exists and is not to be touched."""
    return conclude(who, Status.SKIPPED, EXISTS, "the user exists and is left alone, as ordered")


def unknown(who: Item, reason: str) -> Outcome:
    """Return the outcome of a user who may or may not be changed, because of an answer that was lost."""
    return conclude(
        who, Status.UNKNOWN, "answer-lost", f"{reason}, and it could not be seen whether the change was made",
        "run the same file again: it looks first",
    )  # fmt: skip
