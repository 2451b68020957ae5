"""What several test files make: settings, users, outcomes, rules, a full disk, and a loop whose time passes at once."""

import asyncio
import resource
import selectors
import signal
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from bulkusers.models import Outcome, Status, User
from bulkusers.profile import load_profile
from bulkusers.rules import Rules
from bulkusers.settings import Settings

for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:  # as nohup and a shell's & leave it, and programs would inherit
        signal.signal(number, usual)

MakeSettings = Callable[..., Settings]
MakeOutcome = Callable[..., Outcome]
MakeUser = Callable[..., User]
MakeRules = Callable[..., Rules]
RunAtOnce = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(autouse=True, scope="session")
def own_temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the locks of thousands of accounts out of the folder that everybody shares."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("tmp")))
        patch.setattr(tempfile, "tempdir", None)  # asked anew
        yield


@pytest.fixture
def make_settings() -> MakeSettings:
    """Return a function that makes settings for a school of the staging environment, any of them said otherwise."""

    def make(**overrides: Any) -> Settings:  # noqa: ANN401 - any setting
        return Settings(**{"base_url": "https://staging.example.edu/api/v1", "school": "example"} | overrides)

    return make


@pytest.fixture
def make_outcome() -> MakeOutcome:
    """Return a function that makes a row's outcome; a code brings a message and a hint of its own."""

    def make(row: int = 2, status: Status = Status.CREATED, code: str = "", **more: Any) -> Outcome:  # noqa: ANN401 - any field
        if code:
            more = {"message": f"this is {code}", "hint": f"mend {code}"} | more
        return Outcome(row, more.pop("email", f"row{row}@example.edu"), status, code, **more)

    return make


@pytest.fixture
def make_user() -> MakeUser:
    """Return a function that makes a user with the required fields only, any of them said otherwise."""

    def make(row: int = 2, **more: Any) -> User:  # noqa: ANN401 - any field
        required = {"email": f"row{row}@example.edu", "first_name": "Ann", "last_name": "Lee", "products": ("events",)}
        return User(row, **required | more)

    return make


@pytest.fixture
def make_rules() -> MakeRules:
    """Return a function that makes the rules of one school, any of them said otherwise."""

    def make(**more: Any) -> Rules:  # noqa: ANN401 - any rule
        return Rules(load_profile(), "example", **more)

    return make


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let the system refuse to make any file longer, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


MOST_TURNS = 100_000  # of a loop without waiting; no alarm would interrupt it


class _NoWaiting(selectors.DefaultSelector):
    """Instead of waiting, moves a clock on by the time it was asked to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.turns += 1
        if self.turns > MOST_TURNS:
            raise TimeoutError("nothing will end this wait")
        self.now += max(timeout or 0.0, 1e-6)  # a clock that stood still would let a timer wait for ever
        return super().select(0)


class _LoopWithoutWaiting(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._clock = _NoWaiting()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now


@pytest.fixture
def run_at_once() -> RunAtOnce:
    """Return a function that runs a coroutine in a loop where hours of `asyncio.sleep` pass at once."""

    def run(main: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=_LoopWithoutWaiting) as runner:
            runner.run(main)

    return run
