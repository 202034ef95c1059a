"""Changes: the event dates and data files of an upstream that changed after a derived table's watermark.

They are read from the snapshots and manifests of the upstream, so no other record of changes is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta

from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile, ManifestEntry, ManifestEntryStatus
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation, Snapshot

from telemetry_assets.lakehouse.commits import BATCH_ID, summary_of, was_rolled_back
from telemetry_assets.lakehouse.watermarks import NO_SNAPSHOT, applied_edition, watermark_of
from telemetry_assets.tables.contract import Changes, DerivedTable, TableContract

MAINTENANCE = "telemetry.maintenance"
"""The property in the summary of a snapshot that rewrites files and changes no row."""

NEVER_REFRESHED = "it was never refreshed"
"""The reason for the first computation of a table."""

_EPOCH = date(1970, 1, 1)


def changes_since_watermark(derived: Table, contract: DerivedTable, upstream: Table, edition: str) -> Changes:
    """The event dates of rows that were added to or removed from the upstream after the watermark.

    All dates count as changed if the derived table was rolled back, was never refreshed, if its transform has a new
    edition, or if the snapshot of the watermark is not an ancestor of the upstream's current snapshot.

    :param edition: the edition of the transform that is in force.
    """
    if reason := _rebuild_reason(derived, contract, upstream, edition):
        return Changes(_dates_in(upstream), reason)
    watermark = watermark_of(derived, contract.upstream)
    newer = [] if watermark in (None, NO_SNAPSHOT) else _snapshots_after(watermark, upstream)
    if newer is None:
        return Changes(_dates_in(upstream), f"snapshot {watermark} of {contract.upstream.full_name} is gone")
    return Changes(frozenset(day for snapshot in newer for day in _dates_changed_by(snapshot, upstream.io)))


def _rebuild_reason(derived: Table, contract: DerivedTable, upstream: Table, edition: str) -> str:
    """Why a table must be rebuilt, without the case that its watermark's snapshot is missing; empty if it need not."""
    if was_rolled_back(derived):
        return "the table was rolled back"
    applied = applied_edition(derived, contract)
    if applied not in (None, edition):
        return f"edition {applied} of its transform has computed it, and edition {edition} is in force"
    if watermark_of(derived, contract.upstream) in (None, NO_SNAPSHOT):
        both_empty = upstream.current_snapshot() is None and derived.current_snapshot() is None
        return "" if both_empty else NEVER_REFRESHED
    return ""


def files_appended_since_watermark(
    derived: Table, upstream_contract: TableContract, upstream: Table
) -> frozenset[str] | None:
    """The paths of the data files that batches appended after the watermark.

    None if other commits are among the snapshots after the watermark, or if the snapshot of the watermark is not an
    ancestor of the current one. Rows that another writer appended may be older than rows with the same key that were
    there before, so all rows of the key are needed to find the newest.
    """
    newer = _snapshots_after(watermark_of(derived, upstream_contract), upstream)
    if newer is None or not all(map(_is_batch, newer)):
        return None
    return frozenset(
        entry.data_file.file_path
        for snapshot in newer
        for entry in _entries(snapshot, upstream.io)
        if entry.status == ManifestEntryStatus.ADDED
    )


def changes_no_row(snapshot: Snapshot) -> bool:
    """Whether a snapshot only rewrites files: marked maintenance, or Iceberg's operation ``replace``."""
    is_replacement = snapshot.summary is not None and snapshot.summary.operation == Operation.REPLACE
    return is_replacement or bool(summary_of(snapshot).get(MAINTENANCE))


def earliest_partition(table: Table) -> date | None:
    """The earliest date in the partitions of a table, from its manifest list; None if the table has no data file."""
    snapshot = table.current_snapshot()
    manifests = snapshot.manifests(table.io) if snapshot else []
    days = [
        # Iceberg stores a date as the number of days in four bytes.
        int.from_bytes(one.partitions[0].lower_bound, "little", signed=True)
        for one in manifests
        if one.partitions and one.partitions[0].lower_bound and one.has_existing_files() | one.has_added_files()
    ]
    return min((_EPOCH + timedelta(days=day) for day in days), default=None)


def partition_date(file: DataFile) -> date:
    """The partition value of a data file, in a table that is partitioned by a date."""
    value = file.partition[0]
    return value if isinstance(value, date) else _EPOCH + timedelta(days=value)


def _snapshots_after(watermark: str | None, upstream: Table) -> list[Snapshot] | None:
    """The snapshots after the watermark, newest first; None if its snapshot is not an ancestor of the current one."""
    newer: list[Snapshot] = []
    snapshot = upstream.current_snapshot()
    while snapshot is not None and str(snapshot.snapshot_id) != watermark:
        newer.append(snapshot)
        parent = snapshot.parent_snapshot_id
        snapshot = upstream.snapshot_by_id(parent) if parent is not None else None
    return newer if snapshot is not None else None


def _is_batch(snapshot: Snapshot) -> bool:
    is_append = snapshot.summary is not None and snapshot.summary.operation == Operation.APPEND
    return is_append and BATCH_ID in summary_of(snapshot)


def _dates_changed_by(snapshot: Snapshot, io: FileIO) -> set[date]:
    if changes_no_row(snapshot):
        return set()
    changed = (ManifestEntryStatus.ADDED, ManifestEntryStatus.DELETED)
    return {partition_date(entry.data_file) for entry in _entries(snapshot, io) if entry.status in changed}


def _entries(snapshot: Snapshot, io: FileIO) -> Iterator[ManifestEntry]:
    """The entries of the manifests that a snapshot added."""
    for manifest in snapshot.manifests(io):
        if manifest.added_snapshot_id == snapshot.snapshot_id:
            yield from manifest.fetch_manifest_entry(io, discard_deleted=False)


def _dates_in(table: Table) -> frozenset[date]:
    return frozenset(partition_date(task.file) for task in table.scan().plan_files())
