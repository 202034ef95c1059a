"""``silver.car_telemetry``: one typed row per event. docs/contract.md, section 3."""

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
from telemetry_assets.tables.contract import Column, DerivedTable, DistinctValues

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
    Column("oil_temp_celsius", "double", "The oil temperature, degrees Celsius."),
    Column("battery_charge_percent", "double", "The battery charge, percent."),
    Column("tire_pressure_front_left_psi", "double", "The pressure of the front left tire, psi."),
    Column("tire_pressure_front_right_psi", "double", "The pressure of the front right tire, psi."),
    Column("tire_pressure_rear_left_psi", "double", "The pressure of the rear left tire, psi."),
    Column("tire_pressure_rear_right_psi", "double", "The pressure of the rear right tire, psi."),
    Column("trip_distance_km", "double", "The distance of the trip that ended with this event, kilometres."),
    Column("trip_fuel_liters", "double", "The fuel used on the trip, litres."),
    Column("trip_max_speed_kmh", "double", "The highest speed of the trip, kilometres per hour."),
    Column("trip_duration_minutes", "double", "The duration of the trip, minutes."),
)

SILVER = DerivedTable(
    layer="silver",
    name="car_telemetry",
    description="One row per event, with typed columns, from the newest ingestion of the event.",
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
    rebuild_description="Materializing rebuilds the chosen event dates from all of their Bronze rows.",
    figures=(DistinctValues("cars", "car_chassis"),),
    sources={
        **{column.name: "payload" for column in (*_CAR_AND_STATE, *_READINGS)},
        "event_year": "event_date",
        "event_month": "event_date",
        "event_day": "event_date",
    },
)
