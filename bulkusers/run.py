"""A run: users out of a file, through the workers, into the report."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final
from uuid import uuid4

from bulkusers.brake import Brake, Suspicion, braking
from bulkusers.client import Client, connect
from bulkusers.errors import AccessError, ApiError, BulkUsersError, StorageError
from bulkusers.files import check_place, move_aside
from bulkusers.journal import Journal, Progress, refuse_live
from bulkusers.lock import hold_lock
from bulkusers.models import Outcome, Secret, Send, Status, User
from bulkusers.protocol import log_in, place
from bulkusers.report import Report, TextForm, write_rejects, write_report
from bulkusers.retry import Budget, retrying
from bulkusers.rules import Rules
from bulkusers.settings import Settings
from bulkusers.source import Source
from bulkusers.tally import Meter, Tally, exit_code, metered
from bulkusers.throttle import Traffic
from bulkusers.tokens import Tokens
from bulkusers.version import __version__
from bulkusers.workers import Work, Writes, converse, counting, upload_users

SYNC: Final = 0.05  # seconds between two times that the journal is made to survive a power cut
SETTLE: Final = 2.0  # seconds at least until a late write must have shown; twice the slowest answer if that is more


async def upload(
    source: Source,
    settings: Settings,
    *,
    report: Path = Path("results.json"),
    resume: bool = False,
    arguments: Sequence[str] = (),
    tally: Tally | None = None,
    brake: Brake | None = None,
) -> Report:
    """Create or update every user of an opened file and write the outcome report; return what it says.

    A run that had to stop (`brake`, or the API) is a result like any other: the report tells why and which rows were
    left, and its journal stays, so that `resume` can go on with it. `tally` counts while the run goes on; `arguments`
    are what a command line would have to say to run alike, for the report's reader.

    Raises:
        AccessError: there is nothing to log in with.
        LockedError: another run of the same account is going on.
        SourceError: the run to resume was one of another file or target.
        SettingsError: the CA file cannot be used.
        StorageError: report or journal cannot be written.

    """
    if not settings.token and not (settings.email and settings.password):
        raise AccessError(
            "there is no token, and no e-mail and password to get one with",
            hint="bulkusers login, or set BULKUSERS_TOKEN, or BULKUSERS_EMAIL and BULKUSERS_PASSWORD",
        )
    rejects = _name_rejects(report, source)
    for path in (report, rejects):
        check_place(path, "--report")
    run = Run(source, settings, tally or Tally(source.facts.rows), brake or Brake())
    async with connect(settings) as client:
        with hold_lock(settings), _open_journal(journal_of(report), source, settings, resume=resume) as journal:
            await run.send_all(client, journal)
            if run.full is not None:
                raise run.full
            result = run.describe(report, rejects, arguments)
            _write_results(result, rejects, source, journal)
            # a rehearsal's users are gone with its sandbox: there is nothing to go on with
            if not run.brake.reason or settings.environment == "sandbox":
                journal.remove()
    return result


def journal_of(report: Path) -> Path:
    """Return where the journal of a run lies whose report is to be at `report`."""
    return report.with_name(f"{report.name}.journal")


def _name_rejects(report: Path, source: Source) -> Path:
    """Return where rejected rows go: beside the report, and never in the place of the file that is being sent."""
    names = ("", *(f".{number}" for number in range(2, 1000)))
    paths = (report.with_suffix(f".rejects{number}.csv") for number in names)
    sent = Path(source.facts.path).absolute()
    return next(path for path in paths if path.absolute() != sent)


def _write_results(result: Report, rejects: Path, source: Source, journal: Journal) -> None:
    for path in (result.path, rejects):
        move_aside(path)
    write_report(result, journal.rows())  # first: whatever comes after it, what was done is written down
    if result.counts[Status.REJECTED]:
        facts = source.facts
        encoding = "utf-8" if facts.encoding == "utf-8" else "utf-8-sig"  # what Excel understands
        write_rejects(rejects, TextForm(facts.header, facts.delimiter, encoding), source.records(), journal.rows())


def _open_journal(path: Path, source: Source, settings: Settings, *, resume: bool) -> Journal:
    """Begin a journal, or go on with that of an interrupted run, which must be of the same file, target and rules."""
    which = {
        "sha256": source.facts.sha256,
        "base_url": settings.base_url,
        "school": settings.school,
        "existing": settings.existing,
        "lists": settings.lists,
        "notify": settings.notify,
    }
    if resume and (journal := Journal.reopen(path, which)):
        return journal
    refuse_live(path)
    move_aside(path)  # of a run that was killed
    return Journal.create(path, which)


async def get_token(settings: Settings, send: Send) -> Secret:
    """Log in and return a new token.

    Raises:
        AccessError: the API refuses the account.
        ApiError: the API cannot be reached.

    """
    return await converse(log_in(settings.profile, settings.email, settings.password), send)


class Run:
    """One run: what its parts share while it goes on."""

    def __init__(self, source: Source, settings: Settings, tally: Tally, brake: Brake) -> None:
        self.source = source
        self.settings = settings
        self.tally = tally
        self.brake = brake
        self.full: StorageError | None = None
        self.meter = Meter()
        self.budget = Budget()
        self.traffic = Traffic(settings.rate, brake.pull, brake.pulled.is_set)
        brake.on_pull(self.traffic.wake)
        self.started = datetime.now(UTC)

    async def send_all(self, client: Client, journal: Journal) -> None:
        """Send every user that has no outcome in the journal yet, and record what comes of it."""
        settings = self.settings
        rules = Rules(
            settings.profile, settings.school, settings.existing, settings.lists, settings.notify, settings.retries
        )

        def record(outcome: Outcome) -> None:
            self.tally(outcome)
            with self._stopping_when_full():
                journal(outcome)

        def begin(user: User) -> None:
            with self._stopping_when_full():
                journal.begin(user)

        can_log_in = settings.email and settings.password
        tokens = Tokens(client, partial(self._log_in, client) if can_log_in else None, self.brake.pull)
        async with self._syncing(journal):
            work = Work(
                place=lambda user, begun: place(user, rules, begun=begun),
                connect=partial(self._connect, client, tokens),
                begin=begin,
                was_begun=lambda user: journal.progress(user) is Progress.BEGUN,
                record=record,
                settle=self._settle,
                brake=self.brake,
                suspect=Suspicion(self.brake),
            )
            if not settings.token:
                await self._log_in_first(client)
            try:
                await upload_users(self._remaining(journal), work, workers=settings.concurrency)
            except* BulkUsersError as group:
                raise group.exceptions[0] from None  # the first cause; the rest are its echoes

    def _connect(self, client: Client, tokens: Tokens, writes: Writes) -> Send:
        """Return a worker's way to the API: what the API says is news for all workers, its count of writes its own."""
        send = counting(braking(client.send, self.brake), writes)
        send = self.traffic.guard(metered(send, self.meter))
        send = tokens.authenticating(send)
        return retrying(send, retries=self.settings.retries, budget=self.budget, pause=self._pause)

    async def _log_in(self, client: Client) -> Secret:
        send = self.traffic.guard(metered(braking(client.send, self.brake), self.meter))
        send = retrying(send, retries=self.settings.retries, budget=self.budget, pause=self._pause)
        return await get_token(self.settings, send)

    async def _log_in_first(self, client: Client) -> None:
        """Get the run's first token, unless the run stops before."""
        login = asyncio.create_task(self._log_in(client))
        stop = asyncio.create_task(self.brake.pulled.wait())
        await asyncio.wait((login, stop), return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        login.cancel()  # nothing is lost with it: who is stopping needs no token
        with suppress(asyncio.CancelledError):
            try:
                client.token = await login
            except ApiError as error:
                self.brake.pull(error)

    async def _pause(self, seconds: float) -> None:
        """Wait before a request is sent again, unless the run stops."""
        self.meter.retries += 1
        await self.brake.sleep(seconds)

    async def _settle(self) -> None:
        """Wait until a late write must have shown."""
        await asyncio.sleep(max(SETTLE, 2 * self.meter.longest / 1000))

    def _remaining(self, journal: Journal) -> Iterator[User | Outcome]:
        """Yield what has no outcome yet; count what has one from the interrupted run."""
        for item in self.source.users():
            if isinstance(item, User) and journal.progress(item) is Progress.DONE:
                self.tally(journal.outcome(item.row))
            else:
                yield item

    @contextmanager
    def _stopping_when_full(self) -> Iterator[None]:
        """Stop the run where the journal cannot be written: what cannot be written down must not be done."""
        try:
            yield
        except StorageError as error:
            self.full = self.full or error  # whatever else stopped the run, its journal has gaps now
            self.brake.pull(error)

    @asynccontextmanager
    async def _syncing(self, journal: Journal) -> AsyncIterator[None]:
        """Make the journal survive a power cut, many lines at a time."""
        over = asyncio.Event()

        async def sync() -> None:
            while not over.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(over.wait(), SYNC)
                with self._stopping_when_full():
                    await asyncio.to_thread(journal.sync)

        task = asyncio.create_task(sync())
        try:
            yield
        finally:
            over.set()  # and once more: a run that was stopped leaves its journal to a later one
            await task

    def describe(self, path: Path, rejects: Path, arguments: Sequence[str]) -> Report:
        """Return the report of the finished run, up to its rows."""
        finished = datetime.now(UTC)
        seconds = (finished - self.started).total_seconds()
        facts, settings, stopped = self.source.facts, self.settings, self.brake.reason
        run = {
            "id": uuid4().hex,
            "tool": f"bulkusers {__version__}",
            "started": self.started.isoformat(timespec="milliseconds"),
            "finished": finished.isoformat(timespec="milliseconds"),
            "seconds": round(seconds, 3),
            "environment": settings.environment,
            "base_url": settings.base_url,
            "school": settings.school,
            "operator": settings.email,
            "exit_code": exit_code(self.tally.counts, stopped),
            "stopped": {"reason": str(stopped), "hint": stopped.hint} if stopped else None,
            "arguments": list(arguments),
            "rejects": str(rejects) if self.tally.counts[Status.REJECTED] else None,
            "input": {
                "path": facts.path, "sha256": facts.sha256, "rows": facts.rows,
                "encoding": facts.encoding, "delimiter": facts.delimiter,
            },
            "options": {
                "existing": settings.existing, "lists": settings.lists, "notify": settings.notify,
                "concurrency": settings.concurrency, "rate": settings.rate, "timeout": settings.timeout,
                "retries": settings.retries,
            },
        }  # fmt: skip
        warnings = [asdict(notice) for notice in facts.notices]
        return Report(path, run, self.tally.counts, self.meter.summary(seconds), warnings, self.tally.problems())
