"""``bronze.car_telemetry``: every accepted document, as received."""

from __future__ import annotations

from telemetry_assets.tables.columns import BATCH_ID, EVENT_DATE, EVENT_IDENTITY, INGESTED_AT
from telemetry_assets.tables.contract import Column, TableContract

BRONZE = TableContract(
    layer="bronze",
    name="car_telemetry",
    description="Every accepted document exactly as received, one row each, append-only.",
    columns=(
        *EVENT_IDENTITY,
        EVENT_DATE,
        Column("document_shape", "string", "`event` (flat) or `vehicle` (nested).", True),
        Column("payload", "string", "The document's JSON text, as received.", True),
        Column("source_uri", "string", "The upload that the document came from.", True),
        Column("source_position", "int", "The document's position in the upload, from 0.", True),
        INGESTED_AT,
        BATCH_ID,
    ),
    key=("source_uri", "source_position", "batch_id"),
    partition="event_date",
)
