"""The short torture: a few drawn cases hold, and every wrong client is caught. `make torture` plays many more."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import pytest
from torture import CLIENT, Case, draw_case, play
from wrong_clients import MISTAKES

CASES: Final = 4  # in which a wrong client must have been caught
LOST: Final = {"method": "POST", "path": "*/users", "action": "reset_after", "share": 0.1}


@dataclass(frozen=True, slots=True)
class Trap:
    """What a case must have for a mistake to show."""

    rows: int = 60
    kills: int = 0
    focus: Mapping[str, Any] = field(default_factory=dict)
    switches: Mapping[str, Any] = field(default_factory=dict)
    faults: tuple[Mapping[str, Any], ...] = ()

    def draw(self, seed: int) -> Case:
        """Draw a case, and put the trap into it."""
        case = draw_case(seed, self.rows, self.kills)
        switches = {"duplicate": case.switches["duplicate"], **self.switches}
        focus: dict[str, Any] = {"concurrency": 10, "rate": 0, **self.focus}
        return replace(case, switches=switches, faults=self.faults, **focus)


LATE: Final = {"method": "POST", "path": "*/users", "action": "late_commit", "seconds": 1.0, "share": 0.1}
TRAPS: Final = {
    "resend_blindly": Trap(faults=(LOST,)),
    "call_created_without_a_look": Trap(faults=({**LOST, "action": "reset_before"},)),
    "call_lost_failed": Trap(faults=(LOST,)),
    "forget_who_was_begun": Trap(kills=2, focus={"existing": "skip", "concurrency": 20}, switches={"latency": 0.2}),
    "follow_redirects": Trap(faults=({**LOST, "action": "redirect", "method": "*", "path": "*/users*"},)),
    "believe_any_page": Trap(faults=({**LOST, "action": "html"},)),
    "resume_by_position": Trap(kills=2, focus={"rate": 100}),
    "record_before_writing": Trap(kills=3, focus={"concurrency": 20}, switches={"latency": 0.05}),
    "put_twice": Trap(focus={"existing": "overwrite"}),
    "send_updates_again": Trap(
        focus={"existing": "overwrite"}, faults=({**LOST, "action": "reset_before", "method": "PUT", "path": "*"},)
    ),
    "log_in_each": Trap(focus={"log_in": True}, faults=({"path": "*/users*", "action": "kill_token", "nth": 20},)),
    "forget_unknown_fields": Trap(focus={"existing": "merge"}),
    "retry_writes": Trap(faults=(LATE,)),
    "mail_everybody": Trap(focus={"notify": False}),
    "read_back_at_once": Trap(faults=(LATE,)),
    "ignore_the_rate": Trap(focus={"rate": 30, "concurrency": 20}),
    "keep_no_image": Trap(),
    "keep_the_wrong_image": Trap(focus={"existing": "merge"}),
    "tell_the_token": Trap(),
}


def test_there_is_a_trap_for_every_mistake() -> None:
    """A wrong client that nobody tries to catch proves nothing."""
    assert TRAPS.keys() == MISTAKES.keys()


def test_a_case_is_drawn_alike_each_time() -> None:
    """A seed that failed can be played again."""
    assert draw_case(7, 100, 3) == draw_case(7, 100, 3)
    assert draw_case(7, 100, 3) != draw_case(8, 100, 3)


@pytest.mark.parametrize(("seed", "kills"), [(1, 0), (2, 2)])
def test_the_report_is_true_whatever_breaks(tmp_path: Path, seed: int, kills: int) -> None:
    """A drawn file, drawn modes, faults and kills: what the report says is what the server holds."""
    assert play(draw_case(seed, 120, kills), tmp_path, CLIENT) == []


@pytest.mark.parametrize("mistake", TRAPS)
def test_a_wrong_client_is_caught(tmp_path: Path, mistake: str) -> None:
    """The checker has teeth: each mistake is seen within a few cases, and it is the mistake, not the trap."""
    wrong = (sys.executable, str(Path(__file__).with_name("wrong_clients.py")), mistake)
    for seed in range(1, CASES + 1):
        case = TRAPS[mistake].draw(seed)
        violations = play(case, make_folder(tmp_path / f"wrong-{seed}"), wrong)
        assert not any("left no report" in violation for violation in violations), "a crash proves nothing"
        if violations:
            break
    else:
        pytest.fail(f"{mistake} was not seen in {CASES} cases")
    if is_first_of_its_kind(mistake):
        assert play(case, make_folder(tmp_path / "right"), CLIENT) == []


def make_folder(path: Path) -> Path:
    """Make a folder to play in."""
    path.mkdir()
    return path


def is_first_of_its_kind(mistake: str) -> bool:
    """Tell whether no mistake before this one has the same trap."""
    return mistake == next(other for other, trap in TRAPS.items() if trap == TRAPS[mistake])
