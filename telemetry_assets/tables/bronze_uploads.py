"""``bronze.uploads``: the ledger of uploads. docs/contract.md, section 2."""

from __future__ import annotations

from telemetry_assets.tables.columns import BATCH_ID, INGESTED_AT
from telemetry_assets.tables.contract import Column, TableContract

UPLOADS = TableContract(
    layer="bronze",
    name="uploads",
    description="The ledger: one row per ingested upload. It does not depend on the snapshots of any table.",
    columns=(
        BATCH_ID,
        Column("source_uri", "string", "The URI of the upload.", True),
        Column("archive_uri", "string", "The URI of the upload in the archive."),
        Column("stored_bytes", "long", "The size of the upload as stored, i.e. before decompression, in bytes."),
        Column(
            "uploaded_at", "timestamptz", "The file's modification time, or the object's `LastModified` in S3, UTC."
        ),
        INGESTED_AT,
        Column("documents", "int", "The number of documents in the upload; 1 if the whole upload is rejected.", True),
        Column("accepted", "int", "The number of these that are in `bronze.car_telemetry`.", True),
        Column("rejected", "int", "The number of these that are in `bronze.rejected_documents`.", True),
        Column("problem", "string", "The reason code if the whole upload is rejected, otherwise null."),
        Column("unknown_fields", "string", "JSON object: the number of occurrences of each unknown field, by path."),
        Column("wrong_typed_fields", "string", "JSON object: the number of wrong-typed values of each field, by path."),
        Column(
            "out_of_range_fields",
            "string",
            "JSON object: the number of out-of-range values of each field, by path.",
        ),
    ),
    key=("batch_id", "source_uri"),
    partition="ingested_at",
    partition_by_day=True,
)
