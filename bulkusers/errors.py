"""What ends a run, named by consequence.

What happens to one user is a value (`models.Outcome`); what ends the run is one of these::

    BulkUsersError
    ├── SettingsError        the configuration cannot work; nothing was sent
    ├── SourceError          the file is refused; nothing was sent
    ├── StorageError         report or journal cannot be written
    ├── LockedError          another run of the same account is going on; nothing was sent
    ├── CapError             too much would go wrong; stopped for safety
    ├── TimeUpError          there is no time left to wait or work in; resumable
    ├── Interrupted          a person or the system asked to stop
    └── ApiError             the conversation with the API cannot go on
        ├── AccessError      login, permission or TLS
        ├── ShapeError       what the API answers is not what the API profile says
        ├── OutageError      the API is down
        └── TransportError   one request got no answer that can be used

Every message is a sentence for the person at the terminal; `hint` is what to do next.
None of them carries a token, a password or somebody's data.
"""

import signal
from typing import Final

STOPPING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # what `Interrupted` comes from


class BulkUsersError(Exception):
    """The run cannot start or go on; `str()` says why, `hint` what to do next."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class SettingsError(BulkUsersError):
    """A setting is missing, contradictory or unusable."""

    exit_code = 4


class SourceError(BulkUsersError):
    """The file as a whole is refused."""

    exit_code = 3


class StorageError(BulkUsersError):
    """A file that the run depends on cannot be written or read."""

    exit_code = 12


class LockedError(BulkUsersError):
    """Another run of the same account is going on."""

    exit_code = 11


class CapError(BulkUsersError):
    """A safety cap refused to go on."""

    exit_code = 8


class TimeUpError(BulkUsersError):
    """The run would last longer than it may; it can be resumed."""

    exit_code = 10


class Interrupted(BulkUsersError):  # noqa: N818 - being asked to stop is no error
    """A signal asked to stop; exit codes follow the shell's custom of 128 + its number."""

    def __init__(self, name: str, number: int) -> None:
        super().__init__(f"{name} asked to stop")
        self.exit_code = 128 + number


class ApiError(BulkUsersError):
    """The conversation with the API cannot go on."""

    exit_code = 7


class AccessError(ApiError):
    """The API or its certificate does not let us in."""

    exit_code = 4


class ShapeError(ApiError):
    """What the API answers is not what the API profile says of it, or not all of it."""

    exit_code = 4


class OutageError(ApiError):
    """The API is down."""


class TransportError(ApiError):
    """One request got no answer; `sent` tells whether the API may have seen it."""

    def __init__(self, message: str, hint: str = "", *, sent: bool) -> None:
        super().__init__(message, hint)
        self.sent = sent
