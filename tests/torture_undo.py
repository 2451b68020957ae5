"""Runs that were killed and resumed under drawn faults, then taken back, killed and resumed again, and checked.

`python tests/torture_undo.py --seed 1 --cases 10 --kills 4 --rows 200` plays as `torture.py` does. After each run a
few users are changed by hand; after the undo every other user's record has to be what it was before the run.
"""

import json
import random
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from torture import CLIENT, PASSWORD, Case, Stage, draw_moments, main, play_process, play_run, staging
from torture_checker import check_secrets_of, key_of

ARGUMENTS: Final = ("undo", "results.json", "--yes", "--resume")
COLLEAGUE: Final = "colleague@example.edu"
BY_HAND: Final = 3  # users who are changed after the run
MOST: Final = 20  # processes until an undo must have ended
UNCLEAR: Final = {"failed", "unknown"}

Record = dict[str, Any]


def play(case: Case, folder: Path, client: tuple[str, ...] = CLIENT) -> list[str]:
    """Play a run and its undo; return the violations."""
    with staging(case, folder, client) as stage:
        before = stage.state()
        if violations := play_run(stage, case, before):
            return violations
        run = json.loads((folder / "results.json").read_bytes())
        after = stage.state()["users"]
        by_hand = change_by_hand(stage, case, run)
        code = play_undo(stage, case)
        if isinstance(code, str):
            return [code]
        stage.ask("POST", "_sandbox/settle")
        report = folder / "results.undo.json"
        if not report.exists():
            return [f"U1: the undo ended with {code} and left no report: {stage.texts}"]
        undo = json.loads(report.read_bytes())
        evidence = Evidence(run, undo, code, before["users"], after, by_hand, stage.state()["users"])
        return [*check(evidence), *check_secrets_of(stage.texts, [PASSWORD])]


def change_by_hand(stage: Stage, case: Case, run: Mapping[str, Any]) -> dict[str, Record]:
    """Change a few of the users whom the run changed, as a colleague would; return their records since."""
    draw = random.Random(case.seed)
    changed = [row["email"] for row in run["rows"] if row["status"] in {"created", "updated"}]
    faults, quick = list(case.faults), {"latency": 0.0, "commit_delay": 0.0, "read_lag": 0.0, "rate_limit": 0}
    stage.ask("POST", "_sandbox/faults", [])
    stage.ask("POST", "_sandbox/switches", {**case.switches, **quick})
    records: dict[str, Record] = {key_of(email): record for email, record in stage.state()["users"].items()}
    token = json.loads(stage.ask("POST", "sessions", {"email": COLLEAGUE, "plaintextPassword": PASSWORD}))["token"]
    by_hand = {}
    for email in draw.sample(changed, min(BY_HAND, len(changed))):
        record = records[key_of(email)] | {"notes": "changed by hand"}
        answer = stage.ask("PUT", f"example_university/users/{record['email']}", record, token=token)
        by_hand[key_of(email)] = json.loads(answer)
    stage.ask("POST", "_sandbox/switches", dict(case.switches))
    stage.ask("POST", "_sandbox/faults", faults)
    return by_hand


def play_undo(stage: Stage, case: Case) -> int | str:
    """Play the undo to its end; return its exit code, or a violation."""
    stage.report = "results.undo.json"
    moments = draw_moments(random.Random(case.seed + 1), 60, len(case.moments) // 2)
    options = ["--rate", str(case.rate), "--concurrency", str(case.concurrency), "--timeout", str(case.timeout)]
    for _ in range(MOST):
        if not case.log_in:
            stage.log_in()
        code = play_process(stage, case, next(moments, None), [*ARGUMENTS, *options])
        if code is not None and code not in (4, 143):  # a token that died, or a stop in good order: it goes on
            return code
    return f"U1: there is no end to the undo after {MOST} processes"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a run and its undo."""

    run: Mapping[str, Any]
    undo: Mapping[str, Any]
    code: int
    before: Mapping[str, Record]
    after: Mapping[str, Record]  # the run
    by_hand: Mapping[str, Record]
    end: Mapping[str, Record]


def check(evidence: Evidence) -> Iterator[str]:
    """Yield what is not as it must be."""
    before, after, end = (
        {key_of(email): record for email, record in records.items()}
        for records in (evidence.before, evidence.after, evidence.end)
    )
    rows = {key_of(row["email"]): row for row in evidence.undo["rows"]}
    unclear = {key_of(row["email"]) for row in evidence.run["rows"] if row["status"] == "unknown"}
    for key in before.keys() | after.keys():
        row = rows.get(key, {})
        name = f"{key} ({row.get('status', 'in no row of the undo')})"
        if key in evidence.by_hand:
            if end.get(key) != evidence.by_hand[key]:
                yield f"U2: {name} was changed by hand, and is {end.get(key)}, not {evidence.by_hand[key]}"
            if (row.get("status"), row.get("code")) not in {
                ("skipped", "changed-since"),
                ("skipped", "maybe-not-created"),
            }:
                yield f"U2: {name} was changed by hand, and is not listed: {row}"
        elif key in before:
            allowed = [before[key], after[key]] if row.get("status") in UNCLEAR else [before[key]]
            if _text(end.get(key)) not in map(_text, allowed):
                yield f"U3: {name} is {end.get(key)}, and was {before[key]} before the run and {after[key]} after it"
        else:
            gone = after[key] | {"status": "inactive", "products": []}
            left = (
                row.get("status") in UNCLEAR or row.get("code") == "maybe-not-created" or (not row and key in unclear)
            )
            if end.get(key) != gone and not (left and end.get(key) == after[key]):
                yield f"U4: {name} was created by the run, and is {end.get(key)}"
    skipped = {key for key, row in rows.items() if row.get("code") == "changed-since"}
    if extra := skipped - evidence.by_hand.keys():
        yield f"U5: nobody changed {sorted(extra)[:5]} since the run: {rows[min(extra)]}"
    counts = evidence.undo["counts"]
    code = 5 if counts["failed"] or counts["unknown"] else 6 if counts["rejected"] else 0
    if evidence.code != code:
        yield f"U6: the undo ended with {evidence.code}, and {counts} asks for {code}"


def _text(record: Record | None) -> str:
    """Return a record byte for byte."""
    return json.dumps(record)


if __name__ == "__main__":
    sys.exit(main(play))
