"""The two document shapes: the field of each Silver column, conversion of values, and known fields.

docs/contract.md, sections 1.1, 1.3 and 1.4. All engines use these functions. The functions have no side effects.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal, NamedTuple

from telemetry_assets.tables.contract import ColumnType, Range
from telemetry_assets.tables.silver_car_telemetry import SILVER

Shape = Literal["event", "vehicle"]

JSON_WHITE_SPACE = " \t\r\n"
VIN = "[0-9A-HJ-NPR-Za-hj-npr-z]{17}"
"""The regular expression of a vehicle identification number (ISO 3779), in any case."""

_INT = Range(-(2**31), 2**31 - 1)
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")


def text_of(value: object) -> str | None:
    """The value if it is a text that can be encoded as UTF-8, otherwise None."""
    if not isinstance(value, str):
        return None
    try:
        value.encode()
    except UnicodeEncodeError:
        return None
    return value


def car_name(text: str) -> str:
    """A car's name as a document spells it, without white space around it and with a VIN in upper case.

    docs/contract.md, section 1.2.
    """
    name = text.strip(JSON_WHITE_SPACE)
    return name.upper() if re.fullmatch(VIN, name) else name


def _number(value: object) -> float | None:
    if isinstance(value, str):
        stripped = value.strip(JSON_WHITE_SPACE)
        if not _NUMBER.fullmatch(stripped):
            return None
        value = float(stripped)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return math.inf
    return number


def _whole_number(value: object) -> float | None:
    number = _number(value)
    if number is None or not math.isfinite(number):
        return number
    return int(number) if number.is_integer() else None


def date_of(value: object) -> date | None:
    """The date if the value is a text with an ISO 8601 date, otherwise None."""
    if not isinstance(value, str) or not value.isascii():
        return None
    try:
        return date.fromisoformat(value)
    except ValueError:
        return None


# For each shape and path of a JSON object: the fields of the object and their Silver columns.
_TELEMETRY = ("trip_data", "vehicle_telemetry_snapshot", "data")
_COLUMNS: dict[Shape, dict[tuple[str, ...], dict[str, str]]] = {
    "event": {
        (): {"manufacturer": "manufacturer", "model": "model", "year": "year"},
        ("metrics",): {
            "currentMileageKm": "current_mileage_km",
            "fuelAvailableLiters": "fuel_available_liters",
            "engineTempCelsius": "engine_temp_celsius",
            "oilPressurePsi": "oil_pressure_psi",
        },
    },
    "vehicle": {
        ("vehicle_static_info", "data"): {
            "Manufacturer": "manufacturer",
            "Model": "model",
            "year": "year",
            "gasType": "gas_type",
        },
        ("vehicle_dynamic_state", "insurance_info", "data"): {
            "provider": "insurance_provider",
            "validUntil": "insurance_valid_until",
        },
        _TELEMETRY: {
            "currentMileage": "current_mileage_km",
            "fuelAvailableLiters": "fuel_available_liters",
            "engineTempCelsius": "engine_temp_celsius",
            "oilTempCelsius": "oil_temp_celsius",
            "batteryChargePerc": "battery_charge_percent",
        },
        (*_TELEMETRY, "tire_pressures_psi"): {
            "front_left": "tire_pressure_front_left_psi",
            "front_right": "tire_pressure_front_right_psi",
            "rear_left": "tire_pressure_rear_left_psi",
            "rear_right": "tire_pressure_rear_right_psi",
        },
        ("trip_data", "trip_summary", "data"): {
            "tripMileage": "trip_distance_km",
            "tripFuelLiters": "trip_fuel_liters",
            "tripMaxSpeedKm": "trip_max_speed_kmh",
            "tripTimeMinutes": "trip_duration_minutes",
        },
    },
}

_CONVERTERS: dict[ColumnType, Callable[[object], Any]] = {
    "string": text_of,
    "date": date_of,
    "int": _whole_number,
    "double": _number,
}

VALUE_COLUMNS: tuple[str, ...] = tuple(
    dict.fromkeys(
        column for shape in ("vehicle", "event") for fields in _COLUMNS[shape].values() for column in fields.values()
    )
)
"""The Silver columns whose values come from a payload, in the order of :attr:`Values.values`."""


@dataclass(frozen=True)
class Field:
    """A field of a document, and its Silver column.

    :param name: the name in its JSON object.
    :param index: the place of the column in :data:`VALUE_COLUMNS`.
    :param convert: returns the typed value, or None if the value has the wrong type.
    :param valid_range: the valid numbers; None if all are valid.
    """

    name: str
    index: int
    convert: Callable[[object], Any]
    valid_range: Range | None


def _field(name: str, column: str) -> Field:
    of_silver = SILVER.column(column)
    valid = of_silver.valid_range or (_INT if of_silver.type == "int" else None)
    return Field(name, VALUE_COLUMNS.index(column), _CONVERTERS[of_silver.type], valid)


FIELDS: dict[Shape, tuple[tuple[tuple[str, ...], tuple[Field, ...]], ...]] = {
    shape: tuple(
        (
            path,
            tuple(_field(name, column) for name, column in fields.items()),
        )
        for path, fields in objects.items()
    )
    for shape, objects in _COLUMNS.items()
}
"""For each shape: the paths of its JSON objects, and the fields of each."""


class Values(NamedTuple):
    """The typed values of a document.

    :param values: in the order of :data:`VALUE_COLUMNS`; a value that is missing, of the wrong type, out of range, NaN
        or infinite is None.
    :param wrong_typed: the paths of fields with a value of the wrong type.
    :param out_of_range: the paths of fields with a number outside of the valid range.
    """

    values: list[Any]
    wrong_typed: list[str]
    out_of_range: list[str]


def values_of(document: dict[str, Any], shape: Shape) -> Values:
    """The typed values of a document, and its fields whose values cannot be used."""
    values: list[Any] = [None] * len(VALUE_COLUMNS)
    wrong_typed: list[str] = []
    out_of_range: list[str] = []
    for path, fields in FIELDS[shape]:
        holder = _descend(document, path, wrong_typed)
        for field in fields:
            given = holder.get(field.name)
            if given is None:
                continue
            value = field.convert(given)
            if value is None:
                wrong_typed.append(".".join((*path, field.name)))
            elif isinstance(value, float) and not math.isfinite(value):
                continue
            elif field.valid_range is not None and not field.valid_range.contains(value):
                out_of_range.append(".".join((*path, field.name)))
            else:
                values[field.index] = value
    return Values(values, wrong_typed, out_of_range)


def _descend(document: dict[str, Any], path: tuple[str, ...], wrong_typed: list[str]) -> dict[str, Any]:
    holder: Any = document
    for depth, name in enumerate(path, start=1):
        holder = holder.get(name)
        if not isinstance(holder, dict):
            container = ".".join(path[:depth])
            if holder is not None and container not in wrong_typed:
                wrong_typed.append(container)
            return {}
    return holder  # type: ignore[no-any-return]


# Known fields that no column uses. They do not count as unknown fields.
_EXTRACTION = {"extraction_timestamp": None, "source_system": None}
_KNOWN_UNUSED: dict[Shape, dict[str, Any]] = {
    "event": {"event_id": None, "carChassis": None, "telemetryTimestamp": None, "processing_timestamp": None},
    "vehicle": {
        "event_id": None,
        "carChassis": None,
        "event_primary_timestamp": None,
        "processing_timestamp": None,
        "vehicle_static_info": {**_EXTRACTION, "data": {"ModelYear": None, "fuelCapacityLiters": None, "color": None}},
        "vehicle_dynamic_state": {
            "insurance_info": {**_EXTRACTION, "data": {"policy_number": None}},
            "maintenance_info": {
                **_EXTRACTION,
                "data": {"last_service_date": None, "last_service_mileage": None, "oil_life_percentage": None},
            },
        },
        "current_rental_agreement": {
            **_EXTRACTION,
            "data": {"agreement_id": None, "customer_id": None, "rental_start_date": None},
        },
        "trip_data": {
            "trip_summary": {**_EXTRACTION, "data": {"tripStartTimestamp": None, "tripEndTimestamp": None}},
            "vehicle_telemetry_snapshot": dict(_EXTRACTION),
        },
    },
}


def _known_fields(shape: Shape) -> dict[str, Any]:
    known: dict[str, Any] = json.loads(json.dumps(_KNOWN_UNUSED[shape]))
    for path, fields in _COLUMNS[shape].items():
        holder = known
        for name in path:
            holder = holder.setdefault(name, {})
        holder.update(dict.fromkeys(fields))
    return known


_KNOWN_FIELDS: dict[Shape, dict[str, Any]] = {"event": _known_fields("event"), "vehicle": _known_fields("vehicle")}


def unknown_fields(document: dict[str, Any], shape: Shape) -> Iterator[str]:
    """The paths of the unknown fields of a document, which indicate schema drift."""
    return _unknown_fields(document, _KNOWN_FIELDS[shape])


def _unknown_fields(document: dict[str, Any], known: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in document.items():
        if name not in known:
            yield f"{prefix}{name}"
        elif isinstance(value, dict) and known[name]:
            yield from _unknown_fields(value, known[name], f"{prefix}{name}.")
