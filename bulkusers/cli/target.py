"""Where a command sends: the configured place, or a sandbox inside this process."""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bulkusers.cli.config import Target, find_password, find_proxy, find_target, find_token, read_properties
from bulkusers.cli.loop import on_signals
from bulkusers.cli.screen import Screen
from bulkusers.errors import Interrupted, SettingsError
from bulkusers.models import Secret
from bulkusers.profile import Profile, load_profile
from bulkusers.settings import Settings

EXAMPLE_USERS: Final = 100  # that the sandbox inside this process knows at its start


@dataclass(frozen=True, slots=True)
class Aim:
    """Where a command sends and as whom."""

    target: Target
    token: Secret
    email: str
    profile: Profile

    async def settings(self, stack: AsyncExitStack, screen: Screen, **more: Any) -> Settings:  # noqa: ANN401 - the other fields of Settings, which checks them
        """Return the settings to go there; a sandbox inside this process is started until `stack` unwinds."""
        target, token = self.target, self.token
        if not target.base_url:
            target, token = await _start_sandbox(stack, target, screen)
        settings = Settings(
            base_url=target.base_url,
            school=target.school,
            environment=target.environment,
            token=token,
            email=self.email,
            password=find_password(),
            proxy=find_proxy(target.base_url),
            profile=self.profile,
            **more,
        )
        screen.detail(f"sending to {settings.base_url}, school {settings.school}")
        return settings


def take_aim(
    env: str | None,
    base_url: str | None,
    school: str | None,
    email: str | None,
    properties: Path | None,
    api_profile: Path | None,
    screen: Screen,
) -> Aim:
    """Find out where to send from options, environment and properties file.

    Raises:
        SettingsError: they do not say so, or not without doubt.

    """
    profile = load_profile(api_profile)
    said = read_properties(properties, screen)
    aim = aim_as_said(env, base_url, school, email, said, profile)
    if screen.is_quiet:
        refuse_default(aim.target)  # a job would seem to have worked, night after night
    return aim


def aim_as_said(
    env: str | None,
    base_url: str | None,
    school: str | None,
    email: str | None,
    said: Mapping[str, str],
    profile: Profile,
) -> Aim:
    """Find out where to send from options, environment and what the properties file `said`.

    Raises:
        SettingsError: they do not say so, or not without doubt.

    """
    target, token = find_target(env, base_url, school, said, profile), find_token(said)
    email = email or said.get("email", "")
    there = {"a token": token, "a school": target.school, "an e-mail": email, "a password": find_password()}
    if not target.configured and any(there.values()):
        what = next(name for name, value in there.items() if value)
        raise SettingsError(
            f"there is {what}, but nothing says where to send",
            hint="add --env staging or --env production, or --env sandbox to try it out on this machine",
        )
    return Aim(target, token, email, profile)


def refuse_default(target: Target) -> None:
    """Refuse a sandbox that nobody asked for, where what it says would be taken for a school's.

    Raises:
        SettingsError: nothing says where to send.

    """
    if not target.configured:
        raise SettingsError(
            "nothing is configured: which school is it about?",
            hint="bulkusers login --env staging --school ID --email EMAIL; or --env sandbox, to see what this does",
        )


def end_on_signals() -> None:
    """Let the first signal end the running task at once: who only reads leaves nothing behind."""
    task = asyncio.current_task()
    assert task is not None

    def end(signal: Interrupted) -> None:
        task.cancel(signal)

    on_signals(end)


async def _start_sandbox(stack: AsyncExitStack, target: Target, screen: Screen) -> tuple[Target, Secret]:
    """Start a stand-in API in this process, and say so."""
    from bulkusers.sandbox import Sandbox, serve

    sandbox = await stack.enter_async_context(serve(Sandbox(users=EXAMPLE_USERS)))
    if not target.configured:
        screen.note("Nothing says where to send (--env staging): this is a rehearsal.")
    screen.note("A sandbox inside this program plays Coursedog; nothing leaves this machine.")
    return Target("sandbox", sandbox.url, sandbox.school, configured=target.configured), Secret(sandbox.new_token())
