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
from telemetry_assets.tables.contract import Column, DerivedTable, Range, SharedIdCheck

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


def _reading(name: str, description: str, valid_range: Range) -> Column:
    return Column(name, "double", description, valid_range=valid_range)


_READINGS = (
    _reading("oil_temp_celsius", "The oil temperature, degrees Celsius.", Range(-50, 250)),
    _reading("battery_charge_percent", "The battery charge, percent.", Range(0, 100)),
    _reading("tire_pressure_front_left_psi", "The pressure of the front left tire, psi.", Range(0, 200)),
    _reading("tire_pressure_front_right_psi", "The pressure of the front right tire, psi.", Range(0, 200)),
    _reading("tire_pressure_rear_left_psi", "The pressure of the rear left tire, psi.", Range(0, 200)),
    _reading("tire_pressure_rear_right_psi", "The pressure of the rear right tire, psi.", Range(0, 200)),
    _reading("trip_distance_km", "The distance of the trip that ended with this event, kilometres.", Range(0, 10_000)),
    _reading("trip_fuel_liters", "The fuel used on the trip, litres.", Range(0, 2_000)),
    _reading("trip_max_speed_kmh", "The highest speed of the trip, kilometres per hour.", Range(0, 500)),
    _reading("trip_duration_minutes", "The duration of the trip, minutes.", Range(0, 100_000)),
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
    key=("car_chassis", "event_id", "event_date"),
    partition="event_date",
    sort_by=("car_chassis", "telemetry_timestamp"),
    newest_by="ingested_at",
    upstream=BRONZE,
    transform="telemetry_assets.transforms.silver_car_telemetry",
    transform_edition=2,
    key_check="one_row_per_event",
    shared_id_check=SharedIdCheck(
        "no_event_id_of_two_cars",
        "event_id",
        "car_chassis",
        "No event id is used by two cars on one event date. All events are kept, because the car is part of the key, "
        "but other systems may confuse them.",
    ),
    rebuild_description="Materializing rebuilds the chosen event dates from all of their Bronze rows.",
    sources={
        **{column.name: "payload" for column in (*_CAR_AND_STATE, *_READINGS)},
        "event_year": "event_date",
        "event_month": "event_date",
        "event_day": "event_date",
    },
)
