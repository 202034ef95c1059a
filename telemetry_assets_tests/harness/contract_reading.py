"""An independent implementation of docs/contract.md in plain Python: the rows of every table after given uploads.

It is the oracle of the property tests. It recomputes everything from the uploads' bytes in the simplest way
and shares no code with `telemetry_assets`, so that both would need the same defect for a test to miss it.
"""

import hashlib
import json
import math
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from telemetry_assets_tests.harness.contract_reading_of_uploads import (
    RejectedError,
    Row,
    bronze_columns,
    date_value,
    documents,
    number_value,
    text_value,
    upload_text,
)

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
LAST_KNOWN = (
    *("manufacturer", "model", "year", "gas_type", "insurance_provider", "insurance_valid_until"),
    *("current_mileage_km", "fuel_available_liters", "engine_temp_celsius", "oil_pressure_psi"),
)
ALERT_RULES = (
    ("OVERHEAT_ENGINE", "engine_temp_celsius", "above", (("CRITICAL", 115.0), ("WARNING", 100.0))),
    ("OVERHEAT_OIL", "oil_temp_celsius", "above", (("CRITICAL", 125.0), ("WARNING", 110.0))),
    ("LOW_OIL_PRESSURE", "oil_pressure_psi", "below", (("CRITICAL", 10.0), ("WARNING", 20.0))),
    ("SPEEDING", "trip_max_speed_kmh", "above", (("CRITICAL", 140.0), ("WARNING", 110.0))),
    ("LOW_FUEL", "fuel_available_liters", "below", (("CRITICAL", 5.0), ("WARNING", 10.0))),
    ("HIGH_MILEAGE", "current_mileage_km", "above", (("WARNING", 100000.0),)),
)


@dataclass(frozen=True)
class Upload:
    """An upload in the landing location."""

    source_uri: str
    content: bytes


@dataclass(frozen=True)
class Batch:
    """Uploads that are ingested together, at one time (aware, UTC)."""

    batch_id: str
    ingested_at: datetime
    uploads: tuple[Upload, ...]


@dataclass
class Reading:
    """The rows of every table; those of the Gold tables without `updated_at` and `alert_message`."""

    bronze: list[dict[str, object]] = field(default_factory=list)
    rejected: list[dict[str, object]] = field(default_factory=list)
    silver: list[dict[str, object]] = field(default_factory=list)
    car_current_state: list[dict[str, object]] = field(default_factory=list)
    fuel_efficiency_monthly: list[dict[str, object]] = field(default_factory=list)
    performance_alerts: list[dict[str, object]] = field(default_factory=list)


def read_batches(batches: Sequence[Batch], insurance_as_of: date, max_upload_bytes: int = 256 * 1024 * 1024) -> Reading:
    """Compute all tables after these batches, as docs/contract.md defines them."""
    return _with_deep_recursion(lambda: _read_batches(batches, insurance_as_of, max_upload_bytes))


def _with_deep_recursion(work: Callable[[], Reading]) -> Reading:
    """Raise the recursion limit, so that no result depends on the caller's stack depth."""
    limit, stack_size = sys.getrecursionlimit(), threading.stack_size(256 * 1024 * 1024)
    sys.setrecursionlimit(200_000)
    try:
        with ThreadPoolExecutor(max_workers=1) as deep_thread:
            return deep_thread.submit(work).result()
    finally:
        sys.setrecursionlimit(limit)
        threading.stack_size(stack_size)


def _read_batches(batches: Sequence[Batch], insurance_as_of: date, max_upload_bytes: int) -> Reading:
    reading = Reading()
    for batch in batches:
        for upload in batch.uploads:
            _read_upload(upload, batch, max_upload_bytes, reading)
    reading.silver = silver_rows(reading.bronze)
    for events in _events_by_car(reading.silver):
        reading.car_current_state.append(current_state(events, insurance_as_of))
        reading.fuel_efficiency_monthly += fuel_rows(events)
    reading.performance_alerts = [alert for event in reading.silver for alert in alert_rows(event)]
    return reading


def _read_upload(upload: Upload, batch: Batch, max_upload_bytes: int, reading: Reading) -> None:
    """Append the upload's rows to Bronze and to the rejected documents."""
    source: Row = {"source_uri": upload.source_uri, "source_position": None}
    origin: Row = {"ingested_at": batch.ingested_at, "batch_id": batch.batch_id}
    try:
        pieces = documents(
            upload_text(upload.source_uri, upload.content, max_upload_bytes), upload.source_uri.removesuffix(".gz")
        )
    except RejectedError as rejection:
        reading.rejected.append({**source, "reason": str(rejection), **origin})
        return
    for position, piece in enumerate(pieces):
        source["source_position"] = position
        try:
            reading.bronze.append({**bronze_columns(piece, batch.ingested_at), **source, **origin})
        except RejectedError as rejection:
            reading.rejected.append({**source, "reason": str(rejection), **origin})


def silver_rows(bronze: Sequence[Row]) -> list[dict[str, object]]:
    """One row per event id and event date, from its newest ingestion."""
    newest: dict[tuple[str, date], Row] = {}
    for row in sorted(bronze, key=lambda row: (row["ingested_at"], row["source_uri"], row["source_position"])):
        newest[row["event_id"], row["event_date"]] = row
    return [_silver_row(row) for row in newest.values()]


def _silver_row(bronze: Row) -> dict[str, object]:
    same = ("event_id", "car_chassis", "event_primary_timestamp", "telemetry_timestamp", "event_date", "ingested_at")
    day, shape, document = bronze["event_date"], bronze["document_shape"], json.loads(bronze["payload"])
    return {
        **{column: bronze[column] for column in same},
        "event_year": day.year,
        "event_month": day.month,
        "event_day": day.day,
        **{column: _field(column, document, paths.get(shape)) for column, paths in FIELD_PATHS.items()},
    }


def _field(column: str, document: object, path: str | None) -> object:
    """A field's value in its column: None if the field is missing or has a wrong type."""
    if path is None:
        return None
    for key in path.split("."):
        document = document.get(key) if isinstance(document, dict) else None
    if column in ("manufacturer", "model", "gas_type", "insurance_provider"):
        return text_value(document)
    if column == "insurance_valid_until":
        return date_value(document)
    return _int32(document) if column == "year" else number_value(document)


def _int32(value: object) -> int | None:
    number = number_value(value)
    return int(number) if number is not None and number.is_integer() and -(2**31) <= number < 2**31 else None


def _events_by_car(silver: Sequence[Row]) -> list[list[Row]]:
    """Each car's Silver rows, sorted by time and event id."""
    cars: defaultdict[str, list[Row]] = defaultdict(list)
    for row in sorted(silver, key=lambda row: (row["telemetry_timestamp"], row["event_id"])):
        cars[row["car_chassis"]].append(row)
    return list(cars.values())


def _last_known(events: Sequence[Row], column: str) -> Any:
    return next((event[column] for event in reversed(events) if event[column] is not None), None)


def current_state(events: Sequence[Row], as_of: date) -> dict[str, object]:
    """The state of the car that all these events belong to."""
    state: Row = {column: _last_known(events, column) for column in LAST_KNOWN}
    state.update({column: events[-1][column] for column in ("car_chassis", "telemetry_timestamp")})
    valid_until = state["insurance_valid_until"]
    days_left = None if valid_until is None else (valid_until - as_of).days
    if days_left is None:
        status = "UNKNOWN"
    elif days_left < 0:
        status = "EXPIRED"
    else:
        status = "EXPIRING_IN_90_DAYS" if days_left <= 90 else "ACTIVE"
    state["insurance_status"] = status
    state["insurance_days_expired"] = -days_left if days_left is not None and days_left < 0 else None
    state["insurance_as_of"] = as_of
    return state


def fuel_rows(events: Sequence[Row]) -> list[dict[str, object]]:
    """One row per month with events of the car that all these events belong to."""
    months: defaultdict[date, list[tuple[Row | None, Row]]] = defaultdict(list)
    for previous, event in zip([None, *events[:-1]], events, strict=True):
        months[event["event_date"].replace(day=1)].append((previous, event))
    return [_fuel_row(month, steps) for month, steps in months.items()]


def _fuel_row(month: date, steps: Sequence[tuple[Row | None, Row]]) -> dict[str, object]:
    """The row of a car and month; each step is an event and the car's previous event."""
    events = [event for _, event in steps]
    total_km = measured_km = total_fuel = 0.0
    trip_count = 0
    for previous, event in steps:
        km, fuel = _contribution(previous, event)
        if km is None or km < 0:
            continue
        trip_count += 1
        total_km += km
        if fuel is not None and fuel >= 0:
            measured_km += km
            total_fuel += fuel
    efficiency = measured_km / total_fuel if total_fuel > 0 else math.nan
    return {
        "car_chassis": events[0]["car_chassis"],
        "year_month": f"{month.year:04d}-{month.month:02d}",
        "month": month,
        "manufacturer": _last_known(events, "manufacturer"),
        "model": _last_known(events, "model"),
        "total_km_driven": total_km,
        "trip_count": trip_count,
        "measured_km": measured_km,
        "total_fuel_liters": total_fuel,
        "avg_fuel_efficiency_kmpl": None if math.isnan(efficiency) else efficiency,
    }


def _contribution(previous: Row | None, event: Row) -> tuple[float | None, float | None]:
    """The kilometers and liters of an event; None if unknown."""
    if event["trip_distance_km"] is not None and event["trip_fuel_liters"] is not None:
        return event["trip_distance_km"], event["trip_fuel_liters"]
    if previous is None or _month_number(event) - _month_number(previous) > 1:
        return None, None
    return (
        _difference(event["current_mileage_km"], previous["current_mileage_km"]),
        _difference(previous["fuel_available_liters"], event["fuel_available_liters"]),
    )


def _month_number(event: Row) -> int:
    return int(event["event_year"] * 12 + event["event_month"])


def _difference(minuend: float | None, subtrahend: float | None) -> float | None:
    return None if minuend is None or subtrahend is None else minuend - subtrahend


def alert_rows(event: Row) -> list[dict[str, object]]:
    """One row per rule that the Silver row breaks."""
    alerts: list[dict[str, object]] = []
    for alert_type, reading, side, bounds in ALERT_RULES:
        value = event[reading]
        electric = (event["gas_type"] or "").lower() == "electric"
        if value is None or (alert_type == "LOW_FUEL" and electric):
            continue
        crossed = [pair for pair in bounds if (value > pair[1] if side == "above" else value < pair[1])]
        if crossed:
            alerts.append(_alert_row(event, alert_type, value, *crossed[0]))
    return alerts


def _alert_row(event: Row, alert_type: str, value: float, severity: str, threshold: float) -> dict[str, object]:
    return {
        "alert_id": hashlib.sha256(f"{event['event_id']}|{alert_type}".encode()).hexdigest(),
        "event_id": event["event_id"],
        "car_chassis": event["car_chassis"],
        "alert_type": alert_type,
        "alert_severity": severity,
        "alert_value": value,
        "alert_threshold": threshold,
        "telemetry_timestamp": event["telemetry_timestamp"],
        "alert_date": event["event_date"],
    }
