"""The ledger against the rows of Bronze and of the rejected documents: received = accepted + rejected.

Reads tables alone, and changes nothing. What the archive has is compared in ``archive_audit.py``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
from pyiceberg.expressions import AlwaysTrue, And, BooleanExpression, GreaterThanOrEqual, In, LessThan
from pyiceberg.table import Table

from telemetry_assets.ingestion.ledger import LEDGER_COMPLETE
from telemetry_assets.lakehouse.catalog import Lakehouse
from telemetry_assets.tables import BRONZE, REJECTED, UPLOADS

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
"""One row for each upload. ``documents`` is what the ledger says, null where it does not know the upload; ``accepted``
and ``rejected`` are the rows that the two tables have of it."""

_LEDGER_COLUMNS = ("batch_id", "source_uri", "ingested_at", "documents", "accepted", "rejected")


Row = dict[str, Any]
_Key = tuple[datetime, str, str]
"""A batch's moment and id, and an upload's URI."""


@dataclass(frozen=True)
class ReconciledBatch:
    """What became of a batch's documents.

    :param documents: received, by the ledger; None where it does not know the batch.
    :param accepted: rows of Bronze.
    :param rejected: rows of the rejected documents.
    :param differing: uploads whose documents are not all there once, by their URIs.
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
        """Whether each document that was received is accepted or rejected, once."""
        return not self.differing


@dataclass(frozen=True)
class Reconciliation:
    """What became of the documents of a time range.

    :param ledger_complete: whether the ledger knows every upload of the time before there was one; the first run of
        this edition fills it.
    """

    uploads: pa.Table
    ledger_complete: bool

    @property
    def batches(self) -> list[ReconciledBatch]:
        """The batches, in their order."""
        grouped: dict[tuple[datetime, str], list[Row]] = {}
        for row in self.uploads.to_pylist():
            grouped.setdefault((row["ingested_at"], row["batch_id"]), []).append(row)
        return [_batch(batch, moment, rows) for (moment, batch), rows in sorted(grouped.items())]


def reconcile(
    lakehouse: Lakehouse,
    since: datetime | None = None,
    until: datetime | None = None,
    batch_ids: Collection[str] | None = None,
    in_progress: str | None = None,
) -> Reconciliation:
    """Compare the ledger with the rows of the uploads of a time range, or of some batches.

    :param since: uploads that were ingested from this moment on, UTC; from the beginning where it is not given.
    :param until: uploads that were ingested before this moment, UTC; to the end where it is not given.
    :param batch_ids: only uploads of these batches.
    :param in_progress: a batch that is not judged, as its run is still at work.
    """
    where = _between(since, until)
    if batch_ids is not None:
        where = And(where, In(term="batch_id", literals=set(batch_ids)))
    # The ledger last: a batch that others end meanwhile has rows before it is in the ledger.
    accepted, rejected = (_counted(lakehouse.existing(table), where) for table in (BRONZE, REJECTED))
    ledger = lakehouse.existing(UPLOADS)
    of_ledger = ledger.scan(where, selected_fields=_LEDGER_COLUMNS).to_arrow().to_pylist() if ledger else []
    known = {(row["ingested_at"], row["batch_id"], row["source_uri"]): row for row in of_ledger}
    rows = [
        {
            "batch_id": key[1],
            "ingested_at": key[0],
            "source_uri": key[2],
            "documents": known[key]["documents"] if key in known else None,
            "accepted": accepted[key],
            "rejected": rejected[key],
            "conserved": key in known and _is_conserved(known[key], accepted[key], rejected[key]),
        }
        for key in sorted({*accepted, *rejected, *known})
        if key[1] != in_progress
    ]
    complete = ledger is None or LEDGER_COMPLETE in ledger.properties
    return Reconciliation(pa.Table.from_pylist(rows, schema=RECONCILED_UPLOADS), complete)


def _is_conserved(row: Row, accepted: int, rejected: int) -> bool:
    return (row["accepted"], row["rejected"], row["documents"]) == (accepted, rejected, accepted + rejected)


def _counted(table: Table | None, where: BooleanExpression) -> Counter[_Key]:
    """How many rows a table has of each upload."""
    counted: Counter[_Key] = Counter()
    if table is None:
        return counted
    columns = ("ingested_at", "batch_id", "source_uri")
    for piece in table.scan(where, selected_fields=columns).to_arrow_batch_reader():
        for row in pa.Table.from_batches([piece]).group_by(list(columns)).aggregate([([], "count_all")]).to_pylist():
            counted[row["ingested_at"], row["batch_id"], row["source_uri"]] += row["count_all"]
    return counted


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
