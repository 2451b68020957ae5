"""The short torture of the undo: a few drawn runs are taken back, and wrong undos are caught."""

import sys
from pathlib import Path

import pytest
from torture import draw_case
from torture_undo import play
from wrong_clients import UNDO_MISTAKES


@pytest.mark.parametrize(("seed", "kills"), [(1, 0), (2, 2)])
def test_an_undo_brings_everything_back(tmp_path: Path, seed: int, kills: int) -> None:
    """Whatever broke and however often it was killed, but for those whom somebody changed since."""
    assert play(draw_case(seed, 60, kills), tmp_path) == []


@pytest.mark.parametrize("mistake", UNDO_MISTAKES)
def test_a_wrong_undo_is_caught(tmp_path: Path, mistake: str) -> None:
    """The checker has teeth: each mistake is seen in one case without faults."""
    client = (sys.executable, str(Path(__file__).with_name("wrong_clients.py")), mistake)
    violations = play(draw_case(1, 60, 0), tmp_path, client)
    assert any(violation.startswith(("U2", "U3", "U4")) for violation in violations)
