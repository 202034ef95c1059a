"""``gold.car_current_state``: the last known values of each car. docs/contract.md, section 4.1."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta

from telemetry_assets.tables.columns import (
    ENGINE_TEMPERATURE,
    FUEL,
    GAS_TYPE,
    INSURANCE_PROVIDER,
    INSURANCE_VALID_UNTIL,
    MANUFACTURER,
    MILEAGE,
    MODEL,
    OIL_PRESSURE,
    UPDATED_AT,
    YEAR,
)
from telemetry_assets.tables.contract import Column, DerivedTable, RowsWhere
from telemetry_assets.tables.silver_car_telemetry import SILVER

# The columns with the last known value of an attribute.
STATE_ATTRIBUTES = (
    MANUFACTURER,
    MODEL,
    YEAR,
    GAS_TYPE,
    INSURANCE_PROVIDER,
    INSURANCE_VALID_UNTIL,
    MILEAGE,
    FUEL,
    ENGINE_TEMPERATURE,
    OIL_PRESSURE,
)


def _origin_columns() -> Iterator[Column]:
    yield Column("telemetry_event_id", "string", "The id of the car's latest event.", True, internal=True)
    for attribute in STATE_ATTRIBUTES:
        name = attribute.name
        yield Column(
            f"{name}_known_at", "timestamptz", f"The time of the event that `{name}` comes from.", internal=True
        )
        yield Column(f"{name}_event_id", "string", f"The id of the event that `{name}` comes from.", internal=True)


def _whole_table(_: date) -> None:
    return None


CURRENT_STATE = DerivedTable(
    layer="gold",
    name="car_current_state",
    description="One row per car: the last known value of each attribute, and the insurance status.",
    columns=(
        Column("car_chassis", "string", "The car's chassis number.", True),
        *STATE_ATTRIBUTES,
        Column("telemetry_timestamp", "timestamptz", "The time of the car's latest event, UTC.", True),
        Column(
            "insurance_status",
            "string",
            "`EXPIRED`, `EXPIRING_IN_90_DAYS`, `ACTIVE` or `UNKNOWN`, as of `insurance_as_of`.",
            True,
        ),
        Column("insurance_days_expired", "int", "Days since the insurance expired; null if it has not expired."),
        Column("insurance_as_of", "date", "The date for which the insurance status is computed.", True),
        UPDATED_AT,
        *_origin_columns(),
    ),
    key=("car_chassis",),
    sort_by=("car_chassis",),
    affected_by=("car_chassis",),
    upstream=SILVER,
    transform="telemetry_assets.transforms.gold_car_current_state",
    key_check="one_row_per_car",
    rebuild_description="Materializing updates the rows of all cars from the chosen event dates, and from all other "
    "dates that changed.",
    partition_of=_whole_table,
    figures=(
        RowsWhere("insurance_expired_cars", "insurance_status", "EXPIRED"),
        RowsWhere("insurance_expiring_in_90_days_cars", "insurance_status", "EXPIRING_IN_90_DAYS"),
    ),
    # Without new uploads, only the daily refresh materializes the table. It may be two hours late.
    fresh_within=timedelta(hours=26),
    as_of="insurance_as_of",
)
