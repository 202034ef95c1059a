"""The ledger ``bronze.uploads``: one row per ingested upload, with its numbers of accepted and rejected documents.

A batch appends its rows to the ledger last, and replays keep them up to date. Maintenance may expire the snapshots of a
batch; its rows in the ledger stay.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, time
from typing import Any

import pyarrow as pa
from pyiceberg.expressions import BooleanExpression, GreaterThanOrEqual
from pyiceberg.io.pyarrow import ArrowScan
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from telemetry_assets.ingestion.journal.base import JournalEntry
from telemetry_assets.ingestion.landing.base import Landing, WaitingUpload
from telemetry_assets.ingestion.parsing.arrow_rows import NAMES_LISTED, BoundedCounter, UploadReport
from telemetry_assets.ingestion.parsing.documents import BronzeRow, accept
from telemetry_assets.lakehouse.data_files import dates_in
from telemetry_assets.lakehouse.snapshots import current_ancestors, summary_of
from telemetry_assets.tables import UPLOADS

INGESTED_AT = "telemetry.ingested-at"
"""The property of a batch's snapshots that contains the batch's ingestion time."""

LEDGER_COMPLETE = "telemetry.ledger-complete"
"""The table property that is set once the ledger also has the uploads that were ingested before it existed."""

UploadKey = tuple[str, str]
"""The batch id and the URI of an upload."""

_BRONZE_COLUMNS = ("batch_id", "source_uri", "ingested_at", "payload")
_REJECTED_COLUMNS = ("batch_id", "source_uri", "ingested_at", "source_position", "reason")


@dataclass(frozen=True)
class LedgerUpload:
    """An upload as the ledger identifies it.

    :param archive_uri: its place in the archive; None if unknown.
    :param stored_bytes: its size as it was stored; None if unknown.
    :param uploaded_at: its modification time; None if unknown.
    """

    batch_id: str
    source_uri: str
    ingested_at: datetime
    archive_uri: str | None
    stored_bytes: int | None
    uploaded_at: datetime | None


def rows_of_batch(entry: JournalEntry, reports: Sequence[UploadReport], landing: Landing) -> pa.Table:
    """The ledger rows of a batch.

    :param reports: the reports of the uploads that are in the batch, in the entry's order.
    """
    waiting = [item.upload for item in entry.uploads if item.is_in_batch]
    uploads = [ledger_upload(entry.batch_id, entry.ingested_at, upload, landing) for upload in waiting]
    return ledger_rows(zip(uploads, reports, strict=True))


def ledger_upload(batch_id: str, ingested_at: datetime, upload: WaitingUpload, landing: Landing) -> LedgerUpload:
    """An upload of a batch, as the ledger identifies it."""
    return LedgerUpload(
        batch_id,
        upload.uri,
        ingested_at,
        landing.archive_uri(batch_id, upload),
        upload.size,
        upload.modified,
    )


def ledger_upload_of(row: Mapping[str, Any]) -> LedgerUpload:
    """The upload of a ledger row."""
    return LedgerUpload(**{one.name: row[one.name] for one in fields(LedgerUpload)})


def ledger_rows(uploads: Iterable[tuple[LedgerUpload, UploadReport]]) -> pa.Table:
    """Ledger rows in the schema of the table."""
    rows = [
        {
            "batch_id": upload.batch_id,
            "source_uri": upload.source_uri,
            "archive_uri": upload.archive_uri,
            "stored_bytes": upload.stored_bytes,
            "uploaded_at": upload.uploaded_at,
            "ingested_at": upload.ingested_at,
            "documents": report.documents,
            "accepted": report.accepted,
            "rejected": report.rejected,
            "problem": report.problem,
            "unknown_fields": json.dumps(report.unknown_fields, sort_keys=True),
            "wrong_typed_fields": json.dumps(report.wrong_typed_fields, sort_keys=True),
            "out_of_range_fields": json.dumps(report.out_of_range_fields, sort_keys=True),
        }
        for upload, report in uploads
    ]
    return pa.Table.from_pylist(rows, schema=UPLOADS.arrow_schema)


def latest_ingested_at(ledger: Table) -> datetime | None:
    """The ingestion time of the newest batch; None if the ledger has no batch.

    Batches are committed in the order of their ingestion times, so the newest snapshot of a batch has the latest time.
    If maintenance has expired all of these snapshots, the time is read from the rows.
    """
    for snapshot in current_ancestors(ledger):
        if (moment := batch_time(snapshot)) is not None:
            return moment
    last_day = max(dates_in(ledger), default=None)
    if last_day is None:
        return None
    of_last_day = GreaterThanOrEqual(term="ingested_at", value=datetime.combine(last_day, time(), UTC))
    rows = ledger.scan(of_last_day, selected_fields=("ingested_at",)).to_arrow()
    return max(rows["ingested_at"].to_pylist(), default=None)


def batch_time(snapshot: Snapshot) -> datetime | None:
    """The ingestion time of the batch that a snapshot appended; None if it appended none."""
    moment = summary_of(snapshot).get(INGESTED_AT)
    return datetime.fromisoformat(moment) if moment else None


@dataclass
class _Counts:
    ingested_at: datetime
    accepted: int = 0
    rejected: int = 0
    problem: str | None = None
    unknown_fields: BoundedCounter = field(default_factory=BoundedCounter)
    wrong_typed_fields: BoundedCounter = field(default_factory=BoundedCounter)
    out_of_range_fields: BoundedCounter = field(default_factory=BoundedCounter)

    def add_accepted(self, payload: str) -> None:
        """Count a row of Bronze, and the unknown, wrong-typed and out-of-range fields of its document."""
        self.accepted += 1
        row = accept(payload, 0, self.ingested_at)
        if isinstance(row, BronzeRow):
            self.unknown_fields.add(row.unknown_fields)
            self.wrong_typed_fields.add(row.wrong_typed_fields)
            self.out_of_range_fields.add(row.out_of_range_fields)

    def add_rejected(self, row: Mapping[str, Any]) -> None:
        """Count a row of the rejected documents."""
        self.rejected += 1
        if row["source_position"] is None:
            self.problem = row["reason"]

    @property
    def report(self) -> UploadReport:
        """The report of the upload."""
        return UploadReport(
            self.accepted,
            self.rejected,
            self.problem,
            self.unknown_fields.listed(NAMES_LISTED),
            self.wrong_typed_fields.listed(NAMES_LISTED),
            self.out_of_range_fields.listed(NAMES_LISTED),
        )


def reports_from_rows(
    bronze: Iterable[pa.RecordBatch], rejected: Iterable[pa.RecordBatch]
) -> dict[UploadKey, tuple[datetime, UploadReport]]:
    """Reports of uploads from their rows in the two tables, each with the ingestion time of its batch.

    :param bronze: rows of Bronze, from :func:`bronze_pieces`.
    :param rejected: rows of the rejected documents, with the columns of :func:`rejected_pieces`.
    """
    counts: dict[UploadKey, _Counts] = {}

    def of(row: Mapping[str, Any]) -> _Counts:
        key = row["batch_id"], row["source_uri"]
        if key not in counts:
            counts[key] = _Counts(row["ingested_at"])
        return counts[key]

    for piece in bronze:
        for row in piece.to_pylist():
            of(row).add_accepted(row["payload"])
    for piece in rejected:
        for row in piece.to_pylist():
            of(row).add_rejected(row)
    return {key: (one.ingested_at, one.report) for key, one in counts.items()}


def report_of(reports: Mapping[UploadKey, tuple[datetime, UploadReport]], key: UploadKey) -> UploadReport:
    """The report of an upload from :func:`reports_from_rows`; an upload without rows has no documents."""
    return reports[key][1] if key in reports else UploadReport(0, 0, None, {}, {}, {})


def bronze_pieces(bronze: Table, where: BooleanExpression) -> Iterable[pa.RecordBatch]:
    """Rows of Bronze with the columns that :func:`reports_from_rows` needs."""
    return _pieces(bronze, where, _BRONZE_COLUMNS)


def rejected_pieces(rejected: Table, where: BooleanExpression) -> Iterable[pa.RecordBatch]:
    """Rows of the rejected documents with the columns that :func:`reports_from_rows` needs."""
    return _pieces(rejected, where, _REJECTED_COLUMNS)


def _pieces(table: Table, where: BooleanExpression, columns: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
    # PyIceberg's own reader has the rows of many files in memory.
    scan = ArrowScan(table.metadata, table.io, table.schema().select(*columns), where)
    for task in table.scan(where, selected_fields=columns).plan_files():
        yield from scan.to_record_batches([task])
