"""`bulkusers check`."""

from collections.abc import Iterator, Mapping
from typing import Final

import typer

from bulkusers.cli import options as opt
from bulkusers.cli.screen import Screen, note_facts
from bulkusers.cli.summary import plural, run_command
from bulkusers.models import Outcome, Status
from bulkusers.profile import load_profile
from bulkusers.source import Facts, open_source

FINE: Final = "fine"


def check(
    context: typer.Context,
    users: opt.UsersFile,
    encoding: opt.Encoding = "",
    delimiter: opt.Delimiter = "",
    allow_empty: opt.AllowEmpty = False,
    api_profile: opt.ApiProfile = None,
    log_format: opt.Log = opt.LogFormat.TEXT,
    quiet: opt.Quiet = False,
) -> None:
    """Validate the file, offline; list every problem."""
    screen = Screen(log_format, quiet=quiet)
    products = load_profile(api_profile).values.products
    with open_source(
        users, products=products, encoding=encoding, delimiter=delimiter, allow_empty=allow_empty
    ) as source:
        note_facts(source.facts, screen)
        code = 6 if source.facts.rejected else 0
        counts = {"rows": source.facts.rows, FINE: 0, str(Status.REJECTED): 0, str(Status.SKIPPED): 0}
        for item in source.users():
            counts[item.status if isinstance(item, Outcome) else FINE] += 1
            if isinstance(item, Outcome):
                screen.show(item, code)
        screen.result(_conclude(source.facts, counts, opt.as_typed(context)), code, counts=counts)
    raise typer.Exit(code)


def _conclude(facts: Facts, counts: Mapping[str, int], arguments: tuple[str, ...]) -> Iterator[str]:
    yield (
        f"{facts.path}: {plural(facts.rows, 'row')}, {counts[FINE]:,} fine, "
        f"{counts[Status.REJECTED]:,} rejected, {counts[Status.SKIPPED]:,} skipped"
    )
    if not counts[Status.REJECTED] and facts.path != "-":
        yield f"Next: {run_command(facts.path, arguments)}"
