"""One event loop a command: the fastest there is, stopped by signals without losing anything."""

import asyncio
import gc
import signal
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from bulkusers.errors import STOPPING, Interrupted

Result = TypeVar("Result")


def run_in_loop(main: Coroutine[Any, Any, Result]) -> Result:
    """Run a command's coroutine to its end and return what it returns.

    Raises:
        Interrupted: a second signal ended it at once.

    """
    import bulkusers.api  # noqa: F401 - what nearly every command with a loop needs, before it is frozen

    gc.freeze()  # what was imported stays; to look through it takes 20 ms, and would hold up whoever has a turn to send
    try:
        with asyncio.Runner(loop_factory=_find_loop()) as runner:
            return runner.run(main)
    except asyncio.CancelledError as end:
        if end.args and isinstance(end.args[0], Interrupted):
            raise end.args[0] from None
        raise


def _find_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:  # a platform without it
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def on_signals(stop: Callable[[Interrupted], None]) -> None:
    """Call `stop` at the first SIGINT, SIGTERM or SIGHUP; a second one ends the running task at once.

    Python ends without cleaning up at SIGTERM and SIGHUP unless told otherwise. A signal that whoever started us wants
    to be ignored, as `nohup` does, is ignored.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    seen: list[Interrupted] = []

    def heed(number: signal.Signals) -> None:
        if seen and task is not None:
            seen[0].hint = "a second signal cut off what was under way: it may or may not be done"
            task.cancel(seen[0])  # the first one is what the exit code tells
        seen.append(Interrupted(number.name, number))
        stop(seen[-1])

    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, heed, number)
