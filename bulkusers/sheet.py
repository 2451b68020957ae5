"""Users' records as rows of a users file: what a run of that file would take for a change is not in it."""

from collections import Counter
from typing import Final

from bulkusers.cells import Values, list_faulty, make_user
from bulkusers.columns import COLUMNS, Column, clean, safe_cell
from bulkusers.models import Json, Lists
from bulkusers.profile import Profile
from bulkusers.rules import NOTHING, Rules, change

ADDRESS: Final = "email-invalid"  # the one fault that a cell may have: without its address nobody knows whose row it is


class Sheet:
    """Makes rows, and counts the users of whom a row cannot tell everything."""

    def __init__(self, profile: Profile) -> None:
        self.users = 0
        self.partial = 0  # users with a cell that is blank, though they have a value
        self.blanks: Counter[str] = Counter()  # such users by column title
        self.refused = 0  # users whose row a run rejects, which changes nothing
        self.faults: Counter[str] = Counter()  # such users by column title
        self._profile = profile
        self._rules = [Rules(profile, "", lists=lists) for lists in Lists]

    def row(self, record: Json) -> list[str]:
        """Return a user's cells in the order of COLUMNS.

        What a cell cannot say exactly stays blank, because a blank cell keeps what is there. Whether it can is asked
        of the very rules that a run goes by.
        """
        cells = {column.field: self._say(column, record) for column in COLUMNS}
        for field, fault in self._find_faults(cells):
            if fault != ADDRESS:
                cells[field] = ""
        user = make_user(0, _values(cells))
        for rules in self._rules:
            _, changed = change(record, user, rules) or ({}, ())
            for column in COLUMNS:
                if getattr(self._profile.fields, column.field) in changed:
                    cells[column.field] = ""
        self._count(record, cells)
        return [safe_cell(cell) for cell in cells.values()]

    def _say(self, column: Column, record: Json) -> str:
        """Return a value as a file's reader would have it; nothing where it is of another kind."""
        value = record.get(getattr(self._profile.fields, column.field))
        if column.several:
            texts = value if isinstance(value, list) and all(isinstance(each, str) for each in value) else []
            cell = ",".join(map(clean, texts))
        else:
            cell = clean(value) if isinstance(value, str) else ""
        if column.field == "status":
            words = {self._profile.values.active: "active", self._profile.values.inactive: "inactive"}
            cell = words.get(cell, "")
        if column.field == "email" and cell != value:
            return ""  # to the API, it may be another user's
        return cell if _is_text(cell) else ""

    def _find_faults(self, cells: dict[str, str]) -> list[tuple[str, str]]:
        """Return the fields of cells that a run would not take, each with the fault's code."""
        products = self._profile.values.products
        return [(field, fault.code) for field, fault in list_faulty(_values(cells), products)]

    def _count(self, record: Json, cells: dict[str, str]) -> None:
        names = self._profile.fields
        lost = [
            column.title
            for column in COLUMNS
            if not cells[column.field] and not _is_nothing(record.get(getattr(names, column.field)))
        ]
        self.users += 1
        self.partial += bool(lost)
        self.blanks.update(lost)
        faulty = {field for field, _ in self._find_faults(cells)}
        self.refused += bool(faulty)
        self.faults.update(column.title for column in COLUMNS if column.field in faulty)


def _values(cells: dict[str, str]) -> Values:
    return tuple(cells.values())


def _is_nothing(value: object) -> bool:
    if isinstance(value, list):
        return all(map(_is_nothing, value))
    return value in NOTHING or (isinstance(value, str) and not clean(value))


def _is_text(cell: str) -> bool:
    """Tell whether a file can hold a text: JSON can hold half a letter."""
    try:
        cell.encode()
    except UnicodeEncodeError:
        return False
    return True
