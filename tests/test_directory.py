"""A school's roles and departments in every shape, and the ids of a file that are none of them."""

import pytest
from conftest import MakeUser

from bulkusers.directory import Directory, Strangers, read_entries


@pytest.mark.parametrize(
    ("said", "ids"),
    [
        ({"roles": {"r1": {"id": "r1"}, "r2": {"name": "x"}}}, ["r1", "r2"]),
        ({"r1": {"id": "r1"}}, ["r1"]),
        ({"r1": {"name": "x"}}, ["r1"]),
        ({"0100": {"_id": "x1", "id": "0100", "chair": []}}, ["0100", "x1"]),
        ({"x1": {"_id": "x1", "id": 100}}, ["x1", "100"]),
        ([{"id": "r1"}, {"_id": "r2"}, {"name": "x"}], ["r1", "r2"]),
        ({"data": [{"id": "r1"}], "totalCount": 1}, ["r1"]),
        ({"items": [{"id": "r1"}], "totalCount": 1}, ["r1"]),
        ({"roles": {}}, []),
        ({"roles": []}, []),
        ({}, []),
        ([], []),
        (["r1"], None),
        ({"roles": ["r1"]}, None),
        ("r1", None),
        ({"error": "no"}, None),
        ({"error": "no", "details": []}, None),
        ({"r1": {"id": "r1"}, "warnings": [{"id": "w"}]}, None),
        (None, None),
    ],
)
def test_entries_are_found_in_every_shape(said: object, ids: list[str] | None) -> None:
    """By every id that they have; what is no list of records is not taken for an empty one."""
    entries = read_entries(said, "roles")
    assert (None if entries is None else list(entries)) == ids


def test_entries_have_a_name_and_are_in_use_or_not() -> None:
    """The name that people see goes before the other one; whoever says nothing is in use."""
    said = [
        {"id": "1", "name": "a", "displayName": "A"},
        {"id": "2", "name": "b", "status": "Inactive"},
        {"id": "3", "status": "Active"},
    ]
    assert read_entries(said, "roles") == {"1": ("A", True), "2": ("b", False), "3": ("", True)}


def test_an_id_is_known_by_either_of_its_names(make_user: MakeUser) -> None:
    """An API may keep departments by one id and write another into users; the one it keeps them by is proposed."""
    departments = read_entries({"x1": {"_id": "x1", "id": "0100", "name": "History"}}, "departments")
    strangers = Strangers(Directory(roles=None, departments=departments))
    for row, department in enumerate(("x1", "0100", "history"), start=2):
        strangers(make_user(row, department=department, roles=("unknown",)))
    assert [(each.id, each.suggestion, each.rows) for each in strangers] == [("history", "x1", [4])]
