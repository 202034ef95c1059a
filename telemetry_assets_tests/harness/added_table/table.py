"""``gold.daily_distance_by_model``: kilometers of all trips per model and day."""

from __future__ import annotations

from telemetry_assets.tables.columns import EVENT_DATE, UPDATED_AT
from telemetry_assets.tables.contract import Column, DerivedTable, Total
from telemetry_assets.tables.silver_car_telemetry import SILVER

DAILY_DISTANCE = DerivedTable(
    layer="gold",
    name="daily_distance_by_model",
    description="One row per model and event date: kilometres of its trips.",
    columns=(
        Column("model", "string", "The cars' model.", True),
        EVENT_DATE,
        Column("distance_km", "double", "Kilometres of all trips.", True),
        UPDATED_AT,
    ),
    key=("model", "event_date"),
    partition="event_date",
    upstream=SILVER,
    transform="telemetry_assets_tests.harness.added_table.transform",
    key_check="one_row_per_model_and_date",
    rebuild_description="Materializing replaces the chosen event dates.",
    figures=(Total("distance_km", "distance_km"),),
)
