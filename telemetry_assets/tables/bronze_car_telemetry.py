"""``bronze.car_telemetry``: one row per accepted document. docs/contract.md, section 2."""

from __future__ import annotations

from telemetry_assets.tables.columns import BATCH_ID, EVENT_DATE, EVENT_IDENTITY, INGESTED_AT
from telemetry_assets.tables.contract import Column, TableContract

BRONZE = TableContract(
    layer="bronze",
    name="car_telemetry",
    description="One row per accepted document, exactly as received. Rows are only appended, except when the archive "
    "audit ingests an upload again.",
    columns=(
        *EVENT_IDENTITY,
        EVENT_DATE,
        Column("document_shape", "string", "`event` (flat) or `vehicle` (nested).", True),
        Column("payload", "string", "The document's JSON text, as received.", True),
        Column("source_uri", "string", "The URI of the upload that contains the document.", True),
        Column("source_position", "int", "The document's position in the upload, from 0.", True),
        INGESTED_AT,
        BATCH_ID,
    ),
    key=("source_uri", "source_position", "batch_id"),
    partition="event_date",
    sort_by=("car_chassis", "telemetry_timestamp"),
)
