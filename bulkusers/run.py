"""A run: users out of a file, through the workers, into the report."""

import asyncio
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import uuid4

from bulkusers.brake import Brake, Suspicion, braking
from bulkusers.client import connect
from bulkusers.errors import AccessError, ApiError, BulkUsersError, SourceError, TransportError
from bulkusers.files import check_place, move_aside
from bulkusers.journal import Journal
from bulkusers.models import Outcome, Record, Request, Response, Secret, Send, Status, User
from bulkusers.protocol import Conversation, Rules, log_in, place
from bulkusers.report import Report, TextForm, write_rejects, write_report
from bulkusers.settings import Settings
from bulkusers.source import Source
from bulkusers.tally import Meter, Tally, exit_code, metered
from bulkusers.throttle import paced
from bulkusers.version import __version__

QUEUED: Final = 2  # users waiting for each worker: enough that none waits, few enough that the file is read no faster
BREATH: Final = 100  # outcomes that need no request, after which the producer lets others run
Result = TypeVar("Result")


async def converse(conversation: Generator[Request, Response, Result], send: Send) -> tuple[Result, int]:
    """Lead a conversation to its end; return its result and how many writes were sent.

    Raises:
        TransportError: no answer came, and the conversation has no use for that.

    """
    writes = 0
    try:
        request = next(conversation)
        while True:
            writes += request.method != "GET"
            try:
                answer = await send(request)
            except TransportError as error:
                request = conversation.throw(error)
            else:
                request = conversation.send(answer)
    except StopIteration as end:
        result: Result = end.value
        return result, writes


async def upload_users(
    items: Iterable[User | Outcome],
    begin: Callable[[User], Conversation],
    send: Send,
    record: Record,
    *,
    workers: int,
    brake: Brake,
) -> None:
    """Lead every user's conversation, at most `workers` at a time, and record each item's outcome exactly once."""
    queue: asyncio.Queue[User | None] = asyncio.Queue(workers * QUEUED)
    suspect = Suspicion(brake)

    async def work() -> None:
        while (user := await queue.get()) is not None:
            if brake.reason is not None:
                record(Outcome(user.row, user.email, Status.UNPROCESSED))
                continue
            began = time.perf_counter()
            outcome, writes = await converse(begin(user), send)
            ms = round((time.perf_counter() - began) * 1000)
            suspect(outcome)
            record(replace(outcome, attempts=writes, ms=ms))

    async with asyncio.TaskGroup() as group:
        group.create_task(_feed(items, queue, record, brake, workers))
        for _ in range(workers):
            group.create_task(work())


async def _feed(
    items: Iterable[User | Outcome], queue: asyncio.Queue[User | None], record: Record, brake: Brake, workers: int
) -> None:
    """Put users into the queue as fast as they are taken, record rows that are decided already, end every worker."""
    try:
        for count, item in enumerate(items):
            if isinstance(item, User):
                await queue.put(item)
                continue
            record(item)
            if count % BREATH == 0:
                await asyncio.sleep(0)
    except SourceError as error:
        brake.pull(error)
    for _ in range(workers):
        await queue.put(None)


async def get_token(settings: Settings, send: Send) -> Secret:
    """Log in and return a new token.

    Raises:
        AccessError: the API refuses the account.
        ApiError: the API cannot be reached.

    """
    token, _ = await converse(log_in(settings.profile, settings.email, settings.password), send)
    return token


async def upload(
    source: Source,
    settings: Settings,
    *,
    report: Path = Path("results.json"),
    tally: Tally | None = None,
    brake: Brake | None = None,
) -> Report:
    """Create or update every user of an opened file and write the outcome report; return what it says.

    A run that had to stop (`brake`, or the API) is a result like any other: the report tells why and which rows were
    left. `tally` counts while the run goes on.

    Raises:
        AccessError: there is nothing to log in with.
        StorageError: report or journal cannot be written.

    """
    if not settings.token and not (settings.email and settings.password):
        raise AccessError(
            "there is no token, and no e-mail and password to get one with",
            hint="bulkusers login, or set BULKUSERS_TOKEN, or BULKUSERS_EMAIL and BULKUSERS_PASSWORD",
        )
    facts, meter = source.facts, Meter()
    tally, brake = tally or Tally(facts.rows), brake or Brake()
    started = datetime.now(UTC)
    journal_path, rejects = report.with_suffix(".journal"), report.with_suffix(".rejects.csv")
    for path in (report, rejects):
        check_place(path)
    move_aside(journal_path)  # of a run that was killed
    with Journal(journal_path) as journal:

        def record(outcome: Outcome) -> None:
            journal(outcome)
            tally(outcome)

        await _send_all(source, settings, record, meter, brake)
        if isinstance(brake.reason, SourceError):
            tally.counts["rows"] = tally.done  # the file is no longer the one whose rows were counted
        result = Report(
            report,
            _describe_run(source, settings, started, brake, exit_code(tally.counts, brake.reason)),
            tally.counts,
            meter.summary((datetime.now(UTC) - started).total_seconds()),
            [asdict(notice) for notice in facts.notices],
            tally.problems(),
        )
        for path in (report, rejects):
            move_aside(path)
        if tally.counts[Status.REJECTED]:
            encoding = "utf-8" if facts.encoding == "utf-8" else "utf-8-sig"  # what Excel understands
            write_rejects(rejects, TextForm(facts.header, facts.delimiter, encoding), source.records(), journal.rows())
        write_report(result, journal.rows())
        journal.remove()
    return result


async def _send_all(source: Source, settings: Settings, record: Record, meter: Meter, brake: Brake) -> None:
    rules = Rules(settings.profile, settings.school, settings.existing, settings.lists, settings.notify)
    async with connect(settings) as client:
        send = paced(metered(braking(client.send, brake), meter), settings.rate)
        try:
            client.token = settings.token or await get_token(settings, send)
        except ApiError as error:
            brake.pull(error)
        try:
            await upload_users(
                source.users(),
                partial(place, rules=rules),
                send,
                record,
                workers=settings.concurrency,
                brake=brake,
            )
        except* BulkUsersError as group:
            raise group.exceptions[0] from None  # the first cause; the rest are its echoes


def _describe_run(source: Source, settings: Settings, started: datetime, brake: Brake, code: int) -> dict[str, Any]:
    """Return the report's `run` object: everything that explains the run, and no secret."""
    facts, finished = source.facts, datetime.now(UTC)
    return {
        "id": uuid4().hex,
        "tool": f"bulkusers {__version__}",
        "started": started.isoformat(timespec="milliseconds"),
        "finished": finished.isoformat(timespec="milliseconds"),
        "seconds": round((finished - started).total_seconds(), 3),
        "environment": settings.environment,
        "base_url": settings.base_url,
        "school": settings.school,
        "operator": settings.email,
        "exit_code": code,
        "stopped": {"reason": str(brake.reason), "hint": brake.reason.hint} if brake.reason else None,
        "input": {
            "path": facts.path, "sha256": facts.sha256, "rows": facts.rows,
            "encoding": facts.encoding, "delimiter": facts.delimiter,
        },
        "options": {
            "existing": settings.existing, "lists": settings.lists, "notify": settings.notify,
            "concurrency": settings.concurrency, "rate": settings.rate, "timeout": settings.timeout,
        },
    }  # fmt: skip
