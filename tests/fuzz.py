"""Hostile input, drawn by atheris under the guidance of coverage: what must hold whatever a file or an answer says.

`python tests/fuzz.py reader -max_total_time=60` fuzzes one target; what stands behind its name is for libFuzzer. What
was worth keeping lies in `.fuzz`, where the next run begins; an input that broke something lies there, too, and
`python tests/fuzz.py reader .fuzz/crash-...` plays it again.
"""

import io
import math
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from email.utils import formatdate
from itertools import pairwise
from pathlib import Path
from typing import Final

import atheris
import orjson
from yarl import URL

with atheris.instrument_imports(include=["bulkusers"]):
    from bulkusers.answers import EMAIL_LIKE, quote_words
    from bulkusers.columns import BLANKS
    from bulkusers.errors import SettingsError, SourceError, StorageError
    from bulkusers.journal import Journal, Progress, is_journal, outcome_of, read_progress, row_of
    from bulkusers.models import Outcome, Response, Status, User, email_key
    from bulkusers.profile import DEFAULTS, load_profile
    from bulkusers.report import ROWS_BEGIN, ROWS_END, add_up, read_report
    from bulkusers.retry import LONGEST_WAIT, retry_after
    from bulkusers.rules import Rules
    from bulkusers.source import open_source

from test_source_files import FILES

PLACE: Final = Path(".fuzz")
SCRATCH: Final = PLACE / f"{sys.argv[1]}.scratch"  # targets may run side by side
PRODUCTS: Final = load_profile().values.products
RULES: Final = Rules(load_profile(), "example")
RUN: Final = {"sha256": "abc", "base_url": "https://staging.example.edu", "school": "example"}
ENCODINGS: Final = ("", "cp1252", "utf-16-le", "utf-16-be", "utf-32-be", "shift_jis", "gb18030", "utf-8", "hz", "utf-7")
DELIMITERS: Final = ("", ",", ";", "tab", "|")
DONE: Final = {"created", "updated", "unchanged", "skipped", "rejected"}
LIMITS: Final = ("-rss_limit_mb=600", "-timeout=20", "-max_len=20000", f"-artifact_prefix={PLACE}/")


@dataclass(frozen=True, slots=True)
class Target:
    """What is fuzzed, and what it begins with."""

    play: Callable[[bytes], None]
    seeds: Callable[[], Iterator[bytes]]


def play_reader(data: bytes) -> None:
    """Read a users file: refused as a whole, or one item for every row, in order, as the facts say."""
    if len(data) < 2:
        return
    encoding, delimiter = ENCODINGS[data[0] % len(ENCODINGS)], DELIMITERS[data[1] % len(DELIMITERS)]
    stdin = io.BytesIO(data[2:])
    try:
        with open_source(
            "-", products=PRODUCTS, encoding=encoding, delimiter=delimiter, allow_empty=True, stdin=stdin
        ) as source:
            facts = source.facts
            records = list(source.records())
            items = list(source.users())
    except SourceError:
        return
    numbers = [row for row, _ in records]
    assert all(one < following for one, following in pairwise(numbers))
    assert numbers == [item.row for item in items]
    users = [item for item in items if isinstance(item, User)]
    rejected = sum(item.status is Status.REJECTED for item in items if isinstance(item, Outcome))
    skipped = sum(item.status is Status.SKIPPED for item in items if isinstance(item, Outcome))
    assert len(users) + rejected + skipped == facts.rows
    assert rejected == facts.rejected
    assert len({email_key(user.email) for user in users}) == len(users)
    for user in users:
        assert user.first_name
        assert user.last_name
        assert "@" in user.email
        assert (user.products and set(user.products) <= set(PRODUCTS)) or user.status == "inactive"
        assert "".join((user.email, user.status, *user.products)).isprintable()
    text = data[2:].decode(facts.encoding)
    if '"' not in text:  # then every line is a row, and it is easy to know them
        lines = enumerate(re.split("\r\n|\r|\n", text), 1)
        rows = [row for row, line in lines if line.replace(facts.delimiter, "").strip(BLANKS)]
        assert rows[1:] == numbers


def seeds_of_reader() -> Iterator[bytes]:
    """Return the table of files, as it is and under names of encodings and delimiters."""
    for number, file in enumerate(FILES):
        yield b"\0\0" + file.data[:20_000]
        yield bytes([number, number]) + file.data[:2000]


def whole_lines(data: bytes) -> Iterator[bytes]:
    """Yield the JSON of every line whose checksum is right, found out in another way than the journal's."""
    for line in data.split(b"\n")[:-1]:  # what follows the last line end is torn
        if found := re.fullmatch(rb'\{"crc":"([0-9a-f]{8})",(.*)', line, re.DOTALL):
            text = b"{" + found[2]
            if int(found[1], 16) == zlib.crc32(text):
                yield text


def with_checksum(text: bytes) -> bytes:
    """Return a journal's line."""
    return b'{"crc":"%08x",%s\n' % (zlib.crc32(b"{" + text[1:]), text[1:])


def forge(data: bytes) -> bytes:
    """Return a journal: as it is, or with the right checksum on every line, or with a header before those, too."""
    mode, data = data[0] % 3, data[1:]
    if mode:
        data = b"".join(map(with_checksum, data.split(b"\n")))
    return with_checksum(orjson.dumps(RUN)) + data if mode == 1 else data


def play_journal(data: bytes) -> None:
    """Go on with a journal: it knows what whole lines say and no more, and what is added comes back."""
    if not data:
        return
    data = forge(data)
    said = set(whole_lines(data))
    if any(re.search(rb"[0-9]{6}", text) for text in said):
        return  # memory goes by the highest row number, which a file of ours bears out
    SCRATCH.write_bytes(data)
    is_journal(SCRATCH)
    with suppress(SourceError, StorageError):
        assert sum(read_progress(SCRATCH).values()) <= max(len(said) - 1, 0)
    for _ in range(2):  # the second time with what the first has added
        try:
            journal = Journal.reopen(SCRATCH, RUN)
        except (SourceError, StorageError):
            assert SCRATCH.read_bytes() == data  # whoever knows better may still read it
            return
        if journal is None:
            return
        with journal:
            check_rows(journal, said)
            added = Outcome(len(said) + 1, "added@example.edu", Status.CREATED)
            journal(added)
            assert journal.outcome(added.row) == added
        said.add(orjson.dumps(row_of(added)))
        data = SCRATCH.read_bytes()
        assert set(whole_lines(data)) <= said


def check_rows(journal: Journal, said: set[bytes]) -> None:
    """See that every outcome is one that a whole line said, and is of that user only."""
    for text in journal.rows():
        assert text in said
        outcome = outcome_of(orjson.loads(text))
        assert outcome.status in DONE
        assert journal.outcome(outcome.row) == outcome
        user = User(outcome.row, outcome.email, "A", "B", ())
        assert journal.progress(user) is Progress.DONE
        assert journal.progress(user._replace(email=f"{user.email}x")) is Progress.NEW


def seeds_of_journal() -> Iterator[bytes]:
    """Return a whole journal, its cuts, and its lines without their checksums."""
    entries: list[object] = [RUN]
    for row, status in enumerate(Status, 2):
        email = f"row{row}@example.edu"
        entries += [{"row": row, "email": email}, row_of(Outcome(row, email, status, "code", "message", "hint"))]
        entries.append(row_of(Outcome(row, email, status, changed=("roles",), attempts=1, ms=48)))
    texts = [orjson.dumps(entry) for entry in entries]
    whole = b"".join(map(with_checksum, texts))
    yield from (b"\0" + whole[:end] for end in range(0, len(whole), 97))
    yield b"\0" + whole
    for text in texts[1:]:
        yield b"\1" + text
    yield b"\1" + b"\n".join(texts[1:])
    yield b"\2" + b"\n".join(texts)
    yield from (b"\1" + odd for odd in (b"[]", b"7", b"{}", b'{"row":2}', b'{"row":"2","email":3,"status":null}', b"x"))


def play_report(data: bytes) -> None:
    """Read an outcome report to its end: it is one, or it is refused."""
    SCRATCH.write_bytes(data)
    is_journal(SCRATCH)
    with suppress(SourceError):
        report = read_report(SCRATCH)
        assert isinstance(report.exit_code, int)
        total = add_up([report, report])
        assert total.counts["rows"] == 2 * report.counts["rows"]
        for row in report.rows():
            assert isinstance(row["row"], int)
            assert isinstance(row["email"] + row["status"], str)


def seeds_of_report() -> Iterator[bytes]:
    """Return a report as it is written, cut, and laid out anew."""
    run = {
        "exit_code": 6, "seconds": 1.5, "environment": "staging", "base_url": "https://staging.example.edu",
        "school": "example", "stopped": {"reason": "r", "hint": "h"}, "arguments": ["run"], "rejects": None,
        "input": {"path": "users.csv", "encoding": "utf-8"},
    }  # fmt: skip
    problem = {"status": "rejected", "code": "c", "message": "m", "hint": "h", "count": 1, "rows": [2]}
    head = {
        "schema": 1, "run": run, "counts": dict.fromkeys(("rows", *map(str, Status)), 1),
        "http": {"requests": 1, "requests_per_second": 1.5, "by_status": {"201": 1}},
        "warnings": [{"code": "c", "message": "m", "count": 1, "rows": [2]}], "problems": [problem],
    }  # fmt: skip
    rows = [row_of(Outcome(row, "a@example.edu", status, "c", "m", "h")) for row, status in enumerate(Status, 2)]
    lines = [b'"%s": %s,' % (name.encode(), orjson.dumps(value)) for name, value in head.items()]
    listed = b",\n".join(map(orjson.dumps, rows))
    written = b"{" + b"\n".join([*lines, ROWS_BEGIN, listed, ROWS_END]) + b"\n"
    yield from (written, written[:-3], written[:-60], written.replace(listed, b""))
    yield orjson.dumps(head | {"rows": rows})
    yield orjson.dumps(head | {"rows": rows}, option=orjson.OPT_INDENT_2)


def play_profile(data: bytes) -> None:
    """Read an API profile: refused, or no e-mail leads out of the paths that it names."""
    SCRATCH.write_bytes(data)
    try:
        profile = load_profile(SCRATCH)
    except SettingsError:
        return
    rules = Rules(profile, "example")
    base = "https://staging.example.edu/api/v1"
    plain = URL(base + rules.read("e").path, encoded=True)
    for email in ("../../admin@example.edu", "a/b?c#d@example.edu", "%2e%2e@example.edu", "ü\\\r\n@example.edu"):
        url = URL(base + rules.read(email).path, encoded=True)
        assert url.host == "staging.example.edu"
        assert url.raw_path.startswith("/api/v1/")
        assert len(url.raw_parts) == len(plain.raw_parts)
        assert not url.raw_query_string + url.raw_fragment
    user = User(2, "ann@example.edu", "Ann", "Lee", ("events",), ("r",), "d", ("s",), "7", "active")
    assert len(rules.record(user)) == 9  # no field stands for two


def seeds_of_profile() -> Iterator[bytes]:
    """Return the built-in profile, whole and in parts."""
    text = DEFAULTS.read_bytes()
    yield text
    table = b""
    for line in text.splitlines():
        table = line if line.startswith(b"[") else table
        yield table + b"\n" + line + b"\n"
    yield b'[paths]\nuser = "/{school!r:>9}/{email}/x"\n'
    yield b'[paths]\nuser = "/{email:.0}"\n'


def play_retry_after(data: bytes) -> None:
    """Read what an answer asks to wait: a finite time that is not negative, or nothing."""
    wish, _, date = data.decode("latin-1").partition("\n")
    for now in (0.0, 784111777.0, 1e12, -1e12, math.inf):
        seconds = retry_after({"Retry-After": wish, "Date": date}, now)
        assert seconds is None or 0 <= seconds <= LONGEST_WAIT


def seeds_of_retry_after() -> Iterator[bytes]:
    """Return seconds, and dates in their three forms."""
    date = formatdate(784111777, usegmt=True).encode()
    for wish in (b"120", b"inf", b"Sunday, 06-Nov-94 08:49:47 GMT", b"Sun Nov  6 08:49:47 1994", date):
        yield wish + b"\n" + date


def play_words(data: bytes) -> None:
    """Repeat the API's words: short, on one line, and without people's data or a token."""
    first, _, said = data.partition(b"\n")
    name, _, external_id = first.decode(errors="ignore").partition(";")
    name, external_id = (value.strip(BLANKS) for value in (name, external_id))
    user = User(2, "ann@example.edu", name, "Lovelace", ("events",), external_id=external_id)
    text = said.decode(errors="ignore")
    for body in (said, orjson.dumps({"error": text}), orjson.dumps({"error": [text]})):
        words = quote_words(Response(422, body), user.private, RULES)
        assert words
        assert len(words) <= 300
        assert words.isprintable()
        assert words == " ".join(words.split())
        if words == "the API answered 422":
            continue
        assert not EMAIL_LIKE.search(words)
        assert not re.search(r"\bBearer\s+(?!\*\*\*)", words, re.IGNORECASE)
        for value in (name, "Lovelace", external_id):
            if re.fullmatch(r"\w|\w.*\w", value, re.DOTALL) and not words.endswith("…"):
                spaced = re.escape(" ".join(value.split()))
                assert not re.search(rf"(?<!\w){spaced}(?!\w)", words.replace("<e-mail>", ""), re.IGNORECASE)


def seeds_of_words() -> Iterator[bytes]:
    """Return words with names, addresses, tokens and what breaks a terminal in them."""
    for said in (
        "Role x of ADA.lovelace@example.edu is unknown",
        "Ada LOVELACE (x@y.edu) has Bearer abc.def",
        "a\x00b\x1b[31m\nc\u202e",
        "Ada\u200bLovelace Bearer\u200babc 0042",
        "x" * 500,
        " " * 2990 + "ada@example.edu",
    ):
        yield b"Ada;0042\n" + said.encode()
        yield b"Mary Ann;a b\nMary\xc2\xa0Ann " + said.encode()
    yield b'Ada;7\n{"error": "Ada 7"}'


TARGETS: Final = {
    "reader": Target(play_reader, seeds_of_reader),
    "journal": Target(play_journal, seeds_of_journal),
    "report": Target(play_report, seeds_of_report),
    "profile": Target(play_profile, seeds_of_profile),
    "retry-after": Target(play_retry_after, seeds_of_retry_after),
    "words": Target(play_words, seeds_of_words),
}


def main(name: str, *options: str) -> None:
    """Fuzz one target, beginning with its seeds and with what earlier runs found."""
    target = TARGETS[name]
    corpus = PLACE / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    again = any(not option.startswith("-") for option in options)
    atheris.Setup([sys.argv[0], *LIMITS, *options, *([] if again else [str(corpus)])], target.play)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
