"""What programs read from stdout: UTF-8 whatever the locale, and all of it."""

import csv
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from bulkusers.errors import StorageError


def write_data(lines: Iterable[str]) -> None:
    """Write lines to stdout; a reader who left wants no more.

    Raises:
        StorageError: it cannot be written.

    """
    try:
        if sys.stdout is None:
            raise StorageError("stdout is closed, and there is nowhere else to write to")
        for line in lines:
            sys.stdout.buffer.write(line.encode(errors="replace") + b"\n")
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        return
    except OSError as error:
        raise StorageError(f"cannot write to stdout: {error.strerror}") from None


def write_csv(header: Sequence[str], rows: Iterable[Iterable[str]]) -> None:
    """Write a CSV file to stdout.

    Raises:
        StorageError: it cannot be written.

    """
    write_data(csv_lines(header, rows))


def csv_lines(header: Sequence[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """Yield the lines of a CSV file, without their ends."""
    writer = csv.writer(_Echo(), lineterminator="")
    return map(writer.writerow, chain([header], rows))  # it returns what `write` does


class _Echo:
    """A file that gives back what is written into it."""

    def write(self, text: str) -> str:
        """Return the text."""
        return text
