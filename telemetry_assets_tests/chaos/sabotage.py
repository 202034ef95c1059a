"""Deliberate defects of the product in a worker, to test that the checker finds them."""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import Any

from pyiceberg.io import FileIO
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Operation, Snapshot, Summary

from telemetry_assets import pipeline
from telemetry_assets.errors import CatalogBusyError
from telemetry_assets.ingestion import batches, replays
from telemetry_assets.ingestion.archive_audit import ArchiveAudit
from telemetry_assets.ingestion.landing.s3 import S3Landing
from telemetry_assets.ingestion.reconciliation import require_conservation
from telemetry_assets.lakehouse import batch_rows, compaction, expiry, rewrites, snapshots


def _double_append() -> None:
    """A batch is appended without a check whether it already exists."""

    def append_batch(lakehouse: Any, contract: Any, batch_id: str, rows: Any, summary: Any, _since: Any) -> Any:
        table = lakehouse.table(contract)
        for _ in range(2):
            table.append(contract.conform(rows), snapshot_properties={**summary, snapshots.BATCH_ID: batch_id})
        return batch_rows.batch_snapshot(lakehouse.table(contract), batch_id)

    setattr(batches, append_batch.__name__, append_batch)


def _newest_deleted() -> None:
    """Any waiting version of an upload's name is deleted once the upload is ingested."""

    def archive(self: S3Landing, _batch_id: str, upload: Any) -> None:
        self.client.delete_object(Bucket=self.landing.bucket, Key=f"{self.landing.prefix}{upload.name}")

    setattr(S3Landing, archive.__name__, archive)


def _rejected_kept() -> None:
    """A replayed document stays among the rejected ones."""
    replays.Replay._delete_accepted = lambda *_: None  # type: ignore[method-assign]


def _uploads_forgotten() -> None:
    """A batch's uploads are archived, and its rows are never written."""

    batches.BatchWriter._append = lambda *_: None  # type: ignore[method-assign, assignment]


def _doubt_believed() -> None:
    """Every commit counts as successful: the check after a failed commit returns a snapshot."""
    append_batch = batch_rows.append_batch

    def believing(lakehouse: Any, contract: Any, batch_id: str, rows: Any, summary: Any, since: Any) -> Any:
        try:
            return append_batch(lakehouse, contract, batch_id, rows, summary, since)
        except CatalogBusyError:
            properties = {**summary, snapshots.BATCH_ID: batch_id}
            return Snapshot(snapshot_id=1, manifest_list="", summary=Summary(Operation.APPEND, **properties))

    setattr(batches, append_batch.__name__, believing)
    # Otherwise the run's conservation check would fail, and a later run's audit would put the uploads back.
    setattr(pipeline, require_conservation.__name__, lambda *_: None)
    setattr(ArchiveAudit, "newest", lambda _: [])  # noqa: B010


def _compaction_rebased() -> None:
    """A compaction is committed to a table that another writer has changed."""
    commit_rewrite = rewrites.commit_rewrite

    def rebased(table: Table, *arguments: Any) -> None:
        commit_rewrite(table.refresh(), *arguments)

    setattr(compaction, commit_rewrite.__name__, rebased)
    # Otherwise, a later run's audit would put the uploads back.
    setattr(ArchiveAudit, "newest", lambda _: [])  # noqa: B010


def _needed_deleted() -> None:
    """Expiry deletes a file of a snapshot that remains."""
    unneeded = expiry._unneeded

    def too_many(metadata: TableMetadata, snapshot_ids: Set[int], io: FileIO) -> list[str]:
        kept = [one.manifest_list for one in metadata.snapshots if one.snapshot_id not in snapshot_ids]
        return [*unneeded(metadata, snapshot_ids, io), kept[0]]

    setattr(expiry, unneeded.__name__, too_many)


SABOTAGES: dict[str, Callable[[], None]] = {
    "a batch is appended twice": _double_append,
    "the newest version is deleted": _newest_deleted,
    "replayed documents stay rejected": _rejected_kept,
    "batches are archived without their rows": _uploads_forgotten,
    "a commit in doubt is believed": _doubt_believed,
    "a compaction is rebased": _compaction_rebased,
    "a needed file is deleted": _needed_deleted,
}
