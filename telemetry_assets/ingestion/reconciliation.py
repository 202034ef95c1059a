"""Batch reports and reconciliation: what was received, accepted and rejected.

A batch report has the counts of a batch. It is stored in the summaries of the batch's snapshots of Bronze and of the
rejected documents, and in the metadata of the run.

Reconciliation is whether each document that was received is accepted or rejected exactly once. The ledger records how
many documents of each upload were accepted and rejected when the upload was ingested; the rows of Bronze and of the
rejected documents show how many there are now. All code that compares these numbers calls this module, which reads
tables and writes nothing. ``archive_audit.py`` compares the archive with the ledger.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel
from pyiceberg.expressions import AlwaysTrue, And, BooleanExpression, EqualTo, GreaterThanOrEqual, In, LessThan
from pyiceberg.table import Table

from telemetry_assets.errors import QualityError
from telemetry_assets.ingestion.batch_parser import ParsedBatch
from telemetry_assets.ingestion.journal.base import JournalEntry
from telemetry_assets.ingestion.ledger import LEDGER_COMPLETE
from telemetry_assets.ingestion.parsing.arrow_rows import NAMES_LISTED, OTHERS, BoundedCounter
from telemetry_assets.ingestion.parsing.documents import UNREMARKED_CLOCK_ERROR
from telemetry_assets.lakehouse.batch_rows import batch_snapshot
from telemetry_assets.lakehouse.catalog import Lakehouse
from telemetry_assets.tables import BRONZE, REJECTED, UPLOADS
from telemetry_assets.text.plain import plain_start

BATCH_REPORT = "telemetry.certificate"
"""The property of a snapshot's summary that has the batch report as JSON.

The name is that of version 0.1.0, because existing snapshots have it.
"""

REJECTED_SINCE = "telemetry.rejected-since"
"""The property of ``bronze.rejected_documents`` with a time. Documents that were ingested before it may be deleted."""

_DATES_LISTED = 1000
_FIELD_COUNTS = ("unknown_fields", "wrong_typed_fields", "out_of_range_fields")
_LONGEST_SHOWN = 100

RECONCILED_UPLOADS = pa.schema(
    [
        pa.field("batch_id", pa.string(), nullable=False),
        pa.field("ingested_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("source_uri", pa.string(), nullable=False),
        pa.field("documents", pa.int64()),
        pa.field("accepted", pa.int64(), nullable=False),
        pa.field("rejected", pa.int64(), nullable=False),
        pa.field("conserved", pa.bool_(), nullable=False),
    ]
)
"""One row per upload. ``documents`` is from the ledger, and null if the ledger has no row of the upload. ``accepted``
and ``rejected`` are the numbers of rows in the two tables."""

_LEDGER_COLUMNS = ("batch_id", "source_uri", "ingested_at", "documents", "accepted", "rejected")
_UPLOAD_COLUMNS = ("ingested_at", "batch_id", "source_uri")

Row = dict[str, Any]


class BatchReport(BaseModel, frozen=True):
    """The counts of a batch.

    Each mapping has the most frequent names with their counts, and the count of all other names under ``(others)``.

    :param documents: how many documents were received; the sum of ``accepted`` and ``rejected``.
    :param unknown_fields: by path, how many documents have this unknown field.
    :param wrong_typed_fields: by path, how many documents have a value of the wrong type in this field.
    :param out_of_range_fields: by path, how many documents have a number outside of the valid range in this field.
    :param event_dates: by event date, how many documents were accepted.
    :param ahead_of_clock: by event date, how many accepted events have a time more than five minutes after ingestion.
    :param snapshot_id: the batch's snapshot of Bronze; None if it has expired or no document was accepted.
    """

    batch_id: str
    ingested_at: datetime
    uploads: int
    documents: int
    accepted: int
    rejected: int
    rejected_by_reason: dict[str, int]
    unknown_fields: dict[str, int]
    wrong_typed_fields: dict[str, int]
    out_of_range_fields: dict[str, int]
    event_dates: dict[str, int]
    ahead_of_clock: dict[str, int]
    snapshot_id: int | None = None


def batch_report_of(entry: JournalEntry, parsed: ParsedBatch) -> BatchReport:
    """The report of a batch that was just parsed."""
    counts = parsed.counts
    return BatchReport(
        batch_id=entry.batch_id,
        ingested_at=entry.ingested_at,
        uploads=len(parsed.reports),
        documents=parsed.accepted + parsed.rejected,
        accepted=parsed.accepted,
        rejected=parsed.rejected,
        rejected_by_reason=counts.rejected_by_reason.listed(NAMES_LISTED),
        unknown_fields=counts.unknown_fields.listed(NAMES_LISTED),
        wrong_typed_fields=counts.wrong_typed_fields.listed(NAMES_LISTED),
        out_of_range_fields=counts.out_of_range_fields.listed(NAMES_LISTED),
        event_dates=dict(sorted(counts.event_dates.listed(_DATES_LISTED).items())),
        ahead_of_clock=dict(sorted(counts.ahead_of_clock.listed(_DATES_LISTED).items())),
    )


def batch_report_from_tables(lakehouse: Lakehouse, batch_id: str) -> BatchReport | None:
    """The report of a batch from its rows in the tables; None if the ledger has no row of it."""
    of_batch = EqualTo(term="batch_id", value=batch_id)
    bronze = lakehouse.table(BRONZE)
    ledger, accepted, rejected = (
        table.scan(of_batch, selected_fields=columns).to_arrow()
        for table, columns in (
            (lakehouse.table(UPLOADS), ("ingested_at", *_FIELD_COUNTS)),
            (bronze, ("event_date", "telemetry_timestamp", "ingested_at")),
            (lakehouse.table(REJECTED), ("reason",)),
        )
    )
    if not ledger.num_rows:
        return None
    snapshot = batch_snapshot(bronze, batch_id)
    late = pc.field("telemetry_timestamp") > pc.add(pc.field("ingested_at"), pa.scalar(UNREMARKED_CLOCK_ERROR))
    return BatchReport(
        batch_id=batch_id,
        ingested_at=ledger["ingested_at"][0].as_py(),
        uploads=ledger.num_rows,
        documents=accepted.num_rows + rejected.num_rows,
        accepted=accepted.num_rows,
        rejected=rejected.num_rows,
        rejected_by_reason=dict(Counter(rejected["reason"].to_pylist()).most_common()),
        **{name: sum_counts(map(json.loads, ledger[name].to_pylist())) for name in _FIELD_COUNTS},
        event_dates=_counts_by_date(accepted),
        ahead_of_clock=_counts_by_date(accepted.filter(late)),
        snapshot_id=snapshot.snapshot_id if snapshot else None,
    )


def _counts_by_date(rows: pa.Table) -> dict[str, int]:
    dates = BoundedCounter()
    dates.add(day.isoformat() for day in rows["event_date"].to_pylist())
    return dict(sorted(dates.listed(_DATES_LISTED).items()))


def sum_counts(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The sum of several counts, by name."""
    total: dict[str, int] = {}
    for one in counts:
        for name, count in one.items():
            total[name] = total.get(name, 0) + count
    return total


def shown_counts(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The sum of several counts for display: the most frequent names as short plain text, the rest under `OTHERS`."""
    total = Counter(sum_counts(counts))
    others = total.pop(OTHERS, 0)
    listed: Counter[str] = Counter()
    for name, count in total.most_common(NAMES_LISTED):
        # Long names are cut, so several names may become one.
        listed[plain_start(name, _LONGEST_SHOWN)] += count
    others += total.total() - listed.total()
    return {**listed, OTHERS: others} if others else dict(listed)


@dataclass(frozen=True)
class ReconciledBatch:
    """The documents of one batch.

    :param documents: how many were received, by the ledger; None if the ledger has no row of the batch.
    :param accepted: rows of Bronze.
    :param rejected: rows of the rejected documents.
    :param differing: the URIs of the uploads whose documents are not conserved.
    """

    batch_id: str
    ingested_at: datetime
    uploads: int
    documents: int | None
    accepted: int
    rejected: int
    differing: tuple[str, ...]

    @property
    def conserved(self) -> bool:
        """Whether each document that was received is accepted or rejected exactly once."""
        return not self.differing


@dataclass(frozen=True)
class Reconciliation:
    """The documents of a time range.

    :param uploads: a table of :data:`RECONCILED_UPLOADS`.
    :param ledger_complete: whether the ledger also has the uploads that were ingested before the ledger existed. The
        first run of this version adds them.
    """

    uploads: pa.Table
    ledger_complete: bool

    @property
    def batches(self) -> list[ReconciledBatch]:
        """The batches in the order in which they were ingested."""
        grouped: dict[tuple[datetime, str], list[Row]] = {}
        for row in self.uploads.to_pylist():
            grouped.setdefault((row["ingested_at"], row["batch_id"]), []).append(row)
        return [_batch(batch, moment, rows) for (moment, batch), rows in sorted(grouped.items())]


@dataclass(frozen=True)
class Conservation:
    """The documents of some batches, as reported and as counted in the tables.

    :param documents: how many were received, by the batch reports.
    :param accepted: rows of Bronze.
    :param rejected: rows of the rejected documents.
    :param conserved: whether the ledger and the tables have every document of every batch exactly once.
    """

    documents: int
    accepted: int
    rejected: int
    conserved: bool


def check_conservation(lakehouse: Lakehouse, reports: Sequence[BatchReport]) -> Conservation:
    """Compare the reports of some batches with the ledger and the rows of the tables."""
    batches = reconcile(lakehouse, batch_ids=[one.batch_id for one in reports]).batches if reports else []
    return Conservation(
        documents=sum(one.documents for one in reports),
        accepted=sum(one.accepted for one in batches),
        rejected=sum(one.rejected for one in batches),
        conserved=len(batches) == len(reports) and all(one.conserved for one in batches),
    )


def require_conservation(lakehouse: Lakehouse, report: BatchReport) -> None:
    """Check that the tables have every document of a batch exactly once.

    :raises QualityError: if they do not.
    """
    found = check_conservation(lakehouse, [report])
    if not found.conserved:
        raise QualityError(
            f"Batch {report.batch_id} received {report.documents} documents, but bronze.car_telemetry has "
            f"{found.accepted} of them and bronze.rejected_documents {found.rejected}. Another program changed these "
            "tables; the summaries of their newest snapshots identify it. `telemetry-assets reconcile` lists the "
            "uploads.",
            "bronze.car_telemetry",
            abs(report.documents - found.accepted - found.rejected),
        )


def reconcile(
    lakehouse: Lakehouse,
    since: datetime | None = None,
    until: datetime | None = None,
    batch_ids: Collection[str] | None = None,
    in_progress: str | None = None,
) -> Reconciliation:
    """Compare the ledger with the rows of the tables, for the uploads of a time range or of some batches.

    :param since: only uploads ingested at this time (UTC) or later.
    :param until: only uploads ingested before this time (UTC).
    :param batch_ids: only uploads of these batches.
    :param in_progress: the batch in progress, which is left out.
    """
    where = _between(since, until)
    if batch_ids is not None:
        where = And(where, In(term="batch_id", literals=set(batch_ids)))
    # The ledger is read last: a batch that another run commits meanwhile gets its ledger rows after all others.
    accepted, rejected = (_existing_rows(lakehouse.existing(table), where) for table in (BRONZE, REJECTED))
    kept_since = rejected_since(lakehouse.existing(REJECTED))
    ledger = lakehouse.existing(UPLOADS)
    of_ledger = ledger.scan(where, selected_fields=_LEDGER_COLUMNS).to_arrow().to_pylist() if ledger else []
    known = {tuple(row[name] for name in _UPLOAD_COLUMNS): row for row in of_ledger}
    rows = [
        {
            **dict(zip(_UPLOAD_COLUMNS, key, strict=True)),
            "documents": known[key]["documents"] if key in known else None,
            "accepted": accepted[key],
            "rejected": rejected[key],
            "conserved": key in known and is_conserved(known[key], accepted[key], rejected[key], kept_since),
        }
        for key in sorted({*accepted, *rejected, *known})
        if key[1] != in_progress
    ]
    complete = ledger is None or LEDGER_COMPLETE in ledger.properties
    return Reconciliation(pa.Table.from_pylist(rows, schema=RECONCILED_UPLOADS), complete)


def is_conserved(
    recorded: Mapping[str, Any], accepted: int, rejected: int, rejected_since: datetime | None = None
) -> bool:
    """Whether the tables have every document of an upload exactly once.

    :param recorded: the upload's row of the ledger.
    :param accepted: the number of its rows in Bronze.
    :param rejected: the number of its rows in the rejected documents.
    :param rejected_since: rejected documents that were ingested before this time may be missing; see
        :func:`rejected_since`.
    """
    has_all = recorded["documents"] == recorded["accepted"] + recorded["rejected"]
    return has_all and has_recorded_rows(recorded, accepted, rejected, rejected_since)


def has_recorded_rows(
    recorded: Mapping[str, Any], accepted: int, rejected: int, rejected_since: datetime | None = None
) -> bool:
    """Whether the tables have as many rows of an upload as the ledger recorded. See :func:`is_conserved`."""
    if rejected_since is not None and recorded["ingested_at"] < rejected_since:
        return bool(accepted == recorded["accepted"] and rejected <= recorded["rejected"])
    return (recorded["accepted"], recorded["rejected"]) == (accepted, rejected)


def rejected_since(rejected: Table | None) -> datetime | None:
    """Since when all rejected documents are kept; None if none was deleted because of its age.

    :param rejected: the table ``bronze.rejected_documents``; None if it does not exist.
    """
    moment = rejected.properties.get(REJECTED_SINCE) if rejected is not None else None
    return datetime.fromisoformat(moment) if moment else None


def count_rows(table: Table, where: BooleanExpression, columns: Sequence[str]) -> Counter[tuple[Any, ...]]:
    """Count the rows of a table by the values of some columns, in bounded memory."""
    counted: Counter[tuple[Any, ...]] = Counter()
    for piece in table.scan(where, selected_fields=tuple(columns)).to_arrow_batch_reader():
        for row in pa.Table.from_batches([piece]).group_by(list(columns)).aggregate([([], "count_all")]).to_pylist():
            counted[tuple(row[name] for name in columns)] += row["count_all"]
    return counted


def _existing_rows(table: Table | None, where: BooleanExpression) -> Counter[tuple[Any, ...]]:
    return Counter() if table is None else count_rows(table, where, _UPLOAD_COLUMNS)


def _between(since: datetime | None, until: datetime | None) -> BooleanExpression:
    lower = GreaterThanOrEqual(term="ingested_at", value=since.isoformat()) if since else AlwaysTrue()
    upper = LessThan(term="ingested_at", value=until.isoformat()) if until else AlwaysTrue()
    return And(lower, upper)


def _batch(batch_id: str, ingested_at: datetime, rows: list[Row]) -> ReconciledBatch:
    documents = [row["documents"] for row in rows if row["documents"] is not None]
    return ReconciledBatch(
        batch_id,
        ingested_at,
        uploads=len(rows),
        documents=sum(documents) if documents else None,
        accepted=sum(row["accepted"] for row in rows),
        rejected=sum(row["rejected"] for row in rows),
        differing=tuple(row["source_uri"] for row in rows if not row["conserved"]),
    )
