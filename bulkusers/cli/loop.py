"""One event loop a command: the fastest there is, stopped by signals without losing anything."""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from bulkusers.errors import Interrupted

Result = TypeVar("Result")
STOPPING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_in_loop(main: Coroutine[Any, Any, Result]) -> Result:
    """Run a command's coroutine to its end and return what it returns."""
    with asyncio.Runner(loop_factory=_find_loop()) as runner:
        return runner.run(main)


def _find_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:  # a platform without it
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def on_signals(stop: Callable[[Interrupted], None]) -> None:
    """Call `stop` at the first SIGINT, SIGTERM or SIGHUP; a second one ends the running task at once.

    Python ends without cleaning up at SIGTERM and SIGHUP unless told otherwise.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    seen: list[signal.Signals] = []

    def heed(number: signal.Signals) -> None:
        if seen and task is not None:
            task.cancel(f"{number.name} twice")
        seen.append(number)
        stop(Interrupted(number.name, number))

    for number in STOPPING:
        loop.add_signal_handler(number, heed, number)
