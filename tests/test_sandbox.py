"""The sandbox, asked through real sockets by a client that is not ours."""

import asyncio
import io
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import orjson
import pytest
from yarl import URL

from bulkusers.sandbox import Fault, Sandbox, Switches, serve, serve_forever

NEW = {
    "email": "Ada@Example.edu",
    "firstName": "Ada",
    "lastName": "Lovelace",
    "products": ["scheduling"],
    "disableRegistrationMail": True,
}


class Caller:
    """Asks one sandbox, with a token that is good unless said otherwise."""

    def __init__(self, sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        self.sandbox = sandbox
        self.headers: dict[str, str] = {}  # of the last answer
        self._session = session
        self.token = sandbox.new_token()

    async def __call__(self, method: str, path: str, body: object = None, token: str | None = None) -> tuple[int, Any]:
        """Return the status and the JSON of an answer; a path that begins with "users" is below the school."""
        path = f"/{self.sandbox.school}/{path}" if not path.startswith("/") else path
        async with self._session.request(
            method,
            URL(self.sandbox.url + path, encoded=True),
            data=body if isinstance(body, bytes | io.BytesIO) else orjson.dumps(body) if body is not None else None,
            headers={"Authorization": f"Bearer {self.token if token is None else token}"},
        ) as answer:
            self.headers = dict(answer.headers)
            whole = await answer.read()
            lines = answer.content_type == "application/x-ndjson"
            return answer.status, [orjson.loads(line) for line in whole.splitlines()] if lines else orjson.loads(whole)

    async def log_in(self, email: str = "", **password: str) -> tuple[int, Any]:
        """Log in with the account of the sandbox, or another."""
        password = password or {"plaintextPassword": self.sandbox.password}
        return await self("POST", "/sessions", {"email": email or self.sandbox.email, **password}, token="")


Ask = Callable[..., Awaitable[Caller]]


@pytest.fixture
async def ask() -> AsyncIterator[Ask]:
    """Serve a sandbox that is made as said, and return who asks it."""
    async with AsyncExitStack() as stack:

        async def start(**made: Any) -> Caller:  # noqa: ANN401 - whatever a sandbox takes
            sandbox = await stack.enter_async_context(serve(Sandbox(**made)))
            return Caller(sandbox, await stack.enter_async_context(aiohttp.ClientSession()))

        yield start


def user(number: int) -> str:
    """Return the path of an example user."""
    return f"users/user{number:05d}%40example.edu"


# --- users


async def test_a_created_user_can_be_read(ask: Ask) -> None:
    """The answer, the store and a later read are the same record, with the server's fields, without the mail's."""
    call = await ask()
    status, created = await call("POST", "users", NEW)
    assert status == 201
    assert created == {key: value for key, value in NEW.items() if key != "disableRegistrationMail"} | {
        "_id": created["_id"],
        "createdAt": "2024-01-01T00:00:01.000Z",
    }
    assert call.sandbox.users == {"Ada@Example.edu": created}
    assert await call("GET", "users/Ada%40Example.edu") == (200, created)


@pytest.mark.parametrize(("said", "mails"), [({}, 1), ({"disableRegistrationMail": False}, 1), (NEW, 0)])
async def test_mail_goes_out_unless_it_is_disabled(ask: Ask, said: dict[str, object], mails: int) -> None:
    """Only a `true` in the payload of a creation holds the mail back."""
    call = await ask()
    record = {key: value for key, value in NEW.items() if key != "disableRegistrationMail"} | said
    assert (await call("POST", "users", record))[0] == 201
    assert call.sandbox.mails == ["Ada@Example.edu"] * mails


async def test_replacing_sends_no_mail_and_loses_what_is_left_out(ask: Ask) -> None:
    """A PUT is a full replacement: only `_id` and the spelling of the e-mail stay."""
    call = await ask(users=1)
    before = call.sandbox.users["user00001@example.edu"]
    status, after = await call("PUT", user(1), {"email": "USER00001@example.edu ", "products": []})
    assert status == 200
    assert after == {"email": "user00001@example.edu", "products": [], "_id": before["_id"]}
    assert (await call("GET", user(1)))[1] == after
    assert call.sandbox.mails == []


async def test_what_is_sent_back_is_kept(ask: Ask) -> None:
    """Reading, changing one field and putting it back loses nothing."""
    call = await ask(users=1)
    _, before = await call("GET", user(1))
    await call("PUT", user(1), before | {"status": "inactive"})
    assert call.sandbox.users["user00001@example.edu"] == before | {"status": "inactive"}
    assert {"_id", "createdAt", "preferences", "notes"} <= before.keys()


@pytest.mark.parametrize("spelling", ["ada@example.edu", "ADA@EXAMPLE.EDU", " Ada@Example.edu "])
async def test_a_user_is_found_however_the_email_is_spelled(ask: Ask, spelling: str) -> None:
    """Case and outer blanks make no other user, neither in a path nor in a body."""
    call = await ask()
    await call("POST", "users", NEW)
    assert (await call("GET", f"users/{quote(spelling, safe='')}"))[0] == 200
    assert (await call("POST", "users", NEW | {"email": spelling}))[0] == 409
    assert list(call.sandbox.users) == ["Ada@Example.edu"]


async def test_users_that_a_test_put_in_are_found(ask: Ask) -> None:
    """The store is open: what is put in or taken out behind the server's back counts."""
    call = await ask(users=2)
    del call.sandbox.users["user00001@example.edu"]
    call.sandbox.users["Bob@example.edu"] = {"email": "Bob@example.edu"}
    assert (await call("GET", "users/bob%40example.edu"))[0] == 200
    assert (await call("GET", "users/USER00001%40example.edu"))[0] == 404


async def test_an_email_is_one_segment_whatever_is_in_it(ask: Ask) -> None:
    """A slash, a plus, a percent sign and letters beyond ASCII survive the path; a plain slash is another path."""
    call = await ask()
    email = "a/b+c%40d\u00e9@example.edu"
    await call("POST", "users", NEW | {"email": email})
    path = f"users/{quote(email, safe='')}"
    assert (await call("GET", path))[1]["email"] == email
    assert call.sandbox.ledger[-1].path == f"/api/v1/example_university/{path}"
    assert (await call("GET", path.replace("%2F", "/")))[0] == 404


async def test_a_deleted_user_is_gone(ask: Ask) -> None:
    """DELETE answers what it deleted, and 404 the second time."""
    call = await ask(users=1)
    before = call.sandbox.users["user00001@example.edu"]
    assert await call("DELETE", user(1)) == (200, before)
    assert [(await call(method, user(1), NEW))[0] for method in ("GET", "PUT", "DELETE")] == [404, 404, 404]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"firstName": " "}, "firstName"),
        ({"lastName": 7}, "lastName"),
        ({"products": "scheduling"}, "products"),
        ({"products": ["Scheduling"]}, "product"),
        ({"department": {"id": "0100"}}, "department"),
        ({"roles": [1]}, "roles"),
    ],
)
async def test_a_record_of_the_wrong_shape_is_refused(ask: Ask, change: dict[str, object], word: str) -> None:
    """Fields have the type that they have, in a POST as in a PUT, and a refusal says which has not."""
    call = await ask(users=1)
    before = dict(call.sandbox.users)
    email = "user00001@example.edu"
    for method, path, record in (("POST", "users", NEW), ("PUT", user(1), NEW | {"email": email})):
        status, body = await call(method, path, record | change)
        assert status == 400
        assert word in body["error"]
    assert call.sandbox.users == before


@pytest.mark.parametrize("missing", ["email", "firstName", "lastName", "products"])
async def test_a_creation_needs_what_is_required(ask: Ask, missing: str) -> None:
    """Without one of the four required fields nobody is created."""
    call = await ask()
    status, body = await call("POST", "users", {key: value for key, value in NEW.items() if key != missing})
    assert (status, body["error"]) == (400, f"{missing} is required")
    assert call.sandbox.users == {}


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"email": "\xff"}'])
async def test_what_is_no_json_object_is_refused(ask: Ask, body: bytes) -> None:
    """Neither users nor sessions take anything but an object."""
    call = await ask(users=1)
    asked = [("POST", "users"), ("PUT", user(1)), ("POST", "/sessions")]
    assert [(await call(method, path, body))[0] for method, path in asked] == [400, 400, 400]


async def test_an_email_cannot_be_changed(ask: Ask) -> None:
    """A PUT whose body is another user's is refused."""
    call = await ask(users=2)
    before = dict(call.sandbox.users)
    assert (await call("PUT", user(1), NEW | {"email": "user00002@example.edu"}))[0] == 400
    assert call.sandbox.users == before


async def test_a_body_beyond_a_mebibyte_is_refused(ask: Ask) -> None:
    """The server reads no endless bodies, and the ledger has the refusal."""
    call = await ask()
    large = io.BytesIO(b" " * (1 << 20) + orjson.dumps(NEW))
    assert (await call("POST", "users", large))[0] == 413
    assert call.sandbox.ledger[-1].status == 413


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PATCH", user(1), "GET, PUT, DELETE"),
        ("POST", user(1), "GET, PUT, DELETE"),
        ("PUT", "users", "GET, POST"),
        ("POST", "departments", "GET"),
        ("GET", "/sessions", "POST"),
    ],
)
async def test_a_verb_that_a_path_does_not_have_is_405(ask: Ask, method: str, path: str, allowed: str) -> None:
    """There is no PATCH, and each path says what it has."""
    call = await ask(users=1)
    assert (await call(method, path, NEW))[0] == 405
    assert call.headers["Allow"] == allowed


@pytest.mark.parametrize("path", ["/another_university/users", "/", "nothing", "users/a/b", "general/terms"])
async def test_what_is_not_there_is_404(ask: Ask, path: str) -> None:
    """Another school, and anything else below this one, does not exist."""
    call = await ask()
    status, body = await call("GET", path)
    assert status == 404
    assert set(body) == {"error"}


# --- sessions


async def test_a_login_buys_a_token(ask: Ask) -> None:
    """The token of a login lets in; nothing, or anything else, does not."""
    call = await ask()
    status, body = await call.log_in()
    assert status == 201
    assert (await call("GET", "users", token=body["token"]))[0] == 200
    for token in ("", "sandbox-guessed"):
        assert await call("GET", "users", token=token) == (401, {"error": "Unauthenticated"})


async def test_a_login_kills_the_older_tokens_of_its_account_only(ask: Ask) -> None:
    """Logging in again is what ends a run's token; a colleague's login does not."""
    call = await ask()
    await call.log_in("colleague@example.edu")
    assert (await call("GET", "users"))[0] == 200
    _, body = await call.log_in("ADMIN@example.edu")
    assert (await call("GET", "users"))[0] == 401
    assert (await call("GET", "users", token=body["token"]))[0] == 200


async def test_a_new_token_kills_no_other(ask: Ask) -> None:
    """Tokens made without a login live side by side."""
    call = await ask()
    assert call.sandbox.new_token() != call.token
    assert (await call("GET", "users"))[0] == 200


async def test_a_login_to_the_web_app_kills_all_tokens(ask: Ask) -> None:
    """As the vendor says; here it is a request that only a sandbox has."""
    call = await ask()
    assert (await call("POST", "/_sandbox/web-login"))[0] == 200
    assert (await call("GET", "users"))[0] == 401


async def test_a_wrong_password_or_account_is_401(ask: Ask) -> None:
    """A failed login kills no token."""
    call = await ask()
    assert (await call.log_in(plaintextPassword="guess"))[0] == 401
    assert (await call.log_in("nobody@example.edu"))[0] == 401
    assert (await call("GET", "users"))[0] == 200


# --- switches


@pytest.mark.parametrize("duplicate", [400, 409, 422])
async def test_switch_duplicate(ask: Ask, duplicate: int) -> None:
    """Creating an existing user is refused with the status that is switched on, and changes nothing."""
    call = await ask(users=1, switches=Switches(duplicate=duplicate))
    before = dict(call.sandbox.users)
    status, body = await call("POST", "users", NEW | {"email": "User00001@example.edu"})
    assert (status, set(body)) == (duplicate, {"error"})
    assert call.sandbox.users == before
    assert not call.sandbox.ledger[-1].wrote


async def test_switch_list_shape(ask: Ask) -> None:
    """Users are listed in the shape that is switched on."""
    call = await ask(users=2)
    users = call.sandbox.users
    records = list(users.values())
    shapes = {
        "map": users,
        "list": records,
        "data": {"data": records, "totalCount": 2},
        "length": {"data": records, "listLength": 2},
    }
    for shape, listed in shapes.items():
        call.sandbox.switches = Switches(list_shape=shape)
        assert await call("GET", "users") == (200, listed)


async def test_switch_page_size(ask: Ask) -> None:
    """Lists come in pages from 1 on, no larger than switched on; the count is of all pages; a map is never paged."""
    call = await ask(users=5, switches=Switches(list_shape="data", page_size=2))
    records = list(call.sandbox.users.values())
    for query, page in {
        "": records[:2],
        "?page=3": records[4:],
        "?page=4": [],
        "?page=2&limit=1": records[1:2],
    }.items():
        assert await call("GET", f"users{query}") == (200, {"data": page, "totalCount": 5})
    assert (await call("GET", "users?limit=100"))[1]["data"] == records[:2]
    for query in ("?page=0", "?page=x", "?limit=-1"):
        assert (await call("GET", f"users{query}"))[0] == 400
    call.sandbox.switches = Switches(list_shape="map", page_size=2)
    assert len((await call("GET", "users"))[1]) == 5


async def test_switch_cut_list(ask: Ask) -> None:
    """A list loses its last users silently, but its count tells."""
    call = await ask(users=5, switches=Switches(list_shape="data", cut_list=2))
    _, listed = await call("GET", "users")
    assert (len(listed["data"]), listed["totalCount"]) == (3, 5)
    call.sandbox.switches = Switches(cut_list=9)
    assert await call("GET", "users") == (200, {})


@pytest.mark.parametrize("unknown", [{"roles": ["Viewer"]}, {"department": "100"}, {"secondaryDepartments": ["1"]}])
async def test_switch_unknown_ids(ask: Ask, unknown: dict[str, object]) -> None:
    """Ids that the school does not have are stored, or refused by POST and PUT."""
    call = await ask(users=1)
    assert (await call("POST", "users", NEW | unknown))[0] == 201
    call.sandbox.switches = Switches(unknown_ids="refuse")
    assert (await call("POST", "users", NEW | {"email": "new@example.edu"} | unknown))[0] == 422
    assert (await call("PUT", user(1), {"email": "user00001@example.edu"} | unknown))[0] == 422
    known = {"roles": ["example-viewer"], "department": "0100", "secondaryDepartments": ["0900"]}
    assert (await call("POST", "users", NEW | {"email": "new@example.edu"} | known))[0] == 201


async def test_switch_updated_at(ask: Ask) -> None:
    """A record says when it was last written, whatever is sent; each write is another time."""
    call = await ask(users=1)
    assert "updatedAt" not in (await call("GET", user(1)))[1]
    call.sandbox.switches = Switches(updated_at="kept")
    _, record = await call("GET", user(1))
    assert record["updatedAt"] == record["createdAt"]
    _, first = await call("PUT", user(1), record)
    _, second = await call("PUT", user(1), record)
    assert record["updatedAt"] < first["updatedAt"] < second["updatedAt"]
    assert (await call("GET", "users"))[1] == {"user00001@example.edu": second}
    _, made = await call("POST", "users", NEW | {"updatedAt": "never"})
    assert made["updatedAt"] > second["updatedAt"]


async def test_switch_defaults(ask: Ask) -> None:
    """A new record gets what the request leaves out, and a replaced one does not."""
    call = await ask(switches=Switches(defaults="filled"))
    assert (await call("POST", "users", NEW))[1]["timezone"] == "UTC"
    assert (await call("POST", "users", NEW | {"email": "b@example.edu", "timezone": "MST"}))[1]["timezone"] == "MST"
    assert "timezone" not in (await call("PUT", "users/b%40example.edu", {"email": "b@example.edu"}))[1]


async def test_switch_dead_token(ask: Ask) -> None:
    """A token that died is answered as switched on; a request without one is always 401."""
    call = await ask(switches=Switches(dead_token=403))
    call.sandbox.kill_tokens()
    assert (await call("GET", "users"))[0] == 403
    assert (await call("GET", "users", token=""))[0] == 401


@pytest.mark.parametrize(("key", "other"), [("plaintextPassword", "password"), ("password", "plaintextPassword")])
async def test_switch_login_key(ask: Ask, key: str, other: str) -> None:
    """The password has one name; the other is answered with 404."""
    call = await ask(switches=Switches(login_key=key))
    assert (await call.log_in(**{other: "sandbox"}))[0] == 404
    assert (await call.log_in(**{key: "sandbox"}))[0] == 201


async def test_switch_roles_path(ask: Ask) -> None:
    """Roles are in the settings documents, wrapped in their name, or beside the users."""
    call = await ask()
    status, document = await call("GET", "general/roles")
    assert (status, (await call("GET", "roles"))[0]) == (200, 404)
    assert document["roles"]["example-viewer"]["name"] == "Example Viewer"
    call.sandbox.switches = Switches(roles_path="school")
    assert (await call("GET", "general/roles"))[0] == 404
    assert await call("GET", "roles") == (200, document["roles"])


async def test_switch_rate_limit(ask: Ask) -> None:
    """Requests beyond the limit of one second are refused, and change nothing."""
    call = await ask(switches=Switches(rate_limit=3))
    statuses = [(await call("POST", "users", NEW | {"email": f"u{n}@example.edu"}))[0] for n in range(5)]
    assert statuses == [201, 201, 201, 429, 429]
    assert len(call.sandbox.users) == 3


async def test_switch_retry_after(ask: Ask) -> None:
    """A 429 says when to come back in seconds, as a date after its own, or not at all."""
    call = await ask(switches=Switches(rate_limit=1))
    await call("GET", "users")
    assert (await call("GET", "users"))[0] == 429
    assert call.headers["Retry-After"] == "1"
    call.sandbox.switches = Switches(rate_limit=1, retry_after="date")
    await call("GET", "users")
    then, now = (parsedate_to_datetime(call.headers[name]) for name in ("Retry-After", "Date"))
    assert 1 <= (then - now).total_seconds() <= 3
    call.sandbox.switches = Switches(rate_limit=1, retry_after="none")
    assert (await call("GET", "users"))[0] == 429
    assert "Retry-After" not in call.headers


async def test_switch_latency(ask: Ask) -> None:
    """Each answer takes its time, a refusal's too."""
    call = await ask(switches=Switches(latency=0.05))
    await call("GET", "users")
    await call("GET", "users", token="")
    assert all(entry.until - entry.at >= 0.045 for entry in call.sandbox.ledger)


async def test_switch_commit_delay(ask: Ask) -> None:
    """A write is answered, and done later: until then nobody sees it, and it can be settled at once."""
    call = await ask(switches=Switches(commit_delay=0.2))
    assert (await call("POST", "users", NEW))[0] == 201
    assert (await call("GET", "users/ada%40example.edu"))[0] == 404
    await asyncio.sleep(0.25)
    assert (await call("GET", "users/ada%40example.edu"))[0] == 200
    await call("DELETE", "users/ada%40example.edu")
    assert list(call.sandbox.users) == ["Ada@Example.edu"]
    call.sandbox.settle()
    assert call.sandbox.users == {}


async def test_two_late_creations_make_one_user_and_one_mail(ask: Ask) -> None:
    """What is created while the first creation is still to be done does not come on top of it."""
    call = await ask(switches=Switches(commit_delay=0.2))
    for name in ("First", "Second"):
        assert (await call("POST", "users", NEW | {"firstName": name, "disableRegistrationMail": False}))[0] == 201
    call.sandbox.settle()
    assert [record["firstName"] for record in call.sandbox.users.values()] == ["First"]
    assert call.sandbox.mails == ["Ada@Example.edu"]


async def test_switch_read_lag(ask: Ask) -> None:
    """Reads see what was there a while ago; writes see what is."""
    call = await ask(users=2, switches=Switches(read_lag=0.25))
    before = dict(call.sandbox.users)
    await call("POST", "users", NEW)
    await call("PUT", user(1), {"email": "user00001@example.edu"})
    await call("DELETE", user(2))
    assert (await call("POST", "users", NEW))[0] == 409
    assert (await call("GET", "users/ada%40example.edu"))[0] == 404
    assert [(await call("GET", user(number)))[1] for number in (1, 2)] == list(before.values())
    assert (await call("GET", "users"))[1] == before
    await asyncio.sleep(0.3)
    assert (await call("GET", "users"))[1] == call.sandbox.users
    assert set(call.sandbox.users) == {"user00001@example.edu", "Ada@Example.edu"}


def test_switches_are_read_from_pairs() -> None:
    """Numbers become numbers, blanks do not matter."""
    assert Switches.parse(["duplicate=400", "list_shape = data", "latency=0.5"]) == Switches(
        duplicate=400, list_shape="data", latency=0.5
    )


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        ("duplicate=200", "switch duplicate may be 409, 400, 422, not 200"),
        ("duplicate=many", "switch duplicate may be 409, 400, 422, not 'many'"),
        ("list_shape=tree", "switch list_shape may be map, list, data, length, not 'tree'"),
        ("latency=inf", "switch latency may be a number from 0 to 60, not inf"),
        ("latency=nan", "switch latency may be"),
        ("page_size=1.5", "switch page_size may be a number, 0 or more, not '1.5'"),
        ("cut_list=-1", "switch cut_list may be a number, 0 or more, not -1"),
        ("dead_token=", "switch dead_token may be a number from 400 to 599, not ''"),
        ("speed=1", "there is no switch 'speed', only duplicate, "),
        ("latency", "switch latency may be"),
    ],
)
def test_a_wrong_switch_is_refused_by_name(pair: str, words: str) -> None:
    """The message says what the switch may be."""
    with pytest.raises(ValueError, match="switch") as refusal:
        Switches.parse([pair])
    assert str(refusal.value).startswith(words)


# --- what is there from the start


async def test_departments_have_leading_zeros_and_one_is_inactive(ask: Ask) -> None:
    """The ids are texts, as schools have them."""
    call = await ask()
    status, departments = await call("GET", "departments")
    assert status == 200
    assert list(departments) == [f"0{n}00" for n in range(1, 10)]
    assert [key for key, each in departments.items() if each["status"] != "Active"] == ["0900"]
    assert departments["0100"].keys() == {"_id", "id", "name", "displayName", "status", "chair"}


def test_every_third_example_user_is_as_a_row_of_the_example_file_has_it() -> None:
    """A row's fields are part of the record for a third of the users, and differ for the others."""
    users = Sandbox(users=12).users
    for number, (email, record) in enumerate(users.items(), start=1):
        row = {
            "firstName": "Example",
            "lastName": f"User {number:05d}",
            "products": ["scheduling"],
            "roles": ["example-viewer"],
            "department": "0100" if number % 2 else "0200",
            "externalId": f"{number:06d}",
            "status": "active",
        }
        assert email == f"user{number:05d}@example.edu"
        assert (record | row == record) == (number % 3 == 0)


def test_a_seed_makes_the_same_users_again() -> None:
    """Records repeat to the byte, and another seed makes others."""
    assert orjson.dumps(Sandbox(users=9, seed=4).users) == orjson.dumps(Sandbox(users=9, seed=4).users)
    assert Sandbox(users=9, seed=4).users != Sandbox(users=9, seed=5).users


# --- ledger, state and looking behind


async def test_the_ledger_has_every_request_in_the_order_of_arrival(ask: Ask) -> None:
    """What was asked, what was answered, whether users changed, and when."""
    call = await ask()
    await call("POST", "users", NEW)
    await call("GET", "users?page=2")
    await call.log_in()
    create, read, login = call.sandbox.ledger
    assert (create.method, create.path, create.status, create.wrote) == (
        "POST",
        "/api/v1/example_university/users",
        201,
        True,
    )
    assert (read.method, read.query, read.status, read.wrote) == ("GET", "page=2", 200, False)
    assert (login.path, login.status, login.wrote, login.fault) == ("/api/v1/sessions", 201, False, "")
    assert create.at <= create.until <= read.at <= read.until <= login.at


async def test_the_ledger_counts_what_is_in_flight(ask: Ask) -> None:
    """Each entry counts itself and those that were being served when it came."""
    call = await ask(switches=Switches(latency=0.05))
    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(call("GET", "users"))
    await call("GET", "users")
    assert [entry.in_flight for entry in call.sandbox.ledger] == [1, 2, 3, 4, 1]


async def test_a_client_that_goes_leaves_a_write_behind(ask: Ask) -> None:
    """What was begun is done although nobody waits for the answer, and the ledger says that none was given."""
    call = await ask(switches=Switches(latency=0.3))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await call("POST", "users", NEW)
    await asyncio.sleep(0.05)
    entry = call.sandbox.ledger[0]
    assert (entry.status, entry.wrote, list(call.sandbox.users)) == (0, True, ["Ada@Example.edu"])
    assert entry.until - entry.at < 0.25


async def test_another_process_can_look_behind(ask: Ask) -> None:
    """State and ledger can be asked for without a token, and are not part of the ledger."""
    call = await ask(users=1)
    await call("POST", "users", NEW | {"disableRegistrationMail": False})
    _, state = await call("GET", "/_sandbox/state", token="")
    assert state["users"] == call.sandbox.users
    assert state["mails"] == ["Ada@Example.edu"]
    assert {"example-admin", "example-scheduler", "example-viewer"} == state["roles"].keys()
    assert "0900" in state["departments"]
    _, entries = await call("GET", "/_sandbox/ledger", token="")
    assert [(entry["method"], entry["status"], entry["in_flight"]) for entry in entries] == [("POST", 201, 1)]
    await call("DELETE", "/_sandbox/ledger", token="")
    assert call.sandbox.ledger == []


async def test_another_process_can_turn_switches(ask: Ask) -> None:
    """The given ones change, the others stay; a wrong one changes nothing."""
    call = await ask(switches=Switches(list_shape="list"))
    assert (await call("POST", "/_sandbox/switches", {"duplicate": 400, "latency": 0}))[0] == 200
    assert call.sandbox.switches == Switches(duplicate=400, list_shape="list")
    for wrong in (b'{"duplicate": true}', b'{"duplicate": 1}', b'{"nothing": 1}', b"[]", b'{"latency": "soon"}', b""):
        assert (await call("POST", "/_sandbox/switches", wrong))[0] == 400
    assert call.sandbox.switches == Switches(duplicate=400, list_shape="list")
    assert (await call("GET", "/_sandbox/nothing"))[0] == 404


async def test_another_process_can_settle_late_writes(ask: Ask) -> None:
    """What is to be written later is written at once."""
    call = await ask(switches=Switches(commit_delay=60))
    await call("POST", "users", NEW)
    await call("POST", "/_sandbox/settle")
    assert list(call.sandbox.users) == ["Ada@Example.edu"]


async def test_the_state_survives_in_its_file(ask: Ask, tmp_path: Path) -> None:
    """What a sandbox held when it stopped, late writes included, the next one holds; only its owner can read it."""
    path = tmp_path / "state.json"
    async with serve(Sandbox(users=2, state=path, switches=Switches(commit_delay=60))) as first:
        async with aiohttp.ClientSession() as session:
            await Caller(first, session)("POST", "users", {**NEW, "disableRegistrationMail": False})
        assert not path.exists()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["state.json"]
    call = await ask(users=50, state=path)
    assert call.sandbox.users == first.users
    assert set(first.users) == {"user00001@example.edu", "user00002@example.edu", "Ada@Example.edu"}
    assert call.sandbox.mails == ["Ada@Example.edu"]
    _, created = await call("POST", "users", NEW | {"email": "new@example.edu"})
    assert created["_id"] not in {record["_id"] for record in first.users.values()}


async def test_the_state_can_be_saved_while_it_serves(ask: Ask, tmp_path: Path) -> None:
    """Another process says when; without a file there is nothing to save to."""
    call = await ask(users=1, state=tmp_path / "state.json")
    assert (await call("POST", "/_sandbox/save"))[0] == 200
    assert orjson.loads((tmp_path / "state.json").read_bytes())["users"] == call.sandbox.users
    call = await ask()
    assert (await call("POST", "/_sandbox/save"))[0] == 400


@pytest.mark.parametrize("content", [b"", b"[]", b'{"users": []}', b'{"users": {}, "mails": []}'])
def test_a_file_that_is_no_state_is_refused(tmp_path: Path, content: bytes) -> None:
    """A sandbox does not start over somebody's other file."""
    path = tmp_path / "state.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"state\.json is not a state that a sandbox saved"):
        Sandbox(state=path)
    assert path.read_bytes() == content


# --- serving


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.edu", ""])  # noqa: S104 - to be refused
async def test_it_serves_on_loopback_only(host: str) -> None:
    """No other machine can reach it."""
    with pytest.raises(ValueError, match="loopback only"):
        async with serve(Sandbox(), host=host):
            pytest.fail("it serves")


async def test_it_says_when_it_is_ready_and_serves_until_cancelled() -> None:
    """The address is set while it serves, and not after."""
    ready: asyncio.Future[Sandbox] = asyncio.get_running_loop().create_future()
    server = asyncio.create_task(serve_forever(Sandbox(users=1), 0, ready.set_result))
    sandbox = await ready
    async with aiohttp.ClientSession() as session:
        assert (await Caller(sandbox, session)("GET", user(1)))[0] == 200
    server.cancel()
    with pytest.raises(asyncio.CancelledError):
        await server
    assert sandbox.url == ""


async def test_it_stops_although_requests_hang() -> None:
    """A client that waits does not keep it from stopping."""
    async with aiohttp.ClientSession() as session:
        async with serve(Sandbox(faults=[Fault(action="hang")])) as sandbox:
            waiting = asyncio.create_task(Caller(sandbox, session)("GET", "users"))
            await asyncio.sleep(0.05)
            assert not waiting.done()
        with pytest.raises(aiohttp.ClientError):
            await waiting
