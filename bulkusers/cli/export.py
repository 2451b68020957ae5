"""`bulkusers export`."""

from collections.abc import Iterable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from bulkusers.cli import options as opt
from bulkusers.cli.loop import run_in_loop
from bulkusers.cli.output import csv_lines, write_data
from bulkusers.cli.screen import Screen
from bulkusers.cli.summary import plural
from bulkusers.cli.target import Aim, end_on_signals, refuse_default, take_aim
from bulkusers.columns import COLUMNS
from bulkusers.files import check_place, move_aside, replacing
from bulkusers.profile import Profile
from bulkusers.settings import make_rules

if TYPE_CHECKING:
    from bulkusers.sheet import Sheet
    from bulkusers.snapshot import Snapshot


def export(
    output: opt.Output = None,
    shape: Annotated[
        opt.UsersFormat, opt.option("--format", text="A users file for `run`, or every record whole.")
    ] = opt.UsersFormat.CSV,
    env: opt.Env = None,
    base_url: opt.BaseUrl = None,
    school: opt.School = None,
    email: opt.Email = None,
    properties: opt.Properties = None,
    rate: opt.Rate = 50.0,
    retries: opt.Retries = 5,
    timeout: opt.Timeout = 30.0,
    ca_file: opt.CaFile = None,
    api_profile: opt.ApiProfile = None,
    log_format: opt.Log = opt.LogFormat.TEXT,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Write the school's current users as a file that `run` takes; nothing is changed."""
    screen = Screen(log_format, quiet=quiet, verbose=verbose)
    aim = take_aim(env, base_url, school, email, properties, api_profile, screen)
    refuse_default(aim.target)
    if output is not None:
        check_place(output, "--output")
    more = {"rate": rate, "retries": retries, "timeout": timeout, "ca_file": ca_file}
    with run_in_loop(_read(aim, more, screen)) as snapshot:
        if shape is opt.UsersFormat.JSON:
            _write(_json_lines(snapshot), output)
        else:
            _write_sheet(snapshot, aim.profile, output, screen)
        screen.note(f"{plural(len(snapshot), 'user')} exported.")


async def _read(aim: Aim, more: dict[str, Any], screen: Screen) -> "Snapshot":
    """Return all users as they are now."""
    from bulkusers.api import open_for_reading
    from bulkusers.brake import Brake
    from bulkusers.snapshot import take_snapshot

    end_on_signals()
    async with AsyncExitStack() as stack:
        settings = await aim.settings(stack, screen, **more)
        api = await stack.enter_async_context(open_for_reading(settings, Brake()))
        return await api.read(take_snapshot(make_rules(settings)))


def _write_sheet(snapshot: "Snapshot", profile: Profile, output: Path | None, screen: Screen) -> None:
    from bulkusers.sheet import Sheet

    sheet = Sheet(profile)
    _write(csv_lines([column.title for column in COLUMNS], map(sheet.row, snapshot)), output)
    for warning in _warnings(sheet):
        screen.warn(warning)


def _warnings(sheet: "Sheet") -> Iterator[str]:
    """Yield what the file does not tell of its users."""
    if sheet.partial:
        yield (
            f"{plural(sheet.partial, 'user')} with values that no cell can say exactly; these cells are blank, and a "
            f"run of this file keeps what is there: {_list(sheet.blanks)}"
        )
    if sheet.refused:
        yield (
            f"{plural(sheet.refused, 'user')} whose row a run of this file will reject, because Coursedog holds less "
            f"or something else than a row needs: {_list(sheet.faults)}"
        )


def _list(counts: dict[str, int]) -> str:
    return ", ".join(f"{column.title} ({counts[column.title]:,})" for column in COLUMNS if counts.get(column.title))


def _json_lines(snapshot: "Snapshot") -> Iterator[str]:
    """Yield one JSON array, one record a line, each as the API wrote it."""
    yield "["
    last = len(snapshot)
    for number, text in enumerate(snapshot.texts(), 1):
        # a line's end in JSON stands between two values, never in one (RFC 8259 7)
        yield text.replace("\r", " ").replace("\n", " ") + ("," if number < last else "")
    yield "]"


def _write(lines: Iterable[str], output: Path | None) -> None:
    if output is None:
        write_data(lines)
        return
    with replacing(output) as file:
        for line in lines:
            file.write(f"{line}\n".encode())
        move_aside(output)
