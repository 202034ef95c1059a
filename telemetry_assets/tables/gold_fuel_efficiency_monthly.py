"""``gold.fuel_efficiency_monthly``: distance and fuel per car and month. docs/contract.md, section 4.2.

A month is represented by its first day.
"""

from __future__ import annotations

from datetime import date, timedelta

from telemetry_assets.tables.columns import MANUFACTURER, MODEL, UPDATED_AT
from telemetry_assets.tables.contract import Column, DerivedTable, Total
from telemetry_assets.tables.silver_car_telemetry import SILVER

# A later event of the month is added to the row without the events before it.
_LAST_EVENT = (
    Column("last_event_at", "timestamptz", "The time of the car's last event of the month.", internal=True),
    Column("last_event_id", "string", "The id of the car's last event of the month.", internal=True),
    Column("last_reading_at", "timestamptz", "The time of the month's last odometer reading.", internal=True),
    Column("last_reading_km", "double", "The month's last odometer reading, kilometres.", internal=True),
    Column(
        "last_reading_fuel_liters",
        "double",
        "The fuel in the tank at the last odometer reading, litres.",
        internal=True,
    ),
)


def first_of_month(day: date) -> date:
    """The first day of the day's month."""
    return day.replace(day=1)


def next_month(day: date) -> date:
    """The first day of the month after the day's."""
    return first_of_month(first_of_month(day) + timedelta(days=31))


def previous_month(day: date) -> date:
    """The first day of the month before the day's."""
    return first_of_month(first_of_month(day) - timedelta(days=1))


def days_of_month(first: date) -> list[date]:
    """All days of the month that begins on ``first``."""
    return [first + timedelta(days=offset) for offset in range((next_month(first) - first).days)]


def _dates_of(months: frozenset[date]) -> frozenset[date]:
    return frozenset(day for month in months for day in days_of_month(month))


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
        *_LAST_EVENT,
    ),
    key=("car_chassis", "year_month"),
    partition="month",
    sort_by=("car_chassis",),
    affected_by=("car_chassis",),
    next_partition=next_month,
    dates_of=_dates_of,
    upstream=SILVER,
    transform="telemetry_assets.transforms.gold_fuel_efficiency_monthly",
    transform_edition=3,
    key_check="one_row_per_car_and_month",
    rebuild_description="Materializing rebuilds the months of the chosen event dates, and the month after each.",
    partition_of=first_of_month,
    figures=(Total("driven_km", "total_km_driven"), Total("fuel_liters", "total_fuel_liters")),
    fresh_within=timedelta(days=7),
)
