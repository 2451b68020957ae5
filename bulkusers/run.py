"""Users out of a file into the school: created, or brought up to date."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from bulkusers.answers import Conversation
from bulkusers.api import Api
from bulkusers.books import REJECTS
from bulkusers.brake import Brake
from bulkusers.directory import KINDS, Strangers, read_directory
from bulkusers.errors import ApiError, CapError
from bulkusers.files import is_same_place, move_aside
from bulkusers.forecast import Forecast, check_samples, foresee, make_forecast
from bulkusers.journal import Journal
from bulkusers.models import SHOWN_ROWS, Notice, Outcome, Status, User
from bulkusers.pipeline import Job, carry_out
from bulkusers.protocol import place, update
from bulkusers.report import STRANGE_IDS, Report, TextForm, write_rejects
from bulkusers.settings import Settings, make_rules
from bulkusers.snapshot import Snapshot, take_snapshot
from bulkusers.source import Source
from bulkusers.tally import Tally

Approve = Callable[[Forecast], bool]
"""Is shown what would happen, and says whether it may."""

NO_REQUEST: Final = {Status.UNCHANGED, Status.SKIPPED}


async def upload(
    source: Source,
    settings: Settings,
    *,
    report: Path = Path("results.json"),
    resume: bool = False,
    arguments: Sequence[str] = (),
    tally: Tally | None = None,
    brake: Brake | None = None,
    approve: Approve | None = None,
) -> Report:
    """Create or update every user of an opened file and write the outcome report; return what it says.

    It ends and is resumed as `pipeline.carry_out` says. Whoever is to `approve` is shown the forecast before the first
    write.

    Raises:
        AccessError: there is nothing to log in with.
        CapError: more users would be created or updated than the settings allow, or nobody approved.
        LockedError: another run of the same account is going on.
        ShapeError: the list of users, where one is needed, is none or not whole.
        SourceError: the run to resume was one of another file or target.
        SettingsError: the CA file cannot be used.
        StorageError: report or journal cannot be written.

    """
    job = Upload(source, settings, approve, _name_rejects(report, source)).job
    return await carry_out(job, settings, report=report, resume=resume, arguments=arguments, tally=tally, brake=brake)


def _sum_up(strangers: Strangers) -> Iterator[Notice]:
    """Yield what a report says of strange ids: in which rows they are, not what stands there; a plan names them."""
    for kind in dict.fromkeys(KINDS.values()):
        found = [stranger for stranger in strangers if stranger.kind == kind]
        count = sum(stranger.count for stranger in found)
        rows = sorted({row for stranger in found for row in stranger.rows})
        if count:
            message = f"{kind} id{'' if count == 1 else 's'} that the school does not have or use: see bulkusers plan"
            yield Notice(STRANGE_IDS, message, count, rows[:SHOWN_ROWS])


def _name_rejects(report: Path, source: Source) -> Path:
    """Return where rejected rows go: beside the report, and never in the place of the file that is being sent."""
    return next(of(report) for of in REJECTS if not is_same_place(of(report), source.facts.path))


class Upload:
    """What is to be done with a file's users, and what is known of them before."""

    def __init__(self, source: Source, settings: Settings, approve: Approve | None, rejects: Path) -> None:
        self._source = source
        self._settings = settings
        self._approve = approve
        self._rules = make_rules(settings)
        self._known: Snapshot | None = None  # where only what changes is sent
        self._noticed: list[Notice] = []
        self.job: Job[User] = Job(
            facts=source.facts,
            items=source.users,
            place=self._place,
            which={
                "sha256": source.facts.sha256,
                "base_url": settings.base_url,
                "school": settings.school,
                "existing": settings.existing,
                "lists": settings.lists,
                "notify": settings.notify,
            },
            options={
                "existing": settings.existing,
                "lists": settings.lists,
                "notify": settings.notify,
                "changed_only": settings.changed_only,
            },
            noticed=self._noticed,
            foregone=self._foresee_nothing,
            prepare=self._prepare,
            rejects=rejects,
            finish=self._write_rejects,
        )

    async def _prepare(self, api: Api, brake: Brake, stack: ExitStack) -> None:
        """See what would happen, where that has to be known before the first write.

        Raises:
            CapError: it would be too much, or nobody approved.
            ApiError: it cannot be seen.

        """
        settings = self._settings
        needed = settings.changed_only or settings.max_creates or settings.max_updates or self._approve
        if not needed or brake.reason:
            return
        try:
            snapshot = stack.enter_context(await api.read(take_snapshot(self._rules)))
            strangers = Strangers(await api.glance(read_directory(self._rules)))
            users = strangers.watch(self._source.users())
            forecast = await api.read(make_forecast(users, self._source.facts.rows, self._rules, snapshot))
            await api.read(check_samples(forecast, self._rules, snapshot))
        except ApiError:
            if brake.reason:
                return  # the run stops, whatever it was: nothing is sent, and the report says so
            raise
        for refusal in forecast.exceeded(settings.max_creates, settings.max_updates):
            raise refusal
        self._noticed += _sum_up(strangers)
        if self._approve is not None and not self._approve(forecast):
            raise CapError("nothing was sent: nobody said yes", hint="look at the changes with `bulkusers plan`")
        if settings.changed_only:
            self._known = snapshot

    def _write_rejects(self, report: Report, journal: Journal) -> None:
        """Write the rejected rows as the user had them; first the report: what was done is written down by then."""
        path, facts = self.job.rejects, self._source.facts
        assert path is not None
        move_aside(path)  # somebody has saved it since the run began
        if report.counts[Status.REJECTED]:
            encoding = "utf-8" if facts.encoding == "utf-8" else "utf-8-sig"  # what Excel understands
            form = TextForm(facts.header, facts.delimiter, encoding)
            write_rejects(path, form, self._source.records(), journal.rows())

    def _place(self, user: User, begun: bool) -> Conversation:  # noqa: FBT001 - as a worker calls it
        if self._known is None or begun:
            return place(user, self._rules, begun=begun)
        record = self._known.find(user.email)
        return place(user, self._rules, absent=True) if record is None else update(user, self._rules, record)

    def _foresee_nothing(self, user: User) -> Outcome | None:
        """Return the outcome of a user for whom there is nothing to send, as far as that is known."""
        if self._known is None:
            return None
        outcome = foresee(user, self._rules, self._known.find(user.email)).outcome
        return outcome if outcome.status in NO_REQUEST else None
