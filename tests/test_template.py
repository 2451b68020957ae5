"""The example users are good users."""

import csv
from pathlib import Path

from bulkusers.columns import COLUMNS
from bulkusers.models import User
from bulkusers.profile import load_profile
from bulkusers.source import open_source
from bulkusers.template import example_rows


def test_example_users_are_the_same_every_time() -> None:
    """And a shorter example is the beginning of a longer one."""
    assert list(example_rows(50)) == list(example_rows(50))
    assert list(example_rows(3)) == list(example_rows(50))[:3]
    assert [len(list(example_rows(number))) for number in (0, 1, 50)] == [0, 1, 50]


def test_every_example_user_would_be_sent(tmp_path: Path) -> None:
    """Written under our titles, none is rejected, none is there twice, nothing is worth a notice."""
    path = tmp_path / "users.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([[column.title for column in COLUMNS], *example_rows(1000)])
    with open_source(path, products=load_profile().values.products) as source:
        users = [item for item in source.users() if isinstance(item, User)]
        assert (source.facts.rejected, source.facts.notices, source.facts.ignored) == (0, (), ())
    assert len({user.email for user in users}) == 1000
    assert all(user.email.endswith("@example.edu") for user in users)
    assert users[0].external_id == "000001"
    assert {user.status for user in users} == {"active"}


def test_the_examples_show_what_a_cell_may_hold() -> None:
    """Several products in one cell, secondary departments, and blanks."""
    rows = [dict(zip((column.field for column in COLUMNS), cells, strict=True)) for cells in example_rows(8)]
    assert any("," in row["products"] for row in rows)
    assert {bool(row["secondary_departments"]) for row in rows} == {True, False}
