"""What a run writes besides its report, and how that stays with it: journal, before-images, and the rejected rows."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from uuid import uuid4

from bulkusers.files import is_same_place, move_aside
from bulkusers.images import Images
from bulkusers.journal import Journal, read_header, refuse_live


def journal_of(report: Path) -> Path:
    """Return where the journal of a run lies whose report is at `report`."""
    return Path(f"{report}.journal")  # also of . and /, which have no name


def images_of(report: Path) -> Path:
    """Return where the before-images of a run lie whose report is at `report`."""
    return _beside(report, "before.jsonl")


def rejects_of(report: Path) -> Path:
    """Return where the rejected rows of a run go whose report is at `report`."""
    return _beside(report, "rejects.csv")


def second_rejects_of(report: Path) -> Path:
    """Return where they go while the file at the first place is the one that is sent."""
    return _beside(report, "rejects.2.csv")


REJECTS: Final = (rejects_of, second_rejects_of)


def find_rejects(report: Path, written: str) -> Path | None:
    """Return where the rejected rows lie now that a run has `written`: they are moved aside with its report."""
    of = second_rejects_of if written.endswith(".2.csv") else rejects_of
    return of(report) if of(report).exists() else None


def _rejects_beside(report: Path, sent: str) -> Iterator[Callable[[Path], Path]]:
    """Yield what tells from a report where rejected rows lie, but for those that are the file that is sent."""
    return (of for of in REJECTS if not is_same_place(of(report), sent))


def _beside(report: Path, end: str) -> Path:
    """Return the name of what belongs to a report: another one for `k` than for `k.json`."""
    name = report.name.removesuffix(".json")
    return report.with_name(f"{name}{'-' if name == report.name else '.'}{end}")


class Books:
    """The journal and the before-images of one run; `run` is the id that says so in both, and in the report."""

    def __init__(self, report: Path, run: str, journal: Journal, images: Images) -> None:
        self.report: Final = report
        self.run: Final = run
        self.journal: Final = journal
        self.images: Final = images

    @classmethod
    def begin(cls, report: Path, which: Mapping[str, Any], sent: str = "-") -> Self:
        """Begin a run's; what an older run has left in their places is moved aside, but not the file that is `sent`.

        Raises:
            LockedError: another process is writing there.
            StorageError: they cannot be written.

        """
        path = journal_of(report)
        refuse_live(path)
        # the journal first: without it nobody goes on with that run while the rest is still here
        move_aside(report, journal_of, images_of, *_rejects_beside(report, sent))
        run = uuid4().hex
        with ExitStack() as stack:
            journal = stack.enter_context(Journal.create(path, {"id": run, **which}))
            books = cls(report, run, journal, Images.create(images_of(report), run))
            stack.pop_all()
        return books

    @classmethod
    def reopen(cls, report: Path, which: Mapping[str, Any], sent: str = "-") -> Self | None:
        """Go on with those of an interrupted run; None where there is none.

        Raises:
            LockedError: another process is writing there.
            SourceError: the run was one of another file or target, or was taken back.
            StorageError: they are damaged, or cannot be opened.

        """
        journal = Journal.reopen(journal_of(report), which)
        if journal is None:
            return None
        with ExitStack() as stack:
            stack.enter_context(journal)
            run = read_header(journal.path)["id"]
            images = Images.reopen(images_of(report), run)
            stack.callback(images.close)
            move_aside(report, *_rejects_beside(report, sent))  # from now on they say less than the journal
            stack.pop_all()
        return cls(report, run, journal, images)

    def sync(self) -> None:
        """Make everything that was written survive a power cut; the images first, for they say what may be undone.

        Raises:
            StorageError: the disk does not take it.

        """
        self.images.sync()
        self.journal.sync()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.images.close()
        self.journal.close()
