"""What an answer means, whatever it is: one table from (method, status or error) to exactly one meaning."""

from enum import Enum, auto
from typing import Final

from bulkusers.errors import TransportError
from bulkusers.models import Request, Response
from bulkusers.profile import Profile


class Meaning(Enum):
    """What follows from an answer, or from the error that came instead."""

    DONE = auto()  # the expected status; its body is still to be looked at
    EXISTS = auto()  # a create was refused because there is such a user
    MAYBE_EXISTS = auto()  # ... or because of the data: a read decides
    NOT_FOUND = auto()  # there is no such user
    LOST = auto()  # a write may have been taken, or not: look before anything is sent again
    NOT_SENT = auto()  # the API cannot have seen it: it may be sent again
    BUSY = auto()  # the API did not take it now: it may be sent again later
    NO_ANSWER = auto()  # a read that told nothing: it may be sent again
    UNAUTHENTICATED = auto()  # the token is dead
    REFUSED = auto()  # a clear no: nothing was changed


BUSY_STATUSES: Final = frozenset({429, 503})  # RFC 6585 4, RFC 9110 15.6.4: come back later
BUSY: Final = 429  # RFC 6585 4: the one status that says of a write that it was not taken; proxies answer 503, too
READS: Final = frozenset({"GET", "HEAD"})
TABLE: Final = {  # which statuses of the profile mean what, by method
    "POST": (("created", Meaning.DONE), ("exists", Meaning.EXISTS), ("maybe_exists", Meaning.MAYBE_EXISTS)),
    "PUT": (("replaced", Meaning.DONE), ("not_found", Meaning.NOT_FOUND)),
    "DELETE": (("deleted", Meaning.DONE), ("not_found", Meaning.NOT_FOUND)),
    "GET": (("found", Meaning.DONE), ("not_found", Meaning.NOT_FOUND)),
}


def classify(request: Request, answer: Response | TransportError, profile: Profile) -> Meaning:
    """Return what an answer means; the profile's own statuses go before HTTP's classes (RFC 9110 15)."""
    unclear = Meaning.NO_ANSWER if request.method in READS else Meaning.LOST
    if isinstance(answer, TransportError):
        return unclear if answer.sent else Meaning.NOT_SENT
    status, known = answer.status, profile.statuses
    for name, meaning in TABLE.get(request.method, ()):
        if status in getattr(known, name):
            return meaning
    if status == 401:
        return Meaning.UNAUTHENTICATED
    if status == BUSY:
        return Meaning.BUSY
    # a redirect or a 4xx is a clear no; another success, or a server's error, may hide a write that was done
    return Meaning.REFUSED if 300 <= status < 500 else unclear
