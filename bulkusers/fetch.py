"""What is at the paths of an API that nobody knows yet: whatever comes is a value, and a 401 stops nothing."""

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import orjson

from bulkusers.answers import ask
from bulkusers.api import Api
from bulkusers.brake import Brake
from bulkusers.directory import read_entries
from bulkusers.errors import ApiError, Interrupted
from bulkusers.models import Request, Response
from bulkusers.rules import Rules
from bulkusers.snapshot import Snapshot, take_snapshot

MOST: Final = 1 << 26  # bytes of an answer that is looked at whole


@dataclass(frozen=True, slots=True)
class Fetched:
    """What came when something was asked for."""

    status: int  # 0: no answer
    said: object = None  # its JSON
    words: str = ""  # the status, or why there is no answer

    @property
    def good(self) -> bool:
        """Tell whether it is what was asked for."""
        return 200 <= self.status < 300


class Fetcher:
    """Gets what is at the paths of an API profile; changes nothing.

    Every method raises `Interrupted` where a person or the system asked to stop.
    """

    def __init__(self, api: Api, rules: Rules, brake: Brake) -> None:
        self._api = api
        self._rules = rules
        self._brake = brake

    async def fetch(self, template: str, email: str = "", *, encoded: bool = True) -> Fetched:
        """Get what is at a path of the profile, however large."""
        path = self._rules.path(template, email)
        with tempfile.TemporaryFile() as file:
            request = Request("GET", path if encoded else path.replace("%40", "@"), into=file)
            answer = await self._api.read(ask(request), vital=False)
            self._heed_signals()
            if not isinstance(answer, Response):
                return Fetched(0, words=str(answer))
            file.seek(0)
            body = file.read(MOST) if 200 <= answer.status < 300 else b""
        try:
            return Fetched(answer.status, orjson.loads(body), str(answer.status))
        except orjson.JSONDecodeError:
            return Fetched(answer.status, words=str(answer.status))

    async def fetch_first(self, templates: Iterable[str]) -> Fetched:
        """Get what is at the first of some paths that is there; the last answer where none is."""
        found = Fetched(0)
        for template in templates:
            found = await self.fetch(template)
            if found.status != 404:
                break
        return found

    async def find_path(self, name: str, templates: Iterable[str]) -> str:
        """Return the first path that answers with records of this name; nothing if none does."""
        for template in dict.fromkeys(templates):
            if read_entries((await self.fetch(template)).said, name):
                return template
        return ""

    async def read_users(self) -> tuple[Snapshot | None, ApiError | None]:
        """Return all users, or why they cannot be read."""
        try:
            return await self._api.read(take_snapshot(self._rules), vital=False), None
        except ApiError as error:
            self._heed_signals()
            return None, error

    def _heed_signals(self) -> None:
        if isinstance(self._brake.reason, Interrupted):
            raise self._brake.reason
