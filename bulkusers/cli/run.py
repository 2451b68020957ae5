"""`bulkusers run`."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from bulkusers.cli import options as opt
from bulkusers.cli.config import Target, find_password, find_proxy, find_target, find_token, read_properties
from bulkusers.cli.loop import on_signals, run_in_loop
from bulkusers.cli.screen import Screen, note_facts
from bulkusers.cli.summary import run_command, summarize
from bulkusers.errors import CapError, Interrupted, SettingsError, TimeUpError
from bulkusers.files import check_place
from bulkusers.models import Existing, Lists, Outcome, Secret, Share
from bulkusers.profile import load_profile
from bulkusers.settings import Settings
from bulkusers.source import Source, open_source
from bulkusers.tally import IN_TROUBLE, Tally

if TYPE_CHECKING:
    from bulkusers.brake import Brake

EXAMPLE_USERS: Final = 100  # that the sandbox inside a run knows at its start


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
    notify: opt.Notify = None,
    resume: opt.Resume = False,
    report: opt.ReportPath = Path("results.json"),
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
    profile = load_profile(api_profile)
    said = read_properties(properties, screen)
    target, token = find_target(env, base_url, school, said, profile), find_token(said)
    if token and not target.configured:
        raise SettingsError(
            "there is a token, but nothing says where to send",
            hint="add --env staging or --env production, or --env sandbox to try it out on this machine",
        )
    if users != "-" and report.absolute() == Path(users).absolute():
        raise typer.BadParameter("the report would take the place of the users file", param_hint="--report")
    with open_source(
        users, products=profile.values.products, encoding=encoding, delimiter=delimiter, allow_empty=allow_empty
    ) as source:
        note_facts(source.facts, screen)
        settings_for = partial(
            Settings,
            email=email or said.get("email", ""),
            password=find_password(),
            profile=profile,
            existing=existing,
            lists=lists,
            notify=_decide_on_mails(notify, target, screen),
            concurrency=concurrency,
            rate=rate,
            retries=retries,
            timeout=timeout,
            ca_file=ca_file,
        )
        order = Order(source, report, resume, opt.as_typed(context), max_duration, max_failures)
        _note_journal(order, screen)
        code = run_in_loop(_send(order, settings_for, target, token, screen))
    raise typer.Exit(code)


async def _send(
    order: Order, settings_for: Callable[..., Settings], target: Target, token: Secret, screen: Screen
) -> int:
    """Send the file, show how far it is and what came of it, and return the exit code."""
    from bulkusers.brake import Brake
    from bulkusers.run import upload

    async with AsyncExitStack() as stack:
        place, key = (target, token) if target.base_url else await _start_sandbox(stack, target, screen)
        settings = settings_for(
            base_url=place.base_url,
            school=place.school,
            environment=place.environment,
            token=key,
            proxy=find_proxy(place.base_url),
        )
        screen.detail(f"sending to {settings.base_url}, school {settings.school}")
        brake = Brake()

        def stop(signal: Interrupted) -> None:
            screen.note(f"{signal}: finishing what is under way; a second signal ends at once")
            brake.pull(signal)

        on_signals(stop)
        tally = _count_within_limits(order, brake)
        async with screen.progress(tally):
            result = await upload(
                order.source,
                settings,
                report=order.report,
                resume=order.resume,
                arguments=order.arguments,
                tally=tally,
                brake=brake,
            )
    screen.result(summarize(result), result.exit_code, counts=result.counts, report=str(order.report))
    return result.exit_code


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
                    f"more rows failed than --max-failures {self._cap} allows",
                    hint="mend what is wrong, then go on with --resume and a higher --max-failures",
                )
            )


def _count_within_limits(order: Order, brake: "Brake") -> Tally:
    """Return the run's tally, and see to it that the run stops where its limits are."""
    if order.max_duration is not None:
        end = TimeUpError(f"the time is used up ({order.max_duration})", hint="go on with --resume")
        asyncio.get_running_loop().call_later(order.max_duration.seconds, brake.pull, end)
    rows = order.source.facts.rows
    return Tally(rows) if order.max_failures is None else CappedTally(rows, order.max_failures, brake)


def _note_journal(order: Order, screen: Screen) -> None:
    """Say where a run begins that could go on, and one that cannot."""
    from bulkusers.pipeline import journal_of

    journal = journal_of(order.report)
    check_place(journal, "--report")
    if order.resume and not journal.exists():
        screen.note(f"There is no {journal}, so there is nothing to go on with: this run begins at the beginning.")
    elif journal.exists() and not order.resume:
        command = run_command(order.source.facts.path, order.arguments, "--resume")
        screen.warn(f"{journal} is an interrupted run's; this run begins anew and moves it aside")
        screen.warn(f"to go on with that one instead: {command}")


async def _start_sandbox(stack: AsyncExitStack, target: Target, screen: Screen) -> tuple[Target, Secret]:
    """Start a stand-in API in this process, and say so."""
    from bulkusers.sandbox import Sandbox, serve

    sandbox = await stack.enter_async_context(serve(Sandbox(users=EXAMPLE_USERS)))
    if not target.configured:
        screen.note("Nothing says where to send (--env staging): this is a rehearsal.")
    screen.note("A sandbox inside this program plays Coursedog; nothing leaves this machine.")
    return Target("sandbox", sandbox.url, sandbox.school, configured=target.configured), Secret(sandbox.new_token())


def _decide_on_mails(notify: bool | None, target: Target, screen: Screen) -> bool:
    """Mail created users only if somebody said so."""
    if notify is None and target.base_url and screen.is_interactive:
        where = target.environment if target.environment != "custom" else target.base_url
        screen.note(f"Sending to {where}, school {target.school}.")
        notify = screen.confirm("Send a registration mail to each user that is created?")
    elif notify is None:
        screen.note("Created users get no registration mail (--notify sends it).")
    return bool(notify)
