"""Clients that are wrong on purpose, one mistake each: `python wrong_clients.py MISTAKE run users.csv ...`.

They show that the checker sees what it is there to see. A mistake patches one thing and starts the command line.
"""

import os
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any, Final

from yarl import URL

from bulkusers import (
    answers,
    books,
    client,
    images,
    journal,
    meaning,
    pace,
    pipeline,
    protocol,
    report,
    restore,
    retry,
    rules,
    run,
    source,
    tokens,
    undo,
    workers,
)
from bulkusers.answers import Conversation
from bulkusers.cli import app
from bulkusers.errors import StorageError, TransportError
from bulkusers.models import Image, Json, Outcome, Request, Response, Secret, Send, Status, User

Patch = Callable[[], None]


def resend_blindly() -> None:
    """Send a write whose answer was lost again, and believe the 409 that it gets: the data are at fault."""

    def place(user: User, rules: rules.Rules, *, begun: bool = False) -> Conversation:
        del begun
        answer = yield from _ask(rules.create(rules.record(user)), again=3)
        if isinstance(answer, Response) and answer.status == 201:
            return Outcome(user.row, user.email, Status.CREATED)
        return Outcome(user.row, user.email, Status.REJECTED, "refused", "the API refused it", "mend it")

    _patch(run, "place", place)


def call_created_without_a_look() -> None:
    """Believe of a create whose answer is lost that it was done."""

    def look(user: User, *_: object, **__: object) -> Generator[Any, Response, Outcome | None]:
        yield from ()
        return Outcome(user.row, user.email, Status.CREATED)

    _patch(protocol, "_look_for_created", look)


def call_lost_failed() -> None:
    """Call a write failed whose answer is lost."""
    true = meaning.classify

    def classify(request: Request, answer: Response | TransportError, profile: Any) -> meaning.Meaning:  # noqa: ANN401
        found = true(request, answer, profile)
        return meaning.Meaning.REFUSED if found is meaning.Meaning.LOST else found

    for module in (protocol, answers):
        _patch(module, "classify", classify)


def forget_who_was_begun() -> None:
    """Write no line before a user's first request."""
    _patch(journal.Journal, "begin", lambda *_: None)


def follow_redirects() -> None:
    """Go wherever the server points."""
    true = client.Client.send

    async def send(sender: client.Client, request: Request) -> Response:
        answer = await true(sender, request)
        if 300 <= answer.status < 400:  # as browsers do
            where = URL(answer.headers["Location"]).raw_path
            answer = await true(sender, Request("GET", where.removeprefix(sender._path)))  # noqa: SLF001
        return answer

    _patch(client.Client, "send", send)


def believe_any_page() -> None:
    """Take every answer with the right status for a confirmation."""
    for module in (protocol, answers):
        _patch(module, "record_of", lambda who, *_: {"email": who.email})


def resume_by_position() -> None:
    """Go on after as many rows as there are outcomes."""
    true = source.Source.users

    def users(file: source.Source) -> Iterator[User | Outcome]:
        done = _Done.count
        for position, item in enumerate(true(file)):
            if position >= done or not isinstance(item, User):
                yield item
            else:
                yield Outcome(item.row, item.email, Status.CREATED)

    def recall(book: journal.Journal, start: int, entry: Any) -> None:  # noqa: ANN401
        _Done.count += "status" in entry
        recall_truly(book, start, entry)

    recall_truly = journal.Journal._recall  # noqa: SLF001
    _patch(journal.Journal, "_recall", recall)
    _patch(journal.Journal, "progress", lambda *_: journal.Progress.NEW)
    _patch(source.Source, "users", users)


class _Done:
    """How many outcomes there are."""

    count = 0


def record_before_writing() -> None:
    """Write the outcome down before the request goes out."""
    true = journal.Journal.begin

    def begin(book: journal.Journal, user: User) -> None:
        true(book, user)
        book._write(journal.row_of(Outcome(user.row, user.email, Status.CREATED)))  # noqa: SLF001

    _patch(journal.Journal, "begin", begin)


def put_twice() -> None:
    """Send every update once more behind the back of whoever counts."""
    true = client.Client.send

    async def send(sender: client.Client, request: Request) -> Response:
        if request.method == "PUT":
            await true(sender, request)
        return await true(sender, request)

    _patch(client.Client, "send", send)


def send_updates_again() -> None:
    """Send an update again at once when a kept connection drops, as HTTP libraries do by themselves."""
    true = client.Client.send

    async def send(sender: client.Client, request: Request) -> Response:
        try:
            return await true(sender, request)
        except TransportError:
            if request.method != "PUT":
                raise
            return await true(sender, request)

    _patch(client.Client, "send", send)


def log_in_each() -> None:
    """Let every worker log in for itself."""

    async def renew(keeper: tokens.Tokens, _refused: int) -> bool:
        keeper._poor = 0  # noqa: SLF001
        return await keeper._replace()

    _patch(tokens.Tokens, "_renew", renew)


def forget_unknown_fields() -> None:
    """Put back only those fields of a present record that the file can have."""
    true = rules.merge

    def merge(found: Json, user: User, how: rules.Rules) -> Json | None:
        merged = true(found, user, how)
        known = set(asdict(how.profile.fields).values())
        return merged and {name: value for name, value in merged.items() if name in known}

    _patch(rules, "merge", merge)


def retry_writes() -> None:
    """Take a lost write for a read, which can be sent again."""
    _patch(retry, "READS", frozenset({"GET", "HEAD", "POST", "PUT"}))


def mail_everybody() -> None:
    """Forget to tell the API that nobody wants a mail."""
    true = rules.Rules.create

    def create(how: rules.Rules, record: Json) -> Request:
        return true(replace(how, notify=True), record)

    _patch(rules.Rules, "create", create)


def read_back_at_once() -> None:
    """Look for a late write without waiting for it."""
    true = workers.converse

    async def converse(conversation: Any, send: Send, settle: Any = None, *keep: Any) -> Any:  # noqa: ANN401
        del settle
        return await true(conversation, send, None, *keep)

    _patch(workers, "converse", converse)


def ignore_the_rate() -> None:
    """Send as fast as possible."""
    _patch(pace.Pace, "delay", lambda *_: 0.0)


def keep_no_image() -> None:
    """Change users without writing down what they were."""
    _patch(images.Images, "__call__", lambda *_: None)


def keep_the_wrong_image() -> None:
    """Write down what a user becomes instead of what it was."""
    true = images.Images.__call__

    def keep(book: images.Images, image: Image) -> None:
        true(book, image if image.before is None else image._replace(before=image.sent))

    _patch(images.Images, "__call__", keep)


def tell_the_token() -> None:
    """Say in a row's message what was sent."""
    true = journal.Journal.__call__

    def tell(book: journal.Journal, outcome: Outcome) -> None:
        true(book, outcome._replace(code="sent", message=_Told.token))

    write_truly = client.Client._write  # noqa: SLF001

    def write(sender: client.Client, request: Request, token: Secret) -> bytes:
        _Told.token = token.reveal()
        return write_truly(sender, request, token)

    _patch(client.Client, "_write", write)
    _patch(journal.Journal, "__call__", tell)


class _Told:
    """The token last sent."""

    token = ""


def remove_the_journal_first() -> None:
    """Take the journal away before the report is in its place."""
    true = report.write_report

    def write_report(result: Any, rows: Any) -> None:  # noqa: ANN401
        kept = list(rows)
        books.journal_of(result.path).unlink()
        true(result, kept)

    _patch(pipeline, "write_report", write_report)


def begin_afterwards() -> None:
    """Write down that a user is begun when the first answer has come."""
    true = client.Client.send
    begin_truly = journal.Journal.begin
    waiting: list[Callable[[], None]] = []

    async def send(sender: client.Client, request: Request) -> Response:
        response = await true(sender, request)
        while waiting:
            waiting.pop()()
        return response

    _patch(journal.Journal, "begin", lambda book, user: waiting.append(lambda: begin_truly(book, user)))
    _patch(client.Client, "send", send)


def go_on_when_full() -> None:
    """Send on though nothing can be written down."""

    def ignoring(write: Callable[..., None]) -> Callable[..., None]:
        def write_or_not(book: object, *what: object) -> None:
            with suppress(StorageError):
                write(book, *what)

        return write_or_not

    _patch(journal.Journal, "begin", ignoring(journal.Journal.begin))
    _patch(journal.Journal, "__call__", ignoring(journal.Journal.__call__))


def keep_the_torn_end() -> None:
    """Go on writing behind half a line."""
    true = journal.Journal._load  # noqa: SLF001

    def load(book: journal.Journal, which: Any) -> bool:  # noqa: ANN401
        size = book.path.stat().st_size
        found = true(book, which)
        if found:
            os.truncate(book.path, size)
            book._file.cut(size)  # noqa: SLF001
        return found

    _patch(journal.Journal, "_load", load)


def take_back_whatever_is_there() -> None:
    """Put a before-image back though somebody changed the user since."""
    _patch(restore, "_is_ours", lambda *_: True)


def put_back_the_latest_image() -> None:
    """Take what a resumed run found for what was there before the first."""
    true = restore.take_back

    def take_back(changes: images.Changes, how: rules.Rules, **options: bool) -> Conversation:
        latest = changes.images[-1]
        return (yield from true(replace(changes, images=(latest._replace(before=latest.sent),)), how, **options))

    _patch(undo, "take_back", take_back)


def keep_those_who_were_created() -> None:
    """Leave users as they are whom the run created."""

    def leave(changes: images.Changes, *_: object, **__: object) -> Conversation:
        yield from ()
        return Outcome(changes.row, changes.email, Status.UNCHANGED)

    _patch(restore, "_take_back_created", leave)


def compare_what_the_api_keeps() -> None:
    """Take the time of a user's last change for a change that somebody else made."""

    def holds(found: Json, sent: Json, how: rules.Rules) -> bool:
        return all(rules.is_same(name, found, sent, how) for name in sent)

    _patch(rules, "holds", holds)


def keep_what_was_sent() -> None:
    """Write down of a new user what was sent, and not what the API made of it."""
    _patch(protocol, "record_of", lambda who, *_: {"email": who.email})


def put_back_the_first_image() -> None:
    """Put back what was there before the first write, though a colleague came between it and the next one."""
    _patch(restore, "_find_beginning", lambda known, _: known[0])


def forget_who_has_no_image() -> None:
    """Leave out users whom a killed run may have created."""
    _patch(undo, "read_unclear", lambda _: {})


def let_the_run_go_on() -> None:
    """Do not note that a run is taken back."""
    _patch(images.Album, "mark_undone", lambda _: None)


def _ask(request: Request, *, again: int) -> Generator[Any, Response, Response | TransportError]:
    answer: Response | TransportError = TransportError("never asked", sent=False)
    for _ in range(again):
        try:
            answer = yield request
        except TransportError as error:
            answer = error
        else:
            if answer.status < 500:
                break
    return answer


def _patch(owner: Any, name: str, value: object) -> None:  # noqa: ANN401 - a module or a class
    assert hasattr(owner, name), f"there is no {name} to patch"
    setattr(owner, name, value)


MISTAKES: Final[dict[str, Patch]] = {
    mistake.__name__: mistake
    for mistake in (
        resend_blindly,
        call_created_without_a_look,
        call_lost_failed,
        forget_who_was_begun,
        follow_redirects,
        believe_any_page,
        resume_by_position,
        record_before_writing,
        put_twice,
        send_updates_again,
        log_in_each,
        forget_unknown_fields,
        retry_writes,
        mail_everybody,
        read_back_at_once,
        ignore_the_rate,
        keep_no_image,
        keep_the_wrong_image,
        tell_the_token,
    )
}

STORAGE_MISTAKES: Final[dict[str, Patch]] = {  # seen at `failpoints`
    mistake.__name__: mistake
    for mistake in (remove_the_journal_first, begin_afterwards, go_on_when_full, keep_the_torn_end)
}

UNDO_MISTAKES: Final[dict[str, Patch]] = {
    mistake.__name__: mistake
    for mistake in (
        take_back_whatever_is_there,
        put_back_the_latest_image,
        keep_those_who_were_created,
        compare_what_the_api_keeps,
        keep_what_was_sent,
        put_back_the_first_image,
        forget_who_has_no_image,
        let_the_run_go_on,
    )
}


if __name__ == "__main__":
    (MISTAKES | UNDO_MISTAKES)[sys.argv[1]]()
    sys.exit(app.main(sys.argv[2:]))
