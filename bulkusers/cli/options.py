"""The options, each said once: the same name, environment variable and help wherever it applies."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from bulkusers.models import Existing, Lists


class Environment(StrEnum):
    """Where to send."""

    PRODUCTION = "production"
    STAGING = "staging"
    SANDBOX = "sandbox"


class LogFormat(StrEnum):
    """How progress and notes are written."""

    TEXT = "text"
    JSON = "json"


class ReportFormat(StrEnum):
    """How a report is shown."""

    TEXT = "text"
    JSON = "json"
    CSV = "csv"
    MD = "md"


def option(*names: str, text: str, **more: Any) -> Any:  # noqa: ANN401 - what typer.Option takes and gives
    """Return an option whose environment variable follows the one rule: --max-duration = BULKUSERS_MAX_DURATION."""
    variable = "BULKUSERS_" + names[0].partition("/")[0].removeprefix("--").replace("-", "_").upper()
    return typer.Option(*names, envvar=variable, show_envvar=False, help=text, **more)


UsersFile = Annotated[str, typer.Argument(metavar="USERS.csv", help="The users; - reads standard input.")]
Env = Annotated[
    Environment | None,
    option(
        "--env",
        text="Where to send. With nothing configured: a sandbox inside this program, and nothing leaves this machine.",
    ),
]
BaseUrl = Annotated[
    str | None, option("--base-url", metavar="URL", text="Another host; plain http only to this machine.")
]
School = Annotated[str | None, option("--school", metavar="ID", text="School Unique ID (Admin > Settings).")]
Email = Annotated[str | None, option("--email", metavar="EMAIL", text="The account that logs in.")]
Properties = Annotated[
    Path | None,
    option("--properties", metavar="FILE", text="Token, school, env and e-mail [default: coursedog.properties]."),
]
Concurrency = Annotated[int, option("--concurrency", metavar="N", min=1, max=1000, text="Workers.")]
Rate = Annotated[
    float, option("--rate", metavar="N", min=0, text="Requests per second, all workers together; 0 = no limit.")
]
ExistingMode = Annotated[
    Existing,
    option(
        "--existing", text="A user who exists: keep what the file does not say, replace the record, or leave alone."
    ),
]
ListsMode = Annotated[
    Lists,
    option("--lists", text="Products, roles and secondary departments under merge: nobody loses one, or the file's."),
]
Notify = Annotated[
    bool | None,
    option(
        "--notify/--no-notify",
        text="A registration mail to each created user [default: ask on a terminal, else none].",
        show_default=False,
    ),
]
ReportPath = Annotated[
    Path,
    option("--report", "-o", metavar="PATH", text="The outcome report; an older one is moved aside.", dir_okay=False),
]
Timeout = Annotated[float, option("--timeout", metavar="S", min=0.1, text="Seconds for one request.")]
Encoding = Annotated[str, option("--encoding", metavar="NAME", text="The file's encoding [default: found].")]
Delimiter = Annotated[
    str, option("--delimiter", metavar="CHAR", text="The file's delimiter: , ; | tab [default: found].")
]
AllowEmpty = Annotated[bool, option("--allow-empty", text="A file with a header and no rows is fine.")]
CaFile = Annotated[Path | None, option("--ca-file", metavar="FILE", text="Trust this CA (PEM), too.")]
ApiProfile = Annotated[
    Path | None, option("--api-profile", metavar="FILE", text="TOML with what your school's API does differently.")
]
Log = Annotated[LogFormat, option("--log-format", text="How progress and notes are written.")]
Quiet = Annotated[bool, option("--quiet", "-q", text="Say nothing unless something is wrong.")]
Verbose = Annotated[bool, option("--verbose", "-v", text="Say where settings come from.")]
