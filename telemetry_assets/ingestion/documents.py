"""One document becomes a Bronze row, or a rejection with its reason; a payload becomes typed values.

Pure. The two document shapes are described here and nowhere else: which field gives which Silver
column, which fields are known, and what each kind of value may look like.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal, NamedTuple

Shape = Literal["event", "vehicle"]
Reason = Literal[
    "broken_gzip",
    "empty_upload",
    "missing_car_chassis",
    "missing_time",
    "nested_too_deep",
    "not_an_object",
    "not_json",
    "not_utf8",
    "time_before_2000",
    "time_in_future",
    "too_large",
    "unparseable_time",
    "unreadable_upload",
    "unsupported_ending",
]

MAX_NESTING = 900
"""Levels of objects and arrays in a document. Python's parser gives up near 1,000, depending on how deep
its caller is; a bound of our own gives the same answer wherever a document is parsed."""

_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
_TOLERATED_CLOCK_ERROR = timedelta(hours=24)
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_BRACKETS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)


class Rejection(NamedTuple):
    """Why a document, or a whole upload (``position`` is None), is not in Bronze."""

    position: int | None
    reason: Reason
    message: str
    payload: str | None


class BronzeRow(NamedTuple):
    """An accepted document, with what ingestion noticed about it."""

    event_id: str
    car_chassis: str
    event_primary_timestamp: str
    telemetry_timestamp: datetime
    event_date: date
    document_shape: Shape
    payload: str
    position: int
    wrong_typed_fields: tuple[str, ...]
    unknown_fields: tuple[str, ...]


class _NotUsableError(Exception):
    def __init__(self, reason: Reason, message: str) -> None:
        self.reason: Reason = reason
        self.message = message


def accept(payload: str, position: int, ingested_at: datetime) -> BronzeRow | Rejection:
    """Judge one document by CONTRACT.md section 1.

    :param payload: the document's JSON text, without surrounding white space.
    :param position: its place in the upload, from 0.
    :param ingested_at: the batch's moment, UTC; a time over 24 hours later is a clock gone wrong.
    """
    try:
        document = _parse(payload)
        shape: Shape = "event" if "telemetryTimestamp" in document else "vehicle"
        car_chassis = _car_chassis(document)
        written, moment = _time(document, shape, ingested_at)
    except _NotUsableError as rejected:
        return Rejection(position, rejected.reason, rejected.message, payload)
    given = _text(document.get("event_id"))
    _, wrong_typed = values_of(document, shape)
    if document.get("event_id") is not None and given is None:
        wrong_typed.append("event_id")
    return BronzeRow(
        event_id=given or f"{car_chassis}_{written}",
        car_chassis=car_chassis,
        event_primary_timestamp=written,
        telemetry_timestamp=moment,
        event_date=moment.date(),
        document_shape=shape,
        payload=payload,
        position=position,
        wrong_typed_fields=tuple(wrong_typed),
        unknown_fields=tuple(_unknown_fields(document, _KNOWN_FIELDS[shape])),
    )


def _parse(payload: str) -> dict[str, Any]:
    if nests_too_deep(payload):
        raise _NotUsableError(
            "nested_too_deep", f"The document nests deeper than {MAX_NESTING} levels; send it flatter."
        )
    try:
        document = json.loads(payload)
    except RecursionError as error:
        raise _NotUsableError(
            "nested_too_deep", "The document nests too deep to be parsed; send it flatter."
        ) from error
    except ValueError as error:
        raise _NotUsableError("not_json", f"The document is not JSON: {error}. Mend it at its source.") from error
    if not isinstance(document, dict):
        raise _NotUsableError("not_an_object", f"A document is a JSON object; this is {_kind(document)}.")
    return document


def nests_too_deep(text: str) -> bool:
    """Whether more than :data:`MAX_NESTING` objects and arrays are open at some place of a JSON text."""
    may = text.count("[") + text.count("{") > MAX_NESTING
    return may and any(depth > MAX_NESTING for _, depth in _brackets(text, 0))


def bracketed_end(text: str, start: int) -> int | None:
    """Where the object or array that begins at ``start`` ends, by its brackets alone; None where it does not end."""
    return next((end for end, depth in _brackets(text, start) if depth <= 0), None)


def _brackets(text: str, start: int) -> Iterator[tuple[int, int]]:
    """The position behind each bracket outside of texts, and how many are open there."""
    depth = 0
    for token in _BRACKETS.finditer(text, start):
        if token.group()[0] == '"':
            continue
        depth += 1 if token.group() in "[{" else -1
        yield token.end(), depth


def _kind(value: object) -> str:
    names = {bool: "true or false", int: "a number", float: "a number", str: "a text", list: "an array"}
    return names.get(type(value), "null")


def _car_chassis(document: dict[str, Any]) -> str:
    chassis = document.get("carChassis")
    if not _text(chassis):
        found = "is missing" if chassis is None else "is empty" if chassis == "" else "is not a text"
        raise _NotUsableError("missing_car_chassis", f"`carChassis` {found}, so nobody can say whose event this is.")
    return str(chassis)


def _time(document: dict[str, Any], shape: Shape, ingested_at: datetime) -> tuple[str, datetime]:
    name = "telemetryTimestamp" if shape == "event" else "event_primary_timestamp"
    written = document.get(name)
    if written is None or written == "":
        raise _NotUsableError("missing_time", "Neither `telemetryTimestamp` nor `event_primary_timestamp` has a time.")
    moment = parse_time(written)
    if moment is None:
        raise _NotUsableError("unparseable_time", f"`{name}` is not an ISO 8601 time: {_excerpt(written)}.")
    if moment < _EARLIEST:
        raise _NotUsableError("time_before_2000", f"`{name}` is {_excerpt(written)}; set the car's clock.")
    if moment > ingested_at + _TOLERATED_CLOCK_ERROR:
        raise _NotUsableError(
            "time_in_future",
            f"`{name}` is {_excerpt(written)}, over 24 hours after its arrival at {ingested_at.isoformat()}; "
            "set the car's clock.",
        )
    return written, moment


def _excerpt(value: object) -> str:
    try:
        written = ascii(value)
    except (RecursionError, ValueError):
        return _kind(value)
    return written if len(written) <= 80 else f"{written[:77]}..."


def parse_time(written: object) -> datetime | None:
    """The UTC moment of an ISO 8601 time; one without an offset is UTC. None where it is not one.

    What is ISO 8601 is what ``datetime.fromisoformat`` takes, with ``T`` or a space before the time.
    A moment outside the years 1 to 9999 comes back as the nearest that can be held.
    """
    if not isinstance(written, str) or not written.isascii():
        return None
    try:
        moment = datetime.fromisoformat(written)
        separators_stand = _is_date(written) or "T" in written or " " in written
    except ValueError:
        return None
    if not separators_stand:
        return None
    if moment.tzinfo is None:
        return moment.replace(tzinfo=UTC)
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        nearest = datetime.min if moment.year < 2000 else datetime.max
        return nearest.replace(tzinfo=UTC)


def _is_date(written: str) -> bool:
    return _date(written) is not None


def _text(value: object) -> str | None:
    if not isinstance(value, str):
        return None
    try:
        value.encode()
    except UnicodeEncodeError:
        return None
    return value


def _number(value: object) -> float | None:
    if isinstance(value, str):
        stripped = value.strip(" \t\r\n")
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
    return int(number) if number.is_integer() and -(2**31) <= number < 2**31 else None


def _date(value: object) -> date | None:
    if not isinstance(value, str) or not value.isascii():
        return None
    try:
        return date.fromisoformat(value)
    except ValueError:
        return None


# For each shape: the object that holds the fields, then field -> Silver column. CONTRACT.md section 1.
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

_CONVERTERS: dict[str, Callable[[object], Any]] = {
    "manufacturer": _text,
    "model": _text,
    "gas_type": _text,
    "insurance_provider": _text,
    "insurance_valid_until": _date,
    "year": _whole_number,
}

VALUE_COLUMNS: tuple[str, ...] = tuple(
    dict.fromkeys(
        column for shape in ("vehicle", "event") for fields in _COLUMNS[shape].values() for column in fields.values()
    )
)
"""The Silver columns whose values come out of a payload, in the order of :func:`payload_values`."""


@dataclass(frozen=True)
class _Field:
    name: str
    index: int
    convert: Callable[[object], Any]


_PLANS: dict[str, tuple[tuple[tuple[str, ...], tuple[_Field, ...]], ...]] = {
    shape: tuple(
        (
            path,
            tuple(
                _Field(name, VALUE_COLUMNS.index(column), _CONVERTERS.get(column, _number))
                for name, column in fields.items()
            ),
        )
        for path, fields in objects.items()
    )
    for shape, objects in _COLUMNS.items()
}


def values_of(document: dict[str, Any], shape: str) -> tuple[list[Any], list[str]]:
    """The typed values of a document in the order of :data:`VALUE_COLUMNS`, and its wrong-typed fields by path.

    A value that is not there, of the wrong type, NaN or infinite is None.
    """
    values: list[Any] = [None] * len(VALUE_COLUMNS)
    wrong_typed: list[str] = []
    for path, fields in _PLANS[shape]:
        holder = _descend(document, path, wrong_typed)
        for field in fields:
            given = holder.get(field.name)
            if given is None:
                continue
            value = field.convert(given)
            if value is None:
                wrong_typed.append(".".join((*path, field.name)))
            elif not (isinstance(value, float) and not math.isfinite(value)):
                values[field.index] = value
    return values, wrong_typed


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


def payload_values(payload: str, shape: str) -> tuple[Any, ...]:
    """The typed values of a Bronze row's payload, in the order of :data:`VALUE_COLUMNS`.

    A payload that cannot be parsed, which only a hand-made Bronze row has, gives nulls.
    """
    try:
        document = json.loads(payload)
    except (ValueError, RecursionError):
        return (None,) * len(VALUE_COLUMNS)
    if not isinstance(document, dict) or shape not in _PLANS:
        return (None,) * len(VALUE_COLUMNS)
    return tuple(values_of(document, shape)[0])


# Fields that producers are known to send and that no column takes. They are not schema drift.
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


def _unknown_fields(document: dict[str, Any], known: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in document.items():
        if name not in known:
            yield f"{prefix}{name}"
        elif isinstance(value, dict) and known[name]:
            yield from _unknown_fields(value, known[name], f"{prefix}{name}.")
