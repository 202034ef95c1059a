"""Retention: deletes old archived uploads and old rejected documents, if the settings limit how long they are kept.

Nothing is deleted before it is on record: an archived upload is deleted only if the ledger has a row of it and the
tables have the rows that the ledger records, a rejected document only if the ledger has a row of its upload.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, time

from pyiceberg.expressions import And, BooleanExpression, In, LessThan

from telemetry_assets.ingestion.archive_audit import ArchiveAudit
from telemetry_assets.ingestion.context import IngestionContext
from telemetry_assets.ingestion.landing.base import WaitingUpload, may_be_before
from telemetry_assets.ingestion.ledger import LEDGER_COMPLETE, UploadKey
from telemetry_assets.ingestion.reconciliation import REJECTED_SINCE, count_rows
from telemetry_assets.lakehouse.commits import delete_rows, until_committed
from telemetry_assets.lakehouse.snapshots import RUN_ID
from telemetry_assets.tables import REJECTED, UPLOADS
from telemetry_assets.text.formatting import counted
from telemetry_assets.text.plain import plain_logger

logger = plain_logger(__name__)

_BATCHES_AT_A_TIME = 200


@dataclass(frozen=True)
class ExpiredUploads:
    """Deletes old archived uploads.

    :param before: uploads of batches that were ingested before this time (UTC) are old.
    """

    context: IngestionContext
    before: datetime

    def delete(self, *, dry_run: bool) -> int:
        """Delete the uploads. Their rejected documents can then no longer be replayed.

        :param dry_run: only count them.
        :returns: how many uploads there are.
        """
        deleted = 0
        with ThreadPoolExecutor(self.context.settings.read_threads) as threads:
            for expired in self._expired():
                if not dry_run:
                    list(threads.map(lambda one: self.context.landing.delete_archived(*one), expired))
                deleted += len(expired)
        return deleted

    def _expired(self) -> Iterator[list[tuple[str, WaitingUpload]]]:
        """The old uploads with their batches, those of some batches at a time."""
        ledger = self.context.lakehouse.existing(UPLOADS)
        if ledger is None or LEDGER_COMPLETE not in ledger.properties:
            return
        in_progress = self.context.journal.load()
        batches = [
            batch
            for batch in self.context.landing.archived_batches()
            if may_be_before(batch, self.before) and (in_progress is None or batch != in_progress.batch_id)
        ]
        for start in range(0, len(batches), _BATCHES_AT_A_TIME):
            recorded = _recorded(self.context, batches[start : start + _BATCHES_AT_A_TIME], self.before)
            yield self._expired_of(recorded)

    def _expired_of(self, recorded: set[UploadKey]) -> list[tuple[str, WaitingUpload]]:
        batches = sorted({batch for batch, _ in recorded})
        archived = [(batch, upload) for batch in batches for upload in self.context.landing.archived(batch)]
        doubtful = {finding.key for finding in ArchiveAudit(self.context).examine(*batches)}
        return [(batch, upload) for batch, upload in archived if (batch, upload.uri) in recorded - doubtful]


def delete_rejected(context: IngestionContext, before: datetime, run_id: str, *, dry_run: bool) -> int:
    """Delete old rows of ``bronze.rejected_documents``.

    :param before: documents that were ingested before the day (UTC) of this time are old.
    :param dry_run: only count them.
    :returns: how many documents there are; 0 if some of them are not on record, or a batch or a replay is in progress.
    """
    table, ledger = context.lakehouse.existing(REJECTED), context.lakehouse.existing(UPLOADS)
    if table is None or ledger is None or LEDGER_COMPLETE not in ledger.properties:
        return 0
    # Whole partitions, so that no data file is rewritten.
    day = datetime.combine(before.astimezone(UTC).date(), time(), UTC)
    where = _ingested_before(day)
    counts = count_rows(table, where, ("batch_id", "source_uri"))
    if not counts or context.journal.load() is not None:
        return 0
    batches = sorted({batch for batch, _ in counts})
    unrecorded = set(counts)
    for start in range(0, len(batches), _BATCHES_AT_A_TIME):
        unrecorded -= _recorded(context, batches[start : start + _BATCHES_AT_A_TIME], day)
    if unrecorded:
        logger.warning(
            "old rejected documents are not deleted, because %s of them %s not in bronze.uploads. Run "
            "`telemetry-assets doctor --repair`, or delete the documents of these uploads.",
            counted(len(unrecorded), "upload"),
            "is" if len(unrecorded) == 1 else "are",
        )
        return 0
    if dry_run or until_committed(REJECTED, lambda: _delete_before(context, day, run_id)):
        return counts.total()
    return 0


def _delete_before(context: IngestionContext, day: datetime, run_id: str) -> bool:
    table = context.lakehouse.table(REJECTED)
    # Read after the table: a replay begins with its journal entry, and what it commits later is a conflict.
    if context.journal.load() is not None:
        return False
    summary = {RUN_ID: run_id, "telemetry.step": "retention"}
    return delete_rows(table, _ingested_before(day), summary, {REJECTED_SINCE: day.isoformat()})


def _ingested_before(moment: datetime) -> BooleanExpression:
    return LessThan(term="ingested_at", value=moment.isoformat())


def _recorded(context: IngestionContext, batches: Iterable[str], before: datetime) -> set[UploadKey]:
    """The uploads of some batches that are in the ledger and were ingested before a time."""
    where = And(In(term="batch_id", literals=set(batches)), _ingested_before(before))
    rows = context.lakehouse.table(UPLOADS).scan(where, selected_fields=("batch_id", "source_uri")).to_arrow()
    return set(zip(rows["batch_id"].to_pylist(), rows["source_uri"].to_pylist(), strict=True))
