"""A look at a school's API before the first run: each wrong set-up is named, with its remedy."""

import asyncio
import base64
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web
from test_cli import PROGRAM, spawn

from bulkusers import Secret, Settings
from bulkusers.brake import Brake
from bulkusers.cli.app import main
from bulkusers.doctor import CHECKS, examine
from bulkusers.errors import Interrupted
from bulkusers.findings import Finding, Level, judge_token, toml_lines
from bulkusers.profile import Profile, load_profile
from bulkusers.sandbox import Fault, Sandbox, Switches, serve

Look = Callable[..., Awaitable[list[Finding]]]
Overlay = Callable[[str], Profile]
OK, WARNING, PROBLEM = Level.OK, Level.WARNING, Level.PROBLEM


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder, with nothing configured."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("BULKUSERS_")]:
        monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    """Serve a sandbox that knows nine example users and counts them."""
    async with serve(Sandbox(users=9, switches=Switches(list_shape="data"))) as sandbox:
        yield sandbox


@pytest.fixture
def look(sandbox: Sandbox) -> Look:
    """Return a look at the sandbox, any setting said otherwise; it must change nothing and name nobody."""

    async def look(**settings: Any) -> list[Finding]:  # noqa: ANN401 - any setting
        findings: list[Finding] = []
        target: dict[str, Any] = {"base_url": sandbox.url, "school": sandbox.school}
        target["token"] = Secret(sandbox.new_token())
        await examine(Settings(**target | settings), Brake(), findings.append)
        assert not any(entry.wrote for entry in sandbox.ledger)
        assert [entry.method for entry in sandbox.ledger if entry.method != "GET"] in ([], ["POST"])
        assert {finding.check for finding in findings} == set(CHECKS), "each check is done, or said not to be"
        said = " ".join(f"{finding.message} {finding.hint}" for finding in findings)
        assert not re.search(r"\w@\w", said)
        assert "Example" not in said
        assert "\n" not in said
        return findings

    return look


@pytest.fixture
def overlay(tmp_path: Path) -> Overlay:
    """Return a function that makes an API profile with some lines said otherwise."""

    def overlay(text: str) -> Profile:
        (tmp_path / "own.toml").write_text(text, encoding="utf-8")
        return load_profile(tmp_path / "own.toml")

    return overlay


def worst(findings: list[Finding], check: str) -> Finding:
    """Return the worst finding of a check."""
    return max((each for each in findings if each.check == check), key=lambda each: list(Level).index(each.level))


def problems(findings: list[Finding]) -> list[str]:
    """Return which checks found a problem."""
    return [finding.check for finding in findings if finding.level is PROBLEM]


def lines_of(findings: list[Finding]) -> list[str]:
    """Return what is to be written into the API profile."""
    return list(toml_lines(line for finding in findings for line in finding.profile))


def not_looked_at(findings: list[Finding]) -> set[str]:
    """Return which checks say that they were not done."""
    return {finding.check for finding in findings if "not looked at, because" in finding.message}


def jwt(**claims: object) -> str:
    """Return a token that tells of itself."""
    parts = ({"alg": "HS256"}, claims)
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return ".".join([*encoded, "c2lnbmF0dXJl"])


async def test_where_all_is_well_there_is_nothing_to_mend(look: Look) -> None:
    """Every check is fine."""
    findings = await look()
    assert [finding.level for finding in findings] == [OK] * len(CHECKS)
    assert "9 users, as a list in 'data'; as many as the API says" in worst(findings, "users").message


# the eight wrong set-ups


def test_nothing_configured_is_told_with_the_first_command(capfd: pytest.CaptureFixture[str]) -> None:
    """Exit 4, and nothing is looked at."""
    assert code_of("doctor") == 4
    out = capfd.readouterr().out
    assert "problem  nothing is configured" in out
    assert "→ bulkusers login --env staging" in out
    assert "not looked at, because the configuration cannot work" in out
    assert out.splitlines()[-1].startswith("Next: mend 1 problem")


async def test_a_dead_token_is_told_and_not_replaced(look: Look, sandbox: Sandbox) -> None:
    """A login would kill the token of somebody else; the account's password stays where it is."""
    findings = await look(token=Secret("dead"), email=sandbox.email, password=Secret(sandbox.password))
    assert problems(findings) == ["token"]
    assert "does not accept the token (401)" in worst(findings, "token").message
    assert "bulkusers login" in worst(findings, "token").hint
    assert not_looked_at(findings) == set(CHECKS) - {"reach", "token"}
    assert not any(entry.method == "POST" for entry in sandbox.ledger)


async def test_a_dead_token_that_tells_when_it_died_is_believed(look: Look) -> None:
    """The API's no is explained by the token's own date."""
    findings = await look(token=Secret(jwt(exp=time.time() - 5 * 3600)))
    assert "it died 5 hours ago" in worst(findings, "token").message


async def test_a_base_url_without_its_end_is_told(look: Look, sandbox: Sandbox) -> None:
    """What answers there is JSON, and knows nothing."""
    findings = await look(base_url=sandbox.url.removesuffix("/api/v1"))
    assert problems(findings) == ["school"]
    assert "it ends in /api/v1" in worst(findings, "school").hint


async def test_a_wrong_school_is_told_once(look: Look) -> None:
    """Not as three lists that are missing."""
    findings = await look(school="another")
    assert problems(findings) == ["school"]
    assert "nothing of a school another" in worst(findings, "school").message
    assert "Admin > Settings" in worst(findings, "school").hint
    assert "because the school was not found" in worst(findings, "users").message


@pytest.mark.parametrize("path", ["/{school}/people", "/{school}/departments/users"])
async def test_a_wrong_path_is_told_with_the_right_one(look: Look, overlay: Overlay, path: str) -> None:
    """The other path is tried, and the line to write is the whole cure."""
    findings = await look(profile=overlay(f'[paths]\nusers = "{path}"\n'))
    assert problems(findings) == ["users"]
    assert lines_of(findings) == ["[paths]", 'users = "/{school}/users"']
    assert problems(await look(profile=overlay("\n".join(lines_of(findings))))) == []


async def test_a_path_that_nobody_knows_is_told(look: Look, sandbox: Sandbox) -> None:
    """The school is there, its users are not."""
    sandbox.faults = [Fault(path="*/users", action="status", status=404)]
    findings = await look()
    assert problems(findings) == ["users"]
    assert "though the school is there" in worst(findings, "users").message
    assert "`paths.users`" in worst(findings, "users").hint


@pytest.mark.parametrize("page_size", [0, 4])
@pytest.mark.parametrize(
    ("list_shape", "words"),
    [
        ("map", "an object with one member for each"),
        ("list", "a list"),
        ("data", "a list in 'data'"),
        ("length", "a list in 'data'"),
    ],
)
async def test_every_shape_of_the_list_is_named(
    look: Look, sandbox: Sandbox, list_shape: str, words: str, page_size: int
) -> None:
    """With its pages, and whether it says by itself that it is whole."""
    sandbox.switches = Switches(list_shape=list_shape, page_size=page_size)
    findings = await look()
    users = worst(findings, "users")
    assert f"9 users, as {words}" in users.message
    assert ("on 3 pages" in users.message) is (page_size > 0 and list_shape != "map")
    counted = list_shape in {"data", "length"}
    assert users.level is (OK if counted else WARNING)
    assert ("as many as the API says" in users.message) is counted
    assert counted or "compare the number" in users.hint


@pytest.mark.parametrize("list_shape", ["data", "length"])
async def test_a_list_that_is_cut_short_is_a_problem(look: Look, sandbox: Sandbox, list_shape: str) -> None:
    """By its own count; who is missing cannot be known, and users who exist would be taken for new."""
    sandbox.switches = Switches(list_shape=list_shape, cut_list=2)
    findings = await look()
    assert problems(findings) == ["users"]
    assert "there are 9 users, and lists 7" in worst(findings, "users").message
    assert "cut short" in worst(findings, "users").hint
    assert "doctor" not in worst(findings, "users").hint
    assert not_looked_at(findings) == {"user", "fields", "products", "status"}


async def test_a_list_under_another_name_is_told_with_the_line_to_write(look: Look, overlay: Overlay) -> None:
    """The member that holds it, and the one that counts it."""
    wrong = '[records]\ndata = "items"\ncounts = ["number"]\n'
    findings = await look(profile=overlay(wrong))
    assert problems(findings) == ["users"]
    assert lines_of(findings) == ["[records]", 'data = "data"', 'counts = ["totalCount"]']
    again = await look(profile=overlay("\n".join(lines_of(findings))))
    assert {finding.level for finding in again} == {OK}


async def test_a_count_under_another_name_is_told_with_the_line_to_write(look: Look, overlay: Overlay) -> None:
    """Without it, nobody would notice that a list is cut short."""
    findings = await look(profile=overlay('[records]\ncounts = ["number"]\n'))
    assert (problems(findings), worst(findings, "users").level) == ([], WARNING)
    assert lines_of(findings) == ["[records]", 'counts = ["totalCount"]']


@pytest.mark.parametrize("roles_path", ["general", "school"])
async def test_roles_may_be_at_either_path(look: Look, sandbox: Sandbox, roles_path: str) -> None:
    """The built-in profile knows both."""
    sandbox.switches = Switches(list_shape="data", roles_path=roles_path)
    assert "the school lists 3, and all that users have" in worst(await look(), "roles").message


async def test_roles_at_a_path_that_the_profile_leaves_out_are_found(
    look: Look, sandbox: Sandbox, overlay: Overlay
) -> None:
    """And the line to write is the whole cure."""
    sandbox.switches = Switches(list_shape="data", roles_path="school")
    findings = await look(profile=overlay('[paths]\nroles = ["/{school}/general/roles"]\n'))
    assert problems(findings) == ["roles"]
    assert lines_of(findings) == ["[paths]", 'roles = ["/{school}/roles"]']
    assert problems(await look(profile=overlay("\n".join(lines_of(findings))))) == []


async def test_departments_elsewhere_are_found(look: Look, overlay: Overlay) -> None:
    """As one path, not as a list of them."""
    findings = await look(profile=overlay('[paths]\ndepartments = "/{school}/units"\n'))
    assert problems(findings) == ["departments"]
    assert lines_of(findings) == ["[paths]", 'departments = "/{school}/departments"']


@pytest.mark.parametrize("status", [403, 401])
async def test_an_account_without_the_permission_is_told(look: Look, sandbox: Sandbox, status: int) -> None:
    """The vendor says that 401 can mean that, too: the token is alive, for departments are answered."""
    sandbox.faults = [Fault(path="*/users", action="status", status=status)]
    findings = await look()
    assert problems(findings) == ["users"]
    assert f"read users ({status})" in worst(findings, "users").message.replace("read the list of users", "read users")
    assert "permission" in worst(findings, "users").hint
    assert worst(findings, "token").level is OK


@pytest.mark.parametrize("name", ["roles", "departments"])
async def test_a_permission_that_nothing_depends_on_is_told_as_that(look: Look, sandbox: Sandbox, name: str) -> None:
    """A 401 to roles or departments alone says nothing of the token, nor of the users."""
    sandbox.faults = [Fault(path=f"*{name}", action="status", status=401)]
    findings = await look()
    assert problems(findings) == []
    assert {check for check in CHECKS if worst(findings, check).level is WARNING} == {name}
    assert "cannot be read (401)" in worst(findings, name).message
    assert "lacks the permission" in worst(findings, name).hint


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault(action="html"), "a web page perhaps (200)"),
        (Fault(action="html", status=404), "a web page perhaps (404)"),
        (
            Fault(action="redirect", location="https://portal.example.edu/?mac=1"),
            "elsewhere to portal.example.edu (302)",
        ),
        (Fault(action="redirect", status=307), "elsewhere (307)"),
    ],
)
@pytest.mark.parametrize("with_token", [True, False])
async def test_a_captive_portal_is_no_api(
    look: Look, sandbox: Sandbox, fault: Fault, words: str, with_token: bool
) -> None:
    """It is asked once, for nothing that needs a password."""
    sandbox.faults = [fault]
    account = {} if with_token else {"token": Secret(), "email": sandbox.email, "password": Secret(sandbox.password)}
    findings = await look(**account)
    assert problems(findings) == ["reach"]
    assert words in worst(findings, "reach").message
    assert "captive portal" in worst(findings, "reach").hint
    assert not_looked_at(findings) == set(CHECKS) - {"reach"}
    assert len(sandbox.ledger) == 1


async def test_a_stranger_gets_no_token(look: Look) -> None:
    """Whoever is no API is asked once, and not told who we are."""
    seen: list[Any] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        seen.append(request.headers)
        return web.Response(text="<html>", content_type="text/html")

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        await look(base_url=f"http://127.0.0.1:{runner.addresses[0][1]}/api/v1")
    finally:
        await runner.cleanup()
    assert ["Authorization" in headers for headers in seen] == [False]


async def test_a_login_page_instead_of_the_users_only_is_told(look: Look, sandbox: Sandbox) -> None:
    """The rest of the API is looked at all the same."""
    sandbox.faults = [Fault(path="*/users", action="html")]
    findings = await look()
    assert problems(findings) == ["users"]
    assert "a log-in page, perhaps" in worst(findings, "users").message
    assert worst(findings, "roles").level is OK


# nothing there


async def test_nothing_listening_there_is_told(look: Look) -> None:
    """By the system's word, and soon."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    findings = await look(base_url=f"http://127.0.0.1:{port}/api/v1")
    assert problems(findings) == ["reach"]
    assert "no connection to the API (Connect" in worst(findings, "reach").message
    assert "base URL" in worst(findings, "reach").hint


async def test_a_host_that_is_misspelled_is_told(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that nobody knows is another thing than a port where nobody listens."""

    async def know_nobody(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", know_nobody)
    findings = await look(base_url="https://app.courzedog.example/api/v1")
    assert problems(findings) == ["reach"]
    assert "its host's name is not known" in worst(findings, "reach").message
    assert "spelled right" in worst(findings, "reach").hint


async def test_a_certificate_that_is_not_trusted_is_told(look: Look) -> None:
    """With the one remedy there is."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)

    async def answer(_: web.BaseRequest) -> web.Response:
        return web.Response()

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        findings = await look(base_url=f"https://127.0.0.1:{runner.addresses[0][1]}/api/v1")
    finally:
        await runner.cleanup()
    assert problems(findings) == ["reach"]
    assert "certificate" in worst(findings, "reach").message
    assert "--ca-file" in worst(findings, "reach").hint


async def test_an_api_that_is_down_is_told(look: Look, sandbox: Sandbox) -> None:
    """It is not the base URL's fault."""
    sandbox.faults = [Fault(action="status", status=502)]
    findings = await look()
    assert problems(findings) == ["reach"]
    assert "down (502)" in worst(findings, "reach").message


async def test_a_school_of_which_nothing_can_be_read_is_not_called_wrong(look: Look, sandbox: Sandbox) -> None:
    """403 everywhere tells neither."""
    sandbox.faults = [Fault(action="status", status=403)]
    findings = await look()
    assert problems(findings) == ["users"]
    assert worst(findings, "school").level is WARNING
    assert "lacks the permission" in worst(findings, "roles").hint


# the token


async def test_a_password_buys_one_token(look: Look, sandbox: Sandbox) -> None:
    """One login, and everything is looked at."""
    account = {"token": Secret(), "email": sandbox.email, "password": Secret(sandbox.password)}
    assert problems(await look(**account)) == []
    assert [entry.path for entry in sandbox.ledger if entry.method == "POST"] == ["/api/v1/sessions"]


async def test_a_token_that_dies_at_once_is_not_replaced(look: Look, sandbox: Sandbox) -> None:
    """Never more than one login: the next would only kill another token."""
    sandbox.faults = [Fault(method="GET", path="*/users", action="kill_token")]
    findings = await look(token=Secret(), email=sandbox.email, password=Secret(sandbox.password))
    assert problems(findings) == ["token"]
    assert [entry.method for entry in sandbox.ledger].count("POST") == 1


@pytest.mark.parametrize(
    ("account", "words"),
    [
        ({"email": "admin@example.edu", "password": Secret("wrong")}, "does not accept this e-mail and password"),
        ({}, "there is no token"),
        ({"email": "admin@example.edu"}, "there is no token"),
    ],
)
async def test_an_account_that_cannot_log_in_is_told(look: Look, account: dict[str, Any], words: str) -> None:
    """The API is there, and does not let us in."""
    findings = await look(token=Secret(), **account)
    assert problems(findings) == ["token"]
    assert words in worst(findings, "token").message
    assert worst(findings, "token").hint


@pytest.mark.parametrize(
    ("token", "email", "level", "words"),
    [
        ("opaque", "a@example.edu", OK, "does not tell whose it is"),
        ("a.b.c", "a@example.edu", OK, "does not tell whose it is"),
        ("....", "", OK, "does not tell whose it is"),
        (
            jwt(email="A@Example.edu", exp=1000 + 7200),
            "a@example.edu",
            OK,
            "it is the configured e-mail's; it lives for 2",
        ),
        (jwt(email="a@example.edu"), "", OK, "no e-mail is configured to compare it with"),
        (jwt(sub="1"), "a@example.edu", OK, "does not tell whose it is"),
        (jwt(email="other@example.edu"), "a@example.edu", WARNING, "another account's"),
        (jwt(email="a@example.edu", exp=1000 + 60), "a@example.edu", WARNING, "dies within the hour"),
        (jwt(email=5, exp="soon"), "a@example.edu", OK, "does not tell whose it is"),
    ],
)
def test_a_token_is_asked_whose_it_is_and_how_long_it_lives(token: str, email: str, level: Level, words: str) -> None:
    """Whatever it says is said without the e-mail and without the token."""
    finding = judge_token(token, email, 1000.0)
    assert (finding.level, words in finding.message) == (level, True), finding
    assert "@" not in finding.message + finding.hint
    assert token not in finding.message + finding.hint


# the records


async def test_a_field_by_another_name_is_told_with_the_line_to_write(
    look: Look, sandbox: Sandbox, overlay: Overlay
) -> None:
    """Look-alikes are taken from the records, by the other names that people give a column."""
    for email, record in list(sandbox.users.items()):
        renamed = {"externalId": "institutionId", "firstName": "givenName", "roles": "roleIds"}
        sandbox.users[email] = {renamed.get(name, name): value for name, value in record.items()}
    findings = await look()
    assert problems(findings) == ["fields"] * 3
    assert lines_of(findings) == [
        "[fields]",
        'first_name = "givenName"',
        'external_id = "institutionId"',
        'roles = "roleIds"',
    ]
    again = await look(profile=overlay("\n".join(lines_of(findings))))
    assert {finding.level for finding in again} == {OK}


async def test_one_field_is_not_proposed_for_two_columns(look: Look, sandbox: Sandbox, overlay: Overlay) -> None:
    """A profile that says so would be refused."""
    for email, record in list(sandbox.users.items()):
        kept = {name: value for name, value in record.items() if name not in {"department", "secondaryDepartments"}}
        sandbox.users[email] = kept | {"departments": ["0300"]}
    lines = lines_of(await look())
    assert sum("departments" in line for line in lines) == 1
    overlay("\n".join(lines))


async def test_an_email_by_another_name_is_told(look: Look, sandbox: Sandbox) -> None:
    """Without it no record is a user's."""
    for email, record in list(sandbox.users.items()):
        sandbox.users[email] = {("mail" if name == "email" else name): value for name, value in record.items()}
    findings = await look()
    assert problems(findings) == ["users"]
    assert lines_of(findings) == ["[fields]", 'email = "mail"']


async def test_a_field_that_nobody_has_is_a_problem_only_where_everybody_needs_it(look: Look, sandbox: Sandbox) -> None:
    """A school may use no external ids; a last name is another thing."""
    for email, record in list(sandbox.users.items()):
        sandbox.users[email] = {name: value for name, value in record.items() if name not in {"externalId", "lastName"}}
    fields = [finding for finding in await look() if finding.check == "fields"]
    assert [(finding.level, finding.profile) for finding in fields] == [(PROBLEM, ()), (WARNING, ())]
    assert "'lastName'" in fields[0].message
    assert "'externalId'" in fields[1].message


async def test_values_of_another_kind_are_counted(look: Look, sandbox: Sandbox) -> None:
    """A run cannot merge into them."""
    for number, record in enumerate(sandbox.users.values()):
        record["roles"] = "example-viewer" if number < 2 else record["roles"]
        record["externalId"] = 5 if number < 3 else record["externalId"]
    messages = [finding.message for finding in await look() if finding.check == "fields"]
    assert messages == [
        "3 of 9 records have a 'externalId' that is not a text",
        "2 of 9 records have a 'roles' that is not a list of texts",
    ]


async def test_ids_that_the_school_does_not_have_are_named(look: Look, sandbox: Sandbox) -> None:
    """A role's name instead of its id, and departments in both fields; what may be a person's data is not shown."""
    first, second, *_ = sandbox.users.values()
    first["roles"] = ["Viewer", "somebody@example.edu"]
    second["department"] = "0999"
    first["secondaryDepartments"] = ["0998", "0300"]
    findings = await look()
    assert worst(findings, "roles").message == "roles: users have 2 that the school does not list: Viewer"
    assert "users have 2 that the school does not list: 0998, 0999" in worst(findings, "departments").message


async def test_statuses_in_other_words_are_told_with_the_lines_to_write(
    look: Look, sandbox: Sandbox, overlay: Overlay
) -> None:
    """Only where the profile's own word is nobody's."""
    for number, record in enumerate(sandbox.users.values()):
        record["status"] = "Active" if number else "Inactive"
    findings = await look()
    assert problems(findings) == ["status"]
    assert lines_of(findings) == ["[values]", 'active = "Active"', 'inactive = "Inactive"']
    assert problems(await look(profile=overlay("\n".join(lines_of(findings))))) == []


async def test_a_status_in_two_spellings_is_not_taken_for_another_word(look: Look, sandbox: Sandbox) -> None:
    """The profile's own word is in use: a profile with the other one would be wrong for most."""
    next(iter(sandbox.users.values()))["status"] = "Active"
    status = worst(await look(), "status")
    assert (status.level, status.profile) == (WARNING, ())


async def test_a_third_status_is_counted(look: Look, sandbox: Sandbox) -> None:
    """It may be kept, and cannot be said in a file."""
    for record in list(sandbox.users.values())[:2]:
        record["status"] = "pending"
    status = worst(await look(), "status")
    assert (status.level, status.profile) == (WARNING, ())
    assert "2 users have a status that is neither active nor inactive: pending" in status.message


async def test_products_that_the_profile_does_not_know_are_told(look: Look, sandbox: Sandbox, overlay: Overlay) -> None:
    """With all of them in one line, the known ones first."""
    next(iter(sandbox.users.values()))["products"] = ["assessment", "events"]
    findings = await look()
    assert (problems(findings), worst(findings, "products").level) == ([], WARNING)
    profile = overlay("\n".join(lines_of(findings)))
    assert profile.values.products == (*load_profile().values.products, "assessment")
    assert worst(await look(profile=profile), "products").level is OK


@pytest.mark.parametrize(
    ("fault", "level", "words"),
    [
        (
            Fault(path="*/users/*", action="status", status=404),
            PROBLEM,
            "not found by e-mail at /{school}/users/{email}",
        ),
        (Fault(path="*/users/*", action="status", status=404, nth=1), PROBLEM, "only with a bare @"),
        (Fault(path="*/users/*", action="status", status=403), PROBLEM, "cannot be read by e-mail (403)"),
        (Fault(path="*/users/*", action="wrong_body"), PROBLEM, "is not that user's record"),
        (Fault(path="*/users/*", action="html"), PROBLEM, "is not that user's record"),
        (Fault(path="*/users/USER*", action="status", status=404), WARNING, "only in the very case"),
        (Fault(path="*/users/USER*", action="wrong_body"), WARNING, "answered otherwise (200)"),
    ],
)
async def test_a_user_is_looked_for_by_email(
    look: Look, sandbox: Sandbox, fault: Fault, level: Level, words: str
) -> None:
    """A run rests on it: without, nobody can be updated, or a second user is created."""
    sandbox.faults = [fault]
    user = worst(await look(), "user")
    assert (user.level, words in user.message) == (level, True), user
    assert user.hint
    assert any(entry.path.endswith("@example.edu") for entry in sandbox.ledger) is (
        fault.path == "*/users/*" and fault.status == 404
    )


async def test_a_record_that_says_less_in_the_list_is_told_by_field(look: Look, sandbox: Sandbox) -> None:
    """Who trusts the list would take away what it does not show."""
    record = next(iter(sandbox.users.values()))
    sandbox.faults = [Fault(path="*/users/*", action="wrong_body", body=record | {"roles": ["x"], "extra": 1})]
    assert "not the same as in the list: extra, roles differ" in worst(await look(), "user").message


async def test_an_email_that_is_not_plain_is_looked_for_too(look: Look, sandbox: Sandbox) -> None:
    """A + in a path is where proxies and servers err."""
    record = next(iter(sandbox.users.values())) | {"email": "a+b/c@example.edu"}
    sandbox.users["a+b/c@example.edu"] = record
    assert worst(await look(), "user").level is OK
    assert any(entry.path.endswith("/users/a%2Bb%2Fc%40example.edu") for entry in sandbox.ledger)
    sandbox.faults = [Fault(path="*/users/a+b*", action="status", status=404)]
    assert worst(await look(), "user").level is PROBLEM


async def test_a_school_without_users_has_nothing_to_look_at(look: Look, sandbox: Sandbox) -> None:
    """It is not a problem, and said."""
    sandbox.users.clear()
    findings = await look()
    assert problems(findings) == []
    assert "because there are no users" in worst(findings, "fields").message


# the command


def code_of(*arguments: str) -> Any:  # noqa: ANN401 - as SystemExit has it
    """Run a command inside this process and return its exit code."""
    try:
        return main(arguments)
    except SystemExit as end:
        return end.code


async def call(sandbox: Sandbox, *arguments: str, **env: str) -> Any:  # noqa: ANN401 - as subprocess.run
    """Run `bulkusers doctor` as a process of its own against a sandbox."""
    target = {"BULKUSERS_BASE_URL": sandbox.url, "BULKUSERS_SCHOOL": sandbox.school}
    env = target | {"BULKUSERS_TOKEN": sandbox.new_token(), "PYTHONIOENCODING": "utf-8"} | env
    return await asyncio.to_thread(spawn, "doctor", *arguments, env=env)


async def test_who_says_what_is_said_without_secrets(sandbox: Sandbox, folder: Path) -> None:
    """Options, environment and file, each by name; token, password and e-mail only as being there."""
    file = folder / "my.properties"
    file.write_text("email = somebody@example.edu\nschool = other\ntoken = file-token\nlevel = 9\n")
    file.chmod(0o640)
    secrets = {"BULKUSERS_TOKEN": "environment-token", "BULKUSERS_PASSWORD": "hunter2"}
    variables = secrets | {"BULKUSERS_RATEE": "3"}
    done = await call(sandbox, "--properties", str(file), "--school", sandbox.school, **variables)
    assert done.returncode == 4
    assert f"environment: custom, {sandbox.url} (from the environment)" in done.stdout
    assert f"school: {sandbox.school} (from an option)" in done.stdout
    assert f"e-mail: *** (from {file})" in done.stdout
    assert "token: *** (from the environment)" in done.stdout
    assert "password: *** (from the environment)" in done.stdout
    assert "API profile: the built-in one (from the default)" in done.stdout
    assert f"warning  {file} holds a token, and others can read it" in done.stdout
    assert f"→ chmod 600 {file}" in done.stdout
    assert "level is not used" in done.stdout
    assert "warning  BULKUSERS_RATEE is not used" in done.stdout
    for secret in ("environment-token", "file-token", "hunter2", "somebody@"):
        assert secret not in done.stdout + done.stderr


async def test_a_token_of_the_file_is_said_to_be_of_the_file(sandbox: Sandbox, folder: Path) -> None:
    """The first step after `bulkusers login`."""
    file = folder / "coursedog.properties"
    file.write_text(f"base_url = {sandbox.url}\nschool = {sandbox.school}\ntoken = {sandbox.new_token()}\n")
    file.chmod(0o600)
    done = await asyncio.to_thread(spawn, "doctor")
    assert done.returncode == 0, done.stdout
    assert "token: *** (from coursedog.properties)" in done.stdout
    assert f"environment: custom, {sandbox.url} (from coursedog.properties)" in done.stdout
    assert "coursedog.properties says: base_url, school, token" in done.stdout


async def test_the_last_line_says_what_to_do_next(sandbox: Sandbox, folder: Path) -> None:
    """Three users where all is well; else the lines for the API profile, and this command again."""
    fine = await call(sandbox, "--school", sandbox.school)
    assert fine.returncode == 0, fine.stdout
    command = f"bulkusers run users.csv --school {sandbox.school}"
    assert fine.stdout.splitlines()[-1] == f"Next: a file with three users first: {command}"
    for record in sandbox.users.values():
        record["institutionId"] = record.pop("externalId")
    wrong = await call(sandbox)
    assert wrong.returncode == 4
    shown = re.search(r"For the API profile, school\.toml:\n\n((?:  .*\n)+)\nNext: (.*)\n", wrong.stdout)
    assert shown is not None
    assert shown[2] == "mend 1 problem, the first one first, then: bulkusers doctor --api-profile school.toml"
    (folder / "school.toml").write_text(shown[1])
    mended = await call(sandbox, "--api-profile", "school.toml")
    assert mended.returncode == 0, mended.stdout


async def test_findings_are_json_for_programs(sandbox: Sandbox) -> None:
    """The same findings, each with its level, check, message, hint and lines."""
    next(iter(sandbox.users.values()))["products"] = ["assessment"]
    done = await call(sandbox, "--format", "json")
    said = json.loads(done.stdout)
    assert (said["schema"], said["exit_code"], done.returncode) == (1, 0, 0)
    assert said["counts"] == {"ok": len(said["findings"]) - 1, "warning": 1, "problem": 0}
    products = next(each for each in said["findings"] if each["check"] == "products")
    assert set(products) == {"level", "check", "message", "hint", "profile"}
    assert products["level"] == "warning"
    assert said["profile"] == products["profile"]
    assert said["profile"][0] == "[values]"


async def test_quiet_shows_only_what_is_not_well(sandbox: Sandbox) -> None:
    """Nothing at all, or the warnings and problems."""
    assert (await call(sandbox, "--quiet")).stdout == ""
    sandbox.switches = Switches(list_shape="data", cut_list=1)
    assert "\nok" not in (shown := (await call(sandbox, "--quiet")).stdout)
    assert shown.startswith("problem  the API says that there are 9 users")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--env", "staging"], "no school is named"),
        (["--env", "staging", "--school", "A B"], "'A B' is no School Unique ID"),
        (["--base-url", "http://example.edu", "--school", "s"], "without encryption"),
        (["--api-profile", "missing.toml"], "cannot read the API profile"),
        (["--properties", "missing"], "there is no missing"),
        (["--base-url", "http://127.0.0.1:9", "--school", "s", "--ca-file", "missing.pem"], "the CA file"),
    ],
)
def test_a_configuration_that_cannot_work_is_a_finding(
    capfd: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    """Not an error message without a context; nothing is sent."""
    assert code_of("doctor", *arguments) == 4
    said = capfd.readouterr()
    assert re.search(rf"^problem  .*{re.escape(words)}", said.out, re.MULTILINE)
    assert "not looked at" in said.out
    assert said.err == ""


def test_a_token_for_another_host_is_not_sent_there(capfd: pytest.CaptureFixture[str], folder: Path) -> None:
    """It is a finding, too."""
    (folder / "coursedog.properties").write_text("env = staging\nschool = s\ntoken = t\n")
    assert code_of("doctor", "--env", "production") == 4
    assert "the token in the properties file is for https://staging" in capfd.readouterr().out


def test_the_sandbox_inside_the_program_is_looked_at_when_asked_for(capfd: pytest.CaptureFixture[str]) -> None:
    """To see what the command does."""
    assert code_of("doctor", "--env", "sandbox") == 0
    said = capfd.readouterr()
    assert "100 users" in said.out
    assert "nothing leaves this machine" in said.err


async def test_a_brake_ends_a_look(sandbox: Sandbox) -> None:
    """A program of one's own may stop it; what is left is not taken for a problem of the API."""
    brake, findings = Brake(), list[Finding]()

    def tell(finding: Finding) -> None:
        findings.append(finding)
        if finding.check == "token":
            brake.pull(Interrupted("SIGINT", 2))

    token = Secret(sandbox.new_token())
    with pytest.raises(Interrupted):
        await examine(Settings(base_url=sandbox.url, school=sandbox.school, token=token), brake, tell)
    assert [finding.check for finding in findings] == ["reach", "token", "school", "users"]


async def test_a_signal_ends_a_look_at_once(sandbox: Sandbox) -> None:
    """Nothing is under way that could be lost."""
    sandbox.faults = [Fault(path="*/users", action="hang")]
    env = {"BULKUSERS_BASE_URL": sandbox.url, "BULKUSERS_SCHOOL": sandbox.school}
    process = await asyncio.create_subprocess_exec(
        *PROGRAM, "doctor", env=os.environ | env | {"BULKUSERS_TOKEN": sandbox.new_token()},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(20):
        while not any(entry.path.endswith("/users") for entry in sandbox.ledger):  # noqa: ASYNC110 - a ledger calls nobody
            await asyncio.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        _, err = await process.communicate()
    assert process.returncode == 143
    assert b"SIGTERM" in err
