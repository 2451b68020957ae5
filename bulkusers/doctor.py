"""A look at a school's API before the first run: does it answer, does it let us in, is it what the profile says of it.

Nothing is changed: what is sent are GETs, and one login where there is a password and no token.
"""

from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

from bulkusers.answers import json_of
from bulkusers.api import get_token, open_for_reading
from bulkusers.brake import Brake
from bulkusers.client import Client, connect
from bulkusers.errors import AccessError, ApiError, TransportError
from bulkusers.findings import Finding, Level
from bulkusers.models import Request, Secret
from bulkusers.rules import Rules
from bulkusers.school import School, Tell
from bulkusers.settings import Settings

CHECKS: Final = {
    "reach": "what answers there",
    "token": "the token",
    "school": "the school",
    "users": "the list of users",
    "departments": "departments",
    "roles": "roles",
    "user": "one user by e-mail",
    "fields": "the records' fields",
    "products": "products",
    "status": "statuses",
}
RETRIES: Final = 1  # somebody waits for the answer
BASE_URL: Final = "is the base URL right? it ends in /api/v1"
PORTAL: Final = f"log in to the network in a browser (a captive portal, a proxy), and try again; {BASE_URL}"


async def examine(settings: Settings, brake: Brake, tell: Tell) -> None:
    """Look at everything that can be looked at, in the order of CHECKS; what cannot be is a finding, too.

    Raises:
        Interrupted: the brake was pulled by a person or the system.
        SettingsError: the CA file cannot be used.

    """
    done: set[str] = set()

    def note(finding: Finding) -> None:
        done.add(finding.check)
        tell(finding)

    why = await _look(settings, brake, note)
    for check, what in CHECKS.items():
        if check not in done:
            note(Finding(Level.WARNING, check, f"{what}: not looked at, because {why}"))


async def _look(settings: Settings, brake: Brake, tell: Tell) -> str:
    """Look at one thing after another; return why it did not come to the end."""
    async with connect(settings) as client:
        reached = await _knock(client, settings)
        tell(reached)
        if reached.level is Level.PROBLEM:
            return "the API does not answer there"
        if not settings.token:
            try:
                # not by way of what logs in again whenever it seems to help: each login kills another token
                token = await _log_in(client, settings)
            except ApiError as error:
                tell(Finding(Level.PROBLEM, "token", str(error), error.hint))
                return "there is no token"
            settings = replace(settings, token=token)
    settings = replace(settings, password=Secret(), retries=min(settings.retries, RETRIES))
    async with open_for_reading(settings, brake) as api:
        return await School(api, settings, brake, tell).look()


async def _log_in(client: Client, settings: Settings) -> Secret:
    if settings.email and settings.password:
        return await get_token(settings, client.send)
    raise AccessError(
        "there is no token, and no e-mail and password to get one with",
        hint="bulkusers login, or set BULKUSERS_TOKEN, or BULKUSERS_EMAIL and BULKUSERS_PASSWORD",
    )


async def _knock(client: Client, settings: Settings) -> Finding:
    """See whether it is the API that answers; without a token, which is none of a stranger's business."""
    path = Rules(settings.profile, settings.school).path(settings.profile.paths.departments)
    try:
        answer = await client.send(Request("GET", path, authorized=False))
    except TransportError as error:
        hint = error.hint or f"try again later; {BASE_URL}"
        return Finding(Level.PROBLEM, "reach", str(error), hint)
    except ApiError as error:  # the certificate
        return Finding(Level.PROBLEM, "reach", str(error), error.hint)
    if 300 <= answer.status < 400:
        host = urlsplit(answer.headers.get("Location", "")).netloc
        where = f" to {host}" if host.isascii() and host.isprintable() and host else ""
        message = f"what answers is not the API: it sends us elsewhere{where} ({answer.status})"
        return Finding(Level.PROBLEM, "reach", message, PORTAL)
    if answer.status >= 500:
        message = f"the API, or what stands before it, is down ({answer.status})"
        return Finding(Level.PROBLEM, "reach", message, "try again later")
    if answer.body.strip() and json_of(answer) is None:
        message = f"what answers is not the API: it is no JSON, but a web page perhaps ({answer.status})"
        return Finding(Level.PROBLEM, "reach", message, PORTAL)
    return Finding(Level.OK, "reach", "the API answers there")
