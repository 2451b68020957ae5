"""Which e-mails stand in more than one row, found without holding all the e-mails."""

from array import array
from bisect import bisect_left
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from typing import Final

from bulkusers.cells import EMAIL, Values, identify
from bulkusers.errors import SourceError
from bulkusers.models import email_key

_BUCKETS: Final = 256  # so that sorting one of them needs little memory
_ROWS_NAMED: Final = 5
_NUMBER: Final = "q"  # 64 bits, signed, as hash() returns it
_ROW: Final = "I"


class Sightings:
    """The first reading's memory of e-mails: 8 bytes each."""

    __slots__ = ("_buckets",)

    def __init__(self) -> None:
        self._buckets = [array(_NUMBER) for _ in range(_BUCKETS)]

    def add(self, email: str) -> None:
        """Remember an e-mail by its hash."""
        hashed = hash(email_key(email))
        self._buckets[(hashed >> 56) + _BUCKETS // 2].append(hashed)

    def repeated(self) -> "array[int]":
        """Return the hashes that were seen more than once, sorted."""
        repeated = array(_NUMBER)
        for bucket in self._buckets:  # by the highest bits, hence in order
            for one, following in pairwise(sorted(bucket)):
                if one == following and (not repeated or repeated[-1] != one):
                    repeated.append(one)
        return repeated


@dataclass(frozen=True, slots=True)
class Repeat:
    """The rows that have one e-mail."""

    rows: tuple[int, ...]  # the first few
    more: bool  # than those
    kept: int  # the first row without a fault of its own, 0 if there is none
    differ: bool  # in something besides the e-mail


class Repeats:
    """The e-mails that stand in more than one row; some 60 bytes each, for a file may well hold everybody twice."""

    __slots__ = ("_counts", "_differ", "_good", "_hashes", "_identities", "_kept", "_keys", "_rows")

    def __init__(self, hashes: "array[int]") -> None:
        self._hashes = hashes
        # one place in each array for each hash
        self._keys = array(_NUMBER, [0]) * len(hashes)
        self._identities = array(_NUMBER, [0]) * len(hashes)
        self._rows = array(_ROW, [0]) * (len(hashes) * _ROWS_NAMED)
        self._counts = array(_ROW, [0]) * len(hashes)
        self._good = array(_ROW, [0]) * len(hashes)
        self._kept = array(_ROW, [0]) * len(hashes)
        self._differ = bytearray(len(hashes))

    def add(self, row: int, values: Values, *, good: bool) -> None:
        """Take a row into account; it is `good` if it has no fault of its own.

        Raises:
            SourceError: two e-mails have the same hash, which is other than one in a million files can expect.

        """
        key = email_key(values[EMAIL])
        place = self._find(key)
        if place < 0:
            return
        own, identity = _digest(key), _digest(identify(values))
        if not self._counts[place]:
            self._keys[place], self._identities[place] = own, identity
        elif self._keys[place] != own:
            # Python hashes otherwise in the next process
            raise SourceError("two e-mails in the file have the same hash by chance", hint="start again")
        elif self._identities[place] != identity:
            self._differ[place] = True
        if self._counts[place] < _ROWS_NAMED:
            self._rows[place * _ROWS_NAMED + self._counts[place]] = row
        self._counts[place] += 1
        if good:
            self._good[place] += 1
            self._kept[place] = self._kept[place] or row

    def find(self, email: str) -> Repeat | None:
        """Return what is known of an e-mail, None if it stands in one row only."""
        place = self._find(email_key(email))
        if place < 0:
            return None
        first = place * _ROWS_NAMED
        named = min(self._counts[place], _ROWS_NAMED)
        return Repeat(
            rows=tuple(self._rows[first : first + named]),
            more=self._counts[place] > named,
            kept=self._kept[place],
            differ=bool(self._differ[place]),
        )

    def count_refused(self) -> int:
        """Return how many rows are refused for nothing but their e-mail."""
        return sum(good for good, differ in zip(self._good, self._differ, strict=True) if differ)

    def __len__(self) -> int:
        return len(self._hashes)

    def _find(self, key: str) -> int:
        if not key:
            return -1
        hashed = hash(key)
        place = bisect_left(self._hashes, hashed)
        return place if place < len(self._hashes) and self._hashes[place] == hashed else -1


def _digest(value: object) -> int:
    return int.from_bytes(blake2b(repr(value).encode(), digest_size=8).digest(), "big", signed=True)
