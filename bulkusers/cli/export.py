"""`bulkusers export`."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from bulkusers.cli import options as opt
from bulkusers.cli.config import Target, find_password, find_proxy, find_target, find_token, read_properties
from bulkusers.cli.loop import run_in_loop
from bulkusers.cli.screen import Screen, csv_lines, write_data
from bulkusers.cli.summary import plural
from bulkusers.cli.target import end_on_signals, refuse_default, stand_in
from bulkusers.columns import COLUMNS
from bulkusers.files import check_place, move_aside, replacing
from bulkusers.models import Secret
from bulkusers.profile import Profile, load_profile
from bulkusers.settings import Settings

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
    profile = load_profile(api_profile)
    said = read_properties(properties, screen)
    target, token = find_target(env, base_url, school, said, profile), find_token(said)
    refuse_default(target, token)
    if output is not None:
        check_place(output, "--output")
    settings_for = partial(
        Settings,
        email=email or said.get("email", ""),
        password=find_password(),
        profile=profile,
        rate=rate,
        retries=retries,
        timeout=timeout,
        ca_file=ca_file,
    )
    with run_in_loop(_read(settings_for, target, token, screen)) as snapshot:
        if shape is opt.UsersFormat.JSON:
            _write(_json_lines(snapshot), output)
        else:
            _write_sheet(snapshot, profile, output, screen)
        screen.note(f"{plural(len(snapshot), 'user')} exported.")


async def _read(settings_for: Callable[..., Settings], target: Target, token: Secret, screen: Screen) -> "Snapshot":
    """Return all users as they are now."""
    from bulkusers.api import open_for_reading
    from bulkusers.brake import Brake
    from bulkusers.rules import Rules
    from bulkusers.snapshot import take_snapshot

    end_on_signals()
    async with stand_in(target, token, screen) as (place, key):
        settings = settings_for(
            base_url=place.base_url,
            school=place.school,
            environment=place.environment,
            token=key,
            proxy=find_proxy(place.base_url),
        )
        screen.detail(f"reading from {settings.base_url}, school {settings.school}")
        async with open_for_reading(settings, Brake()) as api:
            return await api.read(take_snapshot(Rules(settings.profile, settings.school)))


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
