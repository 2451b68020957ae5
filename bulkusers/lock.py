"""One run at a time for one account: logging in twice kills the first one's token."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from bulkusers.errors import LockedError, StorageError
from bulkusers.models import email_key
from bulkusers.settings import Settings


@contextmanager
def hold_lock(settings: Settings) -> Iterator[None]:
    """Keep every other run of the same account at the same API away; the system lets go of it when we die.

    Raises:
        LockedError: another run holds it.
        StorageError: there is no place to lock.

    """
    # who has a token only is known by the token; neither can be read back from the name
    account = email_key(settings.email) or settings.token.reveal()
    name = hashlib.sha256(f"{settings.base_url}\0{account}".encode()).hexdigest()[:16]
    lock = FileLock(Path(tempfile.gettempdir()) / f"bulkusers-{os.getuid()}-{name}.lock", mode=0o600)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise LockedError(
            "another run of this account is going on",
            hint="wait for it to end; nothing was sent by this one",
        ) from None
    except OSError as error:
        raise StorageError(
            f"cannot lock {lock.lock_file}: {error.strerror}",
            hint="nothing was sent; take away what stands there, if it is not a run's of your own",
        ) from None
    try:
        yield
    finally:
        lock.release()  # the file stays: whoever took it away could leave two runs with a lock each, of the same name
