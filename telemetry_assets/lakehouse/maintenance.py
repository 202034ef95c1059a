"""Maintenance: keeps the files, snapshots and metadata of the tables few, so that a run does not become slower.

:func:`maintain` does all work on a table. :func:`maintain_briefly` does a part of it in a bounded time, after a run.
Both work beside writers: each commit is based on exactly the snapshot that was read. If another writer commits first,
maintenance gives up, and the next one does the work. It can be killed at any time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table

from telemetry_assets.lakehouse.catalog import Lakehouse
from telemetry_assets.lakehouse.changes import needed_snapshots, take_maintenance
from telemetry_assets.lakehouse.compaction import (
    Compacted,
    compact,
    most_small_files,
    planned_compaction,
    small_manifests,
)
from telemetry_assets.lakehouse.expiry import Expiry, Retention, expire, plan_expiry
from telemetry_assets.lakehouse.orphans import orphans
from telemetry_assets.lakehouse.snapshots import summary_of
from telemetry_assets.lakehouse.stored_files import delete_files, stored_files
from telemetry_assets.settings import Settings
from telemetry_assets.tables import all_tables, derived_tables
from telemetry_assets.tables.contract import DerivedTable, TableContract
from telemetry_assets.text.formatting import counted, megabytes
from telemetry_assets.text.plain import plain_logger

logger = plain_logger(__name__)

_LEAST_FILES = 2
_LEAST_FILES_BRIEFLY = 8
_ILL_KEPT = 8
"""A table is ill kept if it has more than this many times of what starts maintenance after a run."""


@dataclass(frozen=True)
class MaintenancePolicy:
    """When tables are maintained, and what is kept.

    :param retention: how long snapshots are kept.
    :param commits: after a run, a table with this number of small manifests is compacted, and snapshots are expired if
        this number of them may be. Each commit adds one or two manifests.
    :param orphan_age: how long ago an orphan must have been written to be removed.
    """

    retention: Retention
    commits: int
    orphan_age: timedelta

    @classmethod
    def of(cls, settings: Settings) -> MaintenancePolicy:
        """The policy of the settings."""
        return cls(
            Retention(
                timedelta(hours=settings.snapshot_retention_hours),
                settings.snapshots_min,
                settings.daily_snapshot_days,
            ),
            settings.commits_before_compaction,
            timedelta(hours=settings.orphan_age_hours),
        )


@dataclass(frozen=True)
class TableSize:
    """The size of a table.

    :param data_files: the number of data files of the current snapshot.
    :param data_bytes: their size.
    :param snapshots: the number of snapshots.
    :param files: the number of files that are stored below the table's location; None if they were not counted.
    :param bytes: their size.
    """

    data_files: int
    data_bytes: int
    snapshots: int
    files: int | None = None
    bytes: int | None = None

    def __str__(self) -> str:
        stored = f"{counted(self.files, 'file')}, {megabytes(self.bytes or 0)}, " if self.files is not None else ""
        return f"{stored}{counted(self.data_files, 'data file')}, {counted(self.snapshots, 'snapshot')}"

    @classmethod
    def of(cls, table: Table, *, counts_files: bool = False) -> TableSize:
        """The size of a loaded table.

        :param counts_files: whether to list and count all stored files.
        """
        snapshot = table.current_snapshot()
        summary = summary_of(snapshot) if snapshot else {}
        stored = [one.bytes for one in stored_files(table.location())] if counts_files else None
        return cls(
            int(summary.get("total-data-files", 0)),
            int(summary.get("total-files-size", 0)),
            len(table.metadata.snapshots),
            len(stored) if stored is not None else None,
            sum(stored) if stored is not None else None,
        )


@dataclass(frozen=True)
class TableCondition:
    """How well a table is maintained.

    :param small_manifests: the number of small manifests. Each commit adds one or two.
    :param expirable_snapshots: the number of snapshots that may be removed.
    :param most_small_files: the greatest number of small data files in a partition.
    """

    small_manifests: int
    expirable_snapshots: int
    most_small_files: int

    def problems(self, policy: MaintenancePolicy) -> list[str]:
        """What is worse than maintenance after each run leaves it, one sentence part each."""
        bound = _ILL_KEPT * policy.commits
        counts = {
            "small manifests": self.small_manifests,
            "snapshots that may be removed": self.expirable_snapshots,
            "small data files in one partition": self.most_small_files,
        }
        return [f"it has {count:,} {name}, more than {bound:,}" for name, count in counts.items() if count > bound]


@dataclass(frozen=True)
class MaintenanceReport:
    """What maintenance did to a table.

    :param compacted: what was compacted.
    :param expired: the number of snapshots that were removed.
    :param deleted: the number of files that were deleted, because no snapshot needs them.
    :param lost_race: whether another writer committed first, so that work is left.
    """

    contract: TableContract
    before: TableSize
    after: TableSize
    compacted: Compacted
    expired: int
    deleted: int
    lost_race: bool
    seconds: float

    def __str__(self) -> str:
        work = (
            f"{counted(self.compacted.removed, 'data file')} compacted, {counted(self.expired, 'snapshot')} expired, "
            f"{counted(self.deleted, 'file')} deleted"
        )
        lost = "; a run was faster, so some work is left" if self.lost_race else ""
        return f"{self.contract.full_name}: {self.before}; now {self.after}; {work} ({self.seconds:.1f} s){lost}"


def maintain(
    lakehouse: Lakehouse,
    contract: TableContract,
    policy: MaintenancePolicy,
    in_use_since: datetime | None,
    *,
    dry_run: bool = False,
) -> MaintenanceReport:
    """Do all maintenance of a table.

    :param in_use_since: when the batch in progress began. Orphans that were written later are kept, because it may
        need them; None if no batch is in progress.
    :param dry_run: change nothing, and report what would be done. The files that only expired snapshots need are not
        counted.
    """
    maintenance = _Maintenance(lakehouse, contract, policy)
    return maintenance.planned(in_use_since) if dry_run else maintenance.all(in_use_since)


def maintain_briefly(lakehouse: Lakehouse, policy: MaintenancePolicy, seconds: float) -> list[MaintenanceReport]:
    """Do the maintenance of tables that need it, in a bounded time.

    :param seconds: after this time, no new step is started. A step takes up to a few tenths of a second.
    """
    deadline = time.monotonic() + seconds
    reports: list[MaintenanceReport] = []
    for contract in all_tables():
        if time.monotonic() < deadline:
            maintenance = _Maintenance(lakehouse, contract, policy, lambda: time.monotonic() > deadline)
            try:
                reports += maintenance.if_needed()
            except Exception as error:
                # The other tables do not depend on this one, and the run has done its work.
                logger.error("%s could not be maintained: %s", contract.full_name, error)
    return reports


def condition(lakehouse: Lakehouse, contract: TableContract, policy: MaintenancePolicy) -> TableCondition:
    """How well a table is maintained. All manifests of its current snapshot are read."""
    return _Maintenance(lakehouse, contract, policy).condition()


class _Maintenance:
    """The maintenance of one table."""

    def __init__(
        self,
        lakehouse: Lakehouse,
        contract: TableContract,
        policy: MaintenancePolicy,
        is_time_up: Callable[[], bool] = lambda: False,
    ) -> None:
        self._lakehouse = lakehouse
        self._contract = contract
        self._policy = policy
        self._is_time_up = is_time_up
        self._derived = [one for one in derived_tables() if one.upstream == contract]
        self._started = time.monotonic()
        self._compacted = Compacted()
        self._expired = 0
        self._deleted = 0
        self._lost_race = False

    def all(self, in_use_since: datetime | None) -> MaintenanceReport:
        """Do all work."""
        before = TableSize.of(self._table(), counts_files=True)
        # Orphans are found by the snapshots that exist, so before snapshots are added and removed.
        self._remove_orphans(in_use_since)
        self._step(lambda: self._compact(_LEAST_FILES, sorts=True))
        self._step(self._expire)
        return self._report(before, counts_files=True)

    def planned(self, in_use_since: datetime | None) -> MaintenanceReport:
        """What :meth:`all` would do."""
        size = TableSize.of(self._table(), counts_files=True)
        self._compacted = planned_compaction(self._table(), self._contract, _LEAST_FILES)
        self._expired = len(self._expiry(self._table()).removed)
        self._deleted = len(self._orphans(in_use_since))
        return self._report(size, counts_files=True)

    def if_needed(self) -> Iterable[MaintenanceReport]:
        """Do the work that is due. Returns nothing if none is."""
        table = self._lakehouse.existing(self._contract)
        if table is None:
            return
        before = TableSize.of(table)
        if small_manifests(table) >= self._policy.commits:
            self._step(lambda: self._compact(_LEAST_FILES_BRIEFLY, sorts=False))
        if not self._is_time_up() and len(self._expiry(self._table()).removed) >= self._policy.commits:
            self._step(self._expire)
        if self._compacted.is_any or self._expired or self._lost_race:
            yield self._report(before)

    def condition(self) -> TableCondition:
        """How well the table is maintained."""
        table = self._table()
        return TableCondition(
            small_manifests(table), len(self._expiry(table).removed), most_small_files(table, self._contract)
        )

    def _step(self, step: Callable[[], None]) -> None:
        try:
            step()
        except CommitFailedException as error:
            self._lost_race = True
            logger.info("%s: another writer was faster, so maintenance is left: %s", self._contract.full_name, error)

    def _compact(self, least_files: int, *, sorts: bool) -> None:
        table = self._table()
        for done in compact(table, self._contract, least_files, sorts=sorts, is_time_up=self._is_time_up):
            self._compacted += done
            self._move_watermarks()

    def _move_watermarks(self) -> None:
        own = [self._contract] if isinstance(self._contract, DerivedTable) else []
        for contract in (*own, *self._derived):
            derived, upstream = self._lakehouse.existing(contract), self._lakehouse.existing(contract.upstream)
            if derived is not None and upstream is not None:
                take_maintenance(derived, contract, upstream)

    def _expiry(self, table: Table) -> Expiry:
        loaded = {one: self._lakehouse.existing(one) for one in self._derived}
        derived = {one: of_one for one, of_one in loaded.items() if of_one is not None}
        needed = needed_snapshots(table, self._contract, derived)
        retention = self._policy.retention
        if self._contract.layer != "gold":
            retention = replace(retention, days=0)
        return plan_expiry(table.metadata, retention, needed, datetime.now(UTC))

    def _expire(self) -> None:
        table = self._table()
        expiry = self._expiry(table)
        if expiry:
            unneeded = expire(table, expiry)
            self._expired += len(expiry.removed)
            delete_files(unneeded)
            self._deleted += len(unneeded)

    def _orphans(self, in_use_since: datetime | None) -> list[str]:
        written_before = datetime.now(UTC) - self._policy.orphan_age
        if in_use_since is not None:
            written_before = min(written_before, in_use_since)
        return [one.uri for one in orphans(self._table, written_before)]

    def _remove_orphans(self, in_use_since: datetime | None) -> None:
        found = self._orphans(in_use_since)
        delete_files(found)
        self._deleted += len(found)

    def _table(self) -> Table:
        return self._lakehouse.table(self._contract)

    def _report(self, before: TableSize, *, counts_files: bool = False) -> MaintenanceReport:
        after = TableSize.of(self._table(), counts_files=counts_files)
        seconds = time.monotonic() - self._started
        return MaintenanceReport(
            self._contract, before, after, self._compacted, self._expired, self._deleted, self._lost_race, seconds
        )
