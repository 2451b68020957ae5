"""`python -m benchmarks.without PART run USERS.csv ...`: bulkusers without one of its parts, to see what that costs.

Only to measure: what such a run says of its rows is worth nothing.
"""

import importlib
import sys
from collections.abc import Callable
from typing import Any

from bulkusers.__main__ import main


def nothing(*_: object, **__: object) -> None:
    """Do nothing."""


def same(send: object, *_: object, **__: object) -> object:
    """Return a `Send` as it is."""
    return send


def same_of(_: object, send: object, *__: object, **___: object) -> object:
    """Return a `Send` as it is, as a method."""
    return send


PARTS: dict[str, dict[str, Callable[..., Any]]] = {
    "the journal": {"bulkusers.journal:Journal.begin": nothing, "bulkusers.journal:Journal.__call__": nothing},
    "before-images": {"bulkusers.images:Images.__call__": nothing},
    "surviving a power cut": {"bulkusers.pipeline:Books.sync": nothing},
    "pace, pauses, outages": {"bulkusers.throttle:Traffic.guard": same_of},
    "counting requests": {"bulkusers.api:metered": same},
    "counting writes": {"bulkusers.api:counting": same},
    "renewing the token": {"bulkusers.tokens:Tokens.authenticating": same_of},
    "retries": {"bulkusers.api:retrying": same},
    "the brake": {"bulkusers.api:braking": same, "bulkusers.brake:Suspicion.__call__": nothing},
}
ALL = "all of these"


def owner_of(target: str) -> tuple[Any, str]:
    """Return the module or class that something belongs to, and its name."""
    module, _, path = target.partition(":")
    owner: Any = importlib.import_module(module)
    *classes, name = path.split(".")
    for each in classes:
        owner = getattr(owner, each)
    return owner, name


def is_there(part: str) -> bool:
    """Tell whether the program still has a part by the names that are known here."""
    try:
        owners = [owner_of(target) for target in PARTS[part]]
    except (ImportError, AttributeError):
        return False
    return all(name in vars(owner) for owner, name in owners)


def leave_out(part: str) -> None:
    """Take a part out of this process's program."""
    for target, substitute in PARTS[part].items():
        owner, name = owner_of(target)
        setattr(owner, name, substitute)


if __name__ == "__main__":
    wanted = sys.argv.pop(1)
    for each in PARTS if wanted == ALL else [wanted] * (wanted in PARTS):
        if is_there(each):
            leave_out(each)
    sys.exit(main())
