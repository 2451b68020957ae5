"""Users through workers: a bounded queue, a conversation each, and exactly one outcome for every row."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from bulkusers.answers import INTERRUPTED, NOT_SENT, UNAUTHENTICATED, Conversation, Wish
from bulkusers.brake import Brake
from bulkusers.errors import SourceError, StorageError, TransportError
from bulkusers.meaning import READS
from bulkusers.models import BREATH, Image, Item, Outcome, Record, Request, Response, Send, Settle, Status

QUEUED: Final = 2  # users waiting for each worker: enough that none waits, few enough that the file is read no faster
DRAIN: Final = 30.0  # seconds that a stopped run gives to what is under way
TURNED_AWAY: Final = frozenset({401, 429})  # answers to writes that surely changed nothing: they come before the work
Result = TypeVar("Result")
T = TypeVar("T", bound=Item)
Wait = Callable[[], Awaitable[None]]


class Writes:
    """Counts the requests of one conversation that may have changed something."""

    def __init__(self) -> None:
        self.seen = 0  # that the API may have seen
        self.taken = 0  # ... and did not turn away

    def begin(self) -> None:
        """Count another conversation's."""
        self.seen = self.taken = 0


def counting(send: Send, writes: Writes) -> Send:
    """Return a `Send` that counts writes; it belongs next to the network, inside of whatever sends again.

    Who is cut off while still connecting is counted, too, though nothing was sent: nobody knows how far it came, and
    `unknown` is safe.
    """

    async def send_and_count(request: Request) -> Response:
        if request.method in READS or not request.authorized:
            return await send(request)
        writes.seen += 1
        writes.taken += 1
        try:
            answer = await send(request)
        except TransportError as error:
            writes.seen -= not error.sent
            writes.taken -= not error.sent
            raise
        writes.taken -= answer.status in TURNED_AWAY
        return answer

    return send_and_count


def _forget(_: Image) -> None:
    """Keep no image."""


async def converse(
    conversation: Generator[Wish, Response, Result],
    send: Send,
    settle: Wait | None = None,
    keep: Callable[[Image], None] = _forget,
) -> Result:
    """Lead a conversation to its end and return its result.

    `settle` waits until a late write would have shown; `keep` writes down what a user's record was before a change.

    Raises:
        TransportError: no answer came, and the conversation has no use for that.

    """
    try:
        wish = next(conversation)
        while True:
            match wish:
                case Request():
                    try:
                        answer = await send(wish)
                    except TransportError as error:
                        wish = conversation.throw(error)
                    else:
                        wish = conversation.send(answer)
                    continue
                case Settle() if settle is not None:
                    await settle()
                case Image():
                    keep(wish)
                case None:
                    await asyncio.sleep(0)
            wish = next(conversation)
    except StopIteration as end:
        result: Result = end.value
        return result


@dataclass(frozen=True, slots=True)
class Work(Generic[T]):
    """What the workers of one run share."""

    place: Callable[[T, bool], Conversation]  # the user, and whether an interrupted run had begun with it
    connect: Callable[[Writes], Send]  # a worker's way to the API
    begin: Callable[[Item], None]  # called before a user's first request; where it fails, nothing is sent
    was_begun: Callable[[Item], bool]  # by an interrupted run
    record: Record
    settle: Wait
    brake: Brake
    suspect: Record
    keep: Callable[[Image], None] = _forget  # called before a change; where it fails, nothing more is sent


async def upload_users(items: Iterable[T | Outcome | None], work: Work[T], *, workers: int) -> None:
    """Lead every user's conversation, at most `workers` at a time, and record each item's outcome exactly once.

    What was recorded before is None.

    Raises:
        StorageError: the items could not be read to their end; the outcomes of those that were read are recorded.

    """
    queue: asyncio.Queue[T | None] = asyncio.Queue(workers * QUEUED)
    async with asyncio.TaskGroup() as group:
        feeder = group.create_task(_feed(items, queue, work, workers))
        tasks = [group.create_task(_serve(queue, work)) for _ in range(workers)]
        cut_off = asyncio.create_task(_cut_off(tasks, queue, work))
        try:
            await asyncio.wait(tasks)
            if any(task.cancelled() for task in tasks):
                await cut_off  # nobody else takes what the feeder still brings
        finally:
            cut_off.cancel()
    if (broken := feeder.result()) is not None:
        raise broken


async def _feed(
    items: Iterable[T | Outcome | None], queue: asyncio.Queue[T | None], work: Work[T], workers: int
) -> StorageError | None:
    """Put users into the queue as fast as they are taken, record rows that are decided already, end every worker.

    Return why the items ended too early, if they did: what is under way is to be finished first.
    """
    broken = None
    idle = 0  # items that need no request
    try:
        for item in items:
            if item is not None and not isinstance(item, Outcome):
                await queue.put(item)
                continue
            if item is not None:
                work.record(item)
            idle += 1
            if idle % BREATH == 0:
                await asyncio.sleep(0)
    except (SourceError, StorageError) as error:  # the disk failed: rows are left without an outcome
        broken = StorageError(str(error), error.hint or "go on with --resume where it can be read again")
        work.brake.pull(broken)
    for _ in range(workers):
        await queue.put(None)
    return broken


async def _serve(queue: asyncio.Queue[T | None], work: Work[T]) -> None:
    """Take users until there are none."""
    writes = Writes()
    send = work.connect(writes)
    while (user := await queue.get()) is not None:
        begun = work.was_begun(user)
        if work.brake.pulled.is_set():
            work.record(_left(user, doubt=begun))
            continue
        writes.begin()
        began = time.perf_counter()
        try:
            work.begin(user)
            outcome = await converse(work.place(user, begun), send, work.settle, work.keep)
        except asyncio.CancelledError:
            work.record(_left(user, doubt=begun or writes.taken > 0)._replace(attempts=writes.seen))
            raise
        except StorageError:  # what cannot be written down must not be done; the brake is pulled
            outcome = _left(user, doubt=begun or writes.taken > 0)
        ms = round((time.perf_counter() - began) * 1000)
        work.suspect(outcome)
        if work.brake.pulled.is_set() and outcome.code in {NOT_SENT, UNAUTHENTICATED} and not writes.taken:
            outcome = _left(user, doubt=begun)  # it was the run's trouble, not the user's
        work.record(outcome._replace(attempts=writes.seen, ms=ms))


def _left(user: Item, *, doubt: bool) -> Outcome:
    """Return the outcome of a user whom the run did not come to, or did not finish with."""
    if doubt:
        return Outcome(user.row, user.email, Status.UNKNOWN, *INTERRUPTED)
    return Outcome(user.row, user.email, Status.UNPROCESSED)


async def _cut_off(tasks: list[asyncio.Task[None]], queue: asyncio.Queue[T | None], work: Work[T]) -> None:
    """When a stopped run does not end in time, end its workers, and record what is left in their stead."""
    await work.brake.pulled.wait()
    await asyncio.sleep(DRAIN)
    for task in tasks:
        task.cancel()
    while (user := await queue.get()) is not None:
        work.record(_left(user, doubt=work.was_begun(user)))
