"""The options, each said once: the same name, environment variable and help wherever it applies."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from bulkusers.models import Existing, Lists, Share


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


class UsersFormat(StrEnum):
    """How current users are written."""

    CSV = "csv"
    JSON = "json"


class FindingsFormat(StrEnum):
    """How findings are shown."""

    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Duration:
    """A time span, and how it was typed."""

    typed: str
    seconds: int

    def __str__(self) -> str:
        return self.typed


def parse_duration(text: str) -> Duration:
    """Read a time span as people write it: 90s, 15m, 2h, 1h30m."""
    match = re.fullmatch(r"(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s)?", text, re.ASCII)
    hours, minutes, seconds = (int(part or 0) for part in match.groups()) if match else (0, 0, 0)
    if not hours + minutes + seconds:
        raise typer.BadParameter(f"{text!r} is no time span; they look like 90s, 15m, 2h or 1h30m")
    return Duration(text, hours * 3600 + minutes * 60 + seconds)


def parse_share(text: str) -> Share:
    """Read a number of rows, or a percentage of all: 20, 5%, 0.5%."""
    if not re.fullmatch(r"\d{1,9}|(\d{1,2}(\.\d{1,6})?|100)%", text, re.ASCII):
        raise typer.BadParameter(f"{text!r} is no number of rows; they look like 20 or 5%")
    return Share(text)


VARIABLES: Final = {"BULKUSERS_TOKEN", "BULKUSERS_PASSWORD"}  # and one for each option
NEGATED: Final[dict[str, str]] = {}  # what the variable of a --no-option would be called -> that of its option


def option(*names: str, text: str, **more: Any) -> Any:  # noqa: ANN401 - what typer.Option takes and gives
    """Return an option whose environment variable follows the one rule: --max-duration = BULKUSERS_MAX_DURATION."""
    variable, *negated = (
        "BULKUSERS_" + name.removeprefix("--").replace("-", "_").upper() for name in names[0].split("/")
    )
    VARIABLES.add(variable)
    NEGATED.update(dict.fromkeys(negated, variable))
    return typer.Option(*names, envvar=variable, show_envvar=False, help=text, **more)


def _nearer(context: typer.Context, parameter: typer.CallbackParam, value: str | None) -> str | None:
    """Let one of --env and --base-url go before the other where it alone is an option, the other the environment's."""
    other = "base_url" if parameter.name == "env" else "env"
    if value is None or context.params.get(other) is None:
        return value
    # options are read before the environment, whatever their order
    if context.get_parameter_source(other) == context.get_parameter_source(parameter.name or ""):
        raise typer.BadParameter("--env and --base-url both say where to send: leave one out")
    return None


ONE_RUN_ONLY: Final = {"resume", "dry_run"}  # the next run decides anew


def as_typed(context: typer.Context, command: str = "") -> tuple[str, ...]:
    """Return the options that were given on the command line, for a command that is to do the same.

    Those that another `command` does not have are left out. What the environment and the properties file say, they
    will say again.
    """
    assert context.parent is not None
    there: Any = context.parent.command
    known = {parameter.name for parameter in there.commands[command or context.command.name].params}
    return tuple(_spell_options(context, known))


def _spell_options(context: typer.Context, known: set[str]) -> Iterator[str]:
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if parameter.param_type_name != "option" or not source or source.name != "COMMANDLINE":
            continue
        if name not in known or name in ONE_RUN_ONLY:
            continue
        value = context.params[name]
        yield parameter.secondary_opts[0] if value is False else parameter.opts[0]
        if isinstance(value, float):
            yield str(value).removesuffix(".0")
        elif not isinstance(value, bool):
            yield str(value)


UsersFile = Annotated[str, typer.Argument(metavar="USERS.csv", help="The users; - reads standard input.")]
Env = Annotated[
    Environment | None,
    option(
        "--env",
        text="Which API. With nothing configured, `run` uses a sandbox inside this program; nothing goes out.",
        callback=_nearer,
    ),
]
BaseUrl = Annotated[
    str | None,
    option(
        "--base-url",
        metavar="URL",
        text="Another host, instead of --env; plain http only to this machine.",
        callback=_nearer,
    ),
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
Output = Annotated[
    Path | None,
    option(
        "--output", "-o", metavar="PATH", text="Write here, not to stdout; an older one is moved aside.", dir_okay=False
    ),
]
Resume = Annotated[bool, option("--resume", text="Go on with the interrupted run of this file.")]
MaxDuration = Annotated[
    Duration | None,
    option("--max-duration", metavar="D", parser=parse_duration, text="Stop after 90s, 15m, 2h, 1h30m; resumable."),
]
ChangedOnly = Annotated[
    bool,
    option(
        "--changed-only",
        text="Read all users first, and send nothing for rows that change nothing; undo goes back to that list.",
    ),
]
DryRun = Annotated[
    bool, option("--dry-run", "-n", text="Show what would happen, as plan does; send nothing but reads.")
]
MaxCreates = Annotated[
    Share | None,
    option("--max-creates", metavar="N|N%", parser=parse_share, text="Send nothing if more would be created."),
]
MaxUpdates = Annotated[
    Share | None,
    option("--max-updates", metavar="N|N%", parser=parse_share, text="Send nothing if more would be updated."),
]
MaxFailures = Annotated[
    Share | None,
    option("--max-failures", metavar="N|N%", parser=parse_share, text="Stop when more rows than this fail."),
]
Retries = Annotated[int, option("--retries", metavar="N", min=0, text="How often a request is sent again.")]
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
