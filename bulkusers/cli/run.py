"""`bulkusers run`."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from bulkusers.cli import options as opt
from bulkusers.cli.config import Target
from bulkusers.cli.loop import on_signals, run_in_loop
from bulkusers.cli.plan import Showing, show_plan
from bulkusers.cli.screen import Screen, note_facts, note_journal
from bulkusers.cli.summary import CAP, describe_target, name_rows, summarize
from bulkusers.cli.target import Aim, take_aim
from bulkusers.errors import CapError, Interrupted, TimeUpError
from bulkusers.files import is_same_place
from bulkusers.models import Existing, Lists, Outcome, Share
from bulkusers.report import STRANGE_IDS
from bulkusers.source import Source, open_source
from bulkusers.tally import IN_TROUBLE, Tally

if TYPE_CHECKING:
    from bulkusers.brake import Brake
    from bulkusers.forecast import Forecast

FEW: Final = 10  # users who may lose values without a question


@dataclass(frozen=True, slots=True)
class Order:
    """What one run is told besides its settings."""

    source: Source
    report: Path
    resume: bool
    arguments: tuple[str, ...]
    max_duration: opt.Duration | None
    max_failures: Share | None


def run(
    context: typer.Context,
    users: opt.UsersFile,
    env: opt.Env = None,
    base_url: opt.BaseUrl = None,
    school: opt.School = None,
    email: opt.Email = None,
    properties: opt.Properties = None,
    concurrency: opt.Concurrency = 20,
    rate: opt.Rate = 50.0,
    existing: opt.ExistingMode = Existing.MERGE,
    lists: opt.ListsMode = Lists.ADD,
    changed_only: opt.ChangedOnly = False,
    notify: opt.Notify = None,
    resume: opt.Resume = False,
    dry_run: opt.DryRun = False,
    report: opt.ReportPath = Path("results.json"),
    max_creates: opt.MaxCreates = None,
    max_updates: opt.MaxUpdates = None,
    max_failures: opt.MaxFailures = None,
    max_duration: opt.MaxDuration = None,
    retries: opt.Retries = 5,
    timeout: opt.Timeout = 30.0,
    encoding: opt.Encoding = "",
    delimiter: opt.Delimiter = "",
    allow_empty: opt.AllowEmpty = False,
    ca_file: opt.CaFile = None,
    api_profile: opt.ApiProfile = None,
    log_format: opt.Log = opt.LogFormat.TEXT,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Create or update every user in the file, and write the outcome report."""
    screen = Screen(log_format, quiet=quiet, verbose=verbose)
    aim = take_aim(env, base_url, school, email, properties, api_profile, screen)
    if users != "-" and is_same_place(report, users):
        raise typer.BadParameter("the report would take the place of the users file", param_hint="--report")
    with open_source(
        users, products=aim.profile.values.products, encoding=encoding, delimiter=delimiter, allow_empty=allow_empty
    ) as source:
        note_facts(source.facts, screen)
        more: dict[str, Any] = {
            "existing": existing, "lists": lists, "rate": rate, "retries": retries, "timeout": timeout,
            "ca_file": ca_file, "max_creates": max_creates, "max_updates": max_updates,
        }  # fmt: skip
        if dry_run:
            raise typer.Exit(show_plan(source, aim, more | {"notify": bool(notify)}, Showing(), context, screen))
        more |= {
            "changed_only": changed_only, "notify": _decide_on_mails(notify, aim.target, screen),
            "concurrency": concurrency,
        }  # fmt: skip
        order = Order(source, report, resume, opt.as_typed(context), max_duration, max_failures)
        note_journal(report, screen, resume=resume)
        code = run_in_loop(_send(order, aim, more, screen))
    raise typer.Exit(code)


async def _send(order: Order, aim: Aim, more: dict[str, Any], screen: Screen) -> int:
    """Send the file, show how far it is and what came of it, and return the exit code."""
    from bulkusers.brake import Brake
    from bulkusers.run import upload

    async with AsyncExitStack() as stack:
        settings = await aim.settings(stack, screen, **more)
        brake = Brake()

        def stop(signal: Interrupted) -> None:
            screen.note(f"{signal}: finishing what is under way; a second signal ends at once")
            brake.pull(signal)

        on_signals(stop)
        tally = _count_within_limits(order, brake)
        keeps = settings.existing is Existing.MERGE and settings.lists is Lists.ADD
        takes = not (keeps or settings.existing is Existing.SKIP)
        asks = takes and settings.environment != "sandbox" and screen.is_interactive
        async with screen.progress(tally):
            result = await upload(
                order.source,
                settings,
                report=order.report,
                resume=order.resume,
                arguments=order.arguments,
                tally=tally,
                brake=brake,
                approve=partial(_approve_losses, target=aim.target, screen=screen) if asks else None,
            )
    strange = [warning for warning in result.warnings if warning["code"] == STRANGE_IDS]
    facts = {"counts": result.counts, "warnings": result.warnings, "report": str(order.report)}
    screen.result(summarize(result), result.exit_code, well=not strange, **facts)
    return result.exit_code


def _approve_losses(forecast: "Forecast", *, target: Target, screen: Screen) -> bool:
    """Ask whether so many users may lose something; a few need no question."""
    losses = forecast.tally.losses
    if losses.count <= FEW:
        return True
    rows = name_rows(losses.rows, losses.count)
    where = describe_target(asdict(target))
    screen.note(f"{losses.count:,} users of {where} would lose values that they have now ({rows}).")
    return screen.confirm("Take them away?")


class CappedTally(Tally):
    """Counts outcomes, and stops the run when more rows than its cap are in trouble."""

    def __init__(self, rows: int, cap: Share, brake: "Brake") -> None:
        super().__init__(rows)
        self._most = cap.of(rows)
        self._cap = cap
        self._brake = brake
        self._in_trouble = 0

    def __call__(self, outcome: Outcome) -> None:
        """Count one outcome."""
        super().__call__(outcome)
        self._in_trouble += outcome.status in IN_TROUBLE
        if self._in_trouble > self._most:
            self._brake.pull(
                CapError(
                    f"more rows failed than {CAP} {self._cap} allows",
                    hint="go on with --resume and the file as it is, and correct what is rejected in the end in the "
                    "file of rejects; or correct the file, and run it anew without --resume",
                )
            )


def _count_within_limits(order: Order, brake: "Brake") -> Tally:
    """Return the run's tally, and see to it that the run stops where its limits are."""
    if order.max_duration is not None:
        end = TimeUpError(f"the time is used up ({order.max_duration})", hint="go on with --resume")
        asyncio.get_running_loop().call_later(order.max_duration.seconds, brake.pull, end)
    rows = order.source.facts.rows
    return Tally(rows) if order.max_failures is None else CappedTally(rows, order.max_failures, brake)


def _decide_on_mails(notify: bool | None, target: Target, screen: Screen) -> bool:
    """Mail created users only if somebody said so."""
    if notify is None and target.base_url and screen.is_interactive:
        screen.note(f"Sending to {describe_target(asdict(target))}.")
        notify = screen.confirm("Send a registration mail to each user that is created?")
    elif notify is None:
        screen.note("Created users get no registration mail (--notify sends it).")
    return bool(notify)
