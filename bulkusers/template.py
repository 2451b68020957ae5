"""Example users, in the order of `columns.COLUMNS`: what a file looks like, and enough rows to try one out."""

from collections.abc import Iterator

# the ids of a sandbox's roles and departments; a school has its own
PRODUCTS = ("scheduling", "scheduling, curriculum", "catalog, events")


def example_rows(number: int) -> Iterator[list[str]]:
    """Yield the cells of `number` example users, the same ones every time."""
    for count in range(1, number + 1):
        primary, secondary = ("0100", "0200") if count % 2 else ("0200", "0100")
        yield [
            "Example",
            f"User {count:05}",
            f"user{count:05}@example.edu",
            PRODUCTS[count % 3],
            f"{count:06}",  # digits with leading zeros are text, not a number
            primary,
            secondary if count % 4 == 0 else "",
            "example-viewer",
            "active",
        ]
