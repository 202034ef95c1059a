"""What became of the documents of each batch, from the tables alone: received = accepted + rejected."""

from __future__ import annotations

from collections import Counter
from datetime import datetime

import pyarrow as pa
from pyiceberg.expressions import AlwaysTrue, And, BooleanExpression, GreaterThanOrEqual, LessThan
from pyiceberg.table import Table

from telemetry_assets.ingestion.certificates import CERTIFICATE, Certificate
from telemetry_assets.ingestion.replays import REPLAYED_BATCH, REPLAYED_DOCUMENTS
from telemetry_assets.lakehouse.catalog import Lakehouse
from telemetry_assets.lakehouse.commits import COMMIT_ID, summary_of
from telemetry_assets.lakehouse.contracts import BRONZE, REJECTED
from telemetry_assets.lakehouse.table_contract import TableContract

ACCOUNT_SCHEMA = pa.schema(
    [
        pa.field("batch_id", pa.string(), nullable=False),
        pa.field("ingested_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("uploads", pa.int64()),
        pa.field("received", pa.int64()),
        pa.field("accepted", pa.int64(), nullable=False),
        pa.field("rejected", pa.int64(), nullable=False),
        pa.field("conserved", pa.bool_()),
    ]
)
"""One row for each batch. ``uploads``, ``received`` and ``conserved`` are null where its certificate has expired.

Snapshots of the rejected documents tell of replays, and have to be kept for as long as those of Bronze."""


def batch_accounts(lakehouse: Lakehouse, since: datetime | None = None, until: datetime | None = None) -> pa.Table:
    """The account of every batch that was ingested in a time range, in the order of the batches.

    Received is what the batch's certificate says, in the summary of its snapshot of Bronze, with what replays of
    rejected uploads have added; accepted and rejected are rows, counted in the tables.

    :param since: from this moment on, UTC; from the beginning where it is not given.
    :param until: before this moment, UTC; to the end where it is not given.
    :returns: rows of :data:`ACCOUNT_SCHEMA`.
    """
    bronze, rejected = lakehouse.existing(BRONZE), lakehouse.existing(REJECTED)
    if bronze is None or rejected is None:
        return ACCOUNT_SCHEMA.empty_table()
    where = _between(since, until)
    accepted, refused = _rows_by_batch(bronze, BRONZE, where), _rows_by_batch(rejected, REJECTED, where)
    certificates = {
        (one.batch_id, one.ingested_at): one
        for one in certificates_in(bronze)
        if (since is None or one.ingested_at >= since) and (until is None or one.ingested_at < until)
    }
    grown = grown_by_replays(rejected)
    rows = []
    for key in sorted({*accepted, *refused, *certificates}, key=lambda key: (key[1], key[0])):
        certificate = certificates.get(key)
        received = certificate.documents + grown[key[0]] if certificate else None
        rows.append(
            {
                "batch_id": key[0],
                "ingested_at": key[1],
                "uploads": certificate.uploads if certificate else None,
                "received": received,
                "accepted": accepted[key],
                "rejected": refused[key],
                "conserved": None if received is None else received == accepted[key] + refused[key],
            }
        )
    return pa.Table.from_pylist(rows, schema=ACCOUNT_SCHEMA)


_Key = tuple[str, datetime]


def _between(since: datetime | None, until: datetime | None) -> BooleanExpression:
    lower = GreaterThanOrEqual(term="ingested_at", value=since.isoformat()) if since else AlwaysTrue()
    upper = LessThan(term="ingested_at", value=until.isoformat()) if until else AlwaysTrue()
    return And(lower, upper)


def _rows_by_batch(table: Table, contract: TableContract, where: BooleanExpression) -> Counter[_Key]:
    counted: Counter[_Key] = Counter()
    for piece in table.scan(where, selected_fields=("batch_id", "ingested_at")).to_arrow_batch_reader():
        rows = pa.Table.from_batches([piece]).group_by(["batch_id", "ingested_at"]).aggregate([([], "count_all")])
        for row in rows.to_pylist():
            counted[row["batch_id"], row["ingested_at"]] += row["count_all"]
    return counted


def certificates_in(bronze: Table) -> list[Certificate]:
    """The certificates of all batches whose snapshots Bronze still has."""
    texts = (summary_of(snapshot).get(CERTIFICATE) for snapshot in bronze.snapshots())
    return [Certificate.model_validate_json(text) for text in texts if text]


def grown_by_replays(rejected: Table) -> Counter[str]:
    """By how many documents each batch has grown, because uploads that were one rejection are documents now."""
    # One commit may be two snapshots.
    commits = {summary[COMMIT_ID]: summary for summary in map(summary_of, rejected.snapshots()) if COMMIT_ID in summary}
    grown: Counter[str] = Counter()
    for summary in commits.values():
        if REPLAYED_BATCH in summary:
            grown[summary[REPLAYED_BATCH]] += int(summary.get(REPLAYED_DOCUMENTS, "0"))
    return grown
