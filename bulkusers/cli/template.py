"""`bulkusers template`."""

from typing import Annotated

from bulkusers.cli import options as opt
from bulkusers.cli.output import write_csv
from bulkusers.columns import COLUMNS
from bulkusers.template import example_rows


def template(
    rows: Annotated[int, opt.option("--rows", metavar="N", min=1, max=1_000_000, text="How many example users.")] = 3,
) -> None:
    """Print an example CSV to start from: bulkusers template > users.csv."""
    write_csv([column.title for column in COLUMNS], example_rows(rows))
