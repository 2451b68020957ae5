"""What is foreseen is what happens: row by row, record by record, request by request."""

import asyncio
import csv
import io
import json
import os
import random
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, Final

import pytest
from conftest import MakeOutcome, MakeRules, MakeUser
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from runs import send_lines
from torture import BAD, OPTIONAL, draw_existing, draw_new, draw_odd, spoil

from bulkusers import Existing, Lists, Report, Status, open_source
from bulkusers.books import images_of
from bulkusers.forecast import Difference, Forecast, Foreseen, foresee, foresee_rows, make_forecast
from bulkusers.images import Album
from bulkusers.models import Json, Outcome, Share, User
from bulkusers.profile import load_profile
from bulkusers.rules import Rules, is_alike
from bulkusers.sandbox import Sandbox, serve
from bulkusers.sandbox.api import _find_fault
from bulkusers.snapshot import Snapshot

FILES: Final = int(os.environ.get("DRAWN_FILES", "7"))  # for each mode
USERS: Final = 12
OWN: Final = {"_id", "createdAt"}


def record_of(user: User, **more: object) -> Json:
    """Return a record that a row would change nothing in, any field said otherwise."""
    required = {"email": user.email, "firstName": user.first_name, "lastName": user.last_name}
    return required | {"products": list(user.products)} | more


# One user.


def test_a_new_user_gains_everything(make_user: MakeUser, make_rules: MakeRules) -> None:
    """Every field that is sent is a difference; what is empty is none."""
    seen = foresee(make_user(roles=("a", "b"), department="0100"), make_rules(), None)
    assert (seen.outcome.status, seen.outcome.loses) == (Status.CREATED, False)
    assert {each.field: (each.old, each.new, each.gained, each.lost) for each in seen.differences} == {
        "email": (None, "row2@example.edu", (), ()),
        "firstName": (None, "Ann", (), ()),
        "lastName": (None, "Lee", (), ()),
        "department": (None, "0100", (), ()),
        "products": (None, ["events"], ("events",), ()),
        "roles": (None, ["a", "b"], ("a", "b"), ()),
    }


def test_nothing_is_no_difference_to_nothing(make_user: MakeUser, make_rules: MakeRules) -> None:
    """A new user without products gains none."""
    seen = foresee(make_user(products=(), status="inactive"), make_rules(), None)
    assert [each.field for each in seen.differences] == ["email", "firstName", "lastName", "status"]


def test_a_merge_shows_what_comes_and_keeps_the_rest(make_user: MakeUser, make_rules: MakeRules) -> None:
    """Nothing is lost, and fields that do not change are no difference."""
    user = make_user(roles=("b",))
    seen = foresee(user, make_rules(), record_of(user, firstName="Anna", roles=["a"], notes="kept"))
    assert seen == Foreseen(
        Outcome(2, user.email, Status.UPDATED, changed=("firstName", "roles")),
        (Difference("firstName", "Anna", "Ann"), Difference("roles", ["a"], ["a", "b"], ("b",), ())),
    )


@pytest.mark.parametrize(
    ("more", "loses"),
    [
        ({"roles": ["a"]}, True),
        ({"notes": "kept by hand"}, True),
        ({"department": "0100"}, True),
        ({"firstName": "Anna"}, False),  # it gets another one for it
        ({"notes": ""}, False),
        ({"roles": None}, False),
        ({"roles": []}, False),
        ({"department": "0100", "roles": []}, True),
        ({"_id": "7", "updatedAt": "now", "lastName": "Li"}, False),
    ],
)
def test_an_overwrite_shows_what_is_lost(make_user: MakeUser, make_rules: MakeRules, more: Json, loses: bool) -> None:
    """A value that goes without another in its place is a loss; what the API keeps itself is not ours to lose."""
    user = make_user()
    assert foresee(user, make_rules(existing=Existing.OVERWRITE), record_of(user, **more)).outcome.loses is loses


def test_replaced_lists_lose_what_the_row_does_not_name(make_user: MakeUser, make_rules: MakeRules) -> None:
    """Both directions are shown."""
    user = make_user(roles=("b", "c"))
    seen = foresee(user, make_rules(lists=Lists.REPLACE), record_of(user, roles=["a", "b"]))
    assert seen.differences == (Difference("roles", ["a", "b"], ["b", "c"], ("c",), ("a",)),)
    assert seen.outcome.loses


@pytest.mark.parametrize(
    ("existing", "more", "status", "code"),
    [
        (Existing.MERGE, {}, Status.UNCHANGED, ""),
        (Existing.SKIP, {"firstName": "Anna"}, Status.SKIPPED, "exists"),
        (Existing.MERGE, {"products": "not a list"}, Status.FAILED, "record-unexpected"),
    ],
)
def test_who_is_not_changed_shows_no_difference(
    make_user: MakeUser, make_rules: MakeRules, existing: Existing, more: Json, status: Status, code: str
) -> None:
    """Equal, left alone, or of a shape that cannot be merged."""
    user = make_user()
    seen = foresee(user, make_rules(existing=existing), record_of(user, **more))
    assert (seen.outcome.status, seen.outcome.code, seen.differences, seen.outcome.loses) == (status, code, (), False)


# A file.


def test_a_forecast_counts_users_fields_and_values(make_user: MakeUser, make_rules: MakeRules) -> None:
    """New users are among the gains and not among the fields; rows that lose are named, the first few."""
    rules = make_rules(lists=Lists.REPLACE)
    forecast = Forecast(9)
    for row in range(2, 9):
        user = make_user(row, roles=("b",))
        forecast(foresee(user, rules, record_of(user, roles=["a"])))
    forecast(foresee(make_user(9, roles=("b",)), rules, None))
    forecast(Foreseen(Outcome(10, "x", Status.REJECTED, "email-invalid")))
    assert {status: count for status, count in forecast.counts.items() if count} == {
        "rows": 9,
        "updated": 7,
        "created": 1,
        "rejected": 1,
    }
    assert forecast.fields == {"roles": 7}
    assert forecast.gains == {("roles", "b"): 8, ("products", "events"): 1}
    assert forecast.losses == {("roles", "a"): 7}
    assert (forecast.tally.losses.count, forecast.tally.losses.rows) == (7, [2, 3, 4, 5, 6])
    assert forecast.samples[Status.UPDATED, False] == "row2@example.edu"
    assert forecast.samples[Status.UPDATED, True] == "row8@example.edu"
    assert forecast.samples[Status.CREATED, False] == forecast.samples[Status.CREATED, True] == "row9@example.edu"


def test_requests_are_counted_as_a_run_sends_them(make_outcome: MakeOutcome) -> None:
    """One for a create, two for who exists, one more for a change; none for what the file itself decides."""
    forecast = Forecast(0)
    kinds = [
        *[(Status.CREATED, "")] * 100,
        *[(Status.UPDATED, "")] * 10,
        *[(Status.UNCHANGED, "")] * 20,
        (Status.FAILED, "record-unexpected"),
        (Status.REJECTED, "email-invalid"),
        *[(Status.SKIPPED, "duplicate-row")] * 1000,
    ]
    for status, code in kinds:
        forecast(Foreseen(make_outcome(2, status, code)))
    assert forecast.requests(Existing.MERGE) == (100 + 2 * 31 + 10, 110)
    forecast = Forecast(0)
    for status, code in [(Status.SKIPPED, "exists"), (Status.SKIPPED, "duplicate-row"), (Status.CREATED, "")]:
        forecast(Foreseen(make_outcome(2, status, code)))
    assert forecast.requests(Existing.SKIP) == (2, 1)


@pytest.mark.parametrize(
    ("creates", "updates", "exceeded"),
    [
        ("2", "4", []),
        ("1", "4", ["created"]),
        ("1", "3", ["created", "updated"]),
        ("20%", "40%", []),
        ("19.9%", "39%", ["created", "updated"]),
        ("0", "0%", ["created", "updated"]),
        (None, "3", ["updated"]),
        (None, None, []),
    ],
)
def test_caps_are_numbers_or_shares_of_all_rows(
    make_outcome: MakeOutcome, creates: str | None, updates: str | None, exceeded: list[str]
) -> None:
    """Exactly at a cap nothing is exceeded; percentages are of the file's rows."""
    forecast = Forecast(10)
    for status in [Status.CREATED] * 2 + [Status.UPDATED] * 4:
        forecast(Foreseen(make_outcome(2, status)))
    caps = [None if text is None else Share(text) for text in (creates, updates)]
    found = [str(refusal) for refusal in forecast.exceeded(*caps)]
    said = {"created": f"2 users would be created, and --max-creates allows {creates}"}
    said["updated"] = f"4 users would be updated, and --max-updates allows {updates}"
    assert found == [said[what] for what in exceeded]


# Forecast and run, on drawn files and drawn records.


class Drawn:
    """A file and the records of a school; a seed draws the same each time."""

    def __init__(self, seed: int) -> None:
        draw = random.Random(seed)
        optional = [column for column in OPTIONAL if draw.random() < 0.7]
        header = ["First Name", "Last Name", "Email", "Products", *optional]
        lines = []
        for number in draw.sample(range(1, 2 * USERS), draw.randint(1, 8)):
            cells = draw_existing(draw, number) if number <= USERS else draw_new(draw, number)
            if draw.random() < 0.1:
                cells |= {"Status": "inactive", "Products": ""}
            lines.append([cells[column] for column in header])
        if draw.random() < 0.2:
            lines.append(spoil(lines[0], header, draw.choice(BAD)))
        if draw.random() < 0.2:
            lines.append(list(lines[-1]))
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([header, *lines])
        self.header, *self.lines = text.getvalue().splitlines()
        known = Sandbox(users=USERS).users.values()
        self.records = [draw_odd(draw, each) if draw.random() < 0.6 else each for each in known]

    def sandbox(self) -> Sandbox:
        """Return a sandbox that holds the records."""
        sandbox = Sandbox()
        sandbox.users.update({record["email"]: record for record in self.records})
        return sandbox


def foresee_all(folder: Path, rules: Rules, records: list[Json]) -> tuple[Forecast, list[Foreseen]]:
    """Return what is foreseen of a file, as a whole and row by row."""
    with open_source(folder / "users.csv") as source, Snapshot() as snapshot:
        for record in records:
            assert snapshot.add(record["email"], json.dumps(record, indent=1))
        snapshot.flush()
        rows = list(foresee_rows(source.users(), rules, snapshot))
        with pytest.raises(StopIteration) as end:
            next(make_forecast(source.users(), source.facts.rows, rules, snapshot))
        forecast: Forecast = end.value.value
        return forecast, rows


def check_records(foreseen: list[Foreseen], refused: set[int], before: list[Json], after: list[Json]) -> None:
    """Compare what the sandbox holds with what was foreseen: every field of everybody."""
    expected = {record["email"].lower(): dict(record) for record in before}
    for each in foreseen:
        if each.outcome.status in {Status.CREATED, Status.UPDATED} and each.outcome.row not in refused:
            record = expected.setdefault(each.outcome.email.lower(), {})
            record |= {difference.field: difference.new for difference in each.differences}
    found = {record["email"].lower(): record for record in after}
    assert found.keys() == expected.keys()
    for email, record in expected.items():
        for field in (record.keys() | found[email].keys()) - OWN - {"email"}:
            assert is_alike(record.get(field), found[email].get(field)), (email, field)


def rows_of(report: Report) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Yield of each row what a forecast says, too."""
    for row in report.rows():
        yield row["status"], row.get("code", ""), tuple(row.get("changed", ()))


async def compare(drawn: Drawn, folder: Path, existing: Existing, lists: Lists, *, changed_only: bool) -> None:
    """Foresee, run, run again, and compare."""
    async with serve(drawn.sandbox()) as sandbox:

        async def run(*, changed_only: bool) -> Report:
            sandbox.ledger.clear()
            how: dict[str, Any] = {"existing": existing, "lists": lists, "changed_only": changed_only}
            return await send_lines(sandbox, folder, *drawn.lines, header=drawn.header, concurrency=3, **how)

        report = await run(changed_only=changed_only)
        forecast, foreseen = foresee_all(folder, Rules(load_profile(), sandbox.school, existing, lists), drawn.records)
        images = images_of(report.path)
        refused: set[int] = set()
        if images.exists():
            with Album(images, report.run["id"], {}) as album:
                # the one thing that nobody can foresee is what the API will not take
                refused = {each.row for each in album if _find_fault(each.images[0].sent, ("email",))}
        expected = [
            ("rejected", "refused-400", ())
            if each.outcome.row in refused
            else (each.outcome.status, each.outcome.code, each.outcome.changed)
            for each in foreseen
        ]
        assert list(rows_of(report)) == expected
        if not refused:
            assert forecast.counts == report.counts
        check_records(foreseen, refused, drawn.records, list(sandbox.users.values()))

        plain, changed = forecast.requests(existing)
        kinds = [(Status.CREATED, False), (Status.CREATED, True), (Status.UPDATED, False)]
        samples = {forecast.samples[kind] for kind in kinds if kind in forecast.samples}
        reads = 3  # users, roles, departments
        assert len(sandbox.ledger) == (reads + len(samples) + changed if changed_only else plain)
        assert len(samples) < 4
        writes = [entry for entry in sandbox.ledger if entry.wrote]
        assert len(writes) == forecast.counts["created"] + forecast.counts["updated"] - len(refused)

        await run(changed_only=True)
        assert sum(entry.method != "GET" for entry in sandbox.ledger) == len(refused)


@pytest.mark.parametrize("changed_only", [True, False])
@pytest.mark.parametrize(("existing", "lists"), list(product(Existing, Lists)))
@settings(
    max_examples=FILES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(seed=st.integers(0, 2**32))
@pytest.mark.timeout(1200)
def test_a_run_does_what_was_foreseen(existing: Existing, lists: Lists, changed_only: bool, seed: int) -> None:
    """For every drawn file and school: each outcome, each record, each request; and a second run writes nothing."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(compare(Drawn(seed), Path(folder), existing, lists, changed_only=changed_only))
