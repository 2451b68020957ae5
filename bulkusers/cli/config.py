"""Where settings come from: option > environment > coursedog.properties > default."""

import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from bulkusers.cli.options import NEGATED, VARIABLES
from bulkusers.cli.screen import Screen
from bulkusers.errors import SettingsError
from bulkusers.files import replacing
from bulkusers.models import Secret
from bulkusers.profile import Profile
from bulkusers.settings import is_loopback

PROPERTIES: Final = Path("coursedog.properties")
KEYS: Final = ("env", "base_url", "school", "email", "token")
LINE: Final = re.compile(r"([\w.-]+)\s*=\s*(.*)")
SECTION: Final = re.compile(r"\[[^=]+\].*")
PLACEHOLDER: Final = "addme"  # what the vendor's example file has for a token
SANDBOX: Final = "sandbox"


def load_properties(path: Path | None) -> dict[str, str]:
    """Return what the properties file says: `key = value` lines, with or without section headers, which mean nothing.

    Raises:
        SettingsError: the file was named and is not there, or it cannot be read, or it leaves open what it means.

    """
    file = path or PROPERTIES
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        if path is None:
            return {}
        raise SettingsError(f"there is no {file}", hint="bulkusers login writes one") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read {file}: {getattr(error, 'strerror', error)}") from None
    said: dict[str, str] = {}
    for number, line in enumerate(map(str.strip, text.splitlines()), start=1):
        if not line or line[0] in "#;" or SECTION.fullmatch(line):
            continue
        match = LINE.fullmatch(line)
        if match is None:  # it is not repeated, for it may be the token's
            raise SettingsError(
                f"{file}: line {number} is no `key = value` with a key of one word",
                hint="mend it, or put a # before it if it is a comment",
            )
        key, value = match[1].lower().replace("-", "_"), match[2]
        if key in KEYS and value and said.get(key, value) != value:
            raise SettingsError(
                f"{file}: {key} stands there twice, with different values, the second in line {number}",
                hint="keep one; what is for another place belongs into a file of its own, named with --properties",
            )
        if value:
            said[key] = value
    return said


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
    for stray in list_stray_variables():
        screen.warn(stray)
    screen.detail(f"the environment says: {', '.join(variables) or 'nothing'}")
    return said


def list_stray_variables() -> Iterator[str]:
    """Yield what is wrong with each variable of the environment that is named like an option, and is none's."""
    for name in sorted(os.environ):
        if name.startswith("BULKUSERS_") and name not in VARIABLES:
            yield f"{name} is not used: {f'write {NEGATED[name]}=0' if name in NEGATED else 'there is no such option'}"


def is_open_to_others(path: Path) -> bool:
    """Tell whether someone besides the owner may read the file."""
    return path.exists() and bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))


def save_properties(path: Path, values: Mapping[str, str]) -> None:
    """Put values into the properties file, mode 0600; other lines stay as they are, an empty value takes its line out.

    Where a symlink leads to the file, the file is written and the symlink stays.

    Raises:
        StorageError: it cannot be written.

    """
    lines = path.read_text(encoding="utf-8-sig").splitlines() if path.exists() else []
    kept = [line for line in lines if line.partition("=")[0].strip().lower().replace("-", "_") not in values]
    kept += [f"{key} = {value}" for key, value in values.items() if value]
    with replacing(Path(os.path.realpath(path))) as file:
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
