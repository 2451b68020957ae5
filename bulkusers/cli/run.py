"""`bulkusers run`."""

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import typer

from bulkusers.cli import options as opt
from bulkusers.cli.config import Target, find_password, find_proxy, find_target, find_token, read_properties
from bulkusers.cli.loop import on_signals, run_in_loop
from bulkusers.cli.screen import Screen, note_facts
from bulkusers.cli.summary import summarize
from bulkusers.errors import SettingsError
from bulkusers.models import Existing, Lists, Secret
from bulkusers.profile import load_profile
from bulkusers.settings import Settings
from bulkusers.source import open_source
from bulkusers.tally import Tally

EXAMPLE_USERS: Final = 100  # that the sandbox inside a run knows at its start


def run(
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
    report: opt.ReportPath = Path("results.json"),
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
    with open_source(
        users, products=profile.values.products, encoding=encoding, delimiter=delimiter, allow_empty=allow_empty
    ) as source:
        note_facts(source.facts, screen)
        mails = _decide_on_mails(notify, target, screen)
        tally = Tally(source.facts.rows)

        async def send() -> int:
            from bulkusers.brake import Brake
            from bulkusers.run import upload

            async with AsyncExitStack() as stack:
                place, key = (target, token) if target.base_url else await _start_sandbox(stack, target, screen)
                settings = Settings(
                    base_url=place.base_url,
                    school=place.school,
                    environment=place.environment,
                    token=key,
                    email=email or said.get("email", ""),
                    password=find_password(),
                    profile=profile,
                    existing=existing,
                    lists=lists,
                    notify=mails,
                    concurrency=concurrency,
                    rate=rate,
                    timeout=timeout,
                    ca_file=ca_file,
                    proxy=find_proxy(place.base_url),
                )
                screen.detail(f"sending to {settings.base_url}, school {settings.school}")
                brake = Brake()
                on_signals(brake.pull)
                async with screen.progress(tally):
                    result = await upload(source, settings, report=report, tally=tally, brake=brake)
            screen.result(summarize(result), result.exit_code, counts=result.counts, report=str(report))
            return result.exit_code

        code = run_in_loop(send())
    raise typer.Exit(code)


async def _start_sandbox(stack: AsyncExitStack, target: Target, screen: Screen) -> tuple[Target, Secret]:
    """Start a stand-in API in this process, and say so."""
    from bulkusers.sandbox import Sandbox, serve

    sandbox = await stack.enter_async_context(serve(Sandbox(users=EXAMPLE_USERS)))
    if not target.configured:
        screen.note("Nothing says where to send (--env staging, --env production), so this is a rehearsal:")
    screen.note("A sandbox inside this program plays Coursedog; nothing leaves this machine.")
    return Target("sandbox", sandbox.url, sandbox.school, configured=target.configured), Secret(sandbox.new_token())


def _decide_on_mails(notify: bool | None, target: Target, screen: Screen) -> bool:
    """Mail created users only if somebody said so."""
    if notify is None and target.base_url and screen.is_interactive:
        notify = typer.confirm("Send a registration mail to each user that is created?", default=False, err=True)
    elif notify is None:
        screen.note("Created users get no registration mail (--notify sends it).")
    return bool(notify)
