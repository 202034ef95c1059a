"""``bronze.uploads``: the ledger of uploads."""

from __future__ import annotations

from telemetry_assets.tables.columns import BATCH_ID, INGESTED_AT
from telemetry_assets.tables.contract import Column, TableContract

UPLOADS = TableContract(
    layer="bronze",
    name="uploads",
    description="The ledger: one row for each upload that was taken. What it says depends on no table's snapshots.",
    columns=(
        BATCH_ID,
        Column("source_uri", "string", "The upload.", True),
        Column("archive_uri", "string", "Where the archive keeps the upload, as received."),
        Column("stored_bytes", "long", "The upload's size as stored, in bytes."),
        Column("uploaded_at", "timestamptz", "The upload's own time, UTC."),
        INGESTED_AT,
        Column("documents", "int", "Documents in the upload; 1 where it is rejected as a whole.", True),
        Column("accepted", "int", "Those of them that are rows of `bronze.car_telemetry`.", True),
        Column("rejected", "int", "Those of them that are rows of `bronze.rejected_documents`.", True),
        Column("problem", "string", "The reason code where the upload is rejected as a whole, else null."),
        Column("unknown_fields", "string", "JSON: how often each unknown field occurs, by its path."),
        Column("wrong_typed_fields", "string", "JSON: how often each known field has the wrong type, by its path."),
        Column("out_of_range_fields", "string", "JSON: how often each number is out of its range, by its path."),
    ),
    key=("batch_id", "source_uri"),
    partition="ingested_at",
    partition_by_day=True,
)
