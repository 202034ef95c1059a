"""The plan of a refresh: the table and its upstream, each at one snapshot, and the event dates to refresh.

Every engine begins each attempt at a refresh with a plan. A plan reads metadata only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property

from pyiceberg.table import FileScanTask, Table

from telemetry_assets.errors import TableMismatchError
from telemetry_assets.lakehouse.catalog import Lakehouse
from telemetry_assets.lakehouse.changes import (
    changes_since_watermark,
    files_appended_since_watermark,
    partition_date,
)
from telemetry_assets.lakehouse.watermarks import watermark_of, watermark_properties
from telemetry_assets.tables.contract import Changes, DerivedTable, Partitions, TableContract

_DATES_LISTED = 100


@dataclass(frozen=True)
class TableScan:
    """Rows of a table, at the snapshot that was current when the table was loaded.

    :param partitions: the partitions of the rows; None for the whole table.
    :param after: if given, only rows that were appended after the snapshot with this id.
    :param paths: if given, only rows of these data files.
    """

    contract: TableContract
    table: Table
    partitions: Partitions
    after: str | None = None
    paths: frozenset[str] | None = None

    @cached_property
    def files(self) -> list[FileScanTask]:
        """The data files that have the rows."""
        planned = self.table.scan(self.contract.partition_filter(self.partitions)).plan_files()
        return [task for task in planned if self.paths is None or task.file.file_path in self.paths]

    def rows_by_date(self) -> Counter[date]:
        """The number of rows in the data files, by partition date."""
        rows: Counter[date] = Counter()
        for task in self.files:
            rows[partition_date(task.file)] += task.file.record_count
        return rows


@dataclass(frozen=True)
class RefreshPlan:
    """The tables, snapshots and event dates of one attempt at a refresh.

    :param contract: the table that is refreshed.
    :param target: the loaded table.
    :param changes: the event dates to refresh.
    :param watermark: the table properties that the refresh sets; empty if the table is still behind after the refresh.
    :param run_id: the run that refreshes the table.
    """

    contract: DerivedTable
    target: Table
    upstream: Table
    changes: Changes
    watermark: Mapping[str, str]
    run_id: str

    @property
    def summary(self) -> dict[str, str]:
        """The properties in the summary of each snapshot that the refresh commits."""
        return {
            "telemetry.run-id": self.run_id,
            "telemetry.step": self.contract.full_name,
            "telemetry.event-dates": _dates_text(self.changes.dates),
        }

    def upstream_rows(self, event_dates: Partitions) -> TableScan:
        """The upstream's rows of these event dates."""
        return TableScan(self.contract.upstream, self.upstream, event_dates)

    def appended_rows(self, event_dates: Partitions) -> TableScan | None:
        """The upstream's rows of these event dates that batches appended after the watermark.

        None if other commits are among the snapshots after the watermark.
        """
        upstream = self.contract.upstream
        paths = files_appended_since_watermark(self.target, upstream, self.upstream)
        if paths is None:
            return None
        return TableScan(upstream, self.upstream, event_dates, watermark_of(self.target, upstream), paths)

    def previous_rows(self, partitions: Partitions) -> TableScan:
        """The table's own rows of these partitions before the refresh."""
        return TableScan(self.contract, self.target, partitions)


def plan_refresh(
    lakehouse: Lakehouse, contract: DerivedTable, event_dates: frozenset[date] | None, run_id: str
) -> RefreshPlan:
    """Load the tables, and determine the event dates to refresh.

    :param event_dates: the event dates to refresh; None for those on which the table is behind.
    :raises TableMismatchError: if the table differs from its contract.
    """
    target, upstream = lakehouse.table(contract), lakehouse.table(contract.upstream)
    # Another version of this project may have changed the table since the run began.
    if differences := lakehouse.differences(target, contract):
        raise TableMismatchError(contract.full_name, differences)
    edition = lakehouse.transform_edition(contract)
    behind = changes_since_watermark(target, contract, upstream, edition)
    changes = _changes_to_take(behind, event_dates, contract)
    covers_all = changes.everything or (not behind.everything and behind.dates <= changes.dates)
    watermark = watermark_properties(contract.upstream, upstream.current_snapshot(), edition) if covers_all else {}
    return RefreshPlan(contract, target, upstream, changes, watermark, run_id)


def _changes_to_take(behind: Changes, event_dates: frozenset[date] | None, contract: TableContract) -> Changes:
    if event_dates is None or behind.everything:
        return behind
    if contract.partition is None:
        # A row of such a table depends on many event dates, so the other changed dates have to be refreshed too.
        return Changes(event_dates | behind.dates)
    return Changes(event_dates)


def _dates_text(dates: frozenset[date]) -> str:
    if len(dates) <= _DATES_LISTED:
        return ",".join(day.isoformat() for day in sorted(dates))
    return f"{len(dates)} dates from {min(dates)} to {max(dates)}"
