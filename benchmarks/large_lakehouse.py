"""Fills Bronze with many events, without uploads: ``python -m benchmarks.large_lakehouse FOLDER --events 20000000``.

The rows are computed in columns and written to the table's data files. There is one batch for each day. It has the
day's events in both shapes, late events of five days before, and corrections of events of the day before. The archive
remains empty.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import count
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.table import Table

from telemetry_assets.ingestion.ledger import LEDGER_COMPLETE, LedgerUpload, ledger_rows
from telemetry_assets.ingestion.parsing.arrow_rows import UploadReport
from telemetry_assets.lakehouse.catalog import open_lakehouse
from telemetry_assets.lakehouse.commits import append_files, append_rows
from telemetry_assets.lakehouse.merging import write_files
from telemetry_assets.lakehouse.snapshots import BATCH_ID
from telemetry_assets.settings import load_settings
from telemetry_assets.tables import BRONZE, UPLOADS

LAST_DAY = date(2025, 11, 30)
_MICROSECONDS_PER_DAY = 86_400_000_000
_LATE_DAYS, _EVERY_LATE, _EVERY_CORRECTED, _EVERY_NESTED = 5, 50, 100, 4
_MODELS = pa.array(["Uno", "Corolla", "HB20 Sedan", "Civic", "Gol"])
_MAKERS = pa.array(["Fiat", "Toyota", "Hyundai", "Honda", "Volkswagen"])


def fill(bronze: Table, ledger: Table, *, events: int, cars: int, days: int, last_day: date = LAST_DAY) -> None:
    """Append the batches of all days.

    :param events: the number of events, without the corrections.
    """
    per_car = -(-events // (days * cars))
    waiting: dict[int, list[pa.Table]] = {}
    for number in range(days):
        day = last_day - timedelta(days - 1 - number)
        rows = events_of_day(number, day, cars, per_car)
        is_late = pa.array(np.arange(rows.num_rows) % _EVERY_LATE == 0)
        waiting.setdefault(min(number + _LATE_DAYS, days - 1), []).append(rows.filter(is_late))
        corrected = rows.filter(pa.array(np.arange(rows.num_rows) % _EVERY_CORRECTED == 1))
        waiting.setdefault(min(number + 1, days - 1), []).append(_corrected(corrected))
        _append(bronze, ledger, number, day, [rows.filter(pc.invert(is_late)), *waiting.pop(number, [])])


def car_names(cars: int) -> list[str]:
    """The chassis numbers of the cars. Their order is not that of their numbers."""
    return [f"{car * 7919 % 1_000_000:06d}-CAR-{car:06d}" for car in range(cars)]


def events_of_day(number: int, day: date, cars: int, per_car: int) -> pa.Table:
    """The Bronze rows of a day, without the columns of the batch."""
    car = np.repeat(np.arange(cars), per_car)
    place = np.tile(np.arange(per_car), cars)
    start = (day - date(1970, 1, 1)).days * _MICROSECONDS_PER_DAY
    # Whole seconds, so that the time is the same text in every document.
    seconds = place * (86_400 // per_car) + car % 60
    times = pa.array(start + seconds * 1_000_000, pa.timestamp("us", tz="UTC"))
    written = pc.strftime(times, format="%Y-%m-%dT%H:%M:%SZ")
    # The format writes seconds with six decimals.
    written = pc.replace_substring(written, ".000000", "")
    names = pa.array(car_names(cars)).take(pa.array(car))
    driven = 1_000 + car % 5_000 + (number * per_car + place) * 0.8
    values = {
        "mileage": _text(driven),
        "fuel": _text(60 - (number * per_car + place) % 500 * 0.1),
        "engine": _text(70 + (car * 31 + place * 17 + number) % 31 + (car + place) % 97 // 96 * 20),
        "oil": _text(20 + (car + place * 7) % 50),
        "trip": _text(5 + (car + place) % 40),
        "used": _text(0.5 + (car + place) % 30 * 0.1),
        "speed": _text(60 + (car * 13 + place * 29) % 90),
    }
    is_nested = pa.array(place % _EVERY_NESTED == 0)
    maker, model = _MAKERS.take(pa.array(car % 5)), _MODELS.take(pa.array(car % 5))
    payload = pc.if_else(
        is_nested, _nested(names, written, maker, model, values), _flat(names, written, maker, model, values)
    )
    rows = len(car)
    return pa.table(
        {
            "event_id": pc.binary_join_element_wise(names, written, "_"),
            "car_chassis": names,
            "event_primary_timestamp": written,
            "telemetry_timestamp": times,
            "event_date": pa.repeat(pa.scalar(day), rows),
            "document_shape": pc.if_else(is_nested, "vehicle", "event"),
            "payload": payload,
        }
    )


def _text(numbers: np.ndarray) -> pa.Array:
    return pc.cast(pa.array(np.round(numbers.astype(float), 1)), pa.string())


def _flat(names: pa.Array, times: pa.Array, maker: pa.Array, model: pa.Array, values: dict[str, pa.Array]) -> pa.Array:
    return pc.binary_join_element_wise(
        '{"carChassis": "', names, '", "manufacturer": "', maker, '", "model": "', model,
        '", "year": 2024, "metrics": {"currentMileageKm": ', values["mileage"],
        ', "fuelAvailableLiters": ', values["fuel"], ', "engineTempCelsius": ', values["engine"],
        ', "oilPressurePsi": ', values["oil"], '}, "telemetryTimestamp": "', times, '"}', "",
    )  # fmt: skip


def _nested(
    names: pa.Array, times: pa.Array, maker: pa.Array, model: pa.Array, values: dict[str, pa.Array]
) -> pa.Array:
    return pc.binary_join_element_wise(
        '{"carChassis": "', names, '", "event_primary_timestamp": "', times,
        '", "vehicle_static_info": {"data": {"Manufacturer": "', maker, '", "Model": "', model,
        '", "year": 2024, "gasType": "Flex"}}, "vehicle_dynamic_state": {"insurance_info": {"data": '
        '{"provider": "Seguradora", "validUntil": "2026-03-31"}}}, "trip_data": {"trip_summary": {"data": '
        '{"tripMileage": ', values["trip"], ', "tripFuelLiters": ', values["used"],
        ', "tripMaxSpeedKm": ', values["speed"],
        ', "tripTimeMinutes": 30}}, "vehicle_telemetry_snapshot": {"data": {"currentMileage": ', values["mileage"],
        ', "fuelAvailableLiters": ', values["fuel"], ', "engineTempCelsius": ', values["engine"],
        ', "oilTempCelsius": 90, "batteryChargePerc": 80, "tire_pressures_psi": '
        '{"front_left": 32, "front_right": 32, "rear_left": 31, "rear_right": 31}}}}}', "",
    )  # fmt: skip


def _corrected(rows: pa.Table) -> pa.Table:
    payload = pc.replace_substring(rows["payload"], '"engineTempCelsius": ', '"engineTempCelsius": 1')
    return rows.set_column(rows.column_names.index("payload"), "payload", payload)


def _append(bronze: Table, ledger: Table, number: int, day: date, parts: list[pa.Table]) -> None:
    batch_id = f"generated-{number:04d}"
    ingested_at = datetime(day.year, day.month, day.day, 23, 59, tzinfo=UTC)
    rows = pa.concat_tables(list(_with_batch(parts, batch_id, ingested_at)))
    files = write_files(bronze, BRONZE, BRONZE.conform(rows))
    append_files(bronze, files, {BATCH_ID: batch_id})
    bronze.refresh()
    uploads = ledger_rows(
        (LedgerUpload(batch_id, uri, ingested_at, None, None, None), UploadReport(accepted, 0, None, {}, {}, {}))
        for uri, accepted in zip(*_counts(rows["source_uri"]), strict=True)
    )
    append_rows(ledger, uploads, {BATCH_ID: batch_id}, {LEDGER_COMPLETE: "true"})
    ledger.refresh()
    print(f"{day}: {rows.num_rows:,} rows", flush=True)


def _counts(names: pa.ChunkedArray) -> tuple[list[str], list[int]]:
    counted = pc.value_counts(names)
    return counted.field("values").to_pylist(), counted.field("counts").to_pylist()


def _with_batch(parts: list[pa.Table], batch_id: str, ingested_at: datetime) -> Iterator[pa.Table]:
    """Rows with the columns of a batch. Each part counts as one upload."""
    for part, rows in zip(count(), parts, strict=False):
        size = rows.num_rows
        yield (
            rows.append_column("source_uri", pa.repeat(pa.scalar(f"file:///generated/{batch_id}/{part}.json"), size))
            .append_column("source_position", pa.array(np.arange(size), pa.int32()))
            .append_column("ingested_at", pa.repeat(pa.scalar(ingested_at, pa.timestamp("us", tz="UTC")), size))
            .append_column("batch_id", pa.repeat(pa.scalar(batch_id), size))
        )


def fill_folder(folder: Path, *, events: int, cars: int, days: int) -> None:
    """Create a lakehouse in a folder whose Bronze has many events. Its other tables are empty."""
    os.environ["TELEMETRY_LAKEHOUSE_URI"] = str(folder)
    lakehouse = open_lakehouse(load_settings())
    lakehouse.prepare()
    fill(lakehouse.table(BRONZE), lakehouse.table(UPLOADS), events=events, cars=cars, days=days)


def main() -> None:
    """Fill a lakehouse."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--events", type=int, default=20_000_000)
    parser.add_argument("--cars", type=int, default=5_000)
    parser.add_argument("--days", type=int, default=60)
    arguments = parser.parse_args()
    fill_folder(arguments.folder.resolve(), events=arguments.events, cars=arguments.cars, days=arguments.days)


if __name__ == "__main__":
    main()
