"""What must hold of a run whatever broke: judged from the file, the report, and what the server holds and was asked.

Nothing of bulkusers is imported, so that a mistake there cannot agree with itself. Each check yields violations, a
sentence each. What was killed promises no less than what was not, but for one thing: the attempts of a killed process
are in no report, so the server may have seen more writes than the report counts.
"""

import csv
import io
import json
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final
from urllib.parse import unquote

Record = dict[str, Any]

SCALARS: Final = {
    "First Name": "firstName",
    "Last Name": "lastName",
    "Department": "department",
    "External ID": "externalId",
    "Status": "status",
}
LISTS: Final = {"Products": "products", "Role IDs": "roles", "Secondary Departments": "secondaryDepartments"}
KNOWN: Final = {"email", *SCALARS.values(), *LISTS.values()}
SERVERS_OWN: Final = ("_id", "createdAt", "timezone")  # fields that the server adds to a record
EDITED: Final = "changed by a colleague"  # what notes say that somebody else changed while the run went on
STATUSES: Final = ("created", "updated", "unchanged", "skipped", "rejected", "failed", "unknown", "unprocessed")
APPLIED: Final = {"created", "updated", "unchanged"}
STOPS: Final = {4, 7, 8, 10, 129, 130, 143}  # exit codes of a run that ended before its file
TOKEN: Final = re.compile(r"sandbox-[0-9a-f]{32}")
TARDY: Final = 0.25  # seconds by which a server may be late to notice that a connection is gone


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything that is known of a run, its killed beginnings included."""

    file: str
    invalid: frozenset[int]  # rows that no client may send
    unknown_ids: frozenset[int]  # rows that the server may refuse
    report: Mapping[str, Any]
    exit_code: int
    stop_wanted: bool  # somebody ended it by a signal, or let its time run out
    killed: int  # processes that were killed before this end
    before: Mapping[str, Record]
    after: Mapping[str, Record]
    mails: list[str]
    ledger: list[dict[str, Any]]
    foreign: frozenset[int]  # places in it that are not the client's
    web_logins: int  # that killed the client's token
    starts: list[int]  # how long the ledger was when each process started
    texts: Mapping[str, str]  # all that was ever written, by where
    secrets: list[str]
    existing: str
    lists: str
    notify: bool
    rate: float
    concurrency: int
    timeout: float


def find_violations(evidence: Evidence) -> list[str]:
    """Return what is not as it must be, a sentence each."""
    checks = (
        check_counts,
        check_rows,
        check_nobody_twice,
        check_strangers,
        check_mails,
        check_attempts,
        check_images,
        check_reasons,
        check_exit_code,
        check_secrets,
        check_traffic,
        check_logins,
    )
    return [violation for check in checks for violation in check(evidence)]


def key_of(email: str) -> str:
    """Return what two spellings of the same user's e-mail have in common."""
    return email.strip().lower()


def read_rows(text: str) -> dict[int, dict[str, str]]:
    """Return the file's cells by row number, as a spreadsheet counts, and column."""
    header, *rows = csv.reader(io.StringIO(text))
    return {
        number: dict(zip(header, [cell.strip() for cell in cells], strict=False))
        for number, cells in enumerate(rows, start=2)
    }


def wanted(cells: Mapping[str, str]) -> Record:
    """Return what a row says of its user: the cells that are not blank."""
    record: Record = {"email": cells["Email"]}
    for column, field in SCALARS.items():
        if cells.get(column):
            record[field] = cells[column].lower() if column == "Status" else cells[column]
    for column, field in LISTS.items():
        if values := [value.strip() for value in cells.get(column, "").split(",") if value.strip()]:
            record[field] = list(dict.fromkeys(values))
    return record


def holds(record: Record, said: Record, *, growing: bool) -> bool:
    """Tell whether a record has all that was said; lists that are growing may have more."""
    for field, value in said.items():
        present = record.get(field)
        if field == "email":
            if key_of(str(present)) != key_of(value):
                return False
        elif isinstance(value, list):
            if not isinstance(present, list) or len(present) != len(set(present)):
                return False
            if not (set(value) <= set(present) if growing else set(value) == set(present)):
                return False
        elif present != value:
            return False
    return True


def misapplied(row: Mapping[str, str], before: Record | None, after: Record, evidence: Evidence) -> str:
    """Say in what a record is not what the row makes of it; nothing, if it is."""
    said = wanted(row)
    merging = before is not None and evidence.existing == "merge"
    if not holds(after, said, growing=merging and evidence.lists == "add"):
        return "does not hold what the row says"
    if before is None:
        more = {field for field in after if after[field] and field not in said} - set(SERVERS_OWN)
        return f"holds {sorted(more)}, which nobody ordered" if more else ""
    if evidence.existing == "skip":
        return "was to be left alone, and was changed" if after != before else ""
    if after.get("_id") != before.get("_id"):
        return "is another record than before"
    if evidence.existing == "overwrite":
        more = {field for field in KNOWN - set(said) if after.get(field)}
        return f"still holds {sorted(more)}, which the row leaves blank" if more else ""
    if lost := [field for field in before if field not in said and after.get(field) != before[field]]:
        return f"lost or changed {sorted(lost)}, of which the row says nothing"
    if shrunk := [field for field in LISTS.values() if evidence.lists == "add" and not _grew(before, after, field)]:
        return f"lost values of {shrunk}"
    invented = [field for field in after if field not in before and field not in said]
    return f"holds {sorted(invented)}, which nobody ordered" if invented else ""


def _grew(before: Record, after: Record, field: str) -> bool:
    return set(before.get(field) or ()) <= set(after.get(field) or ())


def check_counts(evidence: Evidence) -> Iterator[str]:
    """Check that every data row has exactly one outcome, and that the counts are those of the rows."""
    rows, counts = evidence.report["rows"], evidence.report["counts"]
    numbers = [row["row"] for row in rows]
    expected = list(read_rows(evidence.file))
    if numbers != expected:
        missing = sorted(set(expected) - set(numbers))[:5]
        yield f"I1: the report's rows are not the file's, each once and in order (missing: {missing})"
    tally = Counter(row["status"] for row in rows)
    if set(tally) - set(STATUSES):
        yield f"I1: there are outcomes of no kind that exists: {set(tally) - set(STATUSES)}"
    if {status: tally[status] for status in STATUSES} != {status: counts[status] for status in STATUSES}:
        yield f"I1: the counts {counts} are not those of the rows {dict(tally)}"
    if counts["rows"] != len(expected):
        yield f"I1: the counts say {counts['rows']} rows, the file has {len(expected)}"


def check_rows(evidence: Evidence) -> Iterator[str]:
    """Check every row's outcome against the user's record before and after."""
    cells = read_rows(evidence.file)
    after = {key_of(email): record for email, record in evidence.after.items()}
    edited = find_edited(evidence.ledger)
    before = {
        key: record | ({"notes": EDITED} if key in edited and after[key].get("notes") == EDITED else {})
        for key, record in ((key_of(email), record) for email, record in evidence.before.items())
    }
    alike = defaultdict(list)
    for row in evidence.report["rows"]:
        if row["row"] in cells:
            alike[key_of(cells[row["row"]]["Email"])].append(row)
    for key, rows in alike.items():
        sent = [row for row in rows if row["status"] in APPLIED | {"unknown"}]
        if len(sent) > 1:
            yield f"I2: rows {[row['row'] for row in rows]} are the same user, and more than one was sent"
            continue
        row = (sent or rows)[0]
        name, was, now = f"row {row['row']} ({row['status']})", before.get(key), after.get(key)
        if was == now and (not sent or sent[0]["status"] == "unknown"):
            continue
        if not sent:
            yield f"I3: {name}: the record is not as it was; it is {now}, it was {was}"
        elif now is None:
            yield f"I2: {name}: there is no such user"
        elif trouble := misapplied(cells[row["row"]], was, now, evidence):
            rule = {"unknown": "I4"}.get(row["status"], "I8" if "says nothing" in trouble else "I2")
            yield f"{rule}: {name}: the record {trouble}; it is {now}, it was {was}"


def find_edited(ledger: Iterable[Mapping[str, Any]]) -> set[str]:
    """Return the users whom somebody else changed while the run went on."""
    return {key_of(unquote(entry["path"].rpartition("/")[2])) for entry in ledger if entry["fault"] == "edit"}


def check_nobody_twice(evidence: Evidence) -> Iterator[str]:
    """Check that no user is there twice, and that no create was done twice though the server hid it."""
    keys = Counter(key_of(record["email"]) for record in evidence.after.values())
    yield from (f"I5: {key} is there {count} times" for key, count in keys.items() if count > 1)
    creates = sum(entry["method"] == "POST" and entry["wrote"] and is_users(entry) for entry in evidence.ledger)
    born = len(evidence.after) - len(evidence.before)
    if creates != born:
        yield f"I5: the server took {creates} creates for {born} new users"


def check_strangers(evidence: Evidence) -> Iterator[str]:
    """Check that users who are not in the file, or only in rows that cannot be sent, are as they were."""
    cells = read_rows(evidence.file)
    sendable = {key_of(row["Email"]) for number, row in cells.items() if number not in evidence.invalid}
    for email in evidence.before.keys() | evidence.after.keys():
        if key_of(email) not in sendable and evidence.before.get(email) != evidence.after.get(email):
            yield f"I3: {email} is not to be sent, and is not as before"
    for row in evidence.report["rows"]:
        if row["row"] in evidence.invalid and row["status"] != "rejected":
            yield f"I3: row {row['row']} cannot be sent, and is {row['status']}"


def check_mails(evidence: Evidence) -> Iterator[str]:
    """Check that whoever came into being got one mail, and that nobody did where none was ordered."""
    born = {key_of(email) for email in evidence.after} - {key_of(email) for email in evidence.before}
    mails = Counter(key_of(email) for email in evidence.mails)
    expected = Counter(born if evidence.notify else ())
    if mails != expected:
        wrong = sorted((mails - expected) + (expected - mails))
        yield f"I6: {mails.total()} mails for {expected.total()} users who were to get one, wrong for {wrong[:5]}"


def check_attempts(evidence: Evidence) -> Iterator[str]:
    """Check that the server saw the writes that the report counts, and nothing that is no request of the API."""
    writes = [entry for entry in evidence.ledger if entry["method"] not in ("GET", "HEAD") and is_users(entry)]
    attempts = sum(row.get("attempts", 0) for row in evidence.report["rows"])
    if len(writes) < attempts or (len(writes) > attempts and not evidence.killed):
        yield f"I7: the server saw {len(writes)} writes, the report counts {attempts}"
    puts = Counter(key_of(unquote(entry["path"].rpartition("/")[2])) for entry in writes if entry["method"] == "PUT")
    for row in evidence.report["rows"]:
        if not evidence.killed and puts[key_of(row["email"])] > row.get("attempts", 0) and row["status"] in APPLIED:
            yield f"I7: row {row['row']} was put {puts[key_of(row['email'])]} times, the report counts {row}"
        if not evidence.killed and row["status"] in ("created", "updated") and not row.get("attempts"):
            yield f"I7: row {row['row']} is {row['status']} without an attempt"
        if row["status"] in ("skipped", "rejected") and row["row"] in evidence.invalid and row.get("attempts"):
            yield f"I7: row {row['row']} cannot be sent, and the report counts attempts"
    strange = {f"{entry['method']} {entry['path']}" for entry in evidence.ledger if not is_users(entry)}
    strange -= {"POST /api/v1/sessions"}
    if strange:
        yield f"I7: the server was asked what no client has to ask: {sorted(strange)[:5]}"


def check_images(evidence: Evidence) -> Iterator[str]:
    """Check that who was put or came into being stands in the before-images, and that the first says what was there."""
    first: dict[str, Record] = {}
    created = set()
    for where, text in evidence.texts.items():
        for line in text.splitlines() if ".before.jsonl" in where else ():
            image = json.loads(line) if line.endswith("}") else {}  # else a kill tore it
            if "row" in image:
                key = key_of(image["email"])
                if image["before"] is None:
                    created.add(key)
                else:
                    image["before"].pop("updatedAt", None)
                    first.setdefault(key, image["before"])
    before = {key_of(email): record for email, record in evidence.before.items()}
    for key, record in first.items():
        if key in before and record != before[key]:
            yield f"I12: the before-image of {key} is {record}, and the record was {before[key]}"
    puts = {entry["path"] for entry in evidence.ledger if entry["method"] == "PUT" and is_users(entry)}
    if missing := {key_of(unquote(path.rpartition("/")[2])) for path in puts} - first.keys():
        yield f"I12: there is no before-image of {sorted(missing)[:5]}, who were put"
    made = {key_of(row["email"]) for row in evidence.report["rows"] if row["status"] == "created"}
    done = {key_of(row["email"]) for row in evidence.report["rows"] if row["status"] in APPLIED}
    born = done & ({key_of(email) for email in evidence.after} - before.keys())
    if missing := (made | born) - created:
        yield f"I12: there is no image of {sorted(missing)[:5]}, who were created"


def is_users(entry: Mapping[str, Any]) -> bool:
    """Tell whether a request of the ledger is one about users."""
    return re.fullmatch(r"/api/v1/example_university/users(/[^/]+)?", entry["path"]) is not None


def check_reasons(evidence: Evidence) -> Iterator[str]:
    """Check that no more rows are in trouble than something went wrong for: to call all unknown would be true, too."""
    cells = read_rows(evidence.file)
    times = Counter(key_of(row["Email"]) for row in cells.values())
    spoiled = sum(bool(entry["fault"]) for entry in evidence.ledger)
    interrupted = evidence.killed * evidence.concurrency
    troubled = [row for row in evidence.report["rows"] if row["status"] in ("failed", "unknown")]
    if not evidence.report["run"]["stopped"] and len(troubled) > spoiled + interrupted:
        yield f"I4: {len(troubled)} rows are failed or unknown, and only {spoiled} requests went wrong"
    for row in evidence.report["rows"]:
        number = row["row"]
        if row["status"] == "rejected" and number not in evidence.invalid | evidence.unknown_ids:
            if times[key_of(cells.get(number, {"Email": ""})["Email"])] < 2:
                yield f"I3: row {number} is rejected, and nothing is wrong with it: {row.get('message')}"
        elif row["status"] == "unprocessed" and not evidence.report["run"]["stopped"]:
            yield f"I9: row {number} is unprocessed, and the run was not stopped"


def check_exit_code(evidence: Evidence) -> Iterator[str]:
    """Check that the exit code follows from the counts and from what stopped the run."""
    run, counts = evidence.report["run"], evidence.report["counts"]
    code = 5 if counts["failed"] or counts["unknown"] else 6 if counts["rejected"] else 0
    if evidence.exit_code != run["exit_code"]:
        yield f"I9: the process ended with {evidence.exit_code}, its report says {run['exit_code']}"
    if run["stopped"] is None and evidence.exit_code != code:
        yield f"I9: the exit code is {evidence.exit_code}, and {counts} asks for {code}"
    if run["stopped"] is not None and evidence.exit_code not in STOPS:
        yield f"I9: the run was stopped ({run['stopped']['reason']}), and its exit code is {evidence.exit_code}"
    if run["stopped"] is not None and not evidence.stop_wanted:
        yield f"I9: the run stopped, which nothing asked for: {run['stopped']['reason']}"


def check_secrets(evidence: Evidence) -> Iterator[str]:
    """Check that no token and no password stands in anything that was written."""
    return check_secrets_of(evidence.texts, evidence.secrets)


def check_secrets_of(texts: Mapping[str, str], secrets: Collection[str]) -> Iterator[str]:
    """Check that no token and none of the secrets stands in these texts."""
    for where, text in texts.items():
        if TOKEN.search(text) or any(secret in text for secret in secrets):
            yield f"I10: there is a secret in {where}"
        if "Traceback (most recent call last)" in text:
            yield f"I10: there is a traceback in {where}: {text[-400:]}"


def check_traffic(evidence: Evidence) -> Iterator[str]:
    """Check that no process sent faster, or more at the same time, than it was told to."""
    ends = [*evidence.starts[1:], len(evidence.ledger)]
    for start, end in zip(evidence.starts, ends, strict=True):
        part = evidence.ledger[start:end]
        times = [entry["at"] for entry in part]
        most = evidence.rate * 1.05 + 1
        first = 0
        for last, moment in enumerate(times):
            while times[first] <= moment - 1.0:
                first += 1
            if evidence.rate and last - first + 1 > most:
                yield f"I11: {last - first + 1} requests in a second, and {evidence.rate} is the rate"
                break
        busiest = _most_in_flight(part, evidence.timeout)
        if busiest > evidence.concurrency:
            yield f"I11: {busiest} requests in flight, and {evidence.concurrency} workers"


def _most_in_flight(entries: list[dict[str, Any]], timeout: float) -> int:
    """Count the requests under way; of one that was cut off, the client knows before the server does."""
    changes = []
    for entry in entries:
        over = entry["until"] if entry["status"] else min(entry["until"], entry["at"] + timeout) - TARDY
        if over > entry["at"]:
            changes += [(entry["at"], 1), (over, -1)]
    running = list(accumulate(change for _, change in sorted(changes)))
    return max(running, default=0)


def check_logins(evidence: Evidence) -> Iterator[str]:
    """Check that no process logged in more than once for itself and once for each token that died under it."""
    sessions = {place for place, entry in enumerate(evidence.ledger) if entry["path"] == "/api/v1/sessions"}
    logins = sum(evidence.ledger[place]["status"] == 201 for place in sessions - evidence.foreign)
    deaths = evidence.web_logins + sum(entry["fault"] == "kill_token" for entry in evidence.ledger)
    if logins > len(evidence.starts) + deaths:
        yield f"I7: {logins} logins by {len(evidence.starts)} processes whose tokens died {deaths} times"
