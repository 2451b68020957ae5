"""The rules for one row: what is cleaned, what is a fault, and that the fast path never decides otherwise."""

import unicodedata
from collections.abc import Callable

import pytest
from email_validator import SPECIAL_USE_DOMAIN_NAMES, EmailNotValidError, validate_email
from hypothesis import example, given
from hypothesis import strategies as st

from bulkusers import cells
from bulkusers.cells import (
    Fault,
    Rules,
    Values,
    identify,
    list_notices,
    make_user,
    reject,
    show_email,
)
from bulkusers.columns import BLANKS, COLUMNS, clean, match_header
from bulkusers.models import Outcome, Status, User, email_key

PRODUCTS = ("scheduling", "curriculum", "events", "courseDemandProjections")
FIELDS = [column.field for column in COLUMNS]
LAYOUT = match_header("users.csv", 1, [column.title for column in COLUMNS])
PERSON = {"first_name": "Ann", "last_name": "Lee", "email": "ann@example.edu", "products": "events"}

Judge = Callable[..., tuple[Values, Fault | None]]


@pytest.fixture
def judge() -> Judge:
    """Return a function that judges a row in which some cells are other than usual."""
    rules = Rules(LAYOUT, PRODUCTS)

    def judge_row(**others: str) -> tuple[Values, Fault | None]:
        row = PERSON | others
        return rules.judge([row.get(field, "") for field in FIELDS])

    return judge_row


def test_a_clean_row_becomes_a_user(judge: Judge) -> None:
    """Every cell arrives in its attribute; lists are split, the status is in lower case, zeros in front stay."""
    values, fault = judge(
        external_id="007",
        products="events, scheduling,,events",
        department="MATH",
        secondary_departments="PHYS , CHEM",
        roles="editor",
        status="Inactive",
    )
    assert fault is None
    assert make_user(9, values) == User(
        row=9,
        email="ann@example.edu",
        first_name="Ann",
        last_name="Lee",
        products=("events", "scheduling"),
        roles=("editor",),
        department="MATH",
        secondary_departments=("PHYS", "CHEM"),
        external_id="007",
        status="inactive",
    )


@pytest.mark.parametrize(
    ("cell", "cleaned"),
    [
        ("  Ann\t", "Ann"),
        ("\u200b\ufeff\xa0Ann\u2060\u200d\u3000", "Ann"),
        ("Ann Lee", "Ann Lee"),
        ("Zoe\u0308", "Zo\xeb"),
        ("'=1+1", "=1+1"),
        (" '+49", "+49"),
        ("'-1", "-1"),
        ("'@x", "@x"),
        ("'Ann", "'Ann"),
        ("'", "'"),
        ("=1+1", "=1+1"),
        ("\x00", "\x00"),
    ],
)
def test_cells_are_cleaned_at_their_ends_only(cell: str, cleaned: str) -> None:
    """Blanks of every kind go, an accent has one spelling, and an apostrophe goes only where it hides a formula."""
    assert clean(cell) == cleaned


def test_every_white_space_counts_as_a_blank() -> None:
    """The list of blanks has all that Unicode calls white space, and what has no width."""
    white = {chr(code) for code in range(0x110000) if chr(code).isspace()}
    assert set(BLANKS) == white | set("\u200b\u200c\u200d\u2060\ufeff")


@pytest.mark.parametrize(
    ("others", "code", "says"),
    [
        ({"first_name": " "}, "first-name-missing", "First Name"),
        ({"last_name": ""}, "last-name-missing", "Last Name"),
        ({"email": "\u200b"}, "email-missing", "Email"),
        ({"products": ","}, "products-missing", "Products"),
        ({"products": "", "status": "active"}, "products-missing", "Products"),
        ({"email": "ann"}, "email-invalid", "Email"),
        ({"email": "ann@school.test"}, "email-invalid", "Email"),
        ({"email": "ann lee@example.edu"}, "email-invalid", "Email"),
        ({"email": "an\xa0n@example.edu"}, "email-invisible", "Email"),
        ({"email": "an\u200bn@example.edu"}, "email-invisible", "Email"),
        ({"email": "an\nn@example.edu"}, "email-invisible", "Email"),
        ({"products": "events,nonsense"}, "product-unknown", "Products"),
        ({"external_id": "4.56E+12"}, "id-mangled", "External ID"),
        ({"external_id": "1,23e+11"}, "id-mangled", "External ID"),
        ({"department": "2E+10"}, "id-mangled", "Department"),
        ({"secondary_departments": "MATH, 1.5E+10"}, "id-mangled", "Secondary Departments"),
        ({"roles": "1,23E+11"}, "id-mangled", "Role IDs"),
        ({"status": "retired"}, "status-invalid", "Status"),
        ({"first_name": "A\x07nn"}, "control-character", "First Name"),
        ({"last_name": "Lee\r\nMay"}, "control-character", "Last Name"),
        ({"products": "eve\x00nts"}, "control-character", "Products"),
        ({"department": "MA\u2066TH"}, "control-character", "Department"),
        ({"roles": "edi\u202etor"}, "control-character", "Role IDs"),
        ({"last_name": "x" * 10_001}, "cell-too-long", "Last Name"),
        ({"roles": "r," * 5_001}, "cell-too-long", "Role IDs"),
        ({"status": "retired", "first_name": ""}, "first-name-missing", "First Name"),
    ],
)
def test_a_fault_has_a_code_and_names_the_column_but_no_data(
    judge: Judge, others: dict[str, str], code: str, says: str
) -> None:
    """The first fault in the order of the columns is told, with something to do about it."""
    _, fault = judge(**others)
    assert fault is not None
    assert fault.code == code
    assert says in fault.message
    assert fault.hint
    assert not any(value.strip(",") in fault.message for value in others.values() if len(value.strip(", \u200b")) > 1)


@pytest.mark.parametrize(
    "others",
    [
        {"last_name": "O'Brien"},
        {"first_name": "Zo\xeb"},
        {"first_name": "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"},  # a joiner that Persian needs
        {"last_name": "x" * 10_000},
        {"email": "ann.o'brien+tag@example.edu"},
        {"email": "\xe4nn@b\xfccher.edu"},
        {"email": "ann+e+1@example.edu"},
        {"external_id": "1E5"},
        {"external_id": "E+11"},
        {"first_name": "=1+1"},
        {"products": "", "status": "INACTIVE"},
    ],
)
def test_unusual_rows_without_a_fault_pass(judge: Judge, others: dict[str, str]) -> None:
    """What looks odd but is right is sent."""
    assert judge(**others)[1] is None


@pytest.mark.parametrize(
    ("products", "hint"),
    [
        ("Scheduling", "did you mean 'scheduling'?"),
        ("events,schedulling", "did you mean 'scheduling'?"),
        ("coursedemandprojections", "did you mean 'courseDemandProjections'?"),
        ("events;scheduling", "separate products by commas"),
        ("payroll", "the products are scheduling, curriculum, events, courseDemandProjections"),
    ],
)
def test_an_unknown_product_brings_a_hint_that_names_only_ours(judge: Judge, products: str, hint: str) -> None:
    """The hint knows the product that was meant, or all there are."""
    _, fault = judge(products=products)
    assert fault is not None
    assert hint in fault.hint
    assert products not in fault.hint


def test_rows_must_have_as_many_cells_as_the_header() -> None:
    """Fewer cells or more are a mismatch, blank ones at the end are not, and nameless columns may be left out."""
    rules = Rules(match_header("users.csv", 1, ["Email", "Products", "First Name", "Last Name", "Phone", ""]), PRODUCTS)
    row = ["ann@example.edu", "events", "Ann", "Lee", "5"]
    assert rules.judge(row)[1] is None
    assert rules.judge([*row, "note"])[1] is None
    assert rules.judge([*row, "note", " ", ""])[1] is None
    for cells_ in (row[:4], [*row, "note", "x"]):
        values, fault = rules.judge(cells_)
        assert fault is not None
        assert fault.code == "columns-mismatch"
        assert values[cells.EMAIL] == "ann@example.edu"


def test_control_characters_in_unknown_columns_do_not_matter() -> None:
    """What is not sent is not checked."""
    rules = Rules(match_header("users.csv", 1, ["Note", "Email", "Products", "First Name", "Last Name"]), PRODUCTS)
    assert rules.judge(["a\nb\x00" + "c" * 20_000, "ann@example.edu", "events", "Ann", "Lee"])[1] is None


def test_a_rejected_row_shows_its_e_mail_harmlessly(judge: Judge) -> None:
    """Invisible characters are spelt out, and an endless address is cut."""
    values, fault = judge(email="an\u202e\x1bn@example.edu")
    assert fault is not None
    assert reject(4, values, fault) == Outcome(
        4, r"an\u202e\x1bn@example.edu", Status.REJECTED, fault.code, fault.message, fault.hint
    )
    assert len(show_email("a" * 1000)) == 320


@pytest.mark.parametrize(
    ("one", "other"),
    [("Ann@Example.EDU", "ann@example.edu"), ("\xc9@b.edu", "e\u0301@b.edu"), ("STRASSE@b.edu", "stra\xdfe@b.edu")],
)
def test_e_mails_are_compared_without_case_and_by_what_they_look_like(one: str, other: str) -> None:
    """The same mailbox has one key."""
    assert email_key(one) == email_key(other)


def test_identity_is_everything_but_the_e_mail(judge: Judge) -> None:
    """Rows are the same user twice if they differ in nothing that is sent."""
    same = {"email": "ANN@example.edu", "products": "events,", "status": "ACTIVE"}
    assert identify(judge(status="active")[0]) == identify(judge(**same)[0])
    for field in FIELDS:
        if field != "email":
            assert identify(judge()[0]) != identify(judge(**{field: "other"})[0])


def test_notices_are_for_commas_in_a_department_and_several_roles(judge: Judge) -> None:
    """Both are sent, and both are worth a word."""
    assert list_notices(judge(department="MATH, PHYS", roles="a,b")[0]) == ["department-comma", "several-roles"]
    assert list_notices(judge(department="MATH", roles="a,a,")[0]) == []


LOCAL = st.text("abzAZ019_+-.'@", max_size=12)
LABELS = st.lists(st.text("abzAZ019-_\xe4\u212a", max_size=8), max_size=4).map(".".join)
TOP = st.sampled_from(
    ["edu", "test", "TEST", "local", "localhost", "arpa", "onion", "invalid", "c", "xn--p1ai", "1a", "museum"]
)


@given(
    st.one_of(
        st.tuples(LOCAL, LABELS, TOP).map(lambda parts: f"{parts[0]}@{parts[1]}.{parts[2]}"), st.text(max_size=70)
    )
)
@example("a" * 57 + "@bc.edu")
@example("a" * 58 + "@bc.edu")
@example("a@test")
@example("a@b.test")
@example("a@b.Test")
@example("\u212a@b.edu")
@example("a@b--c.edu")
@example("a@xn--a.edu")
@example("a@b.edu\n")
@example("a@" + "b" * 64 + ".edu")
def test_the_fast_path_for_e_mails_agrees_with_the_library(email: str) -> None:
    """Whatever the pattern accepts, email-validator accepts as well."""
    if cells._is_plain_email(email):  # noqa: SLF001 - what is public takes the library for the rest
        validate_email(email, check_deliverability=False)


def test_the_reserved_domains_are_those_of_the_library() -> None:
    """The pattern has them written out; an address below one that is new must not pass it."""
    assert set(cells._RESERVED.split("|")) == {  # noqa: SLF001 - as above
        name.rpartition(".")[2] for name in SPECIAL_USE_DOMAIN_NAMES
    }


PLAIN = (
    r"[A-Za-z0-9_+-]{1,9}(\.[A-Za-z0-9_+-]{1,5}){0,2}@([A-Za-z0-9]{1,6}(-[A-Za-z0-9]{1,3}){0,2}\.){1,3}[A-Za-z]{2,6}"
)


@given(st.from_regex(PLAIN, fullmatch=True))
def test_plain_addresses_are_valid_for_the_pattern_and_for_the_library(email: str) -> None:
    """Addresses without anything unusual pass both, reserved domains excepted."""
    if email.lower().endswith((".arpa", ".test", ".local", ".onion")):
        return
    validate_email(email, check_deliverability=False)
    assert bool(cells._is_plain_email(email)) is (len(email) <= 64)  # noqa: SLF001 - as above


@pytest.mark.parametrize("email", ["ann@example.edu", "a.b-c_d+e@x-y.school.ac.uk", "A1@B2.Museum"])
def test_usual_addresses_take_the_fast_path(email: str) -> None:
    """The pattern is narrow, not empty."""
    assert cells._is_plain_email(email)  # noqa: SLF001 - as above


CELL = st.text(st.sampled_from("aE1+,.@' =\xa0\u200b\u0308\xeb\n\x00e"), max_size=6)
ROW = st.tuples(
    st.one_of(CELL, st.just("Ann")),
    st.one_of(CELL, st.just("Lee ")),
    st.one_of(CELL, st.just("ann@example.edu"), CELL.map(lambda text: f"{text}@example.edu")),
    st.one_of(CELL, st.just("events, scheduling")),
    CELL,
    st.one_of(CELL, st.just("1E+11")),
    CELL,
    st.one_of(CELL, st.just("1,5E+10")),
    st.sampled_from(["", "active", "INACTIVE ", "a", "\u0131nactive"]),
)


@given(ROW)
@example(("Zoe\u0308", "Lee", "ann@example.edu", "events", "", "", "", "", ""))
@example(("Ann", "'=1", "ann@example.edu", "events", "", "", "", "", ""))
def test_the_fast_path_for_rows_comes_to_the_same_verdict(row: Values) -> None:
    """A row that passes quickly has the same values, and as little fault, as after looking at every rule."""
    rules = Rules(LAYOUT, PRODUCTS)
    cleaned = tuple(map(clean, row))
    assert rules.judge(list(row)) == rules._judge_slowly(cleaned)  # noqa: SLF001 - the long way to the same verdict


@given(st.text())
def test_cleaning_twice_changes_nothing_but_another_apostrophe(cell: str) -> None:
    """What was cleaned is in NFC, has no blanks around it, and stays as it is."""
    cleaned = clean(cell)
    assert cleaned == cleaned.strip(BLANKS)
    assert unicodedata.is_normalized("NFC", cleaned)


def test_an_address_that_the_library_refuses_is_refused(judge: Judge) -> None:
    """Outside the fast path the library has the last word."""
    for email in ("a..b@example.edu", "ann@school..edu", "ann@-example.edu", "\xe4@b.c\xe4--d.e1"):
        with pytest.raises(EmailNotValidError):
            validate_email(email, check_deliverability=False)
        _, fault = judge(email=email)
        assert fault is not None
        assert fault.code == "email-invalid"
