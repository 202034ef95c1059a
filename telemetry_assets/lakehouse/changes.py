"""What a derived table is behind on: which event dates of its upstream changed since it last took them.

Each derived table remembers the upstream snapshot that it has taken, as a table property. What came
after is read from the upstream's own manifests, so nothing has to be remembered anywhere else.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile, ManifestEntryStatus
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation, Snapshot

from telemetry_assets.lakehouse.commits import BATCH_ID, summary_of, was_rolled_back
from telemetry_assets.tables.contract import TableContract
from telemetry_assets.tables.derived import Changes

MAINTENANCE = "telemetry.maintenance"
"""Set in the summary of a snapshot that rewrites files and changes no row."""

_NO_SNAPSHOT = "none"
_EPOCH = date(1970, 1, 1)


def applied_property(upstream: TableContract) -> str:
    """The table property that holds the id of the upstream snapshot that a derived table has taken."""
    return f"telemetry.applied.{upstream.full_name}"


def applied_mark(upstream: TableContract, snapshot: Snapshot | None) -> dict[str, str]:
    """The table property that says that a derived table has taken this snapshot of its upstream."""
    return {applied_property(upstream): str(snapshot.snapshot_id) if snapshot else _NO_SNAPSHOT}


def is_behind(derived: Table, upstream_contract: TableContract, upstream: Table) -> bool:
    """Whether the upstream has another snapshot than the derived table holds. Reads no manifest."""
    if was_rolled_back(derived):
        return True
    applied = derived.properties.get(applied_property(upstream_contract), _NO_SNAPSHOT)
    current = upstream.current_snapshot()
    return applied != (str(current.snapshot_id) if current else _NO_SNAPSHOT)


def behind_since(derived: Table | None, upstream_contract: TableContract, upstream: Table) -> datetime | None:
    """When the first change came that a derived table has not taken; None where it has taken all. Reads no manifest.

    Of a table that is not there it is the upstream's first change that is known; where one of the two was rolled back,
    it is when that was last written to.
    """
    if derived is not None and not is_behind(derived, upstream_contract, upstream):
        return None
    if derived is not None and was_rolled_back(derived):
        return _moment(derived.metadata.last_updated_ms)
    applied = derived.properties.get(applied_property(upstream_contract), _NO_SNAPSHOT) if derived else _NO_SNAPSHOT
    first, snapshot = None, upstream.current_snapshot()
    while snapshot is not None and str(snapshot.snapshot_id) != applied:
        first, parent = snapshot, snapshot.parent_snapshot_id
        snapshot = upstream.snapshot_by_id(parent) if parent is not None else None
    if snapshot is None and applied != _NO_SNAPSHOT:
        return _moment(upstream.metadata.last_updated_ms)
    return _moment(first.timestamp_ms) if first else None


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def changes_since_applied(derived: Table, upstream_contract: TableContract, upstream: Table) -> Changes:
    """The dates on which rows of the upstream were added or removed since the derived table last took it."""
    current = upstream.current_snapshot()
    applied = derived.properties.get(applied_property(upstream_contract))
    if was_rolled_back(derived):
        return Changes(_dates_in(upstream), everything=True)
    if applied is None or applied == _NO_SNAPSHOT:
        nothing_to_take = current is None and derived.current_snapshot() is None
        return Changes(_dates_in(upstream), everything=not nothing_to_take)
    newer: list[Snapshot] = []
    snapshot = current
    while snapshot is not None and str(snapshot.snapshot_id) != applied:
        newer.append(snapshot)
        parent = snapshot.parent_snapshot_id
        snapshot = upstream.snapshot_by_id(parent) if parent is not None else None
    if snapshot is None:
        return Changes(_dates_in(upstream), everything=True)
    return Changes(frozenset(day for one in newer for day in _dates_changed_by(one, upstream.io)))


def files_appended_since_applied(
    derived: Table, upstream_contract: TableContract, upstream: Table
) -> frozenset[str] | None:
    """The paths of the data files that batches have added since; None where more happened, or nobody can say.

    What is appended by hand may be as old as what is there already, and only all rows together tell which one wins.
    """
    applied = derived.properties.get(applied_property(upstream_contract))
    paths: set[str] = set()
    snapshot = upstream.current_snapshot()
    while snapshot is not None and str(snapshot.snapshot_id) != applied:
        if snapshot.summary is None or snapshot.summary.operation != Operation.APPEND:
            return None
        if BATCH_ID not in summary_of(snapshot):
            return None
        for manifest in snapshot.manifests(upstream.io):
            if manifest.added_snapshot_id == snapshot.snapshot_id:
                paths.update(
                    entry.data_file.file_path
                    for entry in manifest.fetch_manifest_entry(upstream.io)
                    if entry.status == ManifestEntryStatus.ADDED
                )
        parent = snapshot.parent_snapshot_id
        snapshot = upstream.snapshot_by_id(parent) if parent is not None else None
    return frozenset(paths) if snapshot is not None else None


def changes_no_row(snapshot: Snapshot) -> bool:
    """Whether a snapshot only rewrites files: maintenance that says so, or a replacement of files by others."""
    is_replacement = snapshot.summary is not None and snapshot.summary.operation == Operation.REPLACE
    return is_replacement or bool(summary_of(snapshot).get(MAINTENANCE))


def _dates_changed_by(snapshot: Snapshot, io: FileIO) -> set[date]:
    if changes_no_row(snapshot):
        return set()
    return {
        partition_date(entry.data_file)
        for manifest in snapshot.manifests(io)
        if manifest.added_snapshot_id == snapshot.snapshot_id
        for entry in manifest.fetch_manifest_entry(io, discard_deleted=False)
        if entry.status in (ManifestEntryStatus.ADDED, ManifestEntryStatus.DELETED)
    }


def _dates_in(table: Table) -> frozenset[date]:
    return frozenset(partition_date(task.file) for task in table.scan().plan_files())


def partition_date(file: DataFile) -> date:
    """The date of a data file's partition, of a table that is partitioned by a date."""
    value = file.partition[0]
    return value if isinstance(value, date) else _EPOCH + timedelta(days=value)
