"""The short torture of the undo: a few drawn runs are taken back, and wrong undos are caught."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from torture import CLIENT, EDIT, draw_case
from torture_undo import BY_JOURNAL, play
from wrong_clients import UNDO_MISTAKES

MANY: Final = 5  # the seed of a case in which many users are there before
KILLED: Final = {  # while users are created
    "seed": BY_JOURNAL, "existing": "skip", "switches": {"latency": 0.2}, "concurrency": 8, "rate": 0,
}  # fmt: skip
TRAPS: Final[Mapping[str, Mapping[str, Any]]] = {  # what a case must have for a mistake to show
    "compare_what_the_api_keeps": {"switches": {"updated_at": "kept"}},
    "keep_what_was_sent": {"switches": {"defaults": "filled"}},
    "put_back_the_first_image": {"existing": "merge", "faults": [EDIT | {"share": 0.3}]},
    "forget_who_has_no_image": KILLED,
    "let_the_run_go_on": KILLED,
}


@pytest.mark.parametrize(("seed", "kills"), [(1, 0), (2, 2), (BY_JOURNAL, 2)])
def test_an_undo_brings_everything_back(tmp_path: Path, seed: int, kills: int) -> None:
    """Whatever broke and however often it was killed, but for those whom somebody changed since."""
    assert play(draw_case(seed, 60, kills), tmp_path) == []


@pytest.mark.parametrize("mistake", UNDO_MISTAKES)
def test_a_wrong_undo_is_caught(tmp_path: Path, mistake: str) -> None:
    """The checker has teeth: each mistake is seen in one case, and it is the mistake, not the trap."""
    trap = TRAPS.get(mistake, {})
    case = replace(draw_case(MANY, 60, 1 if trap is KILLED else 0), **{"faults": (), "log_in": True, **trap})
    wrong, right = tmp_path / "wrong", tmp_path / "right"
    wrong.mkdir()
    right.mkdir()
    client = (sys.executable, str(Path(__file__).with_name("wrong_clients.py")), mistake)
    assert any(violation.startswith(("U2", "U3", "U4", "U7")) for violation in play(case, wrong, client))
    if trap:
        assert play(case, right, CLIENT) == []
