"""`bulkusers plan`."""

from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import orjson
import typer

from bulkusers.cli import options as opt
from bulkusers.cli.loop import on_signals, run_in_loop
from bulkusers.cli.output import write_data
from bulkusers.cli.screen import Screen, note_facts
from bulkusers.cli.summary import (
    describe_target,
    duration,
    fold,
    list_problems,
    name_rows,
    plural,
    run_command,
    table_of_counts,
)
from bulkusers.cli.target import Aim, take_aim
from bulkusers.columns import printable
from bulkusers.journal import row_of
from bulkusers.models import Existing, Lists, Status
from bulkusers.rules import NOTHING
from bulkusers.source import Source, open_source
from bulkusers.tally import exit_code

if TYPE_CHECKING:
    from bulkusers.directory import Stranger
    from bulkusers.forecast import Difference, Foreseen
    from bulkusers.plan import Plan

CHANGES: Final = {Status.CREATED, Status.UPDATED}
MOST_SHOWN: Final = 8  # lines of one kind on a screen
LISTS: Final = 3  # requests with --changed-only before the first user: all users, roles, departments
PENDING: Final = 9  # exit code


def plan(
    context: typer.Context,
    users: opt.UsersFile,
    env: opt.Env = None,
    base_url: opt.BaseUrl = None,
    school: opt.School = None,
    email: opt.Email = None,
    properties: opt.Properties = None,
    rate: opt.Rate = 50.0,
    existing: opt.ExistingMode = Existing.MERGE,
    lists: opt.ListsMode = Lists.ADD,
    notify: opt.Notify = None,
    details: Annotated[bool, opt.option("--details", text="Every row that would change, field by field.")] = False,
    as_json: Annotated[bool, opt.option("--json", text="The whole plan as JSON, for programs.")] = False,
    detailed_exitcode: Annotated[
        bool, opt.option("--detailed-exitcode", text="Exit with 9 where a run would change something.")
    ] = False,
    retries: opt.Retries = 5,
    timeout: opt.Timeout = 30.0,
    encoding: opt.Encoding = "",
    delimiter: opt.Delimiter = "",
    allow_empty: opt.AllowEmpty = False,
    ca_file: opt.CaFile = None,
    api_profile: opt.ApiProfile = None,
    log_format: opt.Log = opt.LogFormat.TEXT,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Show what a run would change, field by field; send nothing but reads."""
    screen = Screen(log_format, quiet=quiet, verbose=verbose)
    aim = take_aim(env, base_url, school, email, properties, api_profile, screen)
    with open_source(
        users, products=aim.profile.values.products, encoding=encoding, delimiter=delimiter, allow_empty=allow_empty
    ) as source:
        note_facts(source.facts, screen)
        more = {
            "rate": rate, "existing": existing, "lists": lists, "notify": bool(notify),
            "retries": retries, "timeout": timeout, "ca_file": ca_file,
        }  # fmt: skip
        how = Showing(details=details, as_json=as_json, detailed_exitcode=detailed_exitcode)
        code = show_plan(source, aim, more, how, context, screen)
    raise typer.Exit(code)


@dataclass(frozen=True, slots=True)
class Showing:
    """How a plan is shown, and what its exit code tells."""

    details: bool = False
    as_json: bool = False
    detailed_exitcode: bool = False


def show_plan(
    source: Source, aim: Aim, more: dict[str, Any], how: Showing, context: typer.Context, screen: Screen
) -> int:
    """Make a plan, show it, and return the exit code."""
    with run_in_loop(_make_plan(source, aim, more, screen)) as made:
        code = exit_code(made.forecast.counts, next(made.refusals(), None))
        if how.detailed_exitcode and code == 0 and any(made.forecast.counts[status] for status in CHANGES):
            code = PENDING
        if how.as_json:
            write_data(_json(made, code))
            return code
        if how.details:
            write_data(line for foreseen in made.rows() for line in _row(foreseen))
        screen.result(_summarize(made, context), code, counts=made.forecast.counts)
    return code


async def _make_plan(source: Source, aim: Aim, more: dict[str, Any], screen: Screen) -> "Plan":
    from bulkusers.brake import Brake
    from bulkusers.plan import plan

    async with AsyncExitStack() as stack:
        settings = await aim.settings(stack, screen, **more)
        brake = Brake()
        on_signals(brake.pull)
        return await plan(source, settings, brake=brake)


def _summarize(made: "Plan", context: typer.Context) -> Iterator[str]:
    """Yield what a person needs to decide: a screen."""
    settings, forecast, path = made.settings, made.forecast, made.facts.path
    place = {"environment": settings.environment, "base_url": settings.base_url, "school": settings.school}
    yield f"{path}: the plan for {plural(made.facts.rows, 'row')} to {describe_target(place)}"
    yield ""
    yield from table_of_counts(forecast.counts)
    yield from _list_changes(made)
    yield from _list_strangers(made)
    yield from list_problems(forecast.tally.problems())
    yield ""
    created = forecast.counts[Status.CREATED]
    yield f"Mails: {created if settings.notify else 'none'}" + (
        f" (--notify sends {created:,})" if created and not settings.notify else ""
    )
    plain, changed_only = forecast.requests(settings.existing)
    yield f"Requests: about {_effort(plain, settings.rate)};"
    yield f"  with --changed-only about {_effort(changed_only + LISTS, settings.rate)}"
    yield ""
    refusals = list(made.refusals())
    for refusal in refusals:
        yield from fold(f"A run would be refused: {refusal}.")
    yield "Nothing was sent. Next:"
    if path == "-":
        yield "  pipe the file into bulkusers run"
        return
    plan_again = [word for word in opt.as_typed(context, "plan") if word != "--details"]
    yield f"  every change: {run_command(path, plan_again, '--details', command='plan')}"
    if not refusals:
        yield f"  to do it:     {run_command(path, opt.as_typed(context, 'run'))}"


def _effort(requests: int, rate: float) -> str:
    return plural(requests, "request").removesuffix(" requests") + (
        f", {duration(requests / rate)} at {rate:g} a second" if rate else ""
    )


def _list_changes(made: "Plan") -> Iterator[str]:
    """Yield how many users change in which field, and who gains or loses what."""
    forecast = made.forecast
    lines = [
        f"{number:>9,} {plural(number, 'user').partition(' ')[2]} change {field}"
        for field, number in forecast.fields.most_common()
    ]
    lines += [f"{number:>9,} LOSE {field} {value}" for (field, value), number in forecast.losses.most_common()]
    lines += [f"{number:>9,} gain {field} {value}" for (field, value), number in forecast.gains.most_common()]
    if not lines:
        return
    yield ""
    yield "Changes:"
    if losses := forecast.tally.losses.count:
        rows = name_rows(forecast.tally.losses.rows, losses)
        yield f"  {losses:>9,} would lose values that stand in their records ({rows})"
    yield from _first(lines)


def _list_strangers(made: "Plan") -> Iterator[str]:
    """Yield the ids that the school does not have."""
    lines = [line for stranger in made.strangers for line in _stranger(stranger)]
    if lines:
        yield ""
        yield "Ids that the school does not have or use:"
        yield from _first(lines)


def _stranger(stranger: "Stranger") -> Iterator[str]:
    meant = f", did you mean {stranger.suggestion}?" if stranger.suggestion else ""
    trouble = "inactive" if stranger.inactive else f"unknown{meant}"
    yield f"{stranger.count:>9,} {stranger.kind} {stranger.id}: {trouble} ({name_rows(stranger.rows, stranger.count)})"


def _first(lines: Sequence[str]) -> Iterator[str]:
    for line in lines[:MOST_SHOWN]:
        yield from fold(f"  {printable(line)}", 12)
    if (more := len(lines) - MOST_SHOWN) > 0:
        yield f"{'':>12}and {more:,} more: --json has all"


def _row(foreseen: "Foreseen") -> Iterator[str]:
    """Yield one row that would change, field by field."""
    outcome = foreseen.outcome
    if outcome.status not in CHANGES:
        return
    yield f"row {outcome.row}  {outcome.email}  would be {outcome.status}"
    for each in foreseen.differences:
        yield f"    {each.field}: {printable(_difference(each))}"


def _difference(difference: "Difference") -> str:
    if difference.gained or difference.lost:
        signs = [f"+{value}" for value in difference.gained] + [f"-{value}" for value in difference.lost]
        return " ".join(signs)
    return f"{_value(difference.old)} → {_value(difference.new)}"


def _value(value: object) -> str:
    return "(nothing)" if value in NOTHING else value if isinstance(value, str) else orjson.dumps(value).decode()


def _json(made: "Plan", code: int) -> Iterator[str]:
    """Yield the plan as one JSON object, a row a line."""
    settings, forecast = made.settings, made.forecast
    plain, changed_only = forecast.requests(settings.existing)
    head = {
        "schema": 1,
        "plan": {
            "environment": settings.environment,
            "base_url": settings.base_url,
            "school": settings.school,
            "input": {"path": made.facts.path, "sha256": made.facts.sha256, "rows": made.facts.rows},
            "options": {"existing": settings.existing, "lists": settings.lists, "notify": settings.notify},
            "mails": forecast.counts[Status.CREATED] if settings.notify else 0,
            "requests": {"plain": plain, "changed_only": changed_only + LISTS},
            "exit_code": code,
        },
        "counts": forecast.counts,
        "fields": forecast.fields,
        "gains": [{"field": field, "value": value, "users": n} for (field, value), n in forecast.gains.most_common()],
        "losses": [{"field": field, "value": value, "users": n} for (field, value), n in forecast.losses.most_common()],
        "losing": {"count": forecast.tally.losses.count, "rows": forecast.tally.losses.rows},
        "unknown_ids": made.strangers,
        "problems": forecast.tally.problems(),
    }
    yield orjson.dumps(head).decode().removesuffix("}") + ', "rows": ['
    comma = ""
    for foreseen in made.rows():
        changes = [{"field": each.field, "old": each.old, "new": each.new} for each in foreseen.differences]
        yield comma + orjson.dumps(row_of(foreseen.outcome) | ({"changes": changes} if changes else {})).decode()
        comma = ","
    yield "]}"
