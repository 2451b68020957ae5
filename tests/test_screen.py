"""What people and logs see, and that nobody there to read is no reason to stop."""

import asyncio
import io
import json
import sys
from collections.abc import Callable

import pytest
from conftest import RunAtOnce

from bulkusers.cli.options import LogFormat
from bulkusers.cli.screen import Screen, describe, note_facts, write
from bulkusers.models import Notice
from bulkusers.source import Facts
from bulkusers.tally import Tally

MakeTally = Callable[..., Tally]


@pytest.fixture
def make_tally() -> MakeTally:
    """Return a function that makes the tally of a run under way."""

    def make(rows: int, **counts: int) -> Tally:
        tally = Tally(rows)
        tally.counts.update(counts)
        return tally

    return make


class Gone(io.StringIO):
    """A pipe whose reader has gone."""

    def write(self, _: str) -> int:
        """Fail as a pipe does."""
        raise BrokenPipeError


class Timed(io.StringIO):
    """Notes when each line was written, by the loop's clock."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def write(self, text: str) -> int:
        """Take one line."""
        self.times.append(asyncio.get_running_loop().time())
        return super().write(text)


def test_writing_where_nobody_reads_goes_on() -> None:
    """No stream, a closed one, a pipe without a reader."""
    closed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    closed.close()
    for stream in (None, closed, Gone()):
        write(stream, "a line")


def test_a_terminal_that_knows_ascii_only_gets_what_it_can_show() -> None:
    """The rest is a question mark each, also of a file name that is not UTF-8."""
    for encoding, shown in (("ascii", "Jos? ? u?.csv\n"), ("utf-8", "José → u?.csv\n")):
        raw = io.BytesIO()
        stream = io.TextIOWrapper(raw, encoding=encoding)
        write(stream, "José → u\udcff.csv")
        assert raw.getvalue().decode() == shown


@pytest.mark.parametrize(
    ("quiet", "verbose", "said"),
    [
        (False, False, ["note", "warning: warn", "error: fail", "  → hint"]),
        (False, True, ["note", "detail", "warning: warn", "error: fail", "  → hint"]),
        (True, False, ["warning: warn", "error: fail", "  → hint"]),
    ],
)
def test_each_kind_of_message_is_told_as_loudly_as_it_matters(
    capsys: pytest.CaptureFixture[str], quiet: bool, verbose: bool, said: list[str]
) -> None:
    """On stderr, so that results can be piped on."""
    screen = Screen(quiet=quiet, verbose=verbose)
    screen.note("note")
    screen.detail("detail")
    screen.warn("warn")
    screen.fail("fail", "hint")
    told = capsys.readouterr()
    assert told.err.splitlines() == said
    assert told.out == ""


def test_log_lines_are_json_each(capsys: pytest.CaptureFixture[str], make_tally: MakeTally) -> None:
    """Whatever they hold: line breaks, quotes, a name that is not UTF-8."""
    screen = Screen(LogFormat.JSON, verbose=True)
    screen.note('a "note"\nof two lines')
    screen.detail("José")
    screen.warn("u\udcff.csv")
    screen.fail("fail", "hint", "another")
    screen.result(["for people"], 5, counts=make_tally(2, created=2).counts, report="results.json")
    told = capsys.readouterr()
    lines = [json.loads(line) for line in told.err.splitlines()]
    assert [(line["level"], line["message"]) for line in lines] == [
        ("info", 'a "note"\nof two lines'),
        ("debug", "José"),
        ("warning", "u\udcff.csv"),
        ("error", "fail"),
        ("error", "finished"),
    ]
    assert lines[3]["hint"] == "hint; another"
    assert all(line["time"].endswith("+00:00") for line in lines)
    assert (lines[-1]["exit_code"], lines[-1]["counts"]["created"]) == (5, 2)
    assert told.out == ""
    assert told.err.isascii()


@pytest.mark.parametrize(
    ("quiet", "code", "said"), [(False, 0, "result\n"), (False, 5, "result\n"), (True, 0, ""), (True, 5, "result\n")]
)
def test_a_result_is_silent_only_where_all_is_well_and_it_is_quiet(
    capsys: pytest.CaptureFixture[str], quiet: bool, code: int, said: str
) -> None:
    """Cron mails what is printed."""
    Screen(quiet=quiet).result(["result"], code)
    assert capsys.readouterr().out == said


def test_nobody_is_asked_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in a pipe nor where the standard streams are closed or missing."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert Screen().is_interactive
    assert not Screen(quiet=True).is_interactive
    assert not Screen(LogFormat.JSON).is_interactive
    closed = io.StringIO()
    closed.close()
    for stream in (None, closed, io.StringIO()):
        monkeypatch.setattr(sys, "stdin", stream)
        assert not Screen().is_interactive


def test_lines_of_progress_come_at_growing_intervals(
    run_at_once: RunAtOnce, monkeypatch: pytest.MonkeyPatch, make_tally: MakeTally
) -> None:
    """A log of a long run stays short: 10 seconds, twice as long each time, and every ten minutes from then on."""
    stream = Timed()
    monkeypatch.setattr(sys, "stderr", stream)

    async def run() -> None:
        async with Screen().progress(make_tally(100, created=7)):
            await asyncio.sleep(3000)

    run_at_once(run())
    assert stream.times == pytest.approx([10, 30, 70, 150, 310, 630, 1230, 1830, 2430], abs=0.01)
    assert stream.getvalue().startswith("7/100  ")


def test_a_short_or_quiet_run_has_no_lines_of_progress(
    run_at_once: RunAtOnce, capsys: pytest.CaptureFixture[str], make_tally: MakeTally
) -> None:
    """Its summary says it all."""

    async def run(screen: Screen, seconds: float) -> None:
        async with screen.progress(make_tally(100)):
            await asyncio.sleep(seconds)

    run_at_once(run(Screen(), 9))
    run_at_once(run(Screen(quiet=True), 3000))
    assert capsys.readouterr().err == ""


def test_progress_is_json_for_collectors(
    run_at_once: RunAtOnce, capsys: pytest.CaptureFixture[str], make_tally: MakeTally
) -> None:
    """With all counts."""

    async def run() -> None:
        async with Screen(LogFormat.JSON).progress(make_tally(100, created=7)):
            await asyncio.sleep(11)

    run_at_once(run())
    [line] = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (line["counts"]["rows"], line["counts"]["created"]) == (100, 7)


def test_progress_does_not_hide_what_goes_wrong(run_at_once: RunAtOnce, make_tally: MakeTally) -> None:
    """An error inside comes out as it is, and the ticker ends."""

    async def run() -> None:
        async with Screen().progress(make_tally(1)):
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        run_at_once(run())


def test_progress_tells_how_far_how_fast_and_how_long(make_tally: MakeTally) -> None:
    """Rows in trouble are one number; before there is a rate there is no time to go."""
    tally = make_tally(1000, created=100, updated=50, unchanged=30, rejected=10, failed=6, unknown=4)
    assert describe(tally, 4) == "200/1,000  50/s  created 100  updated 50  failed 20  ETA 16.0 s"
    assert describe(make_tally(1000), 0) == "0/1,000  0/s  created 0  updated 0  failed 0"
    assert describe(make_tally(1000), 60) == "0/1,000  0/s  created 0  updated 0  failed 0"


@pytest.mark.parametrize("seconds", [0.5, 10, 500, 20_000, 1_000_000])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.999, 1])
def test_progress_of_a_million_rows_fits_a_screen(make_tally: MakeTally, share: float, seconds: float) -> None:
    """And still says what matters most: how many are done, how many failed, and the time to go."""
    third = int(share * 1_000_000 / 3)
    line = describe(make_tally(1_000_000, created=third, updated=third, failed=third), seconds)
    assert len(line) <= 80
    assert line.startswith(f"{3 * third:,}/1,000,000")
    assert f"failed {third:,}" in line
    assert seconds < 1 or "ETA " in line


def test_what_the_first_reading_found_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Unused columns once, and each notice with the first of its rows."""
    notices = (Notice("a", "names in capitals", 9, [2, 3]), Notice("b", "blank rows", 1, [7]))
    facts = Facts("users.csv", "", 9, "utf-8", ",", (), ("Shoe Size", "Notes"), 0, notices)
    note_facts(facts, Screen())
    assert capsys.readouterr().err.splitlines() == [
        "Columns that are not used: Shoe Size, Notes",
        "warning: names in capitals (rows 2, 3, …)",
        "warning: blank rows (row 7)",
    ]
    note_facts(Facts("users.csv", "", 9, "utf-8", ",", (), (), 0, ()), Screen())
    assert capsys.readouterr().err == ""
