"""Where settings come from: option > environment > coursedog.properties > default."""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from bulkusers.cli.options import VARIABLES
from bulkusers.cli.screen import Screen
from bulkusers.errors import SettingsError
from bulkusers.files import replacing
from bulkusers.models import Secret
from bulkusers.profile import Profile
from bulkusers.settings import is_loopback

PROPERTIES: Final = Path("coursedog.properties")
KEYS: Final = ("env", "base_url", "school", "email", "token")
PLACEHOLDER: Final = "addme"  # what the vendor's example file has for a token
SANDBOX: Final = "sandbox"


def load_properties(path: Path | None) -> dict[str, str]:
    """Return what the properties file says: `key = value` lines, with or without a section header.

    Raises:
        SettingsError: the file was named and is not there, or it cannot be read.

    """
    try:
        text = (path or PROPERTIES).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        if path is None:
            return {}
        raise SettingsError(f"there is no {path}", hint="bulkusers login writes one") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read {path or PROPERTIES}: {getattr(error, 'strerror', error)}") from None
    import configparser  # where there is a file to read

    # without a default section, whose values would come back in each other one
    parser = configparser.ConfigParser(
        interpolation=None, delimiters=("=",), strict=False, allow_no_value=True, default_section=""
    )
    try:
        # an indented line is a line of its own, not the rest of the one above
        parser.read_string("\n".join(["[top]", *(line.strip() for line in text.splitlines())]))
    except configparser.Error:
        # the parser's own words would repeat the line, and that may be the token's
        raise SettingsError(f"{path or PROPERTIES} is not made of `key = value` lines") from None
    values: list[tuple[str, str | None]] = [item for name in parser.sections() for item in parser.items(name)]
    return {key.replace("-", "_"): value for key, value in values if value}


def read_properties(path: Path | None, screen: Screen) -> dict[str, str]:
    """Return what the properties file says, and warn of what is not as it should be."""
    file = path or PROPERTIES
    found = load_properties(path)
    said: dict[str, str] = {key: found[key] for key in KEYS if key in found}
    for key in found.keys() - said.keys():
        screen.warn(f"{file}: {key} is not used; what is, is {', '.join(KEYS)}")
    if "token" in said and is_open_to_others(file):
        screen.warn(f"{file} holds a token, and others can read it: chmod 600 {file}")
    screen.detail(f"{file} says: {', '.join(said) or 'nothing'}")
    variables = sorted(name for name in os.environ if name.startswith("BULKUSERS_"))
    for name in find_stray_variables():
        screen.warn(f"{name} is not used: there is no such option")
    screen.detail(f"the environment says: {', '.join(variables) or 'nothing'}")
    return said


def find_stray_variables() -> list[str]:
    """Return the variables of the environment that are named like an option, and are none's."""
    return sorted(name for name in os.environ if name.startswith("BULKUSERS_") and name not in VARIABLES)


def is_open_to_others(path: Path) -> bool:
    """Tell whether someone besides the owner may read the file."""
    return path.exists() and bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))


def save_properties(path: Path, values: Mapping[str, str]) -> None:
    """Put values into the properties file, mode 0600; other lines stay as they are, an empty value takes its line out.

    Raises:
        StorageError: it cannot be written.

    """
    lines = path.read_text(encoding="utf-8-sig").splitlines() if path.exists() else []
    kept = [line for line in lines if line.partition("=")[0].strip().lower().replace("-", "_") not in values]
    kept += [f"{key} = {value}" for key, value in values.items() if value]
    with replacing(path) as file:
        file.write("".join(f"{line}\n" for line in kept).encode())


@dataclass(frozen=True, slots=True)
class Target:
    """Where to send; an empty `base_url` means the sandbox inside this process."""

    environment: str
    base_url: str
    school: str
    configured: bool  # somebody said so; it is not the default


def find_target(
    env: str | None, base_url: str | None, school: str | None, properties: Mapping[str, str], profile: Profile
) -> Target:
    """Decide where to send: what options and environment say goes before what the properties file says.

    Raises:
        SettingsError: there is no such environment, or the token in the properties file is another host's.

    """
    school = school or properties.get("school", "")
    filed = _find_host(properties.get("env"), properties.get("base_url"), profile)
    environment, host = _find_host(env, base_url, profile) if env or base_url else filed
    stray = "token" in properties and not os.environ.get("BULKUSERS_TOKEN") and filed[1] not in {"", host}
    if stray and host and not is_loopback(urlsplit(host).hostname or ""):
        raise SettingsError(
            f"the token in the properties file is for {filed[1]}, not for {host}",
            hint="get one for there with `bulkusers login`; --properties FILE keeps it apart",
        )
    return Target(environment, host, school, configured=bool(env or base_url or host or properties.get("env")))


def _find_host(env: str | None, base_url: str | None, profile: Profile) -> tuple[str, str]:
    """Return the environment's name and host; no host is the sandbox inside this process."""
    if base_url:
        # named by what it is: another host is not "production" because somebody says so besides
        known = (name for name, host in profile.hosts.items() if host == base_url.rstrip("/"))
        return next(known, "custom"), base_url
    if not env or env == SANDBOX:
        return SANDBOX, ""
    if env not in profile.hosts:
        raise SettingsError(f"there is no environment {env!r}", hint="it is production, staging or sandbox")
    return env, profile.hosts[env]


def find_token(properties: Mapping[str, str]) -> Secret:
    """Return the token of the environment or the properties file; the vendor's placeholder is none."""
    token = os.environ.get("BULKUSERS_TOKEN") or properties.get("token", "")
    return Secret("" if token == PLACEHOLDER else token.strip())


def find_password() -> Secret:
    """Return the password of the environment; no file and no option may hold it."""
    return Secret(os.environ.get("BULKUSERS_PASSWORD", ""))


def find_proxy(base_url: str) -> str:
    """Return the proxy that the usual environment variables name for this URL, if any; none for this machine."""
    from urllib.request import getproxies, proxy_bypass  # brings an HTTP client, which no help or report needs

    parts = urlsplit(base_url)
    if not parts.hostname or is_loopback(parts.hostname) or proxy_bypass(parts.hostname):
        return ""
    proxy = getproxies().get(parts.scheme, "")
    return proxy if "://" in proxy or not proxy else f"http://{proxy}"
