"""``bronze.rejected_documents``: the quarantine. docs/contract.md, section 2."""

from __future__ import annotations

from telemetry_assets.tables.columns import BATCH_ID, INGESTED_AT
from telemetry_assets.tables.contract import Column, TableContract

REJECTED = TableContract(
    layer="bronze",
    name="rejected_documents",
    description="One row per rejected document or upload, as received, with the reason.",
    columns=(
        Column("source_uri", "string", "The URI of the upload.", True),
        Column(
            "source_position",
            "int",
            "The document's position in the upload, from 0; null if the whole upload is rejected.",
        ),
        Column("reason", "string", "The reason code; docs/uploads.md lists all codes.", True),
        Column("message", "string", "What is wrong and how to correct it.", True),
        Column("payload", "string", "What was received, as text, or in base64 if it is not text."),
        INGESTED_AT,
        BATCH_ID,
    ),
    key=("source_uri", "source_position", "batch_id"),
    partition="ingested_at",
    partition_by_day=True,
)
