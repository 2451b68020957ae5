"""What a run would do, seen before it: against a real sandbox, which is asked for nothing but reads."""

import asyncio
from collections.abc import AsyncIterator, Generator
from copy import deepcopy
from pathlib import Path

import pytest
from runs import HEADER, equal_line, line, send_lines, settings_for, statuses, writes

from bulkusers import Existing, Lists, Secret, open_source
from bulkusers.api import open_for_reading
from bulkusers.brake import Brake
from bulkusers.directory import Stranger
from bulkusers.models import Request, Response
from bulkusers.plan import plan
from bulkusers.sandbox import Fault, Sandbox, Switches, serve

ROWS = [line(1), line(2, first="Renamed"), equal_line(3), line(201), line(202), line(300, first="")]


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    """Serve a sandbox that knows a hundred example users."""
    async with serve(Sandbox(users=100)) as sandbox:
        yield sandbox


def write(folder: Path, *lines: str) -> Path:
    """Write a users file."""
    file = folder / "users.csv"
    file.write_text("\n".join([HEADER, *lines]) + "\n", encoding="utf-8")
    return file


@pytest.mark.parametrize("existing", list(Existing))
@pytest.mark.parametrize("lists", list(Lists))
async def test_a_plan_says_what_its_run_does_and_changes_nothing(
    sandbox: Sandbox, tmp_path: Path, existing: Existing, lists: Lists
) -> None:
    """The same counts and the same rows, after nothing but GETs."""
    held = deepcopy(sandbox.users)
    with open_source(write(tmp_path, *ROWS)) as source:
        with await plan(source, settings_for(sandbox, existing=existing, lists=lists)) as made:
            seen = {foreseen.outcome.row: str(foreseen.outcome.status) for foreseen in made.rows()}
        assert (writes(sandbox), sandbox.users) == ([], held)
    report = await send_lines(sandbox, tmp_path, *ROWS, existing=existing, lists=lists)
    assert seen == statuses(report)
    assert made.forecast.counts == report.counts


async def test_a_plan_cannot_write(sandbox: Sandbox) -> None:
    """Whoever reads for it and asks for anything but a GET is a bug that stops it."""
    settings = settings_for(sandbox)

    def create() -> Generator[Request, Response, None]:
        yield Request("POST", "/example_university/users", b"{}")

    async with open_for_reading(settings, Brake()) as api:
        with pytest.raises(AssertionError, match="change nothing"):
            await api.read(create())
    assert sandbox.ledger == []


@pytest.mark.parametrize("roles_path", ["general", "school"])
async def test_ids_that_the_school_does_not_have_are_named(sandbox: Sandbox, tmp_path: Path, roles_path: str) -> None:
    """With what was perhaps meant: by the name of a role, which people write, or by its looks; and what is inactive."""
    sandbox.switches = Switches(roles_path=roles_path)
    rows = [
        line(201, roles="Example Scheduler"),
        line(202, roles="example-viewr,example-admin"),
        line(203, roles="example-viewr", department="0900"),
        line(204, department="9999", secondary="0300"),
    ]
    with open_source(write(tmp_path, *rows)) as source, await plan(source, settings_for(sandbox)) as made:
        pass
    assert sorted(made.strangers, key=lambda stranger: stranger.id) == [
        Stranger("department", "0900", inactive=True, suggestion="", count=1, rows=[4]),
        Stranger("department", "9999", inactive=False, suggestion="", count=1, rows=[5]),
        Stranger("role", "Example Scheduler", inactive=False, suggestion="example-scheduler", count=1, rows=[2]),
        Stranger("role", "example-viewr", inactive=False, suggestion="example-viewer", count=2, rows=[3, 4]),
    ]


@pytest.mark.parametrize("with_password", [True, False])
async def test_a_permission_that_nothing_depends_on_is_no_hindrance(
    sandbox: Sandbox, tmp_path: Path, with_password: bool
) -> None:
    """An account that may not read roles is answered 401: no login is spent on that, and all else is planned."""
    sandbox.faults = [Fault(path="*roles*", action="status", status=401)]
    account = {"email": sandbox.email, "password": Secret(sandbox.password)} if with_password else {}
    rows = [line(1), line(201, roles="example-viewr", department="9999")]
    with open_source(write(tmp_path, *rows)) as source:
        async with asyncio.timeout(20):
            made = await plan(source, settings_for(sandbox, **account))
        with made:
            assert {foreseen.outcome.status for foreseen in made.rows()} == {"updated", "created"}
    assert [(stranger.kind, stranger.id) for stranger in made.strangers] == [("department", "9999")]
    assert writes(sandbox) == []
