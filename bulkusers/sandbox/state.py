"""What the school holds: users, roles, departments, and the mails that would have gone out."""

import os
import secrets
from collections import deque
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import orjson

Record = dict[str, Any]

PRODUCTS: Final = ("scheduling", "curriculum", "syllabus", "events", "catalog", "courseDemandProjections")
LONGEST_LAG: Final = 60.0  # seconds of the past that a lagging read can ask for
EDITED: Final = "changed by a colleague"
EPOCH: Final = datetime(2024, 1, 1, tzinfo=UTC)  # creation times count on from here, so that runs repeat


def fold(email: str) -> str:
    """Return what two spellings of the same user's e-mail have in common."""
    return email.strip().lower()


class State:
    """One school's data; records are replaced, never changed in place, so that the past stays what it was."""

    def __init__(self, *, users: int = 0, seed: int = 0) -> None:
        self.users: dict[str, Record] = {}  # by e-mail as stored
        self.mails: list[str] = []
        self.roles = _example_roles()
        self.departments = _example_departments()
        self._seed = seed
        self._sequence = 0  # of the last record created
        self._spelled: dict[str, str] = {}  # e-mail as stored, by its folded form
        self._past: deque[tuple[float, str, Record | None]] = deque()  # when, who, and what was there before
        self._tokens: dict[str, str] = {}  # account by token
        for number in range(1, users + 1):
            self.add(self.new_record(_example_user(number)), now=0.0)

    def new_record(self, record: Record) -> Record:
        """Return a record with the fields that the server adds on creation; nothing is stored yet."""
        self._sequence += 1
        created = EPOCH + timedelta(seconds=self._sequence)
        return {
            **record,
            "_id": f"{self._seed & 0xFFFFFFFF:08x}{self._sequence:016x}",
            "createdAt": created.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        }

    def add(self, record: Record, *, now: float, mail: bool = False) -> None:
        """Store a new record, unless somebody else's came first."""
        if self.spelling(record["email"]) is None:
            self._put(record["email"], record, now)
            if mail:
                self.mails.append(record["email"])

    def replace(self, record: Record, *, now: float) -> None:
        """Put a whole record in place of a user's, unless the user is gone."""
        if (email := self.spelling(record["email"])) is not None:
            self._put(email, record, now)

    def edit(self, email: str, *, now: float) -> None:
        """Change a user's notes, as somebody in the web app does."""
        if (spelling := self.spelling(email)) is not None:
            self._put(spelling, self.users[spelling] | {"notes": EDITED}, now)

    def remove(self, email: str, *, now: float) -> None:
        """Forget a user."""
        if (spelling := self.spelling(email)) is not None:
            self._put(spelling, None, now)

    def read(self, email: str, moment: float) -> Record | None:
        """Return a user's record as it was at `moment`."""
        spelling = self.spelling(email)
        record = None if spelling is None else self.users[spelling]
        key = fold(email)
        for changed, who, before in reversed(self._past):
            if changed <= moment:
                break
            if who == key:
                record = before
        return record

    def read_all(self, moment: float) -> list[Record]:
        """Return every user's record as it was at `moment`."""
        if not self._past or self._past[-1][0] <= moment:
            return list(self.users.values())
        records: dict[str, Record | None] = {fold(email): record for email, record in self.users.items()}
        for changed, who, before in reversed(self._past):
            if changed <= moment:
                break
            records[who] = before
        return [record for record in records.values() if record is not None]

    def spelling(self, email: str) -> str | None:
        """Return the e-mail under which a user is stored now, whatever lagging reads say."""
        if email in self.users:
            return email
        # `users` is open to tests, so what is remembered about it may be out of date
        newest = next(reversed(self.users), "")
        if len(self._spelled) != len(self.users) or self._spelled.get(fold(newest)) != newest:
            self._spelled = {fold(each): each for each in self.users}
        return self._spelled.get(fold(email))

    def _put(self, email: str, record: Record | None, now: float) -> None:
        key = fold(email)
        self._past.append((now, key, self.users.get(email)))
        while self._past[0][0] < now - LONGEST_LAG:
            self._past.popleft()
        if record is None:
            del self.users[email]
            self._spelled.pop(key, None)
        else:
            self.users[email] = record
            self._spelled[key] = email

    def new_token(self, account: str) -> str:
        """Return a token that lives until it is killed."""
        token = f"sandbox-{secrets.token_hex(16)}"
        self._tokens[token] = fold(account)
        return token

    def account_of(self, token: str) -> str | None:
        """Return the account that a live token belongs to."""
        return self._tokens.get(token)

    def kill_tokens(self, account: str | None = None) -> int:
        """Kill the tokens of one account, or of all, and return how many died."""
        doomed = [token for token, owner in self._tokens.items() if account is None or owner == fold(account)]
        for token in doomed:
            del self._tokens[token]
        return len(doomed)

    def dump(self) -> dict[str, Any]:
        """Return everything but the tokens, which die with the server."""
        return {
            "users": self.users,
            "mails": self.mails,
            "roles": self.roles,
            "departments": self.departments,
            "sequence": self._sequence,
        }

    def save(self, path: Path) -> None:
        """Write everything to a file that only its owner can read: beside it first, then renamed into place."""
        beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        beside.unlink(missing_ok=True)  # left by a process of the same number that was killed
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(orjson.dumps(self.dump(), option=orjson.OPT_INDENT_2))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)

    def load(self, path: Path) -> None:
        """Take over what another sandbox saved.

        Raises:
            ValueError: the file cannot be read, or is not one that a sandbox saved.

        """
        try:
            kept = orjson.loads(path.read_bytes())
            users = {record["email"]: record for record in kept["users"].values()}
            mails, roles, departments = list(kept["mails"]), dict(kept["roles"]), dict(kept["departments"])
            sequence = int(kept["sequence"])
        except OSError as error:
            raise ValueError(f"cannot read {path}: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(f"{path} is not a state that a sandbox saved") from None
        self.users.clear()
        self.users.update(users)
        self.mails[:] = mails
        self.roles, self.departments, self._sequence = roles, departments, sequence


def _example_user(number: int) -> Record:
    """Make the user whom a row of an example file agrees with in one case of three."""
    agrees = number % 3 == 0
    return {
        "email": f"user{number:05d}@example.edu",
        "firstName": "Example",
        "lastName": f"User {number:05d}",
        "products": ["scheduling"] if agrees else ["curriculum"],
        "roles": ["example-viewer"] if agrees else ["example-scheduler"],
        "department": "0100" if number % 2 else "0200",
        "secondaryDepartments": ["0300"],
        "externalId": f"{number:06d}",
        "status": "active",
        "preferences": {"theme": "dark" if number % 2 else "light", "pageSize": 25},
        "notes": f"kept by hand, {number}",
    }


def _example_roles() -> dict[str, Record]:
    names = {"example-admin": "Administrator", "example-scheduler": "Scheduler", "example-viewer": "Viewer"}
    return {key: {"_id": key, "id": key, "name": f"Example {name}"} for key, name in names.items()}


def _example_departments() -> dict[str, Record]:
    keys = [f"{number:04d}" for number in range(100, 1000, 100)]
    return {
        key: {
            "_id": key,
            "id": key,
            "name": f"Department {key}",
            "displayName": f"Example Department {key}",
            "status": "Inactive" if key == "0900" else "Active",
            "chair": [],
        }
        for key in keys
    }
