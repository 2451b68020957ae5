"""`bulkusers sandbox`."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bulkusers.cli import options as opt
from bulkusers.cli.loop import on_signals, run_in_loop
from bulkusers.cli.screen import Screen, write
from bulkusers.errors import SettingsError, StorageError
from bulkusers.files import check_place

if TYPE_CHECKING:
    from bulkusers.sandbox import Sandbox


def sandbox(
    port: Annotated[int, opt.option("--port", metavar="N", min=0, max=65535, text="0 = any free one.")] = 8642,
    users: Annotated[int, opt.option("--users", metavar="N", min=0, text="Example users to begin with.")] = 100,
    state: Annotated[
        Path | None, opt.option("--state", metavar="FILE", text="Keep the sandbox's users in this file.")
    ] = None,
    switch: Annotated[
        list[str] | None,
        opt.option("--switch", metavar="NAME=VALUE", text="How the API behaves where that is not known; repeatable."),
    ] = None,
    faults: Annotated[
        Path | None, opt.option("--faults", metavar="FILE", text="Faults to order: a JSON list of actions per request.")
    ] = None,
    seed: Annotated[int, opt.option("--seed", metavar="N", text="What chance begins with.")] = 0,
) -> None:
    """Run a stand-in API on this machine, with faults to order, until Ctrl-C."""
    from bulkusers.sandbox import Sandbox, Switches, load_faults

    if state is not None:
        check_place(state, "--state")  # else it would be told at the end, when all is lost
    try:
        stand_in = Sandbox(
            users=users,
            switches=Switches.parse(switch or []),
            faults=load_faults(faults) if faults else (),
            seed=seed,
            state=state,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    try:
        run_in_loop(_stand(stand_in, port, Screen()))
    except OSError as error:
        if state is None:
            raise
        # its last act is to save
        raise StorageError(f"cannot write {state}: {error.strerror}") from None


async def _stand(stand_in: "Sandbox", port: int, screen: Screen) -> None:
    from bulkusers.sandbox import serve

    stop = asyncio.Event()
    on_signals(lambda _: stop.set())
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(serve(stand_in, port=port))
        except OSError as error:
            raise SettingsError(
                f"cannot listen on port {port}: {error.strerror}", hint="choose another --port"
            ) from None
        for line in _welcome(stand_in):
            write(sys.stdout, line)
        await stop.wait()
    screen.note("The sandbox has stopped.")


def _welcome(stand_in: "Sandbox") -> Iterator[str]:
    yield f"A stand-in for Coursedog's API answers at {stand_in.url} until Ctrl-C."
    yield ""
    yield "In another terminal:"
    yield f"  export BULKUSERS_PASSWORD={stand_in.password}"
    yield f"  bulkusers login --base-url {stand_in.url} --school {stand_in.school} --email {stand_in.email}"
    yield "  bulkusers run users.csv"
