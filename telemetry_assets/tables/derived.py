"""Derived tables: tables that a transform computes from an upstream table (Silver and Gold)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta

from telemetry_assets.tables.contract import TableContract
from telemetry_assets.tables.figures import Figure

Partitions = frozenset[date] | None
"""Partition values of a table; None means the whole table."""


@dataclass(frozen=True)
class Changes:
    """The changes of an upstream after a derived table's watermark.

    :param dates: the event dates with changed rows.
    :param everything: whether the whole table must be rebuilt, because the changed dates are unknown: the table is new,
        it was rolled back, or the snapshot of its watermark has expired. ``dates`` are then all dates of the upstream.
    """

    dates: frozenset[date]
    everything: bool = False

    def __bool__(self) -> bool:
        return self.everything or bool(self.dates)

    @property
    def partitions(self) -> Partitions:
        """The changed dates; None if the whole table is rebuilt."""
        return None if self.everything else self.dates


def identity_partition(event_date: date) -> date:
    """The partition of a table that is partitioned by event date."""
    return event_date


@dataclass(frozen=True, kw_only=True)
class DerivedTable(TableContract):
    """A table that a transform computes from an upstream table.

    :param upstream: the table from which it is computed.
    :param transform: the module whose function ``refresh`` computes the rows; see
        :class:`telemetry_assets.transforms.refresh.Transform`. It is a name, because transforms import PySpark.
    :param key_check: the name of the asset check for rows with the same key, e.g. ``one_row_per_event``.
    :param rebuild_description: what a materialization of chosen event dates replaces; shown on the asset's page.
    :param partition_of: returns the partition of an event date's rows; returns None if the table is not partitioned.
    :param figures: the numbers per partition that the UI plots.
    :param sources: for columns computed from an upstream column of another name, the name of that column.
    :param fresh_within: the UI shows the table as stale if its newest materialization is older than this.
    :param as_of: the column with the date for which the rows are computed; None if they do not depend on the day of the
        refresh.
    """

    upstream: TableContract
    transform: str
    key_check: str
    rebuild_description: str
    partition_of: Callable[[date], date | None] = identity_partition
    figures: tuple[Figure, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict, hash=False)
    fresh_within: timedelta | None = None
    as_of: str | None = None

    def column_sources(self) -> dict[str, str]:
        """For each column that has an upstream column, its name: the one in ``sources``, or the same name."""
        same_name = {name: name for name in self.column_names if name in self.upstream.column_names}
        return {**same_name, **self.sources}
