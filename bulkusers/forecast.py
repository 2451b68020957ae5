"""What a run would do: each user's very conversation, led with a snapshot that plays the API's part."""

from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass

import orjson

from bulkusers.answers import EXISTS, Conversation, Wish, json_of
from bulkusers.errors import CapError, ShapeError
from bulkusers.meaning import Meaning, classify
from bulkusers.models import BREATH, Existing, Image, Json, Outcome, Request, Response, Share, Status, User
from bulkusers.protocol import place
from bulkusers.rules import Rules, is_alike, is_same_record, same_email
from bulkusers.snapshot import Snapshot, explain
from bulkusers.tally import Tally


@dataclass(frozen=True, slots=True)
class Difference:
    """One field of one user, before and after; a list's values that come and go, too."""

    field: str
    old: object
    new: object
    gained: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What would become of one row."""

    outcome: Outcome
    differences: tuple[Difference, ...] = ()


def foresee(user: User, rules: Rules, found: Json | None) -> Foreseen:
    """Return what would become of a user whose record is the one found, or who is not there."""
    outcome, image = _play(place(user, rules), found, rules)
    if image is None:
        return Foreseen(outcome)
    return Foreseen(outcome, tuple(list_differences(image, outcome.changed or rules.record(user))))


def list_differences(image: Image, fields: Iterable[str]) -> Iterator[Difference]:
    """Yield those of the fields that differ."""
    before, sent = image.before or {}, image.sent or {}
    for field in fields:
        old, new = before.get(field), sent.get(field)
        if is_alike(old, new):
            continue
        if isinstance(old, list | None) and isinstance(new, list | None):
            had, has = list(map(str, old or ())), list(map(str, new or ()))
            gained = tuple(value for value in has if value not in had)
            yield Difference(field, old, new, gained, tuple(value for value in had if value not in has))
        else:
            yield Difference(field, old, new)


def _play(conversation: Conversation, found: Json | None, rules: Rules) -> tuple[Outcome, Image | None]:
    """Lead a conversation with an API that holds one record at the most, and takes everything."""
    image = None
    try:
        wish = next(conversation)
        while True:
            if isinstance(wish, Request):
                wish = conversation.send(_answer(wish, found, rules))
            else:
                image = wish if isinstance(wish, Image) else image
                wish = next(conversation)
    except StopIteration as end:
        outcome: Outcome = end.value
        return outcome, image


def _answer(request: Request, found: Json | None, rules: Rules) -> Response:
    statuses = rules.profile.statuses
    match request.method:
        case "POST" if found is not None:
            return Response(statuses.exists[0])
        case "POST":
            return Response(statuses.created[0], request.body or b"")
        case "PUT":
            return Response(statuses.replaced[0], request.body or b"")
    return Response(statuses.not_found[0]) if found is None else Response(statuses.found[0], orjson.dumps(found))


class Forecast:
    """What would become of a whole file, in numbers; takes one row after another."""

    def __init__(self, rows: int) -> None:
        self.tally = Tally(rows)
        self.fields: Counter[str] = Counter()  # users in whom a field changes, new ones left out
        self.gains: Counter[tuple[str, str]] = Counter()  # users who gain a value of a list, new ones too
        self.losses: Counter[tuple[str, str]] = Counter()
        self.left_alone = 0  # users who exist and are skipped for that; rows that stand twice are not among them
        self.samples: dict[tuple[Status, bool], str] = {}  # e-mails: of the first and the last (True) row of a kind

    def __call__(self, foreseen: Foreseen) -> None:
        """Take one row into account."""
        outcome = foreseen.outcome
        self.tally(outcome)
        self.left_alone += outcome.code == EXISTS
        self.samples.setdefault((outcome.status, False), outcome.email)
        self.samples[outcome.status, True] = outcome.email
        for each in foreseen.differences:
            if outcome.status is Status.UPDATED:
                self.fields[each.field] += 1
            self.gains.update((each.field, value) for value in each.gained)
            self.losses.update((each.field, value) for value in each.lost)

    @property
    def counts(self) -> dict[str, int]:
        """How many rows would end how; the same names as in a report."""
        return self.tally.counts

    def requests(self, existing: Existing) -> tuple[int, int]:
        """Return how many requests a plain run would take, and one that sends only what changes."""
        counts = self.counts
        created, updated = counts[Status.CREATED], counts[Status.UPDATED]
        known = updated + counts[Status.UNCHANGED] + counts[Status.FAILED]
        # a create each; of those who exist a read, and a replacement where something changes
        plain = created + 2 * known + updated + (self.left_alone if existing is Existing.SKIP else 0)
        return plain, created + updated

    def exceeded(self, creates: Share | None, updates: Share | None) -> Iterator[CapError]:
        """Yield the refusals of a run: one for each cap that the file would exceed."""
        for status, cap in ((Status.CREATED, creates), (Status.UPDATED, updates)):
            number = self.counts[status]
            if cap is not None and number > cap.of(self.counts["rows"]):
                name = f"--max-{status.removesuffix('d')}s"
                yield CapError(
                    f"{number:,} user{'' if number == 1 else 's'} would be {status}, and {name} allows {cap}",
                    hint=f"nothing was sent; look at them with `bulkusers plan`; if it is right, say {name} {number}",
                )


def foresee_rows(items: Iterable[User | Outcome], rules: Rules, snapshot: Snapshot) -> Iterator[Foreseen]:
    """Yield what would become of each of a file's rows."""
    for item in items:
        yield Foreseen(item) if isinstance(item, Outcome) else foresee(item, rules, snapshot.find(item.email))


def make_forecast(
    items: Iterable[User | Outcome], rows: int, rules: Rules, snapshot: Snapshot
) -> Generator[Wish, Response, Forecast]:
    """Return what would become of a file's rows, in numbers."""
    result = Forecast(rows)
    for count, foreseen in enumerate(foresee_rows(items, rules, snapshot), 1):
        if count % BREATH == 0:
            yield None
        result(foreseen)
    return result


def check_samples(forecast: Forecast, rules: Rules, snapshot: Snapshot) -> Generator[Wish, Response, None]:
    """See for a few users whether the API says the same of each alone as in its list.

    A list that is cut short without a count, or that shows less of its users than there is, would have users created
    who exist, and others stripped of what the list does not show.

    Raises:
        ShapeError: it does not.
        AccessError: the API does not let this account read users.
        OutageError: the API cannot answer now.
        TransportError: no answer came.

    """
    samples = {forecast.samples.get((Status.CREATED, last)) for last in (False, True)}
    for email in (*samples, forecast.samples.get((Status.UPDATED, False))):
        if email is None:
            continue
        found, listed = (yield from _read_one(email, rules)), snapshot.find(email)
        if (found is None) is not (listed is None):
            raise ShapeError(
                "the API's list of users is not whole: a user who is there by e-mail is not in it, or the other way",
                hint="try again; if it stays so, run without --changed-only and caps",
            )
        if found and listed and not is_same_record(found, listed, rules):
            raise ShapeError(
                "the API's list of users says something else of a user than the user's own record",
                hint="try again; if it stays so, run without --changed-only and caps",
            )


def _read_one(email: str, rules: Rules) -> Generator[Wish, Response, Json | None]:
    request = rules.read(email)
    answer = yield request
    match classify(request, answer, rules.profile):
        case Meaning.NOT_FOUND:
            return None
        case Meaning.DONE:
            record = json_of(answer)
            if isinstance(record, dict) and same_email(record.get(rules.profile.fields.email), email):
                return record
            raise ShapeError(
                "what the API answers is not the record of the user who was asked for",
                hint="is `paths.user` in the API profile right?",
            )
        case meaning:
            raise explain(answer, meaning)
