"""Runs that were killed and resumed under drawn faults, then taken back, killed and resumed again, and checked.

`python tests/torture_undo.py --seed 1 --cases 10 --kills 4 --rows 200` plays as `torture.py` does; of some runs that
are killed the first process is all there is, and is taken back by its journal. After each run a few users are changed
by hand; after the undo every other user's record has to be what it was before the run, or the undo's report says why.
"""

import json
import random
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from torture import CLIENT, PASSWORD, Case, Moment, Stage, draw_moments, main, play_process, play_run, staging
from torture_checker import EDITED, SERVERS_OWN, check_secrets_of, find_edited, key_of

BY_JOURNAL: Final = 3  # one in so many cases with kills
KILLS: Final = (Moment("ledger", 30), Moment("journal", 30))  # of those
COLLEAGUE: Final = "colleague@example.edu"
BY_HAND: Final = 3  # users who are changed after the run
MOST: Final = 20  # processes until an undo must have ended
UNCLEAR: Final = {"failed", "unknown"}
MAYBE: Final = {"maybe-created", "maybe-not-created"}  # codes of those whom the run may have created, or not
REFUSED: Final = 3

Record = dict[str, Any]


def play(case: Case, folder: Path, client: tuple[str, ...] = CLIENT) -> list[str]:
    """Play a run and its undo; return the violations."""
    with staging(case, folder, client) as stage:
        before = stage.state()
        results, code = "results.json", None
        if case.moments and case.seed % BY_JOURNAL == 0:
            code = play_process(stage, case, random.Random(case.seed).choice(KILLS))
            results += ".journal" if code is None and stage.written() > 1 else ""
        if results == "results.json" and code is None and (violations := play_run(stage, case, before)):
            return violations
        stage.ask("POST", "_sandbox/settle")
        after = stage.state()["users"]
        edited = find_edited(stage.ledger())
        by_hand = change_by_hand(stage, case, list(read_changed(folder / results)))
        code = play_undo(stage, case, results)
        if isinstance(code, str):
            return [code]
        stage.ask("POST", "_sandbox/settle")
        report = folder / "results.undo.json"
        if not report.exists():
            return [f"U1: the undo ended with {code} and left no report: {stage.texts}"]
        undo = json.loads(report.read_bytes())
        evidence = Evidence(undo, code, before["users"], after, by_hand, edited, stage.state()["users"])
        violations = [*check(evidence), *check_secrets_of(stage.texts, [PASSWORD])]
        stage.report = "results.json"
        if results != "results.json" and (went_on := stage.live(stage.start(case), None)) != REFUSED:
            violations.append(f"U7: the run that was taken back was gone on with, and ended with {went_on}")
        return violations


def read_changed(results: Path) -> Iterator[str]:
    """Yield the e-mails of the users whom a run changed, by its report or its journal."""
    if results.suffix == ".json":
        rows = json.loads(results.read_bytes())["rows"]
    else:
        rows = [json.loads(line) for line in results.read_bytes().splitlines() if line.endswith(b"}")][1:]
    yield from (row["email"] for row in rows if row.get("status") in {"created", "updated"})


def change_by_hand(stage: Stage, case: Case, changed: Sequence[str]) -> dict[str, Record]:
    """Change a few of the users whom the run changed, as a colleague would; return their records since."""
    draw = random.Random(case.seed)
    # what a colleague does while the undo goes on is another matter
    faults = [fault for fault in case.faults if fault["action"] != "edit"]
    quick = {"latency": 0.0, "commit_delay": 0.0, "read_lag": 0.0, "rate_limit": 0}
    stage.ask("POST", "_sandbox/faults", [])
    stage.ask("POST", "_sandbox/switches", {**case.switches, **quick})
    records: dict[str, Record] = {key_of(email): record for email, record in stage.state()["users"].items()}
    token = json.loads(stage.ask("POST", "sessions", {"email": COLLEAGUE, "plaintextPassword": PASSWORD}))["token"]
    by_hand = {}
    for email in draw.sample(changed, min(BY_HAND, len(changed))):
        record = records[key_of(email)] | {"notes": "changed by hand"}
        answer = stage.ask("PUT", f"example_university/users/{record['email']}", record, token=token)
        by_hand[key_of(email)] = {name: value for name, value in json.loads(answer).items() if name != "updatedAt"}
    stage.ask("POST", "_sandbox/switches", dict(case.switches))
    stage.ask("POST", "_sandbox/faults", faults)
    return by_hand


def play_undo(stage: Stage, case: Case, results: str) -> int | str:
    """Play the undo to its end; return its exit code, or a violation."""
    stage.report = "results.undo.json"
    moments = draw_moments(random.Random(case.seed + 1), 60, len(case.moments) // 2)
    options = ["--rate", str(case.rate), "--concurrency", str(case.concurrency), "--timeout", str(case.timeout)]
    for _ in range(MOST):
        if not case.log_in:
            stage.log_in()
        code = play_process(stage, case, next(moments, None), ["undo", results, "--yes", "--resume", *options])
        if code is not None and code not in (4, 143):  # a token that died, or a stop in good order: it goes on
            return code
    return f"U1: there is no end to the undo after {MOST} processes"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a run and its undo."""

    undo: Mapping[str, Any]
    code: int
    before: Mapping[str, Record]
    after: Mapping[str, Record]  # the run
    by_hand: Mapping[str, Record]
    edited: Collection[str]  # while the run went on
    end: Mapping[str, Record]


def check(evidence: Evidence) -> Iterator[str]:
    """Yield what is not as it must be."""
    before, after, end = (
        {key_of(email): record for email, record in records.items()}
        for records in (evidence.before, evidence.after, evidence.end)
    )
    for key in evidence.edited:
        if EDITED in (after[key].get("notes"), end[key].get("notes")):
            before[key] = before[key] | {"notes": EDITED}
    rows = {key_of(row["email"]): row for row in evidence.undo["rows"]}
    for key in before.keys() | after.keys():
        row = rows.get(key, {})
        name = f"{key} ({row.get('status', 'in no row of the undo')})"
        if key in evidence.by_hand:
            yield from check_changed_since(name, row, evidence.by_hand[key], end.get(key))
        elif key in before:
            yield from check_updated(name, row, before[key], after[key], end.get(key))
        else:
            yield from check_created(name, row, after[key], end.get(key))
    skipped = {key for key, row in rows.items() if row.get("code") == "changed-since"}
    if extra := skipped - evidence.by_hand.keys() - set(evidence.edited):
        yield f"U5: nobody changed {sorted(extra)[:5]} since the run: {rows[min(extra)]}"
    counts = evidence.undo["counts"]
    code = 5 if counts["failed"] or counts["unknown"] else 6 if counts["rejected"] or counts["skipped"] else 0
    if evidence.code != code:
        yield f"U6: the undo ended with {evidence.code}, and {counts} asks for {code}"


def check_changed_since(name: str, row: Record, by_hand: Record, end: Record | None) -> Iterator[str]:
    """Check that a user whom a colleague changed since is left alone, and listed."""
    if end != by_hand:
        yield f"U2: {name} was changed by hand, and is {end}, not {by_hand}"
    if row.get("status") != "skipped" or row.get("code") not in {"changed-since", *MAYBE}:
        yield f"U2: {name} was changed by hand, and is not listed"


def check_updated(name: str, row: Record, before: Record, after: Record, end: Record | None) -> Iterator[str]:
    """Check that a user who was there before is as before, byte for byte."""
    allowed = [before, after] if row.get("status") in UNCLEAR else [before]
    if json.dumps(end) not in map(json.dumps, allowed):
        yield f"U3: {name} is {end}, and was {before} before the run and {after} after it"


def check_created(name: str, row: Record, after: Record, end: Record | None) -> Iterator[str]:
    """Check that a user whom the run created is retired, or listed as one whom it may have created."""
    gone = after | {"status": "inactive", "products": []}
    left = row.get("status") in UNCLEAR or row.get("code") in MAYBE
    if end != gone and not (left and end is not None and but_for_the_servers(end) == but_for_the_servers(after)):
        yield f"U4: {name} was created by the run, and is {end}"


def but_for_the_servers(record: Record) -> Record:
    """Return a record without what the server filled in, which an overwrite takes away."""
    return {name: value for name, value in record.items() if name not in SERVERS_OWN}


if __name__ == "__main__":
    sys.exit(main(play))
