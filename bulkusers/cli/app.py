"""The command line: its commands, and how every one of them ends."""

import shlex
import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from bulkusers.cli.check import check
from bulkusers.cli.doctor import doctor
from bulkusers.cli.export import export
from bulkusers.cli.login import login
from bulkusers.cli.plan import plan
from bulkusers.cli.report import report
from bulkusers.cli.run import run
from bulkusers.cli.sandbox import sandbox
from bulkusers.cli.screen import Screen, leave_streams, write
from bulkusers.cli.template import template
from bulkusers.cli.undo import undo
from bulkusers.errors import ApiError, BulkUsersError, ShapeError
from bulkusers.version import __version__


class Command(TyperCommand):
    """A command whose usage names what it wants as its help does: Typer's own puts {braces} around it."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:  # noqa: ANN401 - a click.Context, wherever Typer keeps it
        """Return the pieces of the usage line."""
        wanted = [parameter for parameter in self.get_params(ctx) if parameter.param_type_name == "argument"]
        return ["[OPTIONS]", *(parameter.metavar or "" for parameter in wanted)]


app = typer.Typer(
    name="bulkusers",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # they would print local variables, and with them people's data
    rich_markup_mode=None,  # plain help reads everywhere, and starts faster
    context_settings={"help_option_names": ["--help", "-h"]},
)
for command in (run, report, plan, check, undo, export, template, login, doctor, sandbox):
    app.command(cls=Command)(command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, the process's own unless named; return its exit code, or exit with it."""
    try:
        app(arguments)
    except BulkUsersError as error:
        words = sys.argv[1:] if arguments is None else arguments
        Screen.of_the_moment().fail(str(error), *_next_steps(error, words))
        return error.exit_code
    finally:
        leave_streams()
    return 0


def _next_steps(error: BulkUsersError, words: Sequence[str]) -> Iterator[str]:
    """Yield what to do about an error; where it was the API's, the command once more is the last of it."""
    if error.hint:
        yield error.hint
    if isinstance(error, ShapeError):
        yield "bulkusers doctor looks closer"
    if isinstance(error, ApiError):
        yield f"then: {shlex.join(['bulkusers', *words])}"


def _print_version(wanted: bool) -> None:
    if wanted:
        write(sys.stdout, f"bulkusers {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Create and update a school's users in Coursedog from a CSV file."""
