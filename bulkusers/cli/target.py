"""What commands that only read have in common: where they read, as whom, and how they end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

from bulkusers.cli.config import Target
from bulkusers.cli.loop import on_signals
from bulkusers.cli.screen import Screen
from bulkusers.errors import Interrupted, SettingsError
from bulkusers.models import Secret

EXAMPLE_USERS: Final = 100  # that the sandbox inside the program knows
LOG_IN: Final = (
    "bulkusers login --env staging --school ID --email EMAIL; or --env sandbox, to see what this command does"
)


def refuse_default(target: Target, token: Secret) -> None:
    """Refuse to read from a sandbox that nobody asked for: what it says would be taken for a school's.

    Raises:
        SettingsError: nothing says where to read.

    """
    if target.configured:
        return
    if token:
        raise SettingsError("there is a token, but nothing says where it is for", "add --env staging or production")
    raise SettingsError("nothing is configured: which school is it about?", LOG_IN)


@asynccontextmanager
async def stand_in(target: Target, token: Secret, screen: Screen) -> AsyncIterator[tuple[Target, Secret]]:
    """Yield where to read and the token for it, after starting a sandbox in this process if that is where."""
    if target.base_url:
        yield target, token
        return
    from bulkusers.sandbox import Sandbox, serve

    async with serve(Sandbox(users=EXAMPLE_USERS)) as sandbox:
        screen.note("A sandbox inside this program plays Coursedog; nothing leaves this machine.")
        yield replace(target, base_url=sandbox.url, school=sandbox.school), Secret(sandbox.new_token())


def end_on_signals() -> None:
    """Let the first signal end the running task at once: who only reads leaves nothing behind."""
    task = asyncio.current_task()
    assert task is not None

    def end(signal: Interrupted) -> None:
        task.cancel(signal)

    on_signals(end)
