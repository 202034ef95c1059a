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

from telemetry_assets.errors import TableMismatchError
from telemetry_assets.lakehouse.catalog import Lakehouse
from telemetry_assets.lakehouse.changes import needed_snapshots, take_maintenance
from telemetry_assets.lakehouse.compaction import (
    BRIEF,
    FULL,
    Compacted,
    Extent,
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

_MOST_EXPIRED_BRIEFLY = 32
_ILL_KEPT = 8
"""A table is ill kept if it has more than this many times of what starts maintenance after a run."""
_CLOCK_ERROR = timedelta(hours=1)
"""A snapshot that is this much newer than the current time has the time of a wrong clock."""


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
    :param needed_snapshots: the number of other snapshots beyond the retention, which can be removed when the tables
        derived from this one are refreshed.
    :param most_small_files: the greatest number of small data files in a partition.
    :param time_in_future: when the newest snapshot was committed (UTC), if that is in the future; else empty.
    """

    small_manifests: int
    expirable_snapshots: int
    needed_snapshots: int
    most_small_files: int
    time_in_future: str

    def problems(self, policy: MaintenancePolicy) -> list[str]:
        """What is worse than maintenance after each run leaves it, one sentence part each."""
        bound = _ILL_KEPT * policy.commits
        counts = {
            "small manifests": self.small_manifests,
            "snapshots that may be removed": self.expirable_snapshots,
            "old snapshots that a derived table has to be refreshed from": self.needed_snapshots,
            "small data files in one partition": self.most_small_files,
        }
        problems = [f"it has {count:,} {name}, more than {bound:,}" for name, count in counts.items() if count > bound]
        if self.time_in_future:
            problems.append(
                f"its newest snapshot is from {self.time_in_future} UTC, which is in the future, so a "
                "clock is or was wrong; newer snapshots cannot expire before that time"
            )
        return problems


@dataclass(frozen=True)
class MaintenanceReport:
    """What maintenance did to a table.

    :param compacted: what was compacted.
    :param expired: the number of snapshots that were removed.
    :param deleted: the number of files that were deleted, because no snapshot needs them.
    :param lost_race: whether another writer committed first, so that work is left.
    :param seconds: how long it took.
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
    :raises TableMismatchError: if the table differs from its contract. Then nothing is done.
    """
    maintenance = _Maintenance(lakehouse, contract, policy)
    return maintenance.planned(in_use_since) if dry_run else maintenance.all(in_use_since)


def maintain_briefly(lakehouse: Lakehouse, policy: MaintenancePolicy, seconds: float) -> list[MaintenanceReport]:
    """Do the maintenance of tables that need it, in a bounded time.

    An error of one table is logged, because the run has done its work and the other tables do not depend on it.

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
                logger.error("%s could not be maintained: %s: %s", contract.full_name, type(error).__name__, error)
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
        self._require_contract(self._table())
        before = TableSize.of(self._table(), counts_files=True)
        # Orphans are found by the snapshots that exist, so before snapshots are added and removed.
        self._remove_orphans(in_use_since)
        self._step(lambda: self._compact(FULL))
        # Also if there was nothing to compact: another program may have removed snapshots.
        self._step(self._move_watermarks)
        self._step(self._expire)
        return self._report(before, counts_files=True)

    def planned(self, in_use_since: datetime | None) -> MaintenanceReport:
        """What :meth:`all` would do."""
        self._require_contract(self._table())
        size = TableSize.of(self._table(), counts_files=True)
        self._compacted = planned_compaction(self._table(), self._contract)
        self._expired = len(self._expiry(self._table()).removed)
        self._deleted = len(self._orphans(in_use_since))
        return self._report(size, counts_files=True)

    def if_needed(self) -> Iterable[MaintenanceReport]:
        """Do the work that is due. Returns nothing if none is."""
        table = self._lakehouse.existing(self._contract)
        if table is None:
            return
        self._require_contract(table)
        before = TableSize.of(table)
        if small_manifests(table) >= self._policy.commits:
            self._step(lambda: self._compact(BRIEF))
        if not self._is_time_up() and len(self._expiry(self._table()).removed) >= self._policy.commits:
            self._step(lambda: self._expire(_MOST_EXPIRED_BRIEFLY))
        if self._compacted.is_any or self._expired or self._lost_race:
            yield self._report(before)

    def condition(self) -> TableCondition:
        """How well the table is maintained."""
        table, now = self._table(), datetime.now(UTC)
        expirable = self._expiry(table).removed
        beyond = plan_expiry(table.metadata, self._retention, (), now).removed
        snapshot = table.current_snapshot()
        newest = datetime.fromtimestamp(snapshot.timestamp_ms / 1000, UTC) if snapshot else None
        return TableCondition(
            small_manifests(table),
            len(expirable),
            len(beyond - expirable),
            most_small_files(table, self._contract),
            f"{newest:%Y-%m-%d %H:%M}" if newest is not None and newest > now + _CLOCK_ERROR else "",
        )

    def _require_contract(self, table: Table) -> None:
        """Compaction rewrites rows with the columns of the contract, so values of other columns would be lost.

        If the table is changed after this check, the commit of a compaction fails, unless no row has such values.
        """
        differences = self._lakehouse.differences(table, self._contract)
        if differences:
            raise TableMismatchError(self._contract.full_name, differences)

    def _step(self, step: Callable[[], None]) -> None:
        try:
            step()
        except CommitFailedException as error:
            self._lost_race = True
            logger.info("%s: another writer was faster, so maintenance is left: %s", self._contract.full_name, error)

    def _compact(self, extent: Extent) -> None:
        for done in compact(self._table(), self._contract, extent, self._is_time_up):
            self._compacted += done
            self._move_watermarks()

    def _move_watermarks(self) -> None:
        own = [self._contract] if isinstance(self._contract, DerivedTable) else []
        for contract in (*own, *self._derived):
            derived, upstream = self._lakehouse.existing(contract), self._lakehouse.existing(contract.upstream)
            if derived is not None and upstream is not None:
                take_maintenance(derived, contract, upstream)

    @property
    def _retention(self) -> Retention:
        # The last snapshot of each day is of use to analysts, who query Gold.
        return self._policy.retention if self._contract.layer == "gold" else replace(self._policy.retention, days=0)

    def _expiry(self, table: Table, most: int | None = None) -> Expiry:
        loaded = {one: self._lakehouse.existing(one) for one in self._derived}
        derived = {one: of_one for one, of_one in loaded.items() if of_one is not None}
        needed = needed_snapshots(table, self._contract, derived)
        return plan_expiry(table.metadata, self._retention, needed, datetime.now(UTC), most)

    def _expire(self, most: int | None = None) -> None:
        table = self._table()
        expiry = self._expiry(table, most)
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
