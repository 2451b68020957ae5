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
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import orjson

from bulkusers.errors import AccessError, OutageError, TransportError
from bulkusers.models import Existing, Lists, Outcome, Request, Response, Secret, Status, User
from bulkusers.profile import Profile

Json = dict[str, Any]
Conversation = Generator[Request, Response, Outcome]

SCALARS: Final = ("first_name", "last_name", "department", "external_id", "status")
LISTS: Final = ("products", "roles", "secondary_departments")
DATA_AT_FAULT: Final = frozenset({400, 409, 413, 422})  # refusals that a better row can cure
NOT_TAKEN: Final = frozenset({429, 503})  # the API says itself that it did not take the request
# codes that say more of the run than of the user
UNAUTHENTICATED: Final = "unauthenticated"
FORBIDDEN: Final = "forbidden"
NOT_SENT: Final = "not-sent"
LOG_IN: Final = (
    "a token dies after 24 hours, and whenever its user logs in to the web app (a separate API user helps); "
    "get a new one with: bulkusers login"
)
MAX_WORDS: Final = 300  # characters of the API's words that a report repeats


@dataclass(frozen=True, slots=True)
class Rules:
    """How users are placed at one school."""

    profile: Profile
    school: str
    existing: Existing = Existing.MERGE
    lists: Lists = Lists.ADD
    notify: bool = False

    def path(self, template: str, email: str = "") -> str:
        """Fill a path of the profile in; an e-mail stays one segment whatever is in it (RFC 3986 2.1)."""
        if email in {".", ".."}:  # the two segments that encoding cannot tame (RFC 3986 5.2.4)
            raise ValueError("no e-mail address, and not a name for a record")
        return template.format(school=quote(self.school, safe=""), email=quote(email, safe=""))

    def record(self, user: User) -> Json:
        """Return a user as the API writes it; what the row leaves blank is left out."""
        names = self.profile.fields
        record: Json = {names.email: user.email}
        for column in SCALARS:
            if value := self.value(user, column):
                record[getattr(names, column)] = value
        for column in LISTS:
            if values := getattr(user, column):
                record[getattr(names, column)] = list(values)
        record.setdefault(names.products, [])  # required of every record; none are left to one who has gone
        return record

    def value(self, user: User, column: str) -> str:
        """Return one single-valued cell in the API's words."""
        value: str = getattr(user, column)
        if column == "status" and value:
            value = getattr(self.profile.values, value)
        return value

    def create(self, user: User) -> Request:
        """Return the request that creates a user; the API mails the user unless told not to."""
        body = self.record(user) | {self.profile.fields.no_mail: not self.notify}
        return Request("POST", self.path(self.profile.paths.create), orjson.dumps(body))

    def read(self, email: str) -> Request:
        """Return the request for one user's record."""
        return Request("GET", self.path(self.profile.paths.user, email))

    def replace(self, email: str, record: Json) -> Request:
        """Return the request that puts a whole record in the place of a user's present one."""
        return Request("PUT", self.path(self.profile.paths.user, email), orjson.dumps(record))


def place(user: User, rules: Rules) -> Conversation:
    """Create one user, or bring the existing one up to date."""
    try:
        answer = yield rules.create(user)
    except TransportError as error:
        if not error.sent:
            return _not_sent(user, error)
        return (yield from _look_for_created(user, rules, str(error)))
    statuses = rules.profile.statuses
    if answer.status in statuses.created:
        if _is_answer_about(user, answer, rules):
            return _outcome(user, Status.CREATED)
        return (yield from _look_for_created(user, rules, "the API's answer was not understood"))
    if answer.status in statuses.exists and rules.existing is Existing.SKIP:
        return _left_alone(user)
    if answer.status in statuses.exists and rules.existing is Existing.OVERWRITE:
        return (yield from _replace(user, rules, user.email, rules.record(user)))
    if answer.status in statuses.exists + statuses.maybe_exists:
        return (yield from _update(user, rules, answer))
    if _may_have_been_taken(answer):
        return (yield from _look_for_created(user, rules, f"the API answered {answer.status}"))
    return _refused(user, answer, rules)


def _update(user: User, rules: Rules, refusal: Response) -> Conversation:
    """Update the user because of whom a create was refused; or pass on the refusal if there is no such user."""
    found = yield from _read(user, rules)
    if isinstance(found, Outcome):
        return found
    if found is None and refusal.status in rules.profile.statuses.maybe_exists:
        return _refused(user, refusal, rules)
    if found is None:
        return _outcome(
            user, Status.FAILED, "exists-not-found", "the API says that this user exists, and that there is none",
            "run the same file again; if it stays so, the path of one user in the API profile is wrong",
        )  # fmt: skip
    return (yield from _bring_up_to_date(user, rules, found))


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


def merge(found: Json, user: User, rules: Rules) -> Json | None:
    """Return a present record with the row's values put in, all else as it came; None where a list is no list.

    A blank cell keeps what is there. Lists only grow unless they are to be replaced, and keep their order.
    """
    names = rules.profile.fields
    merged = dict(found)
    for column in SCALARS:
        if value := rules.value(user, column):
            merged[getattr(names, column)] = value
    for column in LISTS:
        wanted = list(getattr(user, column))
        present = found.get(getattr(names, column)) or []
        if not isinstance(present, list) or not all(isinstance(item, str) for item in present):
            return None
        if rules.lists is Lists.ADD:
            wanted = present + [item for item in wanted if item not in present]
        if wanted and set(wanted) != set(present):
            merged[getattr(names, column)] = wanted
    return merged


def _replace(user: User, rules: Rules, key: str, record: Json, changed: tuple[str, ...] = ()) -> Conversation:
    try:
        answer = yield rules.replace(key, record)
    except TransportError as error:
        if not error.sent:
            return _not_sent(user, error)
        reason = str(error)
    else:
        if answer.status in rules.profile.statuses.replaced and _is_answer_about(user, answer, rules):
            return _outcome(user, Status.UPDATED, changed=changed)
        if answer.status not in rules.profile.statuses.replaced and not _may_have_been_taken(answer):
            return _refused(user, answer, rules)
        reason = f"the API's answer ({answer.status}) was not understood"
    found = yield from _read(user, rules)
    if isinstance(found, dict) and _holds(found, record, rules):
        return _outcome(user, Status.UPDATED, changed=changed)
    return _unknown(user, reason)


def _look_for_created(user: User, rules: Rules, reason: str) -> Conversation:
    """Find out what became of a create whose answer is lost."""
    found = yield from _read(user, rules)
    if not isinstance(found, dict):
        return _unknown(user, reason)
    if _holds(found, rules.record(user), rules):
        return _outcome(user, Status.CREATED)
    return (yield from _bring_up_to_date(user, rules, found))


def _read(user: User, rules: Rules) -> Generator[Request, Response, Json | Outcome | None]:
    """Return the user's record, None if there is none, or the outcome if that cannot be found out."""
    try:
        answer = yield rules.read(user.email)
    except TransportError as error:
        return _not_sent(user, error)
    if answer.status in rules.profile.statuses.not_found:
        return None
    if answer.status not in rules.profile.statuses.found:
        return _refused(user, answer, rules)
    record = _json(answer)
    if isinstance(record, dict) and same_email(record.get(rules.profile.fields.email), user.email):
        return record
    return _outcome(
        user, Status.FAILED, "answer-unexpected", "the API answered with something that is not this user's record",
        "compare the paths and fields of the API profile with what the API answers",
    )  # fmt: skip


def _holds(found: Json, sent: Json, rules: Rules) -> bool:
    """Tell whether a record holds every value that was sent; the API may order lists as it likes."""
    for name, value in sent.items():
        present = found.get(name)
        if name == rules.profile.fields.email:
            continue  # _read has compared it
        if isinstance(value, list) and isinstance(present, list | None):
            if sorted(map(str, value)) != sorted(map(str, present or [])):
                return False
        elif present != value:
            return False
    return True


def same_email(one: object, other: str) -> bool:
    """Compare e-mails without case and outer blanks, as the API is assumed to."""
    return isinstance(one, str) and one.strip().casefold() == other.strip().casefold()


def _is_answer_about(user: User, answer: Response, rules: Rules) -> bool:
    """Tell a confirmation from a login page: a JSON object, without an error, about nobody else."""
    record = _json(answer)
    names = rules.profile.fields
    return (
        isinstance(record, dict)
        and names.error not in record
        and (names.email not in record or same_email(record[names.email], user.email))
    )


def _may_have_been_taken(answer: Response) -> bool:
    """Tell whether a write may have been done in spite of its answer: only a clear refusal says that it was not."""
    return answer.status < 300 or (answer.status >= 500 and answer.status not in NOT_TAKEN)


def _refused(user: User, answer: Response, rules: Rules) -> Outcome:
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


def _words(answer: Response, user: User, rules: Rules) -> str:
    """Return the API's own words, short, printable, and without the user's e-mail."""
    said = _json(answer)
    words = said.get(rules.profile.fields.error) if isinstance(said, dict) else None
    if not isinstance(words, str) or not words.strip():
        return f"the API answered {answer.status}"
    words = re.sub(re.escape(user.email), "<e-mail>", words[: 10 * MAX_WORDS], flags=re.IGNORECASE)
    words = "".join(" " if unicodedata.category(char)[0] in "CZ" else char for char in words)
    words = " ".join(words.split())
    return words if len(words) <= MAX_WORDS else words[: MAX_WORDS - 1] + "…"


def _json(answer: Response) -> object:
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


def _not_sent(user: User, error: TransportError) -> Outcome:
    return _outcome(user, Status.FAILED, NOT_SENT, str(error), "nothing was changed for this user; run again later")


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
        raise AccessError("the API does not accept this e-mail and password", hint="bulkusers login asks again")
    if answer.status >= 500 or answer.status == 429:
        raise OutageError(f"the API cannot log anybody in now ({answer.status})", hint="try again later")
    raise AccessError(
        f"logging in failed: the API answered {answer.status} without a token",
        hint="is the base URL right? it ends in /api/v1 and is shown by --verbose",
    )
