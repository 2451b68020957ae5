"""The users file as every client but ours reads it, so that all of them send the same."""

import csv
from collections.abc import Iterator
from typing import Any


def read_users(path: str) -> Iterator[dict[str, Any]]:
    """Yield each row as the record that the API is to hold; what is blank is left out."""
    with open(path, encoding="utf-8", newline="") as file:  # noqa: PTH123 - as short as it can be
        rows = csv.reader(file)
        next(rows)
        for first, last, email, products, external, primary, secondary, roles, status in rows:
            record = {
                "email": email,
                "firstName": first,
                "lastName": last,
                "department": primary,
                "externalId": external,
                "status": status,
                "products": products.split(", "),
                "roles": roles.split(", "),
            }
            if secondary:
                record["secondaryDepartments"] = secondary.split(", ")
            yield record
