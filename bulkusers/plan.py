"""What a run would do, seen before it: nothing is sent but reads."""

from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self

from bulkusers.api import open_for_reading
from bulkusers.brake import Brake
from bulkusers.directory import Stranger, Strangers, read_directory
from bulkusers.errors import CapError
from bulkusers.forecast import Forecast, Foreseen, check_samples, foresee_rows, make_forecast
from bulkusers.settings import Settings, make_rules
from bulkusers.snapshot import Snapshot, take_snapshot
from bulkusers.source import Source


class Plan:
    """What would become of every row of a file; open until it is closed, as a file is."""

    def __init__(
        self, source: Source, settings: Settings, snapshot: Snapshot, forecast: Forecast, strangers: Iterable[Stranger]
    ) -> None:
        self._source = source
        self._snapshot = snapshot
        self.settings = settings
        self.facts = source.facts
        self.forecast = forecast
        self.strangers = tuple(strangers)

    def refusals(self) -> Iterator[CapError]:
        """Yield why a run would be refused before its first write."""
        return self.forecast.exceeded(self.settings.max_creates, self.settings.max_updates)

    def rows(self) -> Iterator[Foreseen]:
        """Yield what would become of each row, in the order of the file, without holding them."""
        return foresee_rows(self._source.users(), make_rules(self.settings), self._snapshot)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._snapshot.close()


async def plan(source: Source, settings: Settings, *, brake: Brake | None = None) -> Plan:
    """Return what `upload` would do with the same file and settings; sends nothing but reads.

    Raises:
        AccessError: the API does not let us in.
        ShapeError: the list of users is none or not whole.
        ApiError: the API cannot answer.
        StorageError: there is no room for the list of users.

    """
    rules = make_rules(settings)
    async with open_for_reading(settings, brake or Brake()) as api:
        snapshot = await api.read(take_snapshot(rules))
        try:
            strangers = Strangers(await api.glance(read_directory(rules)))
            users = strangers.watch(source.users())
            forecast = await api.read(make_forecast(users, source.facts.rows, rules, snapshot))
            await api.read(check_samples(forecast, rules, snapshot))
        except BaseException:
            snapshot.close()
            raise
    return Plan(source, settings, snapshot, forecast, strangers)
