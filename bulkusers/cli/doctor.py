"""`bulkusers doctor`."""

import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import orjson
import typer

from bulkusers.cli import options as opt
from bulkusers.cli.config import (
    KEYS,
    PROPERTIES,
    Target,
    find_password,
    find_target,
    find_token,
    is_open_to_others,
    list_stray_variables,
    load_properties,
)
from bulkusers.cli.loop import run_in_loop
from bulkusers.cli.output import write_data
from bulkusers.cli.screen import Screen, write
from bulkusers.cli.summary import plural
from bulkusers.cli.target import Aim, aim_as_said, end_on_signals, refuse_default
from bulkusers.errors import SettingsError
from bulkusers.findings import Finding, Level, toml_lines
from bulkusers.models import Secret
from bulkusers.profile import load_profile

if TYPE_CHECKING:
    from bulkusers.school import Tell

SOURCES: Final = {"COMMANDLINE": "an option", "ENVIRONMENT": "the environment"}
WIDTH: Final = max(map(len, Level))


def doctor(
    context: typer.Context,
    shape: Annotated[
        opt.FindingsFormat, opt.option("--format", text="How to show what is found.")
    ] = opt.FindingsFormat.TEXT,
    env: opt.Env = None,
    base_url: opt.BaseUrl = None,
    school: opt.School = None,
    email: opt.Email = None,
    properties: opt.Properties = None,
    rate: opt.Rate = 50.0,
    timeout: opt.Timeout = 30.0,
    ca_file: opt.CaFile = None,
    api_profile: opt.ApiProfile = None,
    quiet: opt.Quiet = False,
) -> None:
    """Look at configuration, token and API; nothing is changed. The first command for a new school."""
    screen = Screen(quiet=quiet)
    findings: list[Finding] = []

    def tell(finding: Finding) -> None:
        findings.append(finding)
        if shape is opt.FindingsFormat.TEXT and not (quiet and finding.level is Level.OK):
            _show(finding)

    try:
        profile = load_profile(api_profile)
        said = _read_properties(properties, tell)
        target = find_target(env, base_url, school, said, profile)
        for finding in _list_settings(context, properties, said, target):
            tell(finding)
        aim = aim_as_said(env, base_url, school, email, said, profile)
        refuse_default(target)
        settings: dict[str, Any] = {
            "rate": rate,
            "timeout": timeout,
            "ca_file": ca_file,
        }
        run_in_loop(_examine(aim, settings, screen, tell))
    except SettingsError as error:
        tell(Finding(Level.PROBLEM, "configuration", str(error), error.hint))
        tell(Finding(Level.WARNING, "reach", "the API: not looked at, because the configuration cannot work"))
    counts = Counter(finding.level for finding in findings)
    code = 4 if counts[Level.PROBLEM] else 0
    lines = list(toml_lines(line for finding in findings for line in finding.profile))
    if shape is opt.FindingsFormat.JSON:
        write_data([_as_json(findings, lines, code)])
    elif code or not quiet:
        for line in _conclude(counts, lines, opt.as_typed(context), api_profile):
            write(sys.stdout, line)
    raise typer.Exit(code)


async def _examine(aim: Aim, more: Mapping[str, Any], screen: Screen, tell: "Tell") -> None:
    from bulkusers.brake import Brake
    from bulkusers.doctor import examine

    end_on_signals()
    async with AsyncExitStack() as stack:
        await examine(await aim.settings(stack, screen, **more), Brake(), tell)


def _read_properties(path: Path | None, tell: "Tell") -> dict[str, str]:
    """Return what the properties file says, and tell what is not as it should be with it."""
    file = path or PROPERTIES
    found = load_properties(path)
    said: dict[str, str] = {key: found[key] for key in KEYS if key in found}
    strange = sorted(found.keys() - said.keys())
    if not file.exists():
        tell(Finding(Level.OK, "properties", f"there is no {file}: nothing comes from it"))
    elif "token" in said and is_open_to_others(file):
        hint = f"chmod 600 {shlex.quote(str(file))}"
        tell(Finding(Level.WARNING, "properties", f"{file} holds a token, and others can read it", hint))
    else:
        tell(Finding(Level.OK, "properties", f"{file} says: {', '.join(said) or 'nothing'}"))
    if strange:
        message = f"{file}: {', '.join(strange)} {'are' if len(strange) > 1 else 'is'} not used"
        tell(Finding(Level.WARNING, "properties", message, f"what is used is {', '.join(KEYS)}"))
    for stray in list_stray_variables():
        tell(Finding(Level.WARNING, "configuration", stray))
    return said


def _list_settings(
    context: typer.Context, path: Path | None, said: Mapping[str, str], target: Target
) -> Iterator[Finding]:
    """Yield what is configured and who says so; of secrets and people only that they are."""
    file = str(path or PROPERTIES)

    def origin(option: str, key: str) -> str:
        source = context.get_parameter_source(option)
        given = SOURCES.get(source.name if source else "")
        return given or (file if key in said else "")

    ordered = next((name for name in ("base_url", "env") if context.params[name]), "")
    where = origin(ordered, "") if ordered else file if said.keys() & {"base_url", "env"} else "the default"
    host = f", {target.base_url}" if target.base_url else " inside this program"
    yield _setting("environment", f"{target.environment}{host}", where)
    yield _setting("school", target.school, origin("school", "school"))
    yield _setting("e-mail", "***" if origin("email", "email") else "", origin("email", "email"))
    token = find_token(said)
    yield _setting("token", str(token) if token else "", file if token == _filed(said) else "the environment")
    password = find_password()
    yield _setting("password", str(password) if password else "", "the environment")
    profile = context.params["api_profile"]
    yield _setting("API profile", str(profile or "the built-in one"), origin("api_profile", "") or "the default")


def _filed(said: Mapping[str, str]) -> Secret:
    import os

    return Secret() if os.environ.get("BULKUSERS_TOKEN") else Secret(said.get("token", "").strip())


def _setting(name: str, value: str, origin: str) -> Finding:
    return Finding(Level.OK, "configuration", f"{name}: {value} (from {origin})" if value else f"{name}: none")


def _show(finding: Finding) -> None:
    write(sys.stdout, f"{finding.level:<{WIDTH}}  {finding.message}")
    if finding.hint:
        write(sys.stdout, f"{'':<{WIDTH}}  → {finding.hint}")


def _as_json(findings: list[Finding], lines: list[str], code: int) -> str:
    return orjson.dumps(
        {
            "schema": 1,
            "exit_code": code,
            "counts": {str(level): sum(each.level is level for each in findings) for level in Level},
            "findings": [
                {"level": each.level, "check": each.check, "message": each.message, "hint": each.hint}
                | {"profile": list(toml_lines(each.profile))}
                for each in findings
            ],
            "profile": lines,
        }
    ).decode()


def _conclude(
    counts: Mapping[Level, int], lines: list[str], arguments: tuple[str, ...], api_profile: Path | None
) -> Iterator[str]:
    """Yield what to do next."""
    file = str(api_profile or "school.toml")
    again = shlex.join(["bulkusers", "doctor", *arguments])
    if lines:
        yield ""
        yield f"For the API profile, {file}:"
        yield ""
        for line in lines:
            yield f"  {line}"
        if api_profile is None:
            again += f" --api-profile {file}"
    yield ""
    if counts[Level.PROBLEM]:
        what = f"mend {plural(counts[Level.PROBLEM], 'problem')}, the first one first, then"
        yield f"Next: {what}: {again}"
    elif lines:
        yield f"Next: write these lines if they are right, then: {again}"
    else:
        run = shlex.join(["bulkusers", "run", "users.csv", *_for_run(arguments)])
        yield "Creating and replacing users was not looked at: only a run shows it."
        yield f"Next: a file with three users first: {run}"


def _for_run(arguments: tuple[str, ...]) -> Iterator[str]:
    """Yield the options that `run` knows, too."""
    skip = False
    for argument in arguments:
        if not skip and argument != "--format":
            yield argument
        skip = argument == "--format"
