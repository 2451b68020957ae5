"""A run's changes taken back, from its before-images."""

import glob
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bulkusers.api import SETTLE, Api, open_for_reading
from bulkusers.books import images_of, journal_of
from bulkusers.brake import Brake
from bulkusers.errors import BulkUsersError, SourceError, TransportError
from bulkusers.images import Album, Changes
from bulkusers.journal import BEGUN, claiming, is_journal, read_header, read_progress, read_unclear
from bulkusers.models import Outcome, Request, Response, Send, Status
from bulkusers.pipeline import Job, carry_out
from bulkusers.report import Report, read_report
from bulkusers.restore import take_back
from bulkusers.rules import Rules
from bulkusers.settings import Settings, make_rules
from bulkusers.source import Facts
from bulkusers.tally import Tally, exit_code
from bulkusers.workers import Work, upload_users

TOUCHED: Final = (Status.CREATED, Status.UPDATED, Status.UNKNOWN, BEGUN)  # states of users whom a run may have changed


@dataclass(frozen=True, slots=True)
class Done:
    """A run that is to be taken back."""

    path: Path  # its report, or its journal where it was interrupted
    environment: str
    base_url: str
    school: str
    album: Album = field(repr=False)


@contextmanager
def open_done(results: Path) -> Iterator[Done]:
    """Open what a run left behind: its report, or the journal of an interrupted one, and its before-images.

    Raises:
        LockedError: that run is still going on.
        SourceError: it is no report, or of a rehearsal or a run that changed nobody; or the images are another run's.
        StorageError: there are no before-images, or they are damaged.

    """
    journal = results if is_journal(results) else journal_of(results)
    with claiming(journal):
        if journal == results:
            run = {"environment": "custom", **read_header(results)}
            report = results.with_name(results.name.removesuffix(".journal"))
            counts, unclear = read_progress(results), read_unclear(results)
        else:
            there = read_report(results)
            run, report, counts = dict(there.run), results, dict(there.counts)
            unclear = {row["row"]: row["email"] for row in there.rows() if row["status"] == Status.UNKNOWN}
        if run["environment"] == "sandbox":
            raise SourceError(f"{results} is of a rehearsal: its users are gone with its sandbox")
        nobody = SourceError(
            f"{results} is of a run that changed nobody: there is nothing to take back", hint=_name_former(report)
        )
        images = images_of(report)
        if not images.exists() and not any(counts.get(state) for state in TOUCHED):
            raise nobody
        with Album(images, run.get("id", ""), unclear) as album:
            if not album.rows:
                raise nobody
            yield Done(results, run["environment"], run["base_url"], run["school"], album)


def _name_former(report: Path) -> str:
    """Say which of the reports that were moved aside is the latest of a run that changed users."""
    former = report.parent.glob(f"{glob.escape(report.stem)}.[0-9]*{report.suffix}")  # their names begin with the time
    latest = max((path.name for path in former if images_of(path).exists()), default="")
    return f"the latest before it that changed users is {report.with_name(latest)}" if latest else ""


async def undo(
    done: Done,
    settings: Settings,
    *,
    report: Path,
    delete_created: bool = False,
    resume: bool = False,
    arguments: Sequence[str] = (),
    tally: Tally | None = None,
    brake: Brake | None = None,
) -> Report:
    """Take a run's changes back, and write the outcome report; return what it says.

    Users who were updated get their before-image back, those who were created become inactive without products or, on
    request, are deleted. Whom somebody changed since is `skipped`. Before the first write it is noted that nobody may
    go on with the run. It ends and is resumed as `pipeline.carry_out` says, and can itself be undone.

    Raises:
        BulkUsersError: as `pipeline.carry_out`.

    """
    rules = make_rules(settings)

    async def prepare(api: Api, brake: Brake, stack: ExitStack) -> None:
        del api, stack
        with suppress(TransportError):  # the run stops, and nobody's record is read
            # what was written last may not show before
            await brake.sleep(min(SETTLE - done.album.age(), SETTLE))
        if brake.reason is None:  # else nothing will be taken back
            done.album.mark_undone()

    job: Job[Changes] = Job(
        facts=_describe(done),
        items=lambda: iter(done.album),
        place=lambda changes, _: take_back(changes, rules, delete_created=delete_created),
        which={
            "images": done.album.sha256,
            "base_url": settings.base_url,
            "school": settings.school,
            "delete_created": delete_created,
        },
        options={"delete_created": delete_created},
        command="undo",
        exit_code=judge,
        prepare=prepare,
    )
    return await carry_out(job, settings, report=report, resume=resume, arguments=arguments, tally=tally, brake=brake)


def judge(counts: dict[str, int], stopped: BulkUsersError | None) -> int:
    """Return an undo's exit code: who is left as is was not taken back, and needs a person as a rejected row does."""
    return exit_code(counts, stopped) or (6 if counts[Status.SKIPPED] else 0)


async def foresee_undo(
    done: Done, settings: Settings, *, delete_created: bool = False, brake: Brake | None = None
) -> tuple[Tally, list[Outcome]]:
    """Return what `undo` would do, in numbers and row by row; sends nothing but reads.

    Raises:
        AccessError: the API does not let us in.
        ApiError: the API cannot answer.
        StorageError: the before-images were cut short meanwhile.

    """
    rules, brake = make_rules(settings), brake or Brake()
    tally, outcomes = Tally(done.album.rows), list[Outcome]()

    def record(outcome: Outcome) -> None:
        tally(outcome)
        outcomes.append(outcome)

    async with open_for_reading(settings, brake) as api:

        async def settle() -> None:
            """Wait for nothing: nothing was written."""

        work: Work[Changes] = Work(
            place=lambda changes, _: take_back(changes, rules, delete_created=delete_created),
            connect=lambda writes: _pretending(api.connect(writes), rules),
            begin=lambda _: None,
            was_begun=lambda _: False,
            record=record,
            settle=settle,
            brake=brake,
            suspect=lambda _: None,
        )
        try:
            await upload_users(iter(done.album), work, workers=settings.concurrency)
        except* BulkUsersError as group:
            raise group.exceptions[0] from None
    if brake.reason is not None:
        raise brake.reason
    return tally, sorted(outcomes, key=lambda outcome: outcome.row)


def _pretending(send: Send, rules: Rules) -> Send:
    """Return a `Send` that lets reads pass, and answers everything else as if it were done."""
    statuses = rules.profile.statuses
    deleted: set[str] = set()

    async def send_or_pretend(request: Request) -> Response:
        match request.method:
            case "GET" if request.path in deleted:
                return Response(statuses.not_found[0])
            case "GET":
                return await send(request)
            case "DELETE":
                deleted.add(request.path)
                return Response(statuses.deleted[0])
            case "POST":
                return Response(statuses.created[0], request.body or b"")
        return Response(statuses.replaced[0], request.body or b"")

    return send_or_pretend


def _describe(done: Done) -> Facts:
    return Facts(
        path=str(done.path),
        sha256=done.album.sha256,
        rows=done.album.rows,
        encoding="utf-8",
        delimiter="",
        header=(),
        ignored=(),
        rejected=0,
        notices=(),
    )
