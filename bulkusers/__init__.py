"""Create and update a school's users in Coursedog from a CSV file.

The same job as `bulkusers run`, in a program of your own::

    from bulkusers import Secret, Settings, open_source, upload

    settings = Settings.at("staging", school="peoplesoft_example", token=Secret(token))
    with open_source("users.csv") as source:
        report = asyncio.run(upload(source, settings))
    print(report.counts["created"], report.exit_code)

Nothing here prints, exits, or reads the environment.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from bulkusers.errors import AccessError as AccessError
    from bulkusers.errors import ApiError as ApiError
    from bulkusers.errors import BulkUsersError as BulkUsersError
    from bulkusers.errors import SettingsError as SettingsError
    from bulkusers.errors import SourceError as SourceError
    from bulkusers.errors import StorageError as StorageError
    from bulkusers.models import Existing as Existing
    from bulkusers.models import Lists as Lists
    from bulkusers.models import Secret as Secret
    from bulkusers.models import Status as Status
    from bulkusers.report import Report as Report
    from bulkusers.report import read_report as read_report
    from bulkusers.run import upload as upload
    from bulkusers.settings import Settings as Settings
    from bulkusers.source import open_source as open_source
    from bulkusers.version import __version__ as __version__

HOMES: Final = {
    "errors": "AccessError ApiError BulkUsersError SettingsError SourceError StorageError",
    "models": "Existing Lists Secret Status",
    "report": "Report read_report",
    "run": "upload",
    "settings": "Settings",
    "source": "open_source",
    "version": "__version__",
}
"""Where each public name lives; loaded when asked for: `bulkusers --help` need not wait for the network's code."""


def __getattr__(name: str) -> object:
    for module, names in HOMES.items():
        if name in names.split():
            return getattr(import_module(f"bulkusers.{module}"), name)
    raise AttributeError(f"module 'bulkusers' has no attribute {name!r}")
