"""All users of a school as they were at one moment: read once, checked against its own count, never half believed."""

import io
import tempfile
from collections.abc import Generator, Iterator
from contextlib import suppress
from types import TracebackType
from typing import BinaryIO, Self

import orjson

from bulkusers.answers import LOG_IN, Wish
from bulkusers.errors import AccessError, ApiError, OutageError, ShapeError
from bulkusers.files import scratch_file, scratch_space
from bulkusers.listing import Listing
from bulkusers.meaning import Meaning, classify
from bulkusers.models import BREATH, Json, Response, email_key
from bulkusers.rules import Rules


class Snapshot:
    """Every user's record, on disk where nobody else can read it; memory is some 200 bytes a user."""

    def __init__(self) -> None:
        """Make a place for the records.

        Raises:
            StorageError: there is none; TMPDIR names the folder.

        """
        self._places: dict[str, tuple[int, int]] = {}  # where in the file, by what e-mails are compared by
        self._spellings: dict[str, str] = {}  # of e-mails that are written otherwise than they are compared
        self._end = 0
        self._page = 0  # where in the file the present one begins
        self.shape = ""  # of the list: "map", "list" or "data", the list in an object
        self.pages = 1
        self.total: int | None = None  # how many the API says there are, if it does
        with scratch_space():
            self._file: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__

    def begin_page(self) -> None:
        """Take note that what is added from now on is of another page."""
        self._page = self._end

    def add(self, email: str, text: str) -> bool:
        """Take a record in; tell whether it is a new user's.

        Raises:
            ShapeError: a page has the user twice, or there is another whose e-mail differs only in how it is written.

        """
        key = email_key(email)
        if place := self._places.get(key):
            if place[0] >= self._page or self._spellings.get(key, key) != email:
                raise ShapeError(
                    "the API lists a user twice, or two whose e-mails differ only in how they are written "
                    f"(record {len(self) + 1:,} of its list is the second)",
                    hint="nobody knows which of them a row means: look for them in the web app",
                )
            return False
        if email != key:
            self._spellings[key] = email
        body = text.encode()
        self._file.write(body)
        self._places[key] = (self._end, len(body))
        self._end += len(body)
        return True

    def find(self, email: str) -> Json | None:
        """Return a user's record, None if there is none."""
        place = self._places.get(email_key(email))
        return None if place is None else self._read(*place)

    def __len__(self) -> int:
        return len(self._places)

    def texts(self) -> Iterator[str]:
        """Yield every record's JSON as the API wrote it, in the order of its list."""
        for place in self._places.values():
            yield self._text(*place).decode()

    def __iter__(self) -> Iterator[Json]:
        """Yield every record, as the API listed them."""
        for place in self._places.values():
            yield self._read(*place)

    def _read(self, start: int, length: int) -> Json:
        record: Json = orjson.loads(self._text(start, length))
        return record

    def flush(self) -> None:
        """Hand everything to the system, which may have no room for it."""
        self._file.flush()

    def _text(self, start: int, length: int) -> bytes:
        self._file.seek(start)
        return self._file.read(length)

    def close(self) -> None:
        """Forget everything."""
        with suppress(OSError):  # a full disk was told when it did not take something
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def take_snapshot(rules: Rules) -> Generator[Wish, Response, Snapshot]:
    """Read all users, page by page where the API has pages.

    A list that comes without a count is asked for its second page, too: whoever does not know pages answers the same.

    Raises:
        ShapeError: what is answered is no list of users, or not all of it.
        AccessError: the API does not let this account read users.
        OutageError: the API cannot answer now.
        TransportError: no answer came.
        StorageError: the disk is full.

    """
    snapshot = Snapshot()
    try:
        with scratch_file() as file:
            listing = yield from _read_page(rules, file)
            size = yield from _take_in(listing, snapshot, rules)
            total, page = listing.total, 1
            snapshot.shape = listing.shape
            added = 0 if listing.keyed else size
            while added and (total is None or len(snapshot) < total):
                page += 1
                listing = yield from _read_page(rules, file, page, size)
                added = yield from _take_in(listing, snapshot, rules)
                snapshot.pages += added > 0
                total = total if listing.total is None else listing.total
            snapshot.flush()
        snapshot.total = total
        _check_whole(snapshot, total)
    except BaseException:
        snapshot.close()
        raise
    return snapshot


def _check_whole(snapshot: Snapshot, total: int | None) -> None:
    if total is not None and len(snapshot) != total:
        raise ShapeError(
            f"the API says that there are {total:,} users, and lists {len(snapshot):,}",
            hint="try again; if it stays so, the list is cut short, or comes in pages of another kind: ask the vendor, "
            "and see [records] in the API profile",
        )


def _read_page(rules: Rules, file: BinaryIO, page: int = 1, size: int = 0) -> Generator[Wish, Response, Listing]:
    request = rules.read_all(file, page, size)
    answer = yield request
    match classify(request, answer, rules.profile):
        case Meaning.DONE:
            file.seek(0)
            return Listing(file, rules.profile.records)
        case Meaning.NOT_FOUND if page > 1:
            return Listing(io.BytesIO(b"[]"), rules.profile.records)  # another way to say that the last one was before
        case Meaning.NOT_FOUND:
            raise ShapeError(
                "the API has no list of users there (404)",
                hint="is the school's id right? then it is `paths.users` in the API profile",
            )
        case meaning:
            raise explain(answer, meaning)


def explain(answer: Response, meaning: Meaning) -> ApiError:
    """Return the error that a run ends with which cannot read users."""
    match meaning:
        case Meaning.UNAUTHENTICATED:
            return AccessError("the API does not accept the token (401)", LOG_IN)
        case _ if answer.status == 403:
            return AccessError(
                "the API does not let this account read users (403)",
                hint="use an account whose role has the permission",
            )
        case Meaning.REFUSED:
            return ShapeError(
                f"the API answers {answer.status} instead of users",
                hint="is the base URL right, and the paths in the API profile?",
            )
    return OutageError(f"the API cannot tell its users now ({answer.status})", hint="try again later")


def _take_in(listing: Listing, snapshot: Snapshot, rules: Rules) -> Generator[Wish, Response, int]:
    """Take a page's records in; return how many were new."""
    name = rules.profile.fields.email
    added = 0
    snapshot.begin_page()
    for count, (record, text) in enumerate(listing, 1):
        if count % BREATH == 0:
            yield None
        email = record.get(name)
        if not isinstance(email, str) or not email.strip():
            raise ShapeError(
                f"the API lists a record without {name!r}: it is no user's",
                hint="is `fields.email` in the API profile right, and `paths.users`?",
            )
        added += snapshot.add(email, text)
    return added
