"""What people and logs see of a command: notes and progress on stderr, results on stdout."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, Final, TextIO

import typer

from bulkusers.cli.options import LogFormat
from bulkusers.cli.summary import WIDTH, duration, name_rows
from bulkusers.errors import Interrupted
from bulkusers.files import check_place
from bulkusers.models import Outcome, Status
from bulkusers.source import Facts
from bulkusers.tally import Tally

TICK: Final = 0.2  # seconds between two pictures of the live line
FIRST_LINE: Final = 10.0  # seconds until the first plain line of progress; each next one waits twice as long
LAST_WAIT: Final = 600.0  # seconds between plain lines at most


class Screen:
    """Writes for a person or, as JSON lines, for a log collector; goes on in silence where nobody can read."""

    _latest: ClassVar["Screen | None"] = None

    def __init__(self, log_format: LogFormat = LogFormat.TEXT, *, quiet: bool = False, verbose: bool = False) -> None:
        Screen._latest = self
        self._json = log_format is LogFormat.JSON
        self._quiet = quiet
        self._verbose = verbose

    @classmethod
    def of_the_moment(cls) -> "Screen":
        """Return the screen that the command set up, or a plain one if it did not come so far."""
        return cls._latest or cls()

    @property
    def is_quiet(self) -> bool:
        """Tell whether nothing is said unless something is wrong."""
        return self._quiet

    @property
    def is_interactive(self) -> bool:
        """Tell whether somebody is there to answer a question."""
        return not self._quiet and not self._json and _is_terminal(sys.stdin) and _is_terminal(sys.stderr)

    def ask(self, question: str, *, hide: bool = False) -> str:
        """Ask a person for a word.

        Raises:
            Interrupted: the answer was Ctrl-C.

        """
        with _interruptible():
            answer: str = typer.prompt(question, hide_input=hide, err=True)
        return answer

    def confirm(self, question: str) -> bool:
        """Ask a person for a yes; Enter means no.

        Raises:
            Interrupted: the answer was Ctrl-C.

        """
        with _interruptible():
            return typer.confirm(question, default=False, err=True)

    def note(self, message: str) -> None:
        """Say something that is good to know."""
        if not self._quiet:
            self._log("info", message)

    def detail(self, message: str) -> None:
        """Say something that helps to find a fault."""
        if self._verbose:
            self._log("debug", message)

    def warn(self, message: str) -> None:
        """Say something that may be a mistake, even where it is quiet."""
        self._log("warning", message)

    def fail(self, message: str, *hints: str) -> None:
        """Say why a command ends, and what to do next."""
        if self._json:
            self._log("error", message, **({"hint": "; ".join(hints)} if hints else {}))
            return
        self._log("error", message)
        for hint in hints:
            write(sys.stderr, f"  → {hint}")

    def _log(self, level: str, message: str, **more: object) -> None:
        if self._json:
            stamp = datetime.now(UTC).isoformat(timespec="milliseconds")
            # escaped to ASCII: exact in every locale, and a file name that is not UTF-8 can be said, too
            write(sys.stderr, json.dumps({"time": stamp, "level": level, "message": message, **more}))
        else:
            words = {"warning": "warning: ", "error": "error: "}
            write(sys.stderr, words.get(level, "") + message)

    def show(self, outcome: Outcome, code: int) -> None:
        """Write what is wrong with one row, as a part of the result."""
        if self._quiet and not code:
            return
        if self._json:
            level = "error" if outcome.status is Status.REJECTED else "info"
            self._log(level, outcome.message, row=outcome.row, code=outcome.code, hint=outcome.hint)
            return
        write(sys.stdout, f"row {outcome.row}: {outcome.message}")
        if outcome.hint:
            write(sys.stdout, f"    {outcome.hint}")

    def result(self, lines: Iterable[str], code: int, *, well: bool = True, **facts: object) -> None:
        """Write what a command was asked for; where it is quiet, only if it is not all well."""
        if self._quiet and well and not code:
            return
        if self._json:
            self._log("error" if code else "info", "finished", exit_code=code, **facts)
            return
        for line in lines:
            write(sys.stdout, line)

    @asynccontextmanager
    async def progress(self, tally: Tally) -> AsyncIterator[None]:
        """Show how far a run is: a live line on a terminal, else lines at growing intervals."""
        if self._quiet:
            yield
            return
        live = not self._json and _is_terminal(sys.stderr)
        ticker = asyncio.create_task(self._show_live(tally) if live else self._show_lines(tally))
        try:
            yield
        finally:
            ticker.cancel()
            with suppress(asyncio.CancelledError):
                await ticker

    async def _show_lines(self, tally: Tally) -> None:
        began, wait = time.monotonic(), FIRST_LINE
        while True:
            await asyncio.sleep(wait)
            wait = min(2 * wait, LAST_WAIT)
            self._log("info", describe(tally, time.monotonic() - began), counts=tally.counts)

    async def _show_live(self, tally: Tally) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        began = time.monotonic()
        while not tally.done:  # noqa: ASYNC110 - a tally tells nobody; before it counts, there may be a question
            await asyncio.sleep(TICK)

        def picture() -> Text:
            return Text(describe(tally, time.monotonic() - began), no_wrap=True, overflow="ellipsis")

        # transient: the summary that follows says it all; a terminal that has gone, or cannot show it, gets no more
        with (
            suppress(OSError, ValueError),
            Live(console=Console(stderr=True), auto_refresh=False, transient=True) as live,
        ):
            while True:
                live.update(picture(), refresh=True)
                await asyncio.sleep(TICK)


def note_facts(facts: Facts, screen: Screen) -> None:
    """Say what the first reading found that a person may not expect; a quiet job would say it night after night."""
    if screen.is_quiet:
        return
    if facts.ignored:
        screen.note(f"Columns that are not used: {', '.join(facts.ignored)}")
    for notice in facts.notices:
        screen.warn(f"{notice.message} ({name_rows(notice.rows, notice.count)})")


def note_journal(report: Path, screen: Screen, *, resume: bool) -> None:
    """Say where a run begins that could go on, and one that cannot.

    Raises:
        LockedError: the journal is that of a run that is going on.

    """
    from bulkusers.books import journal_of
    from bulkusers.journal import refuse_live

    journal = journal_of(report)
    check_place(journal, "--report")
    if resume and not journal.exists():
        screen.note(f"There is no {journal}, so there is nothing to go on with: this run begins at the beginning.")
    elif journal.exists() and not resume:
        refuse_live(journal)
        screen.warn(
            f"{journal} is an interrupted run's; this run begins anew and moves it aside (--resume would go on with it)"
        )


def describe(tally: Tally, seconds: float) -> str:
    """Return one line of at most 80 columns: done/total, rate, what became of the rows, time to go."""
    counts = tally.counts
    done = tally.done - counts[Status.UNPROCESSED]
    rate = done / seconds if seconds else 0.0
    parts = [f"{done:,}/{counts['rows']:,}", f"{rate:,.0f}/s"]
    parts += [f"{status} {counts[status]:,}" for status in (Status.CREATED, Status.UPDATED)]
    failed = counts[Status.FAILED] + counts[Status.UNKNOWN] + counts[Status.REJECTED]
    parts.append(f"failed {failed:,}")
    if rate and seconds > 1:
        parts.append(f"ETA {duration((counts['rows'] - done) / rate)}")
    line = "  ".join(parts)
    if len(line) > WIDTH:  # of a million rows; the time to go says as much as the rate
        line = " ".join([parts[0], *parts[2:]])
    return line if len(line) <= WIDTH else line[: WIDTH - 1] + "…"


def write(stream: TextIO | None, line: str) -> None:
    """Write a line whatever the terminal can show; a reader who has gone is no reason to stop."""
    if stream is None:
        return
    with suppress(OSError, ValueError):
        encoding = stream.encoding or "ascii"
        stream.write(line.encode(encoding, "replace").decode(encoding) + "\n")
        stream.flush()


def leave_streams() -> None:
    """Let a stream that does not take its last words lead nowhere, else Python ends with an exit code of its own."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError), Path(os.devnull).open("wb") as nowhere:
                os.dup2(nowhere.fileno(), stream.fileno())


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C end a question, also where an event loop listens to signals."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    except (typer.Abort, KeyboardInterrupt):
        raise Interrupted("SIGINT", signal.SIGINT) from None
    finally:
        signal.signal(signal.SIGINT, before)
