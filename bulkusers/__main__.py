"""`python -m bulkusers`, and the `bulkusers` command."""

import os
import signal
import sys
from types import FrameType

from bulkusers.errors import STOPPING


def main() -> int:
    """Run the command line, prepared for signals from the first moment to the last; return its exit code."""
    _fill_streams()
    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave)  # until a run listens to them itself
    from bulkusers.cli.app import main as run  # takes most of the time until then

    try:
        return run()
    finally:
        for number in STOPPING:
            signal.signal(number, signal.SIG_IGN)  # too late: the exit code is that of what was done


def _fill_streams() -> None:
    """Let those of stdin, stdout and stderr that whoever started us has closed lead nowhere.

    Whatever is opened next would get their numbers, and libuv aborts the process when it is to close one of these.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free


def _leave(number: int, _frame: FrameType | None) -> None:
    """End at once: nothing was sent, and nothing is open that the system would not close.

    An exception instead would be lost, or wrapped into another, wherever an import comes across it.
    """
    os._exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
