"""``gold.fuel_efficiency_monthly``: distance and fuel per car and month. docs/contract.md, section 4.2."""

from __future__ import annotations

from datetime import timedelta

from telemetry_assets.tables.columns import MANUFACTURER, MODEL, UPDATED_AT
from telemetry_assets.tables.contract import Column, DerivedTable, Total
from telemetry_assets.tables.months import first_of_month
from telemetry_assets.tables.silver_car_telemetry import SILVER

FUEL_EFFICIENCY = DerivedTable(
    layer="gold",
    name="fuel_efficiency_monthly",
    description="One row per car and month: kilometres driven and fuel used.",
    columns=(
        Column("car_chassis", "string", "The car's chassis number.", True),
        Column("year_month", "string", "The month, `YYYY-MM`.", True),
        Column("month", "date", "The first day of the month.", True),
        MANUFACTURER,
        MODEL,
        Column("total_km_driven", "double", "Kilometres driven, over all contributing events.", True),
        Column("trip_count", "long", "The number of contributing events.", True),
        Column(
            "measured_km",
            "double",
            "Kilometres driven, over the contributing events whose fuel is known and not negative.",
            True,
        ),
        Column("total_fuel_liters", "double", "Litres of fuel used, over the same events as `measured_km`.", True),
        Column("avg_fuel_efficiency_kmpl", "double", "Kilometres per litre; null if no fuel was used."),
        UPDATED_AT,
    ),
    key=("car_chassis", "year_month"),
    partition="month",
    upstream=SILVER,
    transform="telemetry_assets.transforms.gold_fuel_efficiency_monthly",
    transform_edition=2,
    key_check="one_row_per_car_and_month",
    rebuild_description="Materializing rebuilds the months of the chosen event dates, and the month after each.",
    partition_of=first_of_month,
    figures=(Total("driven_km", "total_km_driven"), Total("fuel_liters", "total_fuel_liters")),
    fresh_within=timedelta(days=7),
)
