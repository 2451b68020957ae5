"""The short form of the failpoints: some of each kind hold, and mistakes are seen. `make torture` plays them all."""

from pathlib import Path
from typing import Final

import pytest
from failpoints import MODES, SWEEPS, Point, make_case, play
from wrong_clients import STORAGE_MISTAKES

# Each process of a run meets one point; all but the last end there, and the next one goes on.
RUNS: Final = (
    ("merge", "create fail 2, write die-torn 12, truncate fail 1, fdatasync die-before 1, send break-after 3"),
    ("skip", "send die-after 2, write fail-torn 5, send break-before 4"),
    ("overwrite", "fsync fail 1, rename die-after 1, disk full 3, remove die-after 1"),
    ("merge", "send refuse 5"),
)
SHOWN: Final = {  # where a mistake is seen
    "remove_the_journal_first": ("skip", "rename die-before 3"),
    "begin_afterwards": ("skip", "send die-after 2"),
    "go_on_when_full": ("merge", "write fail 5"),
    "keep_the_torn_end": ("merge", "write die-torn 5, write die-after 3"),
}


def read(text: str) -> list[Point]:
    """Return the points that a text names."""
    words = [point.split() for point in text.split(", ")]
    return [Point(kind, mode, int(number)) for kind, mode, number in words]


@pytest.mark.parametrize(("existing", "points"), RUNS)
def test_a_run_is_true_wherever_its_processes_failed(tmp_path: Path, existing: str, points: str) -> None:
    """Every process comes to its point and ends as it should, and the report of the last one is the truth."""
    violations, came = play(make_case(existing, 1), read(points), tmp_path)
    assert violations == []
    assert came == len(read(points))


@pytest.mark.parametrize("mistake", SHOWN)
def test_a_mistake_is_seen_at_a_failpoint(tmp_path: Path, mistake: str) -> None:
    """The points have teeth: a client that keeps its journal wrong is caught."""
    existing, points = SHOWN[mistake]
    violations, came = play(make_case(existing, 1), read(points), tmp_path, mistake)
    assert violations
    assert came == len(read(points))


def test_the_short_form_forgets_nothing() -> None:
    """Every mistake with files is looked for; every kind of operation and every way to fail is there."""
    played = [point for _, points in RUNS for point in read(points)]
    assert SHOWN.keys() == STORAGE_MISTAKES.keys()
    assert {kind for *_, kinds in SWEEPS for kind in kinds} == {point.kind for point in played} == MODES.keys()
    assert {point.mode for point in played} == {mode for modes in MODES.values() for mode in modes}
