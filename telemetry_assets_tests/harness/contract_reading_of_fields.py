"""An independent implementation of docs/contract.md, sections 1.1, 1.3 and 1.4: the fields of a document.

It is a part of :mod:`telemetry_assets_tests.harness.contract_reading`, and shares no code with `telemetry_assets`
either.
"""

import math
import re
from dataclasses import dataclass, field
from datetime import date
from typing import Any

STATIC = "vehicle_static_info.data."
INSURANCE = "vehicle_dynamic_state.insurance_info.data."
SNAPSHOT = "trip_data.vehicle_telemetry_snapshot.data."
TRIP = "trip_data.trip_summary.data."
FIELD_PATHS = {
    "manufacturer": {"event": "manufacturer", "vehicle": STATIC + "Manufacturer"},
    "model": {"event": "model", "vehicle": STATIC + "Model"},
    "year": {"event": "year", "vehicle": STATIC + "year"},
    "gas_type": {"vehicle": STATIC + "gasType"},
    "insurance_provider": {"vehicle": INSURANCE + "provider"},
    "insurance_valid_until": {"vehicle": INSURANCE + "validUntil"},
    "current_mileage_km": {"event": "metrics.currentMileageKm", "vehicle": SNAPSHOT + "currentMileage"},
    "fuel_available_liters": {"event": "metrics.fuelAvailableLiters", "vehicle": SNAPSHOT + "fuelAvailableLiters"},
    "engine_temp_celsius": {"event": "metrics.engineTempCelsius", "vehicle": SNAPSHOT + "engineTempCelsius"},
    "oil_pressure_psi": {"event": "metrics.oilPressurePsi"},
    "oil_temp_celsius": {"vehicle": SNAPSHOT + "oilTempCelsius"},
    "battery_charge_percent": {"vehicle": SNAPSHOT + "batteryChargePerc"},
    "tire_pressure_front_left_psi": {"vehicle": SNAPSHOT + "tire_pressures_psi.front_left"},
    "tire_pressure_front_right_psi": {"vehicle": SNAPSHOT + "tire_pressures_psi.front_right"},
    "tire_pressure_rear_left_psi": {"vehicle": SNAPSHOT + "tire_pressures_psi.rear_left"},
    "tire_pressure_rear_right_psi": {"vehicle": SNAPSHOT + "tire_pressures_psi.rear_right"},
    "trip_distance_km": {"vehicle": TRIP + "tripMileage"},
    "trip_fuel_liters": {"vehicle": TRIP + "tripFuelLiters"},
    "trip_max_speed_kmh": {"vehicle": TRIP + "tripMaxSpeedKm"},
    "trip_duration_minutes": {"vehicle": TRIP + "tripTimeMinutes"},
}
TEXT_COLUMNS = ("manufacturer", "model", "gas_type", "insurance_provider")
ABOVE_ZERO = math.ulp(0.0)
RANGES = {
    "year": (1886, 2100),
    "current_mileage_km": (ABOVE_ZERO, 2_000_000),
    "fuel_available_liters": (0, 1_000),
    "engine_temp_celsius": (-50, 200),
    "oil_temp_celsius": (-50, 250),
    "oil_pressure_psi": (0, 200),
    "tire_pressure_front_left_psi": (0, 200),
    "tire_pressure_front_right_psi": (0, 200),
    "tire_pressure_rear_left_psi": (0, 200),
    "tire_pressure_rear_right_psi": (0, 200),
    "battery_charge_percent": (0, 100),
    "trip_distance_km": (0, 10_000),
    "trip_fuel_liters": (0, 2_000),
    "trip_max_speed_kmh": (0, 500),
    "trip_duration_minutes": (0, 100_000),
}
NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
BLANKS = " \t\r\n"


class WrongTypeError(Exception):
    """A field whose value has the wrong type; its argument is the path."""


class OutOfRangeError(Exception):
    """A field whose number is out of range; its argument is the path."""


@dataclass
class Fields:
    """The values of a document in their columns, and the paths of those that are null because they are invalid."""

    columns: dict[str, object] = field(default_factory=dict)
    wrong_typed: set[str] = field(default_factory=set)
    out_of_range: set[str] = field(default_factory=set)


def read_fields(document: dict[str, Any], shape: str) -> Fields:
    """Read each column of Silver that a field sets."""
    fields = Fields()
    if document.get("event_id") is not None and text_value(document["event_id"]) is None:
        fields.wrong_typed.add("event_id")
    for column, paths in FIELD_PATHS.items():
        fields.columns[column] = None
        try:
            fields.columns[column] = _column_value(column, document, paths.get(shape))
        except WrongTypeError as error:
            fields.wrong_typed.add(str(error))
        except OutOfRangeError as error:
            fields.out_of_range.add(str(error))
    return fields


def _column_value(column: str, document: dict[str, Any], path: str | None) -> object:
    """A field's value in its column; None if the field is missing, null or not finite."""
    value = None if path is None else _value_at(document, path)
    if value is None or path is None:
        return None
    if column in TEXT_COLUMNS:
        read: object = text_value(value)
    elif column == "insurance_valid_until":
        read = date_value(value)
    else:
        return _number_in_range(column, value, path)
    if read is None:
        raise WrongTypeError(path)
    return read


def _value_at(document: dict[str, Any], path: str) -> object:
    """The value at a path; None if it or one of its containers is missing or null."""
    *containers, name = path.split(".")
    holder = document
    for depth, container in enumerate(containers, start=1):
        inner = holder.get(container)
        if inner is None:
            return None
        if not isinstance(inner, dict):
            raise WrongTypeError(".".join(containers[:depth]))
        holder = inner
    return holder.get(name)


def _number_in_range(column: str, value: object, path: str) -> float | None:
    number = number_value(value)
    if number is None:
        raise WrongTypeError(path)
    if not math.isfinite(number):
        return None
    if column == "year" and not number.is_integer():
        raise WrongTypeError(path)
    lowest, highest = RANGES[column]
    if not lowest <= number <= highest:
        raise OutOfRangeError(path)
    return int(number) if column == "year" else number


def text_value(value: object) -> str | None:
    """The value if it is text without lone surrogates, which UTF-8 cannot encode."""
    if not isinstance(value, str) or any("\ud800" <= character <= "\udfff" for character in value):
        return None
    return value


def date_value(value: object) -> date | None:
    """The value if it is the text of an ISO 8601 date without a time."""
    try:
        return date.fromisoformat(value) if isinstance(value, str) and value.isascii() else None
    except ValueError:
        return None


def number_value(value: object) -> float | None:
    """The value if it is a number, also one that is written as text; infinite if a double cannot hold it."""
    if isinstance(value, str) and NUMBER.fullmatch(value.strip(BLANKS)):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf
