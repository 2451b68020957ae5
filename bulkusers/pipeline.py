"""A run, whatever it does: items through workers, what comes of each into the journal, and the report made from it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Generic, Protocol

from bulkusers.answers import Conversation
from bulkusers.api import Api, open_api
from bulkusers.books import Books, images_of, journal_of
from bulkusers.brake import Brake, Suspicion
from bulkusers.errors import BulkUsersError, StorageError
from bulkusers.files import check_place, move_aside
from bulkusers.journal import Journal, Progress, refuse_live
from bulkusers.lock import hold_lock
from bulkusers.models import Image, Item, Notice, Outcome, Status
from bulkusers.report import Report, write_report
from bulkusers.settings import Settings
from bulkusers.source import Facts
from bulkusers.tally import Tally, exit_code
from bulkusers.version import __version__
from bulkusers.workers import T, Work, upload_users

SYNC: Final = 0.05  # seconds between two times that what was written is made to survive a power cut


def _nothing(_: object) -> None:
    """Know of no item what becomes of it."""


def _finish_nothing(_report: Report, _journal: Journal) -> None:
    """Do nothing more."""


class Prepare(Protocol):
    """Looks at what there is before the first write, and may refuse it; what it opens, `stack` closes."""

    async def __call__(self, api: Api, brake: Brake, stack: ExitStack) -> None:
        """Look; raise where it is refused."""


async def _prepare_nothing(api: Api, brake: Brake, stack: ExitStack) -> None:
    """Look at nothing."""


@dataclass(frozen=True, slots=True)
class Job(Generic[T]):
    """What one run is to do."""

    facts: Facts  # of the input
    items: Callable[[], Iterator[T | Outcome]]  # in the order of their rows; an outcome needs no conversation
    place: Callable[[T, bool], Conversation]  # an item's, and whether an interrupted run had begun with it
    which: Mapping[str, Any]  # what another run must have in common with this one to go on with it
    options: Mapping[str, Any]  # for the report's reader
    noticed: Sequence[Notice] = ()  # by its preparation
    foregone: Callable[[T], Outcome | None] = _nothing  # what would become of an item that needs no request
    command: str = "run"
    exit_code: Callable[[dict[str, int], BulkUsersError | None], int] = exit_code
    prepare: Prepare = _prepare_nothing
    rejects: Path | None = None  # where the rejected rows go
    finish: Callable[[Report, Journal], None] = _finish_nothing  # once the report is written


async def carry_out(
    job: Job[T],
    settings: Settings,
    *,
    report: Path,
    resume: bool = False,
    arguments: Sequence[str] = (),
    tally: Tally | None = None,
    brake: Brake | None = None,
) -> Report:
    """Do a job and write its outcome report; return what it says.

    A run that had to stop (`brake`, or the API) is a result like any other: the report tells why and what was left,
    and its journal stays, so that `resume` can go on with it. `tally` counts while the run goes on; `arguments` are
    what a command line would have to say to run alike, for the report's reader.

    Raises:
        AccessError: there is nothing to log in with.
        LockedError: another run of the same account is going on.
        SourceError: the run to resume was one of another input or target.
        SettingsError: the CA file cannot be used.
        StorageError: report or journal cannot be written.
        BulkUsersError: whatever else the job's preparation refuses.

    """
    brake, tally = brake or Brake(), tally or Tally(job.facts.rows)
    for path in filter(None, (report, job.rejects, images_of(report))):
        check_place(path, "--report")
    async with AsyncExitStack() as connection:
        api = await connection.enter_async_context(open_api(settings, brake))
        pipeline = Pipeline(job, settings, api, tally, brake)  # its time begins before the first request
        with hold_lock(settings), ExitStack() as stack:
            refuse_live(journal_of(report))
            books = Books.reopen(report, job.which, job.facts.path) if resume else None
            if books is not None:
                stack.enter_context(books)
            await api.log_in_first()
            await job.prepare(api, brake, stack)
            if books is None:
                books = stack.enter_context(Books.begin(report, job.which, job.facts.path))
            await pipeline.send_all(books)
            await connection.aclose()  # the last that can be cancelled: what the report says must be the run's end
            result = pipeline.write_report(books, arguments)
            job.finish(result, books.journal)
            # a rehearsal's users are gone with its sandbox: there is nothing to go on with
            if not brake.reason or settings.environment == "sandbox":
                books.journal.remove()
    return result


class Pipeline(Generic[T]):
    """One run: what its parts share while it goes on."""

    def __init__(self, job: Job[T], settings: Settings, api: Api, tally: Tally, brake: Brake) -> None:
        self._job = job
        self._settings = settings
        self._api = api
        self._tally = tally
        self._brake = brake
        self._full: StorageError | None = None
        self._started = datetime.now(UTC)

    async def send_all(self, books: Books) -> None:
        """Lead the conversation of every item that has no outcome yet, and record what comes of it.

        Raises:
            StorageError: the journal or the before-images cannot be written.

        """
        journal = books.journal

        def record(outcome: Outcome) -> None:
            self._tally(outcome)
            try:
                journal(outcome)
            except StorageError as error:
                self._stop_when_full(error)

        def begin(item: Item) -> None:
            try:
                journal.begin(item)
            except StorageError as error:
                self._stop_when_full(error)
                raise

        def keep(image: Image) -> None:
            try:
                books.images(image)
            except StorageError as error:
                self._stop_when_full(error)
                raise

        work = Work(
            place=self._job.place,
            connect=self._api.connect,
            begin=begin,
            was_begun=lambda item: journal.progress(item) is Progress.BEGUN,
            keep=keep,
            record=record,
            settle=self._api.settle,
            brake=self._brake,
            suspect=Suspicion(self._brake),
        )
        async with self._syncing(books):
            try:
                await upload_users(self._remaining(journal), work, workers=self._settings.concurrency)
            except* BulkUsersError as group:
                raise group.exceptions[0] from None  # the first cause; the rest are its echoes
        if self._full is not None:
            done = sum(self._tally.counts[status] for status in (Status.CREATED, Status.UPDATED))
            self._full.hint = f"users created or updated so far: {done:,}; make room, then go on with --resume"
            raise self._full

    def _remaining(self, journal: Journal) -> Iterator[T | Outcome | None]:
        """Yield what has no outcome yet, None for what has one from the interrupted run; count that."""
        for item in self._job.items():
            if isinstance(item, Outcome):
                yield item
                continue
            match journal.progress(item):
                case Progress.DONE:
                    self._tally(journal.outcome(item.row))
                    yield None
                case Progress.NEW:
                    yield self._job.foregone(item) or item
                case Progress.BEGUN:
                    yield item

    def _stop_when_full(self, error: StorageError) -> None:
        """Stop the run where something cannot be written: what cannot be written down must not be done."""
        self._full = self._full or error  # whatever else stopped the run, its journal has gaps now
        self._brake.pull(error)

    @asynccontextmanager
    async def _syncing(self, books: Books) -> AsyncIterator[None]:
        """Make the books survive a power cut, many lines at a time."""
        over = asyncio.Event()

        async def sync() -> None:
            while not over.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(over.wait(), SYNC)
                try:
                    await asyncio.to_thread(books.sync)
                except StorageError as error:
                    self._stop_when_full(error)

        task = asyncio.create_task(sync())
        try:
            yield
        finally:
            over.set()  # and once more: a run that was stopped leaves its journal to a later one
            await task

    def write_report(self, books: Books, arguments: Sequence[str]) -> Report:
        """Write the report of what has been done, from the journal, and return it.

        Raises:
            StorageError: it cannot be written.

        """
        report = self._describe(books, arguments)
        move_aside(books.report)  # nobody else's, either, is to be lost
        write_report(report, books.journal.rows())
        if not self._tally.counts[Status.UNKNOWN]:  # of whom an undo has to know, though they have no image
            books.images.remove_if_empty()
        return report

    def _describe(self, books: Books, arguments: Sequence[str]) -> Report:
        finished = datetime.now(UTC)
        seconds = (finished - self._started).total_seconds()
        facts, settings, stopped = self._job.facts, self._settings, self._brake.reason
        run = {
            "id": books.run,
            "tool": f"bulkusers {__version__}",
            "command": self._job.command,
            "started": self._started.isoformat(timespec="milliseconds"),
            "finished": finished.isoformat(timespec="milliseconds"),
            "seconds": round(seconds, 3),
            "environment": settings.environment,
            "base_url": settings.base_url,
            "school": settings.school,
            "operator": settings.email,
            "exit_code": self._job.exit_code(self._tally.counts, stopped),
            "stopped": {"reason": str(stopped), "hint": stopped.hint} if stopped else None,
            "arguments": list(arguments),
            "rejects": str(self._job.rejects) if self._job.rejects and self._tally.counts[Status.REJECTED] else None,
            "input": {
                "path": facts.path, "sha256": facts.sha256, "rows": facts.rows,
                "encoding": facts.encoding, "delimiter": facts.delimiter,
            },
            "options": {
                **self._job.options,
                "concurrency": settings.concurrency, "rate": settings.rate, "timeout": settings.timeout,
                "retries": settings.retries,
            },
        }  # fmt: skip
        http = self._api.meter.summary(seconds)
        return Report(books.report, run, self._tally.counts, http, list(self._list_warnings()), self._tally.problems())

    def _list_warnings(self) -> Iterator[dict[str, Any]]:
        yield from (asdict(notice) for notice in (*self._job.facts.notices, *self._job.noticed))
        if self._tally.losses.count:
            yield asdict(self._tally.losses)
