"""Headers: which name a column, which are nearly one, and which are none of ours."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkusers.columns import COLUMNS, REJECT_TITLES, clean, count_known, header_key, match_header, safe_cell
from bulkusers.errors import SourceError

REQUIRED = ["First Name", "Last Name", "Email", "Products"]


def test_every_title_and_synonym_names_its_column() -> None:
    """A header of nothing but titles, or with any one replaced by a synonym, puts each column where it stands."""
    titles = [column.title for column in COLUMNS]
    assert match_header("users.csv", 1, titles).places == tuple(range(len(COLUMNS)))
    for place, column in enumerate(COLUMNS):
        for synonym in column.synonyms:
            header = [*titles[:place], synonym, *titles[place + 1 :]]
            assert match_header("users.csv", 1, header).places == tuple(range(len(COLUMNS)))


def test_no_name_means_two_columns() -> None:
    """All the names are distinct, also from the titles in a file of rejects."""
    names = [header_key(name) for column in COLUMNS for name in (column.title, *column.synonyms)]
    names += map(header_key, REJECT_TITLES)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    "header", ["first_name", " FIRST  NAME ", "First-Name", "#FirstName", "\ufefffirst name:", "First\nName*"]
)
def test_headers_are_compared_by_their_letters_and_digits(header: str) -> None:
    """Case, blanks, line breaks and punctuation make no difference."""
    assert header_key(header) == "firstname"


@pytest.mark.parametrize(
    ("header", "title"),
    [
        ("Prodcuts", "Products"),
        ("Prodicts", "Products"),
        ("Prducts", "Products"),
        ("Productss", "Products"),
        ("Emial", "Email"),
        ("Emails", "Email"),
        ("Email Adress", "Email"),
        ("Frist Name", "First Name"),
        ("Fist Name", "First Name"),
        ("Last Nmae", "Last Name"),
        ("Surnmae", "Last Name"),
        ("Deparment", "Department"),
        ("Departments", "Department"),
        ("Primary Deparment", "Department"),
        ("Secondry Departments", "Secondary Departments"),
        ("Extenal ID", "External ID"),
        ("Rol IDs", "Role IDs"),
        ("Roels", "Role IDs"),
        ("Stauts", "Status"),
    ],
)
def test_typing_errors_are_refused_with_the_title_that_was_meant(header: str, title: str) -> None:
    """A misspelt column is not silently ignored."""
    with pytest.raises(SourceError, match=f"there is no column '{header}'; did you mean '{title}'") as refusal:
        match_header("users.csv", 1, [*REQUIRED, header])
    assert refusal.value.hint


@pytest.mark.parametrize(
    "header",
    [
        *(
            "Username",
            "User Name",
            "Full Name",
            "Middle Name",
            "Maiden Name",
            "Preferred Name",
            "Display Name",
            "Legal Name",
        ),
        *("Name", "Nickname", "Initials", "Phone", "Phone Number", "Mobile", "Title", "Job Title", "Position", "Notes"),
        *("Comments", "Date", "Start Date", "Last Login", "Created At", "Country", "State", "City", "Address", "Zip"),
        *("Campus", "Campus ID", "Building", "Office", "Department Chair", "Department Code", "Department Head"),
        *("Department Name", "Home Department", "College", "School", "Institution", "Faculty", "Division", "Unit"),
        *("Program", "Production", "Product Name", "Project", "Role Name", "User Role", "User Type", "Type", "Group"),
        *("Employee ID", "Student ID", "Person ID", "Staff ID", "Net ID", "SSO ID", "Internal ID", "Emplid", "ID"),
        *("Email 2", "Secondary Email", "Email Type", "Mailing", "Mailbox", "Mail Stop", "Manager", "Supervisor"),
        *(
            "Password",
            "Active",
            "Gender",
            "Pronouns",
            "Term",
            "Course",
            "Language",
            "Rules",
            "Roll",
            "Status Date",
            "Row",
        ),
    ],
)
def test_other_columns_are_ignored_and_listed(header: str) -> None:
    """A school's own columns stop nothing."""
    layout = match_header("users.csv", 1, [header, *REQUIRED])
    assert layout.ignored == (header,)
    assert layout.places == (1, 2, 3, 4, -1, -1, -1, -1, -1)


def test_reject_titles_and_blank_headers_are_not_listed() -> None:
    """What we added ourselves, and columns without a name, are ignored without a word."""
    layout = match_header("users.csv", 1, ["Error", "", *REQUIRED, " "])
    assert layout.ignored == ()
    assert layout.width == 6
    assert layout.header == ("Error", "", *REQUIRED, " ")


def test_nothing_belongs_behind_our_own_columns() -> None:
    """A spreadsheet gives every row as many cells as the longest has, and the header, too."""
    assert match_header("users.csv", 1, [*REQUIRED, "Error", "Hint", "", ""]).header == (*REQUIRED, "Error", "Hint")


@pytest.mark.parametrize("twice", ["Email", "e-mail address"])
def test_a_column_that_stands_there_twice_is_refused(twice: str) -> None:
    """Neither the first nor the last of two columns wins."""
    with pytest.raises(SourceError, match=f"'Email' and '{twice}' both mean Email"):
        match_header("users.csv", 1, [*REQUIRED, twice])


def test_unknown_columns_may_stand_there_twice() -> None:
    """What is ignored cannot be ambiguous."""
    assert match_header("users.csv", 1, [*REQUIRED, "Phone", "Phone"]).ignored == ("Phone", "Phone")


def test_all_missing_columns_are_named() -> None:
    """One message is enough to complete the header, and says which row was taken for it."""
    with pytest.raises(SourceError, match="the header, row 3, has no column Last Name, Products") as refusal:
        match_header("users.csv", 3, ["First Name", "Email"])
    assert "bulkusers template" in refusal.value.hint


@pytest.mark.parametrize("row", [["sep=;"], ["sep=", ""], ["SEP=,"]])
def test_a_line_that_names_the_delimiter_is_recognised(row: list[str]) -> None:
    """A spreadsheet writes it and does not show it, so the hint says which line it is."""
    with pytest.raises(SourceError, match="the header, row 1, has no column First Name") as refusal:
        match_header("users.csv", 1, row)
    assert refusal.value.hint.startswith("delete row 1, its `sep=` line")


def test_only_columns_are_counted_as_known() -> None:
    """A delimiter is recognised by the columns that it brings out."""
    assert count_known(["first name", "E-Mail", "Phone", "", "Error"]) == 2


@given(
    st.text() | st.builds("{}{}{}".format, st.text(" \t\u00a0'", max_size=3), st.sampled_from("=+-@'\u0338"), st.text())
)
def test_a_cell_survives_the_way_through_our_own_files(cell: str) -> None:
    """What a file of ours says is read as what was meant, formula or not, and no spreadsheet runs it."""
    assert clean(safe_cell(cell)) == clean(cell)
    assert not safe_cell(cell).lstrip().startswith(("=", "+", "-", "@"))
