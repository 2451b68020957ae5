"""Opening, surveying and streaming a users file; what single files come to is in `test_source_files.py`."""

import errno
import hashlib
import io
import os
import shutil
import stat
import sys
import threading
import tracemalloc
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import BinaryIO, NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulkusers import duplicates
from bulkusers.cells import Fault, Rules, Values
from bulkusers.columns import BLANKS, clean
from bulkusers.errors import SourceError
from bulkusers.models import Notice, Outcome, Status, User
from bulkusers.source import open_source

PRODUCTS = ("scheduling", "events")
HEAD = "First Name,Last Name,Email,Products"
FULL = f"{HEAD},External ID,Department,Secondary Departments,Role IDs,Status"
ANN = "Ann,Lee,ann@example.edu,scheduling"
BOB = "Bob,May,bob@example.edu,events"

MakeFile = Callable[..., Path]


@pytest.fixture
def make_file(tmp_path: Path) -> MakeFile:
    """Return a function that writes lines into a users file."""

    def make(*lines: str, encoding: str = "utf-8") -> Path:
        path = tmp_path / "users.csv"
        path.write_bytes("".join(f"{line}\n" for line in lines).encode(encoding))
        return path

    return make


def read(path: Path | str, **options: object) -> list[User | Outcome]:
    """Return everything that a file yields."""
    with open_source(path, products=PRODUCTS, **options) as source:  # type: ignore[arg-type]  # the callers know
        return list(source.users())


def test_facts_say_what_the_first_reading_found(make_file: MakeFile) -> None:
    """Totals, hash, form and header are known before the first user is read."""
    path = make_file(f"Phone;{HEAD.replace(',', ';')};Hint", "5;Ann;Lee;ann@example.edu;events;", "5;;;;;")
    with open_source(path, products=PRODUCTS) as source:
        facts = source.facts
    assert facts.path == str(path)
    assert facts.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (facts.rows, facts.rejected) == (2, 1)
    assert (facts.encoding, facts.delimiter) == ("utf-8", ";")
    assert facts.header == ("Phone", "First Name", "Last Name", "Email", "Products", "Hint")
    assert facts.ignored == ("Phone",)
    assert facts.notices == ()


def test_a_user_has_what_the_row_says(make_file: MakeFile) -> None:
    """The columns' order in the file does not matter."""
    path = make_file(
        "Status,Products,Email,Last Name,First Name", 'active,"events, scheduling",ann@example.edu,Lee,Ann'
    )
    assert read(path) == [User(2, "ann@example.edu", "Ann", "Lee", ("events", "scheduling"), status="active")]


def test_notices_count_rows_and_name_the_first_few(make_file: MakeFile) -> None:
    """A thousand rows with two roles are one notice; rows that are not sent have none."""
    rows = [f'A,B,a{number}@b.edu,events,,"X, Y",,"r1,r2",' for number in range(7)]
    path = make_file(FULL, *rows, 'A,B,nobody,events,,"X, Y",,"r1,r2",', "A,B,last@b.edu,events,,X,,r1,")
    with open_source(path, products=PRODUCTS) as source:
        comma, roles = source.facts.notices
    assert comma == Notice("department-comma", comma.message, 7, [2, 3, 4, 5, 6])
    assert roles == Notice(
        "several-roles", "the vendor advises against more than one prebuilt role", 7, [2, 3, 4, 5, 6]
    )


@pytest.mark.parametrize(
    ("written", "wanted", "found"),
    [
        ("cp1252", "cp1252", "cp1252"),
        ("utf-16-le", "UTF-16-LE", "utf-16-le"),
        ("utf-8-sig", "utf8", "utf-8-sig"),
        ("utf-16", "utf-16-be", "utf-16"),
        ("latin-1", "latin-1", "iso8859-1"),
    ],
)
def test_a_wanted_encoding_is_taken(make_file: MakeFile, written: str, wanted: str, found: str) -> None:
    """The file's own mark knows better only which kind of UTF-8 or UTF-16 it is."""
    path = make_file(HEAD, "Zo\xeb,Lee,zoe@example.edu,events", encoding=written)
    with open_source(path, products=PRODUCTS, encoding=wanted) as source:
        assert source.facts.encoding == found
        assert [user.first_name for user in source.users() if isinstance(user, User)] == ["Zo\xeb"]


@pytest.mark.parametrize(
    "encoding", ["klingon", "base64", "rot13", "utf-7", "unicode_escape", "idna", "undefined", "a\0b"]
)
def test_an_encoding_that_is_none_is_refused(make_file: MakeFile, encoding: str) -> None:
    """Neither an unknown name nor a codec that is not for files gets any further."""
    with pytest.raises(SourceError, match="there is no encoding") as refusal:
        read(make_file(HEAD, ANN), encoding=encoding)
    assert "cp1252" in refusal.value.hint


def test_an_encoding_against_the_mark_is_refused(make_file: MakeFile) -> None:
    """Reading a marked UTF-8 file as cp1252 would spoil every name."""
    with pytest.raises(SourceError, match="is marked as utf-8, not cp1252"):
        read(make_file(HEAD, ANN, encoding="utf-8-sig"), encoding="cp1252")


def test_a_wanted_encoding_that_the_file_has_not_is_refused(make_file: MakeFile) -> None:
    """The message names the cell, the hint the option."""
    with pytest.raises(SourceError, match=r"row 3, column 2 \(Last Name\) is not ascii") as refusal:
        read(make_file(HEAD, ANN, "Ann,L\xe9e,a@b.edu,events"), encoding="ascii")
    assert "--encoding" in refusal.value.hint


@pytest.mark.parametrize(
    ("wanted", "char"), [(";", ";"), ("|", "|"), ("tab", "\t"), ("TAB", "\t"), (r"\t", "\t"), ("\t", "\t")]
)
def test_a_wanted_delimiter_is_taken(make_file: MakeFile, wanted: str, char: str) -> None:
    """A delimiter has a name where it cannot be typed."""
    path = make_file(HEAD.replace(",", char), ANN.replace(",", char))
    assert [type(item) for item in read(path, delimiter=wanted)] == [User]


def test_a_wanted_delimiter_is_taken_against_the_header(make_file: MakeFile) -> None:
    """What the user says is not doubted."""
    with pytest.raises(SourceError, match="has no column"):
        read(make_file(HEAD, ANN), delimiter=";")


@pytest.mark.parametrize("delimiter", [":", ",,", " ", "comma"])
def test_another_delimiter_is_refused(make_file: MakeFile, delimiter: str) -> None:
    """Four delimiters are enough for everybody."""
    with pytest.raises(SourceError, match="a delimiter is"):
        read(make_file(HEAD, ANN), delimiter=delimiter)


def test_an_empty_file_is_allowed_only_with_a_header(make_file: MakeFile) -> None:
    """No users may be what somebody wants; no header never is."""
    assert read(make_file(HEAD), allow_empty=True) == []
    with pytest.raises(SourceError, match="is empty"):
        read(make_file(), allow_empty=True)


@pytest.mark.parametrize(("name", "why"), [("missing.csv", "No such file"), ("", "Is a directory"), ("a\0b", "null")])
def test_a_path_that_cannot_be_opened_is_refused(tmp_path: Path, name: str, why: str) -> None:
    """The system's own words say why."""
    with pytest.raises(SourceError, match=f"cannot read .*{why}"):
        read(tmp_path / name)


def test_a_disk_that_fails_is_no_changed_file(make_file: MakeFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of reading is told as what it is, at every stage."""
    path = make_file(HEAD, *(f"Ann,Lee,ann{number}@example.edu,events" for number in range(5000)))

    def fail(*_: object) -> NoReturn:
        raise OSError(errno.EIO, "Input/output error")

    with open_source(path, products=PRODUCTS) as source, monkeypatch.context() as patch:
        users = source.users()
        next(users)
        patch.setattr(os, "pread", fail)
        for items in (users, source.users()):
            with pytest.raises(SourceError, match=r"cannot read .*Input/output error"):
                list(items)
    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(SourceError, match=r"cannot read .*Input/output error"):
        read(path)


def test_the_standard_input_is_read_like_a_file() -> None:
    """A pipe is copied first, because it is read more than once."""
    data = f"{HEAD}\n{ANN}\n{ANN}\n".encode()
    with open_source("-", products=PRODUCTS, stdin=io.BytesIO(data)) as source:
        assert source.facts.path == "-"
        assert source.facts.sha256 == hashlib.sha256(data).hexdigest()
        assert [type(item) for item in source.users()] == [User, Outcome]


def test_the_copy_of_the_standard_input_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else can open it, and nothing is left of it after a crash."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    copies: list[os.stat_result] = []
    real = shutil.copyfileobj

    def copy(source: BinaryIO, target: BinaryIO) -> None:
        copies.append(os.fstat(target.fileno()))
        real(source, target)

    monkeypatch.setattr(shutil, "copyfileobj", copy)
    with open_source("-", products=PRODUCTS, stdin=io.BytesIO(f"{HEAD}\n{ANN}\n".encode())):
        assert list(tmp_path.iterdir()) == []
    assert [stat.S_IMODE(copy.st_mode) for copy in copies] == [0o600]
    assert copies[0].st_nlink == 0


def test_the_processs_own_standard_input_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one, as in some daemons, the file is refused."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"{HEAD}\n{ANN}\n".encode())))
    assert len(read("-")) == 1
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(SourceError, match="no standard input"):
        read("-")


def test_a_named_pipe_is_read_like_a_file(tmp_path: Path) -> None:
    """So is what a shell puts in the place of `<(...)`."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_text, args=(f"{HEAD}\n{ANN}\n{BOB}\n",))
    writer.start()
    items = read(path)
    writer.join()
    assert [item.row for item in items] == [2, 3]


def test_a_full_disk_is_told_when_the_standard_input_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hint names the way out."""

    def fail(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", fail)
    with pytest.raises(SourceError, match="cannot keep a copy of -: No space left") as refusal:
        read("-", stdin=io.BytesIO(b"x"))
    assert "TMPDIR" in refusal.value.hint


def test_the_caller_s_own_errors_pass_through_unchanged(make_file: MakeFile) -> None:
    """What happens while the file is open is not the file's fault."""
    with pytest.raises(OSError, match="elsewhere"), open_source(make_file(HEAD, ANN), products=PRODUCTS):
        raise OSError("elsewhere")


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_text(f"{HEAD}\n{BOB}\n"),
        lambda path: path.write_text(f"{HEAD}\n{ANN}\n{BOB}\n{BOB}\n"),
        lambda path: path.write_text(""),
        lambda path: path.write_text(f'{HEAD}\n"Ann'),
        lambda path: path.unlink(),
    ],
    ids=["other rows", "more rows", "no rows", "no CSV", "no file"],
)
def test_what_is_sent_is_what_was_checked(make_file: MakeFile, change: Callable[[Path], object]) -> None:
    """Whatever becomes of the file while it is open, its users are the ones that were there when it was opened."""
    path = make_file(HEAD, ANN, BOB)
    with open_source(path, products=PRODUCTS) as source:
        change(path)
        assert [(item.row, type(item)) for item in source.users()] == [(2, User), (3, User)]
        assert [row for row, _ in source.records()] == [2, 3]


def test_a_name_that_is_no_text_is_shown_with_escapes(tmp_path: Path) -> None:
    """Such names exist on disks, and reports are text."""
    path = os.fsencode(tmp_path / "caf") + b"\xe9.csv"
    Path(os.fsdecode(path)).write_text(f"{HEAD}\n{ANN}\n")
    with open_source(Path(os.fsdecode(path)), products=PRODUCTS) as source:
        assert source.facts.path.endswith("caf\\xe9.csv")


def test_several_readings_of_one_source_do_not_disturb_each_other(make_file: MakeFile) -> None:
    """Users and records can be taken in turns, and again."""
    path = make_file(HEAD, *(f"Ann,Lee,ann{number}@example.edu,events" for number in range(5000)))
    with open_source(path, products=PRODUCTS) as source:
        pairs = list(zip(source.users(), source.records(), strict=True))
        assert [user.row for user, _ in pairs] == [row for _, (row, _) in pairs] == list(range(2, 5002))
        assert all(user.email == cells[2] for user, (_, cells) in pairs)
        assert len(list(source.users())) == 5000


def test_records_are_the_cells_as_they_are_in_the_file(make_file: MakeFile) -> None:
    """A file of rejects shows what was written, not what was made of it."""
    path = make_file("Phone," + HEAD, "", '5," Ann ",Lee,nobody,nothing', ",,,,", "short")
    with open_source(path, products=PRODUCTS) as source:
        assert list(source.records()) == [(3, ["5", " Ann ", "Lee", "nobody", "nothing"]), (5, ["short"])]


def test_an_equal_row_is_skipped_and_names_the_row_that_stands(make_file: MakeFile) -> None:
    """The first row without a fault is the one that counts."""
    _, _, again = read(make_file(HEAD, ANN, BOB, ANN.replace("ann@", "ANN@")))
    assert again == Outcome(
        4, "ANN@example.edu", Status.SKIPPED, "duplicate-row", "the same user stands in row 2 already"
    )


@pytest.mark.parametrize(
    ("count", "named"),
    [
        (2, "rows 2 and 3 have"),
        (3, "rows 2, 3 and 4 have"),
        (5, "2, 3, 4, 5 and 6 have"),
        (6, "2, 3, 4, 5, 6 and more have"),
    ],
)
def test_rows_that_differ_name_each_other(make_file: MakeFile, count: int, named: str) -> None:
    """All of them are rejected, since nobody knows which is right; the message does not grow with the file."""
    items = read(make_file(HEAD, *(f"Ann,Lee{number},ann@example.edu,events" for number in range(count))))
    assert [item.code for item in items if isinstance(item, Outcome)] == ["duplicate-email"] * count
    assert all(isinstance(item, Outcome) and named in item.message and item.hint for item in items)


def test_rows_may_differ_in_any_column(make_file: MakeFile) -> None:
    """Whatever is sent makes a difference; what is ignored makes none."""
    head = f"{FULL},Phone"
    base = ["Ann", "Lee", "ann@example.edu", "events", "7", "MATH", "PHYS", "r1", "active", "1"]
    for place in range(len(base)):
        if place == 2:
            continue
        other = base.copy()
        other[place] = {3: "scheduling", 8: "inactive"}.get(place, "x9")
        codes = [getattr(item, "code", "user") for item in read(make_file(head, ",".join(base), ",".join(other)))]
        assert codes == (["user", "duplicate-row"] if place == 9 else ["duplicate-email"] * 2)


def test_e_mails_that_share_a_hash_are_never_mixed_up(make_file: MakeFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a file is refused by chance in one process and read in the next, but no user is taken for another."""
    monkeypatch.setattr(duplicates, "hash", lambda _: 7, raising=False)
    with pytest.raises(SourceError, match="same hash by chance"):
        read(make_file(HEAD, ANN, BOB))
    assert [item.row for item in read(make_file(HEAD, ANN, ANN)) if isinstance(item, User)] == [2]


def test_an_e_mail_is_remembered_once_however_often_it_repeats() -> None:
    """A file of one user a million times needs no more memory than one of as many users."""
    sightings = duplicates.Sightings()
    for email in ("a@b.edu", "c@d.edu", "A@b.edu", "a@B.edu", "e@f.edu"):
        sightings.add(email)
    assert list(sightings.repeated()) == [hash("a@b.edu")]


@pytest.mark.parametrize("hashed", [-(2**63), -1, 0, 2**63 - 1])
def test_every_hash_has_its_place(make_file: MakeFile, monkeypatch: pytest.MonkeyPatch, hashed: int) -> None:
    """The ends of the range are hashes as well."""
    monkeypatch.setattr(duplicates, "hash", lambda key: hashed if key.startswith("ann") else 5, raising=False)
    assert [item.row for item in read(make_file(HEAD, ANN, BOB, ANN, ANN)) if isinstance(item, User)] == [2, 3]


def test_many_repeats_are_all_found(make_file: MakeFile) -> None:
    """A file that was appended to itself sends everybody once."""
    lines = [f"Ann,Lee,ann{number}@example.edu,events" for number in range(3000)]
    items = read(make_file(HEAD, *lines, *reversed(lines)))
    assert [type(item) for item in items] == [User] * 3000 + [Outcome] * 3000
    kept = [int(item.message.split()[-2]) for item in items if isinstance(item, Outcome)]
    assert kept == list(range(3001, 1, -1))


def test_a_file_without_line_ends_is_not_held_in_memory(tmp_path: Path) -> None:
    """Something that is no CSV file at all is refused after a few MiB."""
    path = tmp_path / "users.csv"
    path.write_bytes(b"x" * (9 << 20))
    with pytest.raises(SourceError, match="a row is longer than 4 MiB"):
        read(path)


def test_a_row_without_end_is_not_held_in_memory(tmp_path: Path) -> None:
    """Line ends within quotes end no row: a file that is one row of them is refused after a few MiB."""
    path = tmp_path / "users.csv"
    path.write_bytes(f"{HEAD}\n".encode() + b'"\n",' * 1_500_000)
    tracemalloc.start()
    with pytest.raises(SourceError, match="a row is longer than 4 MiB"):
        read(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 32 << 20


def test_a_file_may_be_longer_than_a_row_may(tmp_path: Path) -> None:
    """Only what stands between the ends of two rows counts, also where single carriage returns have a second look."""
    path = tmp_path / "users.csv"
    note = '"a\rb' + "x" * 1000 + '"'
    path.write_text(f"Note,{HEAD}\n" + "".join(f"{note},A,B,a{row}@b.edu,events\n" for row in range(5000)), newline="")
    assert path.stat().st_size > 4 << 20
    assert len(read(path)) == 5000


@pytest.mark.parametrize("repeated", [False, True], ids=["everybody once", "everybody twice"])
def test_memory_hardly_grows_with_the_file(tmp_path: Path, *, repeated: bool) -> None:
    """A row costs a few bytes while it is surveyed, and nothing while it is read."""

    def peak(rows: int) -> int:
        path = tmp_path / "users.csv"
        with path.open("w") as file:
            file.write(f"{HEAD}\n")
            for row in range(rows):
                file.write(f"Ann,Lee,ann{row % (rows // 2) if repeated else row}@example.edu,events\n")
        tracemalloc.start()
        try:
            with open_source(path, products=PRODUCTS) as source:
                assert sum(1 for _ in source.users()) == rows
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(100)  # whatever is made once only
    assert (peak(10_000) - peak(1_000)) / 9_000 < 60  # bytes; the e-mail alone would need more


def test_a_row_that_is_fine_as_it_is_is_judged_once(make_file: MakeFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """One with a fault or with something to clean is judged whenever the file is read."""
    judged: list[str] = []
    judge = Rules.judge

    def note(rules: Rules, cells: list[str]) -> tuple[Values, Fault | None]:
        judged.append(cells[0])
        return judge(rules, cells)

    monkeypatch.setattr(Rules, "judge", note)
    bad, padded = "Cid,Doe,nobody,events", "Dan ,Fox,dan@example.edu,events"
    with open_source(make_file(HEAD, ANN, bad, padded, BOB), products=PRODUCTS) as source:
        assert judged == ["Ann", "Cid", "Dan ", "Bob"]
        names = [item.first_name if isinstance(item, User) else item.code for item in source.users()]
    assert names == ["Ann", "email-invalid", "Dan", "Bob"]
    assert judged[4:] == ["Cid", "Dan "]


CELL = st.text(
    st.one_of(st.sampled_from(" ,;|\t\"'\r\n=\xa0\u200b\ufeff\x1f"), st.characters(codec="utf-8")), max_size=8
)
NAME = st.text(st.sampled_from("aZé ,;|\"'李-"), min_size=1, max_size=5).map("A{}z".format)
EMAIL = st.sampled_from(["ann@example.edu", "ANN@example.edu"]) | st.integers(0, 99).map("u{}@example.edu".format)
ROW = st.tuples(CELL, NAME, st.just("Lee") | NAME, EMAIL, st.just("events")).map(list) | st.lists(CELL, max_size=7)
BLANK = st.sampled_from([[], [""], [" ", "\xa0", "\n"]])
MARKED = ("utf-8", "utf-8-sig", "utf-16", "utf-32")  # known from the file itself; the others must be named
NAMED = ("cp1252", "iso-8859-1", "mac-roman", "utf-16-le", "utf-16-be", "utf-32-be", "gb18030", "shift_jis")


@settings(deadline=None, max_examples=300)
@given(
    rows=st.lists(ROW | BLANK, max_size=8),
    delimiter=st.sampled_from(",;\t|"),
    encoding=st.sampled_from([*MARKED, *NAMED]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    quotes=st.lists(st.booleans(), min_size=1, max_size=7),
    ended=st.booleans(),
)
def test_every_row_is_kept_with_its_number_and_its_values(
    rows: list[list[str]], delimiter: str, encoding: str, end: str, quotes: list[bool], *, ended: bool
) -> None:
    """However a row was written, it comes back once, with its cells as they were; blank ones alone do not."""
    turns = cycle(quotes)

    def write(cells: list[str]) -> str:
        texts = []
        for cell in cells:
            quoted = next(turns) or cell.startswith(('"', " ")) or bool({delimiter, "\r", "\n"} & set(cell))
            texts.append('"' + cell.replace('"', '""') + '"' if quoted else cell)
        return delimiter.join(texts)

    lines, written = [write(["Note", *HEAD.split(",")])], {}
    for number, row in enumerate(rows, 2):
        cells = [cell.encode(encoding, "ignore").decode(encoding).removeprefix("\ufeff") for cell in row]
        lines.append(write(cells))
        if "".join(cells).strip(BLANKS):
            written[number] = cells
    text = end.join(lines) + (end if ended else "")
    options = {} if encoding in MARKED else {"encoding": encoding}
    with open_source(
        "-", products=PRODUCTS, stdin=io.BytesIO(text.encode(encoding)), allow_empty=True, **options
    ) as source:
        facts, records, items = source.facts, list(source.records()), list(source.users())
        source._plain = bytearray(facts.rows)  # noqa: SLF001 - every row is judged again, and comes to the same
        assert list(source.users()) == items
    assert facts.delimiter == delimiter
    assert facts.rows == len(written)
    assert records == list(written.items())
    assert [item.row for item in items] == list(written)
    for item, cells in zip(items, written.values(), strict=True):
        if isinstance(item, User):
            assert [item.first_name, item.last_name, item.email] == list(map(clean, cells[1:4]))
        else:
            assert item.status in {Status.REJECTED, Status.SKIPPED}
    assert sum(isinstance(item, Outcome) and item.status is Status.REJECTED for item in items) == facts.rejected
