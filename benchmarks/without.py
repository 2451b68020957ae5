"""`python -m benchmarks.without PART run USERS.csv ...`: bulkusers without one of its parts, to see what that costs.

Only to measure: what such a run says of its rows is worth nothing.
"""

import sys
from collections.abc import Callable
from typing import Any
from unittest import mock

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
    "the journal": {"bulkusers.journal.Journal.begin": nothing, "bulkusers.journal.Journal.__call__": nothing},
    "before-images": {"bulkusers.images.Images.__call__": nothing},
    "surviving a power cut": {"bulkusers.pipeline.Books.sync": nothing},
    "pace, pauses, outages": {"bulkusers.throttle.Traffic.guard": same_of},
    "counting requests": {"bulkusers.api.metered": same},
    "counting writes": {"bulkusers.api.counting": same},
    "renewing the token": {"bulkusers.tokens.Tokens.authenticating": same_of},
    "retries": {"bulkusers.api.retrying": same},
    "the brake": {"bulkusers.api.braking": same, "bulkusers.brake.Suspicion.__call__": nothing},
}
ALL = "all of these"
WHOLE = "nothing"


if __name__ == "__main__":
    wanted = sys.argv.pop(1)
    left_out = {WHOLE: [], ALL: [*PARTS]} | {part: [part] for part in PARTS}
    if wanted not in left_out:  # else the whole would be measured, and called something else
        sys.exit(f"there is no part {wanted!r}; what can be left out is {'; '.join(left_out)}")
    for each in left_out[wanted]:
        for target, substitute in PARTS[each].items():
            mock.patch(target, substitute).start()  # fails where nothing has that name any more
    sys.exit(main())
