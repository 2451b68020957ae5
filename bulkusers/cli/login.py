"""`bulkusers login`."""

import os

from bulkusers.cli import options as opt
from bulkusers.cli.config import PROPERTIES, find_password, find_proxy, find_target, read_properties, save_properties
from bulkusers.cli.loop import run_in_loop
from bulkusers.cli.screen import Screen
from bulkusers.errors import SettingsError
from bulkusers.models import Secret
from bulkusers.profile import load_profile
from bulkusers.settings import Settings


def login(
    env: opt.Env = None,
    base_url: opt.BaseUrl = None,
    school: opt.School = None,
    email: opt.Email = None,
    properties: opt.Properties = None,
    timeout: opt.Timeout = 30.0,
    ca_file: opt.CaFile = None,
    api_profile: opt.ApiProfile = None,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Get a token and keep it in coursedog.properties, which only you can read."""
    screen = Screen(quiet=quiet, verbose=verbose)
    file = properties or PROPERTIES
    said = read_properties(properties, screen) if file.exists() else {}
    said.pop("token", None)  # whoever it was for, it is to be replaced
    profile = load_profile(api_profile)
    target = find_target(env, base_url, school, said, profile)
    if not target.base_url:
        raise SettingsError(
            "nothing says where to log in",
            hint="add --env staging or --env production; `bulkusers sandbox` prints the login for a sandbox",
        )
    settings = Settings(
        base_url=target.base_url,
        school=target.school or _ask("School Unique ID (Admin > Settings)", "--school", screen),
        environment=target.environment,
        email=email or said.get("email") or _ask("E-mail", "--email", screen),
        password=find_password() or Secret(_ask("Password", "BULKUSERS_PASSWORD", screen, hide=True)),
        profile=profile,
        timeout=timeout,
        ca_file=ca_file,
        proxy=find_proxy(target.base_url),
    )
    token = run_in_loop(_log_in(settings))
    custom = target.environment == "custom"
    save_properties(
        file,
        {
            "env": "" if custom else target.environment,
            "base_url": target.base_url if custom else "",
            "school": settings.school,
            "email": settings.email,
            "token": token.reveal(),
        },
    )
    screen.note(
        f"The token is in {file}. It dies after 24 hours, and whenever {settings.email} logs in to the web app: "
        "a separate API user helps."
    )
    if os.environ.get("BULKUSERS_TOKEN"):
        screen.warn("BULKUSERS_TOKEN is set and goes before this file: unset it, or the new token is not used")
    screen.note(f"Next: bulkusers doctor{f' --properties {properties}' if properties else ''}")


async def _log_in(settings: Settings) -> Secret:
    from bulkusers.api import get_token
    from bulkusers.client import connect

    async with connect(settings) as client:
        return await get_token(settings, client.send)


def _ask(what: str, instead: str, screen: Screen, *, hide: bool = False) -> str:
    if not screen.is_interactive:
        raise SettingsError(f"{what} is missing, and nobody is there to ask", hint=f"set {instead}")
    return screen.ask(what, hide=hide)
