"""`bulkusers undo`."""

from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bulkusers.cli import options as opt
from bulkusers.cli.loop import on_signals, run_in_loop
from bulkusers.cli.screen import Screen, note_journal
from bulkusers.cli.summary import describe_target, list_left, list_problems, plural, summarize, table_of_counts
from bulkusers.cli.target import Aim, take_aim
from bulkusers.errors import CapError, Interrupted, SettingsError
from bulkusers.files import is_same_place
from bulkusers.models import Outcome, Status
from bulkusers.tally import Tally

if TYPE_CHECKING:
    from bulkusers.undo import Done


def undo(
    context: typer.Context,
    results: Annotated[
        Path, typer.Argument(metavar="RESULTS.json", help="The report of a run, or its journal if it was interrupted.")
    ],
    delete_created: Annotated[
        bool, opt.option("--delete-created", text="Delete users whom the run created, instead of making them inactive.")
    ] = False,
    yes: Annotated[bool, opt.option("--yes", "-y", text="Do not ask.")] = False,
    dry_run: opt.DryRun = False,
    resume: opt.Resume = False,
    report: Annotated[
        Path | None,
        opt.option(
            "--report", "-o", metavar="PATH", text="The outcome report [default: RESULTS.undo.json].", dir_okay=False
        ),
    ] = None,
    env: opt.Env = None,
    base_url: opt.BaseUrl = None,
    school: opt.School = None,
    email: opt.Email = None,
    properties: opt.Properties = None,
    concurrency: opt.Concurrency = 20,
    rate: opt.Rate = 50.0,
    retries: opt.Retries = 5,
    timeout: opt.Timeout = 30.0,
    ca_file: opt.CaFile = None,
    api_profile: opt.ApiProfile = None,
    log_format: opt.Log = opt.LogFormat.TEXT,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Put back what a run changed, unless somebody changed it since."""
    from bulkusers.books import journal_of
    from bulkusers.undo import open_done

    screen = Screen(log_format, quiet=quiet, verbose=verbose)
    with open_done(results) as done:
        aim = take_aim(
            env, base_url or (None if env else done.base_url), school or done.school,
            email, properties, api_profile, screen,
        )  # fmt: skip
        _refuse_another_place(done, aim)
        more: dict[str, Any] = {
            "concurrency": concurrency, "rate": rate, "retries": retries, "timeout": timeout, "ca_file": ca_file,
        }  # fmt: skip
        if dry_run:
            raise typer.Exit(_show(done, aim, more, screen, delete_created=delete_created))
        place = report or name_report(results)
        _refuse_its_place(results, place)
        if not (yes or (resume and journal_of(place).exists())):  # that one was asked about
            _ask(done, screen, delete_created=delete_created)
        arguments = opt.as_typed(context)
        note_journal(place, screen, resume=resume)
        code = run_in_loop(
            _send(
                done, aim, more, screen, report=place, delete_created=delete_created, resume=resume, arguments=arguments
            )
        )
    raise typer.Exit(code)


def name_report(results: Path) -> Path:
    """Return where an undo's report goes unless somebody says so: beside what it takes back, and never in its place."""
    return results.with_name(f"{results.name.removesuffix('.journal').removesuffix('.json')}.undo.json")


def _refuse_its_place(results: Path, place: Path) -> None:
    """Refuse to put an undo's report in the place of the run's, as one variable for all commands would.

    Nor in that of its books, which the undo is made from.
    """
    from bulkusers.books import images_of, journal_of

    report = results.with_name(results.name.removesuffix(".journal"))
    if any(is_same_place(place, own) for own in (report, journal_of(report), images_of(report))):
        raise typer.BadParameter(
            f"the report would take the place of what is to be taken back; say -o {name_report(results)}",
            param_hint="--report",
        )


def _refuse_another_place(done: "Done", aim: Aim) -> None:
    """Refuse to put users of one school into another."""
    there = (aim.target.base_url.rstrip("/"), aim.target.school)
    if there != (done.base_url, done.school):
        raise SettingsError(
            f"that run was sent to {done.base_url}, school {done.school}, not to {' '.join(there)}",
            hint="leave out --env, --base-url and --school: the report says where",
        )


def _ask(done: "Done", screen: Screen, *, delete_created: bool) -> None:
    place = describe_target({"environment": done.environment, "base_url": done.base_url, "school": done.school})
    if not screen.is_interactive:
        raise typer.BadParameter("nobody is there to ask; add --yes if it is to be done", param_hint="--yes")
    screen.note(f"{done.path}: take back what that run did to {plural(done.album.rows, 'user')} of {place}.")
    created = "be deleted" if delete_created else "become inactive, without products"
    screen.note(f"Users it updated get their former records back; users it created will {created}.")
    screen.note("Users whom somebody changed since are left as they are. (--dry-run shows each.)")
    if not screen.confirm("Go on?"):
        raise CapError("nothing was sent: nobody said yes", hint="look at the changes with --dry-run")


async def _send(
    done: "Done",
    aim: Aim,
    more: dict[str, Any],
    screen: Screen,
    *,
    report: Path,
    delete_created: bool,
    resume: bool,
    arguments: tuple[str, ...],
) -> int:
    from bulkusers.brake import Brake
    from bulkusers.undo import undo

    async with AsyncExitStack() as stack:
        settings = await aim.settings(stack, screen, **more)
        brake = Brake()

        def stop(signal: Interrupted) -> None:
            screen.note(f"{signal}: finishing what is under way; a second signal ends at once")
            brake.pull(signal)

        on_signals(stop)
        tally = Tally(done.album.rows)
        async with screen.progress(tally):
            result = await undo(
                done,
                settings,
                report=report,
                delete_created=delete_created,
                resume=resume,
                arguments=arguments,
                tally=tally,
                brake=brake,
            )
    screen.result(summarize(result), result.exit_code, counts=result.counts, report=str(report))
    return result.exit_code


def _show(done: "Done", aim: Aim, more: dict[str, Any], screen: Screen, *, delete_created: bool) -> int:
    """Show what an undo would do; return the exit code."""
    from bulkusers.undo import judge

    tally, outcomes = run_in_loop(_foresee(done, aim, more, screen, delete_created=delete_created))
    code = judge(tally.counts, None)
    screen.result(_tell(done, tally, outcomes), code, counts=tally.counts)
    return code


async def _foresee(
    done: "Done", aim: Aim, more: dict[str, Any], screen: Screen, *, delete_created: bool
) -> tuple[Tally, list[Outcome]]:
    from bulkusers.brake import Brake
    from bulkusers.undo import foresee_undo

    async with AsyncExitStack() as stack:
        settings = await aim.settings(stack, screen, **more)
        brake = Brake()
        on_signals(brake.pull)
        return await foresee_undo(done, settings, delete_created=delete_created, brake=brake)


def _tell(done: "Done", tally: Tally, outcomes: Sequence[Outcome]) -> Iterator[str]:
    yield f"{done.path}: what an undo would do with {plural(done.album.rows, 'user')}"
    yield ""
    for outcome in outcomes:
        if outcome.status in {Status.CREATED, Status.UPDATED}:
            fields = f" ({', '.join(outcome.changed)})" if outcome.changed else ""
            yield f"row {outcome.row}  {outcome.email}  would be {outcome.code or outcome.status}{fields}"
    yield from table_of_counts(tally.counts)
    yield from list_problems(tally.problems())
    left = ((o.row, o.email, o.message) for o in outcomes if o.status is Status.SKIPPED)
    yield from list_left(left, tally.counts[Status.SKIPPED])
    yield ""
    yield "Nothing was sent."
