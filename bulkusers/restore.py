"""What takes a run's changes back, user by user: the before-image returns, unless somebody changed the user since.

Sources: the vendor's advice for leavers (inactive, and no products; deleting breaks histories and workflows), and that
an update overwrites the whole record: it is put back as it was read.
"""

from collections.abc import Iterator, Sequence

from bulkusers.answers import (
    Conversation,
    ask,
    conclude,
    created,
    describe,
    not_done,
    read,
    record_of,
    replace,
    unknown,
)
from bulkusers.images import Changes
from bulkusers.meaning import Meaning, classify
from bulkusers.models import SETTLE, Image, Json, Outcome, Status
from bulkusers.rules import Rules, holds, is_exactly, is_same, is_same_record

CHANGED_SINCE = "changed-since"  # somebody else did something to the user: nothing is taken back


def take_back(changes: Changes, rules: Rules, *, delete_created: bool = False) -> Conversation:
    """Put one user back as the user was before the run; whom the run created becomes inactive, or is deleted."""
    found = yield from read(changes, rules)
    if isinstance(found, Outcome):
        return found
    if not changes.images:
        return (yield from _look_for_unclear(changes, found, rules))
    if found is None:
        return (yield from _restore_deleted(changes, rules))
    first = _find_beginning(changes.images, rules)
    if not first.certain:
        return (yield from _take_back_what_followed(changes, found, first.sent or found, rules))
    if first.before is None:
        return (yield from _take_back_created(changes, found, rules, delete=delete_created))
    if is_same_record(found, first.before, rules):
        return conclude(changes, Status.UNCHANGED)
    return (yield from _put_back(changes, found, first.before, rules))


def _find_beginning(images: Sequence[Image], rules: Rules) -> Image:
    """Return the last image that began with what the run itself had not put there: that is to come back.

    Where a write was sent again, somebody else may have changed the user in between.
    """
    known = [images[0], *(image for image in images[1:] if image.certain)]  # who was there before was not created later
    for place in range(len(known) - 1, 0, -1):
        before = known[place].before
        earlier = [image.sent for image in known[:place] if image.sent is not None]
        if before is None or not any(is_exactly(before, sent, rules) for sent in earlier):
            return known[place]
    return known[0]


def _look_for_unclear(changes: Changes, found: Json | None, rules: Rules) -> Conversation:
    """Leave somebody alone of whom it was not seen what became; who is not there was not created."""
    there: Json | Outcome | None = found
    if there is None:
        yield SETTLE  # it may still come
        there = yield from read(changes, rules)
    if there is None:
        return conclude(changes, Status.UNCHANGED)
    if isinstance(there, Outcome):
        return there
    return conclude(
        changes, Status.SKIPPED, "maybe-created",
        "the run did not see whether it created this user, so the user may have been there before",
        "look at the user in Coursedog, and decide",
    )  # fmt: skip


def _put_back(changes: Changes, found: Json, goal: Json, rules: Rules) -> Conversation:
    """Replace what the run wrote by what is to be; leave what anybody else wrote."""
    if not _is_ours(changes, found, rules):
        return _changed_since(changes, found, rules)

    def again(there: Json) -> Json | None:
        return goal if _is_ours(changes, there, rules) else None

    return (yield from replace(changes, rules, found, goal, tuple(_differing(found, goal, rules)), again))


def _take_back_what_followed(changes: Changes, found: Json, first: Json, rules: Rules) -> Conversation:
    """Put a user whom the run may have created back as it was first seen, and leave it at that."""
    outcome = conclude(changes, Status.SKIPPED)
    if not is_same_record(found, first, rules):
        outcome = yield from _put_back(changes, found, first, rules)
        if outcome.status is not Status.UPDATED:
            return outcome
    return outcome._replace(
        code="maybe-not-created",
        message="an answer was lost when this user was created, so the user may have been there before",
        hint="look at the user in Coursedog, and decide",
    )


def _take_back_created(changes: Changes, found: Json, rules: Rules, *, delete: bool) -> Conversation:
    names, values = rules.profile.fields, rules.profile.values
    retired = {names.status: values.inactive, names.products: []}
    if delete:
        # an undo may have retired the user before this one is to delete
        ours = _is_ours(changes, found, rules) or _is_ours(changes, found, rules, retired)
        return (yield from _delete(changes, found, rules)) if ours else _changed_since(changes, found, rules)
    if holds(found, retired, rules):
        return conclude(changes, Status.UNCHANGED)
    return (yield from _put_back(changes, found, found | retired, rules))


def _delete(changes: Changes, found: Json, rules: Rules) -> Conversation:
    """Delete a user, and believe only that nobody is there any more."""
    doubt = ""
    for _ in range(1 + rules.retries):
        yield Image(changes.row, changes.email, found, None)
        request = rules.delete(found.get(rules.profile.fields.email, changes.email))
        answer = yield from ask(request)
        match classify(request, answer, rules.profile):
            case Meaning.DONE | Meaning.LOST | Meaning.NOT_FOUND:
                doubt = describe(answer)
            case _ if doubt:
                return unknown(changes, doubt)
            case _:
                return not_done(changes, answer, rules)
        there = yield from read(changes, rules)
        if isinstance(there, dict):
            yield SETTLE  # it may still come
            there = yield from read(changes, rules)
        if isinstance(there, Outcome):
            return unknown(changes, doubt)
        if there is None:
            return conclude(changes, Status.UPDATED, "deleted", "the run had created this user, who is deleted now")
        if not is_same_record(there, found, rules):
            return unknown(changes, doubt)
    return unknown(changes, doubt)


def _restore_deleted(changes: Changes, rules: Rules) -> Conversation:
    """Create a user anew whom the run deleted; leave alone whom somebody else did."""
    last = changes.images[-1]
    if last.before is None:
        return conclude(changes, Status.UNCHANGED)  # whom the run created is gone already
    if last.sent is not None:
        return conclude(
            changes, Status.SKIPPED, CHANGED_SINCE, "somebody deleted this user since", "nothing was changed"
        )
    doubt = ""
    for _ in range(1 + rules.retries):
        request = rules.create_anew(last.before)
        answer = yield from ask(request)
        match classify(request, answer, rules.profile):
            case Meaning.DONE if made := record_of(changes, answer, rules):
                return (yield from created(changes, last.before | made))
            case Meaning.DONE | Meaning.LOST | Meaning.EXISTS | Meaning.MAYBE_EXISTS:
                doubt = describe(answer)
            case _ if doubt:
                return unknown(changes, doubt)
            case _:
                return not_done(changes, answer, rules)
        there = yield from read(changes, rules)
        if there is None:
            yield SETTLE
            there = yield from read(changes, rules)
        if isinstance(there, dict) and is_same_record(there, last.before, rules):
            return (yield from created(changes, there))
        if there is not None:
            return unknown(changes, doubt)
    return unknown(changes, doubt)


def _is_ours(changes: Changes, found: Json, rules: Rules, but: Json = {}) -> bool:  # noqa: B006 - never changed
    """Tell whether a record is one that the run wrote, `but` for these fields."""
    return any(image.sent is not None and is_exactly(found, image.sent | but, rules) for image in changes.images)


def _differing(one: Json, other: Json, rules: Rules) -> Iterator[str]:
    """Yield the names of the fields that differ, but for those that the API keeps itself."""
    own = rules.profile.records.own
    return (name for name in dict.fromkeys([*one, *other]) if name not in own and not is_same(name, one, other, rules))


def _changed_since(changes: Changes, found: Json, rules: Rules) -> Outcome:
    sent = next((image.sent for image in reversed(changes.images) if image.sent is not None), {})
    names = ", ".join(sorted(_differing(found, sent, rules))[:5])
    return conclude(
        changes, Status.SKIPPED, CHANGED_SINCE, f"somebody changed this user since the run ({names}): left as it is",
        "look at the user in Coursedog; a field that the API keeps itself belongs into records.own of the API profile",
    )  # fmt: skip
