"""Appends the rows of ingestion batches to the Bronze tables exactly once, and finds them.

Batches are found by their rows, because maintenance may expire or rewrite the snapshots that a batch committed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.expressions import And, EqualTo, GreaterThanOrEqual, In
from pyiceberg.manifest import DataFile, DataFileContent, ManifestContent, ManifestEntryStatus
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from telemetry_assets.lakehouse.catalog import Lakehouse
from telemetry_assets.lakehouse.commits import append_files, append_rows, delete_rows, until_committed
from telemetry_assets.lakehouse.merging import in_file_order, write_files
from telemetry_assets.lakehouse.snapshots import BATCH_ID, REMOVED_BATCH_ID, current_ancestors, summary_of
from telemetry_assets.tables import BRONZE, REJECTED, UPLOADS
from telemetry_assets.tables.contract import TableContract, decoded_bytes

_BYTES_IN_PIECE = 128 * 1024 * 1024
"""The size of rows in memory that are written at a time. A larger batch has several data files per partition."""


@dataclass(frozen=True)
class TablePosition:
    """A point in a table's history: rows that are appended later are in files with a greater sequence number.

    :param table_uuid: the table's UUID; a table that was dropped and created again has another one.
    :param sequence_number: the table's last sequence number.
    """

    table_uuid: str
    sequence_number: int

    @classmethod
    def of(cls, table: Table) -> TablePosition:
        """The current position of a loaded table."""
        return cls(str(table.metadata.table_uuid), int(getattr(table.metadata, "last_sequence_number", 0)))

    def precedes(self, table: Table) -> bool:
        """Whether a table is the same one, at this position or later. False if an older state was restored."""
        now = TablePosition.of(table)
        return self.table_uuid == now.table_uuid and self.sequence_number <= now.sequence_number


def batch_snapshot(table: Table, batch_id: str) -> Snapshot | None:
    """The snapshot that appended a batch; None if there is none, or it was rolled back or removed or has expired."""
    for snapshot in current_ancestors(table):
        summary = summary_of(snapshot)
        if summary.get(BATCH_ID) == batch_id:
            return snapshot
        if summary.get(REMOVED_BATCH_ID) == batch_id:
            return None
    return None


def remove_batch(table: Table, batch_id: str, summary: Mapping[str, str]) -> None:
    """Delete the rows of a batch, so that ``append_batch`` appends it again.

    :raises CommitFailedException: if the table has changed since it was loaded.
    """
    properties = {**summary, REMOVED_BATCH_ID: batch_id}
    has_rows = delete_rows(table, EqualTo(term="batch_id", value=batch_id), properties)
    # Version 0.1.0 commits a snapshot also for a batch without rows.
    if not has_rows and batch_snapshot(table, batch_id) is not None:
        append_files(table, (), properties)


def contains_batch(table: Table, batch_id: str, since: TablePosition | None = None) -> bool:
    """Whether the table contains a batch: the batch's snapshot, or rows with the batch's id.

    :param table: the table, loaded just before.
    :param since: the table's position before the batch began. If there are no data files after it, no rows are read.
    """
    if batch_snapshot(table, batch_id) is not None:
        return True
    if since is not None and since.precedes(table) and not _has_newer_files(table, since):
        return False
    return bool(table.scan(EqualTo(term="batch_id", value=batch_id), selected_fields=("batch_id",)).count())


def rows_of_batches(table: Table, batch_ids: Set[str], since: datetime, columns: Sequence[str]) -> pa.Table:
    """The rows of some batches in a table that is partitioned by the day of ``ingested_at``.

    :param since: the earliest ingestion time of the batches.
    """
    of_batches = In(term="batch_id", literals=set(batch_ids))
    where = And(of_batches, GreaterThanOrEqual(term="ingested_at", value=since))
    return table.scan(where, selected_fields=tuple(columns)).to_arrow()


def uploads_with_rows(lakehouse: Lakehouse, batch_ids: Set[str]) -> set[tuple[str, str]]:
    """The uploads of some batches that have rows in a Bronze table, as pairs of batch id and URI."""
    of_batches = In(term="batch_id", literals=set(batch_ids))
    columns = ("batch_id", "source_uri")
    found: set[tuple[str, str]] = set()
    for contract in (BRONZE, REJECTED, UPLOADS):
        rows = lakehouse.table(contract).scan(of_batches, selected_fields=columns).to_arrow().group_by(list(columns))
        found.update((row["batch_id"], row["source_uri"]) for row in rows.aggregate([]).to_pylist())
    return found


def _has_newer_files(table: Table, since: TablePosition) -> bool:
    """Whether the table has data files after a position. Only manifests after the position are read."""
    snapshot = table.current_snapshot()
    if snapshot is None:
        return False
    return any(
        entry.status != ManifestEntryStatus.DELETED and entry.data_file.content == DataFileContent.DATA
        for manifest in snapshot.manifests(table.io)
        if manifest.content == ManifestContent.DATA and (manifest.sequence_number or 0) > since.sequence_number
        for entry in manifest.fetch_manifest_entry(table.io)
    )


def append_batch(
    lakehouse: Lakehouse,
    contract: TableContract,
    batch_id: str,
    rows: pa.Table | Sequence[DataFile],
    summary: Mapping[str, str],
    since: TablePosition | None = None,
) -> Snapshot | None:
    """Append the rows of an ingestion batch exactly once, as one snapshot with the batch's id in its summary.

    If the table already contains the batch, nothing is appended. The commit fails, and is tried again, if the table has
    changed since the check for the batch.

    :param rows: the rows, whose columns may be dictionary-encoded, or data files that belong to no table.
    :param since: the table's position before the batch began; if not given, the whole table is searched for the batch.
    :returns: the batch's snapshot; None if it has expired.
    :raises ConcurrentWriteError: if another writer committed during each attempt.
    """
    properties = {**summary, BATCH_ID: batch_id}

    def attempt() -> Snapshot | None:
        table = lakehouse.table(contract)
        if contains_batch(table, batch_id, since):
            return batch_snapshot(table, batch_id)
        if isinstance(rows, pa.Table):
            _append_in_pieces(table, contract, rows, properties)
        else:
            append_files(table, rows, properties)
        if not contains_batch(table, batch_id, since):
            raise CommitFailedException(f"batch {batch_id} is not in {contract.full_name} after its commit")
        return batch_snapshot(table, batch_id)

    return until_committed(contract, attempt)


def _append_in_pieces(table: Table, contract: TableContract, rows: pa.Table, properties: Mapping[str, str]) -> None:
    """Append rows as one snapshot; only a part of bounded size is decoded at a time."""
    pieces = -(-decoded_bytes(rows) // _BYTES_IN_PIECE)
    if pieces <= 1:
        append_rows(table, in_file_order(contract, contract.conform(rows)), properties)
        return
    length = -(-rows.num_rows // pieces)
    files = [
        file
        for start in range(0, rows.num_rows, length)
        for file in write_files(table, contract, contract.conform(rows.slice(start, length)))
    ]
    append_files(table, files, properties)
