"""Changes: what was added to and removed from an upstream after a derived table's watermark.

They are read from the snapshots and manifests of the upstream, so no other record of changes is kept. Small changes are
rows: those of the added data files less those of the removed ones. Large changes, and changes of which rows would not
be exact, are event dates.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile, ManifestContent, ManifestEntryStatus
from pyiceberg.table import FileScanTask, Table
from pyiceberg.table.snapshots import Operation, Snapshot

from telemetry_assets.lakehouse.commits import (
    has_same_rows,
    properties_snapshot,
    set_table_properties,
    snapshots_since_properties,
    was_rolled_back,
)
from telemetry_assets.lakehouse.data_files import dates_in, partition_date, read_rows, record_counts
from telemetry_assets.lakehouse.snapshots import (
    BATCH_ID,
    CHANGED_ROWS,
    NO_SNAPSHOT,
    changes_no_row,
    current_ancestors,
    files_added_after,
    ids_of,
    is_own,
    summary_of,
)
from telemetry_assets.lakehouse.watermarks import applied_edition, position_of, watermark_of, watermark_properties
from telemetry_assets.tables.contract import DerivedTable, TableContract

NEVER_REFRESHED = "it was never refreshed"
"""The reason for the first computation of a table."""

_SIGN = "_sign"


@dataclass(frozen=True)
class Changes:
    """The changes of an upstream after a derived table's watermark.

    :param dates: the event dates with changed rows.
    :param rebuild_reason: why the whole table must be rebuilt, as a sentence part; empty if it need not be. ``dates``
        are then all dates of the upstream.
    :param added: the data files with added rows. Rows that are in ``removed`` too have not changed.
    :param removed: the data files with removed rows.
    :param dates_to_rebuild: the dates on which the change is not given as rows.
    :param is_foreign: whether a snapshot that no run of this project committed is among the changes.
    """

    dates: frozenset[date]
    rebuild_reason: str = ""
    added: tuple[DataFile, ...] = ()
    removed: tuple[DataFile, ...] = ()
    dates_to_rebuild: frozenset[date] = frozenset()
    is_foreign: bool = False

    @property
    def everything(self) -> bool:
        """Whether the whole table must be rebuilt."""
        return bool(self.rebuild_reason)

    @property
    def bytes(self) -> int:
        """The size of the data files with changed rows."""
        return sum(file.file_size_in_bytes for file in (*self.added, *self.removed))

    def rows_added(self) -> Mapping[date, int]:
        """The number of rows in the added data files, by event date."""
        return record_counts(self.added)

    def __bool__(self) -> bool:
        return self.everything or bool(self.dates)


@dataclass(frozen=True)
class ChangedRows:
    """The changed rows of an upstream. A corrected row is in both tables, in its old and its new version.

    :param added: rows that the upstream did not have at the watermark.
    :param removed: rows that it no longer has.
    """

    added: pa.Table
    removed: pa.Table

    def __bool__(self) -> bool:
        return bool(self.added.num_rows or self.removed.num_rows)

    @property
    def both(self) -> pa.Table:
        """All changed rows."""
        return pa.concat_tables([self.added, self.removed])


@dataclass
class _Collected:
    """The files that some snapshots added and removed, in the order of the snapshots."""

    added: dict[str, DataFile] = field(default_factory=dict)
    removed: dict[str, DataFile] = field(default_factory=dict)
    rows: int = 0

    def add(self, snapshot: _SnapshotFiles) -> None:
        """Add the files of the next snapshot."""
        for file in snapshot.removed:
            # A file that an earlier of these snapshots has added was not there at the watermark.
            if self.added.pop(file.file_path, None) is None:
                self.removed[file.file_path] = file
        self.added.update((file.file_path, file) for file in snapshot.added)
        self.rows += snapshot.rows


@dataclass(frozen=True)
class _SnapshotFiles:
    """The data files that one snapshot added and removed.

    :param has_delete_files: whether it added or removed files with deleted rows.
    :param dates: the partitions of all these files.
    :param rows: the number of rows that it changed, if its summary has it; else of the rows in all these files.
    """

    added: tuple[DataFile, ...]
    removed: tuple[DataFile, ...]
    has_delete_files: bool
    dates: frozenset[date]
    rows: int


def changes_since_watermark(
    derived: Table, contract: DerivedTable, upstream: Table, edition: str, most_rows: int = 0
) -> Changes:
    """The changes of the upstream after the watermark.

    All dates count as changed if the derived table was rolled back, was never refreshed, if its transform has a new
    edition, or if the upstream was rolled back to a snapshot before the watermark.

    If the snapshot of the watermark has expired, the dates of newer data files are to be rebuilt. All dates count as
    changed only if older rows may have been removed or replaced.

    :param edition: the edition of the transform that is in force.
    :param most_rows: changes of more rows are given as dates to rebuild.
    """
    if reason := _rebuild_reason(derived, contract, upstream, edition):
        return Changes(dates_in(upstream), reason, is_foreign=_has_foreign_snapshot(upstream))
    watermark = watermark_of(derived, contract.upstream)
    newer = [] if watermark in (None, NO_SNAPSHOT) else _snapshots_after(watermark, upstream)
    if newer is None:
        return _changes_without_watermark(derived, contract, upstream)
    return _changes_in(newer[::-1], contract.upstream, upstream, most_rows)


def _changes_without_watermark(derived: Table, contract: DerivedTable, upstream: Table) -> Changes:
    """The changes of an upstream that has no snapshot of the watermark among the ancestors of its current one."""
    position = position_of(derived, contract.upstream)
    added = files_added_after(upstream, position) if position is not None else None
    if added is not None:
        dates = frozenset(map(partition_date, added))
        return Changes(dates, dates_to_rebuild=dates, is_foreign=True)
    watermark = watermark_of(derived, contract.upstream)
    reason = f"snapshot {watermark} of {contract.upstream.full_name} was rolled back or is gone"
    return Changes(dates_in(upstream), reason, is_foreign=_has_foreign_snapshot(upstream))


def _changes_in(snapshots: Sequence[Snapshot], contract: TableContract, upstream: Table, most_rows: int) -> Changes:
    """The changes of some snapshots, which are in the order of their commits."""
    collected, dates, to_rebuild = _Collected(), frozenset[date](), frozenset[date]()
    changing = [snapshot for snapshot in snapshots if not changes_no_row(snapshot)]
    by_rows = not _has_delete_files(upstream)
    for snapshot in changing:
        files = _files_of(snapshot, upstream.io)
        dates |= files.dates
        if by_rows and _is_exact_as_rows(snapshot, files, contract) and files.rows <= most_rows:
            collected.add(files)
        else:
            to_rebuild |= files.dates
    if collected.rows > most_rows:
        collected, to_rebuild = _Collected(), dates
    return Changes(
        dates,
        added=tuple(collected.added.values()),
        removed=tuple(collected.removed.values()),
        dates_to_rebuild=to_rebuild,
        is_foreign=not all(map(is_own, changing)),
    )


def _is_exact_as_rows(snapshot: Snapshot, files: _SnapshotFiles, contract: TableContract) -> bool:
    """Whether a table can be updated from the rows that a snapshot added and removed.

    Ingested rows that another writer appended may be older than rows with the same key that were there before. To find
    the newest, all rows of the key are needed.
    """
    if files.has_delete_files:
        return False
    return isinstance(contract, DerivedTable) or _is_batch(snapshot)


def changed_rows(upstream: Table, contract: TableContract, changes: Changes) -> ChangedRows:
    """Read the rows of the added and removed data files, and leave out the rows that are in both.

    :param contract: the contract of the upstream.
    """
    if not changes.removed:
        added = _rows_of(upstream, contract, changes.added)
        return ChangedRows(added, added.slice(0, 0))
    # Rows only move within their partition, so the rows of one date are in memory at a time.
    of_dates = [
        _difference(*(_rows_of(upstream, contract, _of_date(files, day)) for files in (changes.added, changes.removed)))
        for day in sorted({partition_date(file) for file in (*changes.added, *changes.removed)})
    ]
    return ChangedRows(
        pa.concat_tables([one.added for one in of_dates]), pa.concat_tables([one.removed for one in of_dates])
    )


def _rows_of(upstream: Table, contract: TableContract, files: Iterable[DataFile]) -> pa.Table:
    return contract.conform(read_rows(upstream, map(FileScanTask, files), contract.column_names))


def _of_date(files: Iterable[DataFile], day: date) -> list[DataFile]:
    return [file for file in files if partition_date(file) == day]


def _difference(added: pa.Table, removed: pa.Table) -> ChangedRows:
    """The rows that one of two tables has more often than the other."""
    columns = added.column_names
    both = pa.concat_tables([_signed(added, 1), _signed(removed, -1)])
    counted = both.group_by(columns).aggregate([(_SIGN, "sum")])
    difference = counted[f"{_SIGN}_sum"]
    rows = counted.select(columns).cast(added.schema)
    return ChangedRows(rows.filter(pc.greater(difference, 0)), rows.filter(pc.less(difference, 0)))


def _signed(rows: pa.Table, sign: int) -> pa.Table:
    return rows.append_column(_SIGN, pa.repeat(pa.scalar(sign, pa.int64()), rows.num_rows))


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


def was_changed_by_others(derived: Table) -> bool:
    """Whether another writer has changed rows of a derived table since its last refresh."""
    return not all(is_own(one) or changes_no_row(one) for one in snapshots_since_properties(derived))


def take_maintenance(derived: Table, contract: DerivedTable, upstream: Table) -> None:
    """Move a watermark over snapshots of the upstream that changed no row.

    Nothing is done if there are others too, or if another writer has changed rows of the derived table, because only a
    refresh can take these. Otherwise, the properties of the derived table no longer need the snapshots before
    maintenance, and these can expire. If another program has removed such a snapshot, the properties refer to an
    existing one afterwards, so that the manifests do not have to be read each time that the tables are compared.

    :raises CommitFailedException: if the derived table has changed since it was loaded.
    """
    edition, watermark = applied_edition(derived, contract), watermark_of(derived, contract.upstream)
    newer = _snapshots_after(watermark, upstream) if watermark not in (None, NO_SNAPSHOT) else None
    # If the watermark's snapshot is no ancestor, only a refresh can find out what has changed since.
    if edition is None or newer is None or not all(map(changes_no_row, newer)) or not has_same_rows(derived):
        return
    if newer or properties_snapshot(derived) != derived.metadata.current_snapshot_id:
        set_table_properties(derived, watermark_properties(contract.upstream, upstream, edition))


def needed_snapshots(table: Table, contract: TableContract, derived: Mapping[DerivedTable, Table]) -> frozenset[int]:
    """The snapshots of a table that its own properties, or the watermarks of other tables, refer to.

    :param derived: the tables that are derived from it.
    """
    watermarks = (watermark_of(one, contract) or NO_SNAPSHOT for one in derived.values())
    # The properties of other tables do not describe the rows of a snapshot.
    own = properties_snapshot(table) if isinstance(contract, DerivedTable) else None
    return frozenset([*(int(one) for one in watermarks if one != NO_SNAPSHOT), *([own] if own is not None else [])])


def _snapshots_after(watermark: str | None, upstream: Table) -> list[Snapshot] | None:
    """The snapshots after the watermark, newest first; None if its snapshot is not an ancestor of the current one."""
    newer: list[Snapshot] = []
    for snapshot in current_ancestors(upstream):
        if str(snapshot.snapshot_id) == watermark:
            return newer
        newer.append(snapshot)
        if watermark in ids_of(snapshot):
            return newer
    return None


def _has_foreign_snapshot(table: Table) -> bool:
    return not all(is_own(snapshot) or changes_no_row(snapshot) for snapshot in table.snapshots())


def _is_batch(snapshot: Snapshot) -> bool:
    is_append = snapshot.summary is not None and snapshot.summary.operation == Operation.APPEND
    return is_append and BATCH_ID in summary_of(snapshot)


def _has_delete_files(table: Table) -> bool:
    """Whether a table has files with deleted rows, which other writers may have added."""
    snapshot = table.current_snapshot()
    manifests = snapshot.manifests(table.io) if snapshot else []
    return any(one.content == ManifestContent.DELETES for one in manifests)


def _files_of(snapshot: Snapshot, io: FileIO) -> _SnapshotFiles:
    added: list[DataFile] = []
    removed: list[DataFile] = []
    dates: set[date] = set()
    has_delete_files = False
    for content, status, file in _entries(snapshot, io):
        dates.add(partition_date(file))
        if content == ManifestContent.DELETES:
            has_delete_files = True
        else:
            (added if status == ManifestEntryStatus.ADDED else removed).append(file)
    rows = int(summary_of(snapshot).get(CHANGED_ROWS) or sum(file.record_count for file in (*added, *removed)))
    return _SnapshotFiles(tuple(added), tuple(removed), has_delete_files, frozenset(dates), rows)


def _entries(snapshot: Snapshot, io: FileIO) -> Iterator[tuple[ManifestContent, ManifestEntryStatus, DataFile]]:
    """The files that a snapshot added or removed, from the manifests that it added."""
    for manifest in snapshot.manifests(io):
        if manifest.added_snapshot_id == snapshot.snapshot_id:
            for entry in manifest.fetch_manifest_entry(io, discard_deleted=False):
                if entry.status in (ManifestEntryStatus.ADDED, ManifestEntryStatus.DELETED):
                    yield manifest.content, entry.status, entry.data_file
