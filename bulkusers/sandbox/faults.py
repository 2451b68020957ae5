"""What goes wrong on purpose: a script of faults, and which request meets which."""

import fnmatch
import hashlib
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields
from pathlib import Path
from typing import Final

import orjson

ACTIONS: Final[Mapping[str, bool]] = {  # and whether the request is carried out although it goes wrong
    "status": False,  # answers `status` (500) with `body` and `headers`
    "delay": True,  # answers the truth, `seconds` late
    "reset_before": False,  # resets the connection instead of doing anything
    "reset_after": True,  # does it, and resets the connection instead of answering
    "cut_body": True,  # does it, and resets the connection in the middle of the answer's body
    "late_commit": True,  # answers `status` (504; 0 = reset), and does it `seconds` later
    "kill_token": True,  # answers the truth, having killed all tokens of the account that asks
    "html": False,  # answers 200 with a login page
    "redirect": False,  # answers `status` (302) to `location`
    "garbage": False,  # answers what is not HTTP
    "wrong_body": True,  # answers with `body`, or with the record of somebody else
    "hang": False,  # never answers
    "edit": False,  # somebody else changes the user's notes, and the connection is reset
}
TRUTHFUL: Final = ("delay", "cut_body", "late_commit", "kill_token")  # what is answered has been, or will be, done


@dataclass(frozen=True, slots=True)
class Fault:
    """One line of the script: an action, and the requests that meet it; all conditions must hold.

    Raises:
        ValueError: a field is not what it may be; the message names it.

    """

    method: str = "*"
    path: str = "*"  # glob on the decoded path, with or without the /api/v1 before it; "*" also stands for "/"
    _: KW_ONLY
    action: str
    nth: int | None = None  # only the nth request that method, path and time select
    every: int | None = None  # only every so many of them
    share: float | None = None  # only this share of them: the same for a seed, in whatever order they come
    times: int | None = None  # at most this often
    start: float = 0.0  # seconds since the script was set
    stop: float = math.inf  # seconds since the script was set
    status: int | None = None
    body: object = None  # text is sent as it is, anything else as JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0  # for delay and late_commit
    location: str = "/login"  # for redirect
    write: bool | None = None  # whether the request is carried out; None = as ACTIONS has it

    def __post_init__(self) -> None:
        for name, (rule, holds) in RULES.items():
            value = getattr(self, name)
            if not holds(value):
                raise ValueError(f"a fault's {name} is {rule}, not {value!r}")
        if self.write is False and self.action in TRUTHFUL:
            raise ValueError(f"a fault's write cannot be false for {self.action}: its answer is the true one")

    @property
    def writes(self) -> bool:
        """Tell whether the request is carried out."""
        return ACTIONS[self.action] if self.write is None else self.write


def _number(value: object, low: float, high: float = math.inf) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _count(value: object) -> bool:
    return value is None or (isinstance(value, int) and _number(value, 1))


RULES: Final[Mapping[str, tuple[str, Callable[[object], bool]]]] = {
    "action": (f"one of {', '.join(ACTIONS)}", lambda value: isinstance(value, str) and value in ACTIONS),
    "method": ('a method in capitals or "*"', lambda value: isinstance(value, str) and value == value.upper() != ""),
    "path": ("a glob", lambda value: isinstance(value, str)),
    "nth": ("a whole number from 1", _count),
    "every": ("a whole number from 1", _count),
    "times": ("a whole number from 1", _count),
    "share": ("a number from 0 to 1", lambda value: value is None or _number(value, 0, 1)),
    "start": ("a number of seconds", lambda value: _number(value, 0)),
    "stop": ("a number of seconds", lambda value: _number(value, 0)),
    "seconds": ("a number of seconds up to 3600", lambda value: _number(value, 0, 3600)),
    "status": (
        "a whole number from 200 to 599, or 0",
        lambda value: value in (None, 0) or (isinstance(value, int) and _number(value, 200, 599)),
    ),
    "headers": (
        "an object of texts",
        lambda value: (
            isinstance(value, Mapping) and all(isinstance(text, str) for pair in value.items() for text in pair)
        ),
    ),
    "location": ("an address", lambda value: isinstance(value, str)),
    "write": ("true or false", lambda value: value is None or isinstance(value, bool)),
}


def load_faults(path: Path) -> list[Fault]:
    """Read a script from a JSON file.

    Raises:
        ValueError: the file cannot be read, or is not a script; the message says what is wrong.

    """
    try:
        return read_faults(path.read_bytes())
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def read_faults(script: bytes) -> list[Fault]:
    """Read a script from JSON: a list of objects with the fields of a `Fault`.

    Raises:
        ValueError: it is not that; the message says which entry is wrong and how.

    """
    entries = orjson.loads(script)
    if not isinstance(entries, list):
        raise ValueError("a script of faults is a JSON list")  # noqa: TRY004 - one kind of error for a bad script
    return [_read_fault(number, entry) for number, entry in enumerate(entries, start=1)]


def _read_fault(number: int, entry: object) -> Fault:
    if not isinstance(entry, dict) or "action" not in entry:
        raise ValueError(f"fault {number} is not an object with an action")
    names = [each.name for each in fields(Fault)]
    for name in entry:
        if name not in names:
            raise ValueError(f"fault {number}: there is no field {name!r}, only {', '.join(names)}")
    try:
        return Fault(**entry)
    except ValueError as error:
        raise ValueError(f"fault {number}: {error}") from None


class Script:
    """A script being played: it counts requests, and names the fault that each one meets."""

    def __init__(self, faults: Sequence[Fault], *, seed: int, started: float) -> None:
        self.faults = tuple(faults)
        self._started = started  # loop.time()
        self._lines = [_Line(fault, f"{seed}/{number}") for number, fault in enumerate(faults)]

    def next_fault(self, method: str, path: str, now: float) -> Fault | None:
        """Count a request, and return the first fault that is due for it; `path` is decoded, below the base."""
        due = None
        for line in self._lines:
            # every line counts every request that it selects, also when an earlier line goes first
            if line.selects(method, path, now - self._started) and line.is_due(method, path) and due is None:
                line.played += 1
                due = line.fault
        return due


class _Line:
    """One fault, and how often it was selected and played."""

    def __init__(self, fault: Fault, seed: str) -> None:
        self.fault = fault
        self.played = 0
        self._selected = 0
        self._alike: Counter[tuple[str, str]] = Counter()  # requests by method and path
        self._seed = seed
        self._glob = re.compile(fnmatch.translate(fault.path))

    def selects(self, method: str, path: str, elapsed: float) -> bool:
        fault = self.fault
        if fault.method not in ("*", method) or not fault.start <= elapsed < fault.stop:
            return False
        return self._glob.match(path) is not None or self._glob.match(f"/api/v1{path}") is not None

    def is_due(self, method: str, path: str) -> bool:
        """Count a selected request, and tell whether this is one that goes wrong."""
        fault = self.fault
        self._selected += 1
        return (
            (fault.nth is None or self._selected == fault.nth)
            and (fault.every is None or self._selected % fault.every == 0)
            and (fault.share is None or self._draw(method, path) < fault.share)
            and (fault.times is None or self.played < fault.times)
        )

    def _draw(self, method: str, path: str) -> float:
        """Draw from [0, 1) by what the request is, not by when it comes: concurrent runs repeat, too."""
        self._alike[method, path] += 1
        what = f"{self._seed} {method} {path} {self._alike[method, path]}"
        return int.from_bytes(hashlib.blake2b(what.encode(), digest_size=8).digest()) / 2**64
