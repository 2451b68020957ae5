"""`bulkusers check`."""

import shlex
from collections.abc import Iterator

import typer

from bulkusers.cli import options as opt
from bulkusers.cli.screen import Screen, note_facts
from bulkusers.cli.summary import plural
from bulkusers.models import Outcome, Status
from bulkusers.profile import load_profile
from bulkusers.source import Source, open_source
from bulkusers.tally import Tally


def check(
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
        tally = Tally(source.facts.rows)
        code = 6 if source.facts.rejected else 0
        screen.result(_examine(source, tally), code, counts=tally.counts)
    raise typer.Exit(code)


def _examine(source: Source, tally: Tally) -> Iterator[str]:
    """Yield every problem as it is found, then what is left to say."""
    fine = 0
    for item in source.users():
        if isinstance(item, Outcome):
            tally(item)
            yield f"row {item.row}: {item.message}"
            if item.hint:
                yield f"    {item.hint}"
        else:
            fine += 1
    counts = tally.counts
    yield (
        f"{source.facts.path}: {plural(source.facts.rows, 'row')}, {fine:,} fine, "
        f"{counts[Status.REJECTED]:,} rejected, {counts[Status.SKIPPED]:,} skipped"
    )
    if not counts[Status.REJECTED]:
        yield f"Next: bulkusers run {shlex.quote(source.facts.path)}"
