"""What one run is told: where to send, as whom, and how to treat people; checked when made."""

import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import unquote, urlsplit

from bulkusers.errors import SettingsError
from bulkusers.models import Existing, Lists, Secret, Share
from bulkusers.profile import Profile, load_profile
from bulkusers.rules import Rules

SCHOOL: Final = re.compile(r"[a-z0-9_-]{1,64}")
MAX_CONCURRENCY: Final = 1000  # more is a mistake, and each worker is a connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything a run depends on besides the file.

    Raises:
        SettingsError: a value cannot work; the message names it.

    """

    base_url: str
    school: str  # the "School Unique ID" of Admin > Settings
    environment: str = "custom"  # production, staging, sandbox; what the report calls the target
    token: Secret = field(default_factory=Secret)
    email: str = ""  # of the account that sends
    password: Secret = field(default_factory=Secret)
    profile: Profile = field(default_factory=load_profile)
    existing: Existing = Existing.MERGE
    lists: Lists = Lists.ADD
    changed_only: bool = False  # read all users first, and send nothing for rows that change nothing
    max_creates: Share | None = None  # refuse before the first write if more users would be created
    max_updates: Share | None = None  # ... or updated
    notify: bool = False  # a registration mail to each created user
    concurrency: int = 20  # workers, each with at most one request under way
    rate: float = 50.0  # requests per second, all workers together; 0 = no limit
    timeout: float = 30.0  # seconds for one request
    ca_file: Path | None = None  # trusted besides the system's certificates
    proxy: str = field(default="", repr=False)  # URL, may hold a password; "" = none
    retries: int = 5  # of one request; also of a write whose answer is lost, after a look

    @classmethod
    def at(cls, environment: str, **more: Any) -> Self:  # noqa: ANN401 - the other fields, checked by the constructor
        """Return settings for one of the vendor's hosts: "production" or "staging"."""
        profile = more.setdefault("profile", load_profile())
        if environment not in profile.hosts:
            raise SettingsError(
                f"there is no environment {environment!r}", hint=f"there are {', '.join(profile.hosts)}"
            )
        return cls(base_url=profile.hosts[environment], environment=environment, **more)

    def __post_init__(self) -> None:
        """Refuse what cannot work before anything is sent."""
        _check_url(self.base_url)
        object.__setattr__(self, "base_url", _spell(self.base_url))  # one name for one place: it is locked by it
        if not SCHOOL.fullmatch(self.school):
            raise SettingsError(
                f"{self.school!r} is no School Unique ID" if self.school else "no school is named",
                hint="name it with --school ID; a super admin finds it in Coursedog under Admin > Settings",
            )
        if not re.fullmatch(r"[!-~]*", self.token.reveal()):
            raise SettingsError("the token holds blanks or other characters that no token has", hint="bulkusers login")
        for name, text in (("e-mail", self.email), ("password", self.password.reveal())):
            if re.search(r"[\ud800-\udfff]", text):  # what Python makes of bytes that are not UTF-8
                raise SettingsError(
                    f"the {name} of the account is not UTF-8 text", hint="whatever sets it uses another encoding"
                )
        if self.proxy:
            _check_proxy(self.proxy)
        if not 1 <= self.concurrency <= MAX_CONCURRENCY:
            raise SettingsError(f"concurrency must be 1 to {MAX_CONCURRENCY}, not {self.concurrency}")
        if not 0 <= self.rate < float("inf"):
            raise SettingsError(f"rate must be 0 or more requests per second, not {self.rate}")
        if self.retries < 0:
            raise SettingsError(f"retries must be 0 or more, not {self.retries}")
        if not 0 < self.timeout < float("inf"):
            raise SettingsError(f"timeout must be more than 0 seconds, not {self.timeout}")


def make_rules(settings: Settings) -> Rules:
    """Return how users are placed under these settings."""
    return Rules(
        settings.profile, settings.school, settings.existing, settings.lists, settings.notify, settings.retries
    )


def _check_url(url: str) -> None:
    """Refuse every base URL that would send a token in the clear or to nobody knows where, or that cannot be sent."""
    if not url.isascii():
        raise SettingsError(
            "the base URL holds letters beyond ASCII",
            hint="a URL has them as %XX in its path, and as xn--... in the name of a host",
        )
    host = _find_host(url, {"http", "https"})
    if not host:
        raise SettingsError("the base URL is not a URL", hint="it looks like https://app.coursedog.com/api/v1")
    parts = urlsplit(url)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise SettingsError("the base URL may hold neither an account, a query nor a fragment")
    if parts.scheme == "http" and not is_loopback(host):
        raise SettingsError(
            f"{host} would be spoken to without encryption", hint="use https; plain http goes only to this machine"
        )


def _check_proxy(url: str) -> None:
    """Refuse what no connection can be made through."""
    if not _find_host(url, {"http", "https"}):
        raise SettingsError("the proxy of the environment is no http:// or https:// URL")
    account = urlsplit(url).netloc.rpartition("@")[0]
    try:
        unquote(account, errors="ignore").encode("latin-1")  # as it goes over the wire
    except UnicodeError:
        raise SettingsError(
            "the account in the proxy of the environment holds letters beyond Latin-1", hint="no proxy can be told them"
        ) from None


def _spell(url: str) -> str:
    """Return a URL in the one spelling of all that mean the same (RFC 3986 6.2)."""
    parts = urlsplit(url)
    host = parts.netloc.lower().removesuffix({"http": ":80", "https": ":443"}[parts.scheme])
    return parts._replace(netloc=host, path=parts.path.rstrip("/")).geturl()


def _find_host(url: str, schemes: set[str]) -> str:
    """Return the host of a URL; nothing where it is none, or one that no connection can be made to."""
    if re.search(r"[\x00-\x20\x7f]", url):
        return ""  # urlsplit takes some of these out, and who reads the report would not know
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port  # .port raises where it is no number
        host.encode("idna")  # labels that are empty or too long
    except (ValueError, UnicodeError):
        return ""
    return host if parts.scheme in schemes else ""


def is_loopback(host: str) -> bool:
    """Tell whether `host` names this machine and no other, without asking the network."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
