"""``bronze.rejected_documents``: the quarantine."""

from __future__ import annotations

from telemetry_assets.tables.columns import BATCH_ID, INGESTED_AT
from telemetry_assets.tables.contract import Column, TableContract

REJECTED = TableContract(
    layer="bronze",
    name="rejected_documents",
    description="Every document or upload that was not accepted, exactly as received, with the reason.",
    columns=(
        Column("source_uri", "string", "The upload.", True),
        Column("source_position", "int", "The document's position in the upload, from 0; null for a whole upload."),
        Column("reason", "string", "A code of a closed set.", True),
        Column("message", "string", "What was wrong and what to do, for a person.", True),
        Column("payload", "string", "What was received: text, or base64 where it is not text."),
        INGESTED_AT,
        BATCH_ID,
    ),
    key=("source_uri", "source_position", "batch_id"),
    partition="ingested_at",
    partition_by_day=True,
)
