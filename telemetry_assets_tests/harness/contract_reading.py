"""An independent implementation of docs/contract.md in plain Python: the rows of every table after given uploads.

It is the oracle of the property tests. It recomputes everything from the uploads' bytes in the simplest way
and shares no code with `telemetry_assets`, so that both would need the same defect for a test to miss it.
"""

import hashlib
import json
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

from telemetry_assets_tests.harness.contract_reading_of_fields import Fields, read_fields
from telemetry_assets_tests.harness.contract_reading_of_uploads import (
    RejectedError,
    Row,
    bronze_columns,
    documents,
    upload_text,
)

AHEAD = timedelta(minutes=5)
FASTEST_KMH = 300.0
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
    """The rows of every table; those of the Gold tables without `updated_at` and `alert_message`.

    :ivar uploads: the ledger, without the columns that do not follow from the bytes of an upload; each count of fields
        is a dict of the number of documents by path.
    :ivar times_ahead: the number of accepted events that are ahead of the clock.
    """

    bronze: list[dict[str, object]] = field(default_factory=list)
    rejected: list[dict[str, object]] = field(default_factory=list)
    uploads: list[dict[str, object]] = field(default_factory=list)
    silver: list[dict[str, object]] = field(default_factory=list)
    car_current_state: list[dict[str, object]] = field(default_factory=list)
    fuel_efficiency_monthly: list[dict[str, object]] = field(default_factory=list)
    performance_alerts: list[dict[str, object]] = field(default_factory=list)
    times_ahead: int = 0


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
    """Append the upload's rows to the Bronze tables."""
    problem, accepted, rejected = _sorted_documents(upload, batch, max_upload_bytes)
    fields = [_fields(row) for row in accepted]
    reading.bronze += accepted
    reading.rejected += rejected
    reading.times_ahead += sum(row["telemetry_timestamp"] - batch.ingested_at > AHEAD for row in accepted)
    reading.uploads.append(
        {
            "batch_id": batch.batch_id,
            "source_uri": upload.source_uri,
            "stored_bytes": len(upload.content),
            "ingested_at": batch.ingested_at,
            "documents": len(accepted) + len(rejected),
            "accepted": len(accepted),
            "rejected": len(rejected),
            "problem": problem,
            "wrong_typed_fields": dict(Counter(path for one in fields for path in one.wrong_typed)),
            "out_of_range_fields": dict(Counter(path for one in fields for path in one.out_of_range)),
        }
    )


def _sorted_documents(
    upload: Upload, batch: Batch, max_upload_bytes: int
) -> tuple[str | None, list[Row], list[dict[str, object]]]:
    """The reason why the whole upload is rejected, if it is; the accepted documents and the rejections."""
    origin: Row = {"source_uri": upload.source_uri, "ingested_at": batch.ingested_at, "batch_id": batch.batch_id}
    accepted: list[Row] = []
    rejected: list[dict[str, object]] = []
    try:
        texts = _upload_documents(upload, max_upload_bytes)
    except RejectedError as rejection:
        return str(rejection), [], [{**origin, "source_position": None, "reason": str(rejection)}]
    for position, text in enumerate(texts):
        source: Row = {**origin, "source_position": position}
        try:
            accepted.append({**bronze_columns(text, batch.ingested_at), **source})
        except RejectedError as rejection:
            rejected.append({**source, "reason": str(rejection)})
    return None, accepted, rejected


def _upload_documents(upload: Upload, max_upload_bytes: int) -> list[str]:
    texts = documents(upload_text(upload.source_uri, upload.content, max_upload_bytes))
    if len(texts) * len(upload.source_uri.encode(errors="surrogateescape")) > max_upload_bytes:
        raise RejectedError("too_large")
    return texts


def _fields(bronze: Row) -> Fields:
    return read_fields(json.loads(bronze["payload"]), bronze["document_shape"])


def silver_rows(bronze: Sequence[Row]) -> list[dict[str, object]]:
    """One row per car, event id and event date, from its newest ingestion."""
    newest: dict[tuple[str, str, date], Row] = {}
    for row in sorted(bronze, key=lambda row: (row["ingested_at"], row["source_uri"], row["source_position"])):
        newest[row["car_chassis"], row["event_id"], row["event_date"]] = row
    return [_silver_row(row) for row in newest.values()]


def _silver_row(bronze: Row) -> dict[str, object]:
    same = ("event_id", "car_chassis", "event_primary_timestamp", "telemetry_timestamp", "event_date", "ingested_at")
    day = bronze["event_date"]
    return {
        **{column: bronze[column] for column in same},
        "event_year": day.year,
        "event_month": day.month,
        "event_day": day.day,
        **_fields(bronze).columns,
    }


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
    reference: Row | None = None
    for event in events:
        months[event["event_date"].replace(day=1)].append((reference, event))
        if event["current_mileage_km"] is not None:
            reference = event
    return [_fuel_row(month, steps) for month, steps in months.items()]


def _fuel_row(month: date, steps: Sequence[tuple[Row | None, Row]]) -> dict[str, object]:
    """The row of a car and month; each step is an event and the car's latest earlier event with an odometer reading."""
    events = [event for _, event in steps]
    contributions = [one for step in steps if (one := _contribution(*step)) is not None]
    measured = [(km, fuel) for km, fuel in contributions if fuel is not None and fuel >= 0]
    measured_km = _sum(km for km, _ in measured)
    total_fuel = _sum(fuel for _, fuel in measured)
    return {
        "car_chassis": events[0]["car_chassis"],
        "year_month": f"{month.year:04d}-{month.month:02d}",
        "month": month,
        "manufacturer": _last_known(events, "manufacturer"),
        "model": _last_known(events, "model"),
        "total_km_driven": _sum(km for km, _ in contributions),
        "trip_count": len(contributions),
        "measured_km": measured_km,
        "total_fuel_liters": total_fuel,
        "avg_fuel_efficiency_kmpl": measured_km / total_fuel if total_fuel > 0 else None,
    }


def _sum(numbers: Iterable[float]) -> float:
    """The sum, added one by one: `sum` rounds otherwise from Python 3.12 on."""
    total = 0.0
    for number in numbers:
        total += number
    return total


def _contribution(reference: Row | None, event: Row) -> tuple[float, float | None] | None:
    """The kilometers and liters of an event, the latter None if unknown; None if it contributes nothing."""
    if event["trip_distance_km"] is not None and event["trip_fuel_liters"] is not None:
        return event["trip_distance_km"], event["trip_fuel_liters"]
    if reference is None or event["current_mileage_km"] is None:
        return None
    if _month_number(event) - _month_number(reference) > 1:
        return None
    km = event["current_mileage_km"] - reference["current_mileage_km"]
    hours = (event["telemetry_timestamp"] - reference["telemetry_timestamp"]).total_seconds() / 3600
    if km < 0 or km > FASTEST_KMH * hours + 1:
        return None
    return km, _difference(reference["fuel_available_liters"], event["fuel_available_liters"])


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
    alert_key = f"{event['car_chassis']}|{event['event_id']}|{alert_type}"
    return {
        "alert_id": hashlib.sha256(alert_key.encode()).hexdigest(),
        "event_id": event["event_id"],
        "car_chassis": event["car_chassis"],
        "alert_type": alert_type,
        "alert_severity": severity,
        "alert_value": value,
        "alert_threshold": threshold,
        "telemetry_timestamp": event["telemetry_timestamp"],
        "alert_date": event["event_date"],
    }
