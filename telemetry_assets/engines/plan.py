"""One attempt at a refresh, as every engine begins it: the tables as they were loaded, and which dates it takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date

from pyiceberg.table import FileScanTask, Table

from telemetry_assets.lakehouse.catalog import Lakehouse
from telemetry_assets.lakehouse.changes import applied_mark, changes_since_applied, partition_date
from telemetry_assets.lakehouse.scans import partition_filter
from telemetry_assets.tables.contract import TableContract
from telemetry_assets.tables.derived import Changes, DerivedTable, Partitions

_DATES_LISTED = 100


@dataclass(frozen=True)
class Refresh:
    """A derived table and its upstream, each at one snapshot, and what is to be taken.

    :param mark: the table properties that say what the table has taken; none where it is behind on more.
    """

    contract: DerivedTable
    target: Table
    upstream: Table
    changes: Changes
    mark: Mapping[str, str]
    run_id: str
    rows_read: Counter[date] = field(default_factory=Counter)

    @property
    def upstream_contract(self) -> TableContract:
        """The contract of the upstream."""
        return self.contract.upstream

    @property
    def summary(self) -> dict[str, str]:
        """What the summaries of the snapshots that it makes say."""
        return {
            "telemetry.run-id": self.run_id,
            "telemetry.step": self.contract.full_name,
            "telemetry.event-dates": _dates_text(self.changes.dates),
        }

    def upstream_files(self, event_dates: Partitions, paths: frozenset[str] | None = None) -> list[FileScanTask]:
        """The upstream's files of these dates, of these paths if they are given; their rows count as read."""
        planned = self.upstream.scan(partition_filter(self.upstream_contract, event_dates)).plan_files()
        tasks = [task for task in planned if paths is None or task.file.file_path in paths]
        for task in tasks:
            self.rows_read[partition_date(task.file)] += task.file.record_count
        return tasks

    def target_files(self, partitions: Partitions) -> Iterable[FileScanTask]:
        """The table's own files of these partitions."""
        return self.target.scan(partition_filter(self.contract, partitions)).plan_files()


def begin_refresh(
    lakehouse: Lakehouse, contract: DerivedTable, event_dates: frozenset[date] | None, run_id: str
) -> Refresh:
    """Load the tables and choose the dates; see :meth:`telemetry_assets.engines.base.Engine.refresh`."""
    upstream_contract = contract.upstream
    target, upstream = lakehouse.table(contract), lakehouse.table(upstream_contract)
    behind = changes_since_applied(target, upstream_contract, upstream)
    changes = _chosen(behind, event_dates, contract)
    mark = applied_mark(upstream_contract, upstream.current_snapshot()) if _covers(changes, behind) else {}
    return Refresh(contract, target, upstream, changes, mark, run_id)


def _chosen(behind: Changes, event_dates: frozenset[date] | None, contract: TableContract) -> Changes:
    if event_dates is None or behind.everything:
        return behind
    if contract.partition is None:
        # One row gathers many dates, so what else has changed has to be taken with them.
        return Changes(event_dates | behind.dates)
    return Changes(event_dates)


def _covers(changes: Changes, behind: Changes) -> bool:
    return changes.everything or (not behind.everything and behind.dates <= changes.dates)


def _dates_text(dates: frozenset[date]) -> str:
    if len(dates) <= _DATES_LISTED:
        return ",".join(day.isoformat() for day in sorted(dates))
    return f"{len(dates)} dates from {min(dates)} to {max(dates)}"
