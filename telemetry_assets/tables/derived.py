"""Tables that a transform makes from their upstream: Silver and Gold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta

from telemetry_assets.tables.contract import TableContract
from telemetry_assets.tables.figures import Figure

Partitions = frozenset[date] | None
"""Partition values of a table; None for the whole table."""


@dataclass(frozen=True)
class Changes:
    """The event dates of an upstream that a derived table has not taken yet.

    :param dates: those dates.
    :param everything: which dates changed is unknown (the table is new or was rolled back, or the snapshot that it
        took has expired), so the whole table is rebuilt; ``dates`` are then all dates of the upstream.
    """

    dates: frozenset[date]
    everything: bool = False

    def __bool__(self) -> bool:
        return self.everything or bool(self.dates)

    @property
    def partitions(self) -> Partitions:
        """The changed dates; None if the whole table is rebuilt."""
        return None if self.everything else self.dates


def event_date_itself(event_date: date) -> date:
    """The partition of a table that is partitioned by event date."""
    return event_date


@dataclass(frozen=True, kw_only=True)
class DerivedTable(TableContract):
    """A table's contract, and how the table is made from its upstream and shown to users.

    Assets, jobs, checks, metadata, documentation and engines are derived from it.

    :param upstream: the table that it is made from.
    :param transform: the module whose function ``refresh`` computes the rows; see
        :class:`telemetry_assets.transforms.refresh.Transform`. It is a name because a transform imports PySpark.
    :param key_check: the name of the check that no two rows share the key, e.g. ``one_row_per_event``.
    :param rebuild_description: which rows a materialization of chosen event dates replaces, for the asset's page.
    :param partition_of: the partition that the rows of an event date belong to; None for a table without partitions.
    :param figures: numbers of each partition that the UI plots.
    :param sources: upstream columns, for columns that an upstream column of another name gives.
    :param fresh_within: the greatest age of the newest materialization before the UI shows the table as stale.
    :param as_of: the column with the date that the rows hold for, if they depend on the day of the refresh.
    """

    upstream: TableContract
    transform: str
    key_check: str
    rebuild_description: str
    partition_of: Callable[[date], date | None] = event_date_itself
    figures: tuple[Figure, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict, hash=False)
    fresh_within: timedelta | None = None
    as_of: str | None = None

    def column_sources(self) -> dict[str, str]:
        """The upstream column of each column that has one: of the same name, or as ``sources`` says."""
        same_name = {name: name for name in self.column_names if name in self.upstream.column_names}
        return {**same_name, **self.sources}
