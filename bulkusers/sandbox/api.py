"""What the API answers: its rules, confirmed and assumed, without a word about sockets."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final
from urllib.parse import parse_qs

import orjson

from bulkusers.sandbox.state import EPOCH, PRODUCTS, Record, State, fold
from bulkusers.sandbox.switches import Switches


@dataclass(frozen=True, slots=True)
class Call:
    """One request, taken apart."""

    method: str
    parts: tuple[str, ...]  # the path below the base, each segment decoded
    query: str
    token: str  # empty where there is none
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, and what there is to be written before or after it is given."""

    status: int
    body: object  # text goes out as HTML, bytes as lines of JSON, anything else as JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    write: Callable[[float], None] | None = None  # given the time, does what the answer claims


DEFAULTS: Final[Record] = {"timezone": "UTC"}  # of a new record, where they are filled in
UNAUTHENTICATED: Final = {"error": "Unauthenticated"}
COUNT: Final = re.compile(r"[1-9][0-9]{0,8}")
NOT_FOUND: Final = Answer(404, {"error": "Not found"})


def _refuse(status: int, error: str) -> Answer:
    return Answer(status, {"error": error})


def _refuse_method(*allowed: str) -> Answer:
    return Answer(405, {"error": "Method not allowed"}, {"Allow": ", ".join(allowed)})


@dataclass(frozen=True, slots=True)
class Api:
    """The rules of one school's API, as they are at one moment."""

    state: State
    switches: Switches
    school: str
    accounts: Mapping[str, str]  # passwords by folded e-mail
    now: float  # loop.time(), seconds

    def answer(self, call: Call) -> Answer:
        """Say what the API answers to a call; what that answer claims of users is still to be written."""
        if call.parts == ("sessions",):
            return self._log_in(call) if call.method == "POST" else _refuse_method("POST")
        if not call.token:
            return Answer(401, UNAUTHENTICATED)
        if self.state.account_of(call.token) is None:
            return Answer(self.switches.dead_token, UNAUTHENTICATED)
        if not call.parts or call.parts[0] != self.school:
            return _refuse(404, "School not found")
        match call.parts[1:]:
            case ("users",):
                return self._users(call)
            case ("users", email):
                return self._user(call, email)
            case ("general", "roles") if self.switches.roles_path == "general":
                return self._document(call, {"roles": self.state.roles})
            case ("roles",) if self.switches.roles_path == "school":
                return self._document(call, self.state.roles)
            case ("departments",):
                return self._document(call, self.state.departments)
        return NOT_FOUND

    def _log_in(self, call: Call) -> Answer:
        body = _read_object(call.body)
        if body is None:
            return _refuse(400, "The body is not a JSON object")
        if self.switches.login_key not in body:
            return NOT_FOUND
        email = str(body.get("email"))
        password = self.accounts.get(fold(email))
        if password is None or body[self.switches.login_key] != password:
            return Answer(401, UNAUTHENTICATED)
        self.state.kill_tokens(email)
        return Answer(201, {"token": self.state.new_token(email)})

    def _document(self, call: Call, document: object) -> Answer:
        return Answer(200, document) if call.method == "GET" else _refuse_method("GET")

    def _users(self, call: Call) -> Answer:
        if call.method == "GET":
            records = map(self._show, self.state.read_all(self.now - self.switches.read_lag))
            return _list(list(records), call.query, self.switches)
        if call.method == "POST":
            return self._create(call)
        return _refuse_method("GET", "POST")

    def _user(self, call: Call, email: str) -> Answer:
        if call.method == "GET":
            record = self.state.read(email, self.now - self.switches.read_lag)
            return _refuse(404, "User not found") if record is None else Answer(200, self._show(record))
        if call.method not in ("PUT", "DELETE"):
            return _refuse_method("GET", "PUT", "DELETE")
        spelling = self.state.spelling(email)
        if spelling is None:
            return _refuse(404, "User not found")
        if call.method == "PUT":
            return self._replace(call, spelling)
        gone = self.state.users[spelling]
        return Answer(200, self._show(gone), write=lambda then: self.state.remove(spelling, now=then))

    def _create(self, call: Call) -> Answer:
        body = _read_object(call.body)
        fault = _find_fault(body, ("email", "firstName", "lastName", "products"))
        if body is None or fault:
            return _refuse(400, fault)
        if self.state.spelling(body["email"]) is not None:
            return _refuse(self.switches.duplicate, "A user with this email already exists")
        if self.switches.unknown_ids == "refuse" and (unknown := self._find_unknown(body)):
            return _refuse(422, unknown)
        mail = body.pop("disableRegistrationMail", False) is not True
        filled = DEFAULTS if self.switches.defaults == "filled" else {}
        record = self._stamp(self.state.new_record(filled | body))
        return Answer(201, record, write=lambda then: self.state.add(record, now=then, mail=mail))

    def _replace(self, call: Call, spelling: str) -> Answer:
        body = _read_object(call.body)
        fault = _find_fault(body, ("email",))
        if body is None or fault:
            return _refuse(400, fault)
        if fold(body["email"]) != fold(spelling):
            return _refuse(400, "The email of a user cannot be changed")
        if self.switches.unknown_ids == "refuse" and (unknown := self._find_unknown(body)):
            return _refuse(422, unknown)
        kept = {key: value for key, value in self.state.users[spelling].items() if key == "_id"}
        record = self._stamp({**body, **kept, "email": spelling})  # whatever else the body leaves out is lost
        return Answer(200, record, write=lambda then: self.state.replace(record, now=then))

    def _show(self, record: Record) -> Record:
        """Return a record as it is answered; one that was never written since the switch is as old as its user."""
        if self.switches.updated_at == "none":
            return record
        return {**record, "updatedAt": record.get("updatedAt", record.get("createdAt"))}

    def _stamp(self, record: Record) -> Record:
        """Return a record that is to be stored now."""
        if self.switches.updated_at == "none":
            return record
        written = EPOCH + timedelta(seconds=self.now)
        return {**record, "updatedAt": written.isoformat(timespec="microseconds")}

    def _find_unknown(self, body: Record) -> str:
        """Name the first kind of id in a record that the school does not have."""
        departments = [body.get("department"), *(body.get("secondaryDepartments") or ())]
        if any(role not in self.state.roles for role in body.get("roles") or ()):
            return "There is no such role"
        if any(key and key not in self.state.departments for key in departments):
            return "There is no such department"
        return ""


def _read_object(body: bytes) -> Record | None:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _find_fault(body: Record | None, required: tuple[str, ...]) -> str:
    """Say what keeps a body from being a user's record; nothing, if it may be one."""
    if body is None:
        return "The body is not a JSON object"
    for name in required:
        if name not in body:
            return f"{name} is required"
    for name in ("email", "firstName", "lastName", "department"):
        if name in body and not isinstance(body[name], str):
            return f"{name} is not a text"
        if name in body and name != "department" and not body[name].strip():
            return f"{name} is empty"
    for name in ("products", "roles", "secondaryDepartments"):
        if name in body and not (isinstance(body[name], list) and all(isinstance(each, str) for each in body[name])):
            return f"{name} is not a list of texts"
    if any(product not in PRODUCTS for product in body.get("products", ())):
        return "There is no such product"
    return ""


def _list(records: list[Record], query: str, switches: Switches) -> Answer:
    """List users in the shape that is switched on: the page that ?page= (from 1) and &limit= ask for."""
    count = len(records)
    shown = records[: count - switches.cut_list] if switches.cut_list < count else []
    if switches.list_shape == "map":
        return Answer(200, {record["email"]: record for record in shown})
    if switches.page_size:
        asked = {name: values[-1] for name, values in parse_qs(query).items()}
        page, limit = asked.get("page", "1"), asked.get("limit", str(switches.page_size))
        if not (COUNT.fullmatch(page) and COUNT.fullmatch(limit)):
            return _refuse(400, "page and limit are numbers from 1")
        size = min(int(limit), switches.page_size)
        shown = shown[(int(page) - 1) * size : int(page) * size]
    if switches.list_shape == "list":
        return Answer(200, shown)
    return Answer(200, {"data": shown, "totalCount" if switches.list_shape == "data" else "listLength": count})
