"""``silver.car_telemetry``: one typed row per event."""

from __future__ import annotations

from telemetry_assets.tables.bronze_car_telemetry import BRONZE
from telemetry_assets.tables.columns import (
    ENGINE_TEMPERATURE,
    EVENT_DATE,
    EVENT_IDENTITY,
    FUEL,
    GAS_TYPE,
    INGESTED_AT,
    INSURANCE_PROVIDER,
    INSURANCE_VALID_UNTIL,
    MANUFACTURER,
    MILEAGE,
    MODEL,
    OIL_PRESSURE,
    YEAR,
)
from telemetry_assets.tables.contract import Column
from telemetry_assets.tables.derived import DerivedTable
from telemetry_assets.tables.figures import DistinctValues

_CAR_AND_STATE = (
    MANUFACTURER,
    MODEL,
    YEAR,
    MILEAGE,
    FUEL,
    ENGINE_TEMPERATURE,
    OIL_PRESSURE,
    GAS_TYPE,
    INSURANCE_PROVIDER,
    INSURANCE_VALID_UNTIL,
)
_READINGS = (
    Column("oil_temp_celsius", "double", "The oil's temperature, degrees Celsius."),
    Column("battery_charge_percent", "double", "The battery's charge, percent."),
    Column("tire_pressure_front_left_psi", "double", "Tire pressure, psi."),
    Column("tire_pressure_front_right_psi", "double", "Tire pressure, psi."),
    Column("tire_pressure_rear_left_psi", "double", "Tire pressure, psi."),
    Column("tire_pressure_rear_right_psi", "double", "Tire pressure, psi."),
    Column("trip_distance_km", "double", "The length of the trip that ended with this event, kilometres."),
    Column("trip_fuel_liters", "double", "The fuel that the trip used, litres."),
    Column("trip_max_speed_kmh", "double", "The trip's greatest speed, kilometres per hour."),
    Column("trip_duration_minutes", "double", "The trip's duration, minutes."),
)

SILVER = DerivedTable(
    layer="silver",
    name="car_telemetry",
    description="One row per event, typed, the newest ingestion of it.",
    columns=(
        *EVENT_IDENTITY,
        *_CAR_AND_STATE,
        Column("event_year", "int", "The year of the event date.", True),
        Column("event_month", "int", "The month of the event date, 1 to 12.", True),
        Column("event_day", "int", "The day of the month of the event date, 1 to 31.", True),
        EVENT_DATE,
        *_READINGS,
        INGESTED_AT,
    ),
    key=("event_id", "event_date"),
    partition="event_date",
    upstream=BRONZE,
    transform="telemetry_assets.transforms.silver_car_telemetry",
    key_check="one_row_per_event",
    rebuild_description="Materializing makes the chosen event dates anew from all of Bronze.",
    figures=(DistinctValues("cars", "car_chassis"),),
    sources={
        **{column.name: "payload" for column in (*_CAR_AND_STATE, *_READINGS)},
        "event_year": "event_date",
        "event_month": "event_date",
        "event_day": "event_date",
    },
)
