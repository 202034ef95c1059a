"""Builds a small lakehouse in the form that version 0.1.0 left behind: ``python -m …first_edition LAKEHOUSE LANDING``.

It shares no code with the product, so later changes of the product do not change the form. The rows are those that
version 0.1.0 computed from the same uploads: its Silver has one row per event id and date, whatever the car, sentinels
are readings, and a VIN has as many spellings as its devices send.
"""

from __future__ import annotations

import hashlib
import json
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import DayTransform, IdentityTransform
from pyiceberg.types import (
    DateType,
    DoubleType,
    IcebergType,
    IntegerType,
    LongType,
    NestedField,
    StringType,
    TimestamptzType,
)

BATCH = "c227ec3f61fd40d6bf7be4829aa6872b"
INGESTED_AT = datetime(2026, 3, 10, 12, tzinfo=UTC)
UPLOADS: dict[str, list[dict[str, Any]]] = {
    "one.jsonl": [
        {"event_id": "1", "carChassis": "CAR-A", "model": "Uno", "metrics": {"engineTempCelsius": 120}},
        {"event_id": "1", "carChassis": "CAR-B", "metrics": {"currentMileageKm": 900, "fuelAvailableLiters": -5}},
        {"event_id": "2", "carChassis": "CAR-B", "metrics": {"currentMileageKm": 0}},
        {"event_id": "3", "carChassis": "CAR-B", "metrics": {"currentMileageKm": 960}},
        {"carChassis": "9bwzzz377vt004251", "metrics": {"currentMileageKm": 100}},
        {"carChassis": " 9BWZZZ377VT004251", "metrics": {"currentMileageKm": 160}},
        {"carChassis": "   ", "metrics": {"currentMileageKm": 7}},
        {"carChassis": ""},
    ]
}
_TYPES: dict[str, IcebergType] = {
    "string": StringType(),
    "int": IntegerType(),
    "long": LongType(),
    "double": DoubleType(),
    "date": DateType(),
    "timestamptz": TimestamptzType(),
}
_STATE = (
    "manufacturer:string model:string year:int gas_type:string insurance_provider:string insurance_valid_until:date "
    "current_mileage_km:double fuel_available_liters:double engine_temp_celsius:double oil_pressure_psi:double"
)
_ORIGINS = " ".join(
    f"{name.split(':')[0]}_known_at:timestamptz {name.split(':')[0]}_event_id:string" for name in _STATE.split()
)
_COLUMNS = {
    "bronze.car_telemetry": "event_id:string! car_chassis:string! event_primary_timestamp:string! "
    "telemetry_timestamp:timestamptz! event_date:date! document_shape:string! payload:string! source_uri:string! "
    "source_position:int! ingested_at:timestamptz! batch_id:string!",
    "bronze.rejected_documents": "source_uri:string! source_position:int reason:string! message:string! payload:string "
    "ingested_at:timestamptz! batch_id:string!",
    "silver.car_telemetry": "event_id:string! car_chassis:string! event_primary_timestamp:string! "
    "telemetry_timestamp:timestamptz! manufacturer:string model:string year:int current_mileage_km:double "
    "fuel_available_liters:double engine_temp_celsius:double oil_pressure_psi:double gas_type:string "
    "insurance_provider:string insurance_valid_until:date event_year:int! event_month:int! event_day:int! "
    "event_date:date! oil_temp_celsius:double battery_charge_percent:double tire_pressure_front_left_psi:double "
    "tire_pressure_front_right_psi:double tire_pressure_rear_left_psi:double tire_pressure_rear_right_psi:double "
    "trip_distance_km:double trip_fuel_liters:double trip_max_speed_kmh:double trip_duration_minutes:double "
    "ingested_at:timestamptz!",
    "gold.car_current_state": f"car_chassis:string! {_STATE} telemetry_timestamp:timestamptz! insurance_status:string! "
    f"insurance_days_expired:int insurance_as_of:date! updated_at:timestamptz! telemetry_event_id:string! {_ORIGINS}",
    "gold.fuel_efficiency_monthly": "car_chassis:string! year_month:string! month:date! manufacturer:string "
    "model:string total_km_driven:double! trip_count:long! measured_km:double! total_fuel_liters:double! "
    "avg_fuel_efficiency_kmpl:double updated_at:timestamptz!",
    "gold.performance_alerts": "alert_id:string! event_id:string! car_chassis:string! alert_type:string! "
    "alert_severity:string! alert_value:double! alert_threshold:double! alert_message:string! "
    "telemetry_timestamp:timestamptz! alert_date:date! updated_at:timestamptz!",
}
_PARTITIONS = {
    "bronze.car_telemetry": "event_date",
    "bronze.rejected_documents": "ingested_at",
    "silver.car_telemetry": "event_date",
    "gold.fuel_efficiency_monthly": "month",
    "gold.performance_alerts": "alert_date",
}
_UPSTREAM = {
    "silver.car_telemetry": "bronze.car_telemetry",
    **dict.fromkeys(
        ("gold.car_current_state", "gold.fuel_efficiency_monthly", "gold.performance_alerts"), "silver.car_telemetry"
    ),
}
_PROPERTIES = {
    "write.format.default": "parquet",
    "write.parquet.compression-codec": "zstd",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "100",
    "comment": "A description of version 0.1.0.",
}
_DAY = date(2026, 3, 1)

Row = dict[str, Any]


def build(lakehouse: Path, landing: Path) -> None:
    """Write the tables, the catalog and the archive."""
    archive = lakehouse / "archive" / BATCH
    archive.mkdir(parents=True)
    for name, documents in UPLOADS.items():
        (archive / name).write_text("\n".join(json.dumps(one) for one in _with_times(documents)))
    catalog = SqlCatalog("telemetry", uri=f"sqlite:///{lakehouse}/catalog.sqlite", warehouse=f"file://{lakehouse}")
    snapshots: dict[str, int] = {}
    rows = _rows(landing)
    for name, columns in _COLUMNS.items():
        catalog.create_namespace_if_not_exists(name.split(".")[0])
        schema = _schema(columns)
        location = f"file://{lakehouse}/{name.replace('.', '/')}"
        table = catalog.create_table(name, schema, location, _spec(name, schema), properties=_PROPERTIES)
        summary = {"telemetry.run-id": "cli-first-edition", "telemetry.step": name, "telemetry.commit-id": f"of {name}"}
        if name.startswith("bronze"):
            summary.update({"telemetry.batch-id": BATCH, "telemetry.ingested-at": INGESTED_AT.isoformat()})
        table.append(pa.Table.from_pylist(rows[name], schema=_arrow_schema(schema)), summary)
        snapshot = table.current_snapshot()
        assert snapshot is not None
        snapshots[name] = snapshot.snapshot_id
        if name in _UPSTREAM:
            applied = {f"telemetry.applied.{_UPSTREAM[name]}": str(snapshots[_UPSTREAM[name]])}
            properties = {**applied, "telemetry.properties-set-in": str(snapshot.snapshot_id)}
            table.transaction().set_properties(properties).commit_transaction()


def _schema(columns: str) -> Schema:
    fields = [column.rstrip("!").split(":") for column in columns.split()]
    return Schema(
        *(
            NestedField(
                number, name, _TYPES[kind], required=column.endswith("!"), doc="A description of version 0.1.0."
            )
            for number, ((name, kind), column) in enumerate(zip(fields, columns.split(), strict=True), 1)
        )
    )


def _arrow_schema(schema: Schema) -> pa.Schema:
    # PyIceberg itself would write texts as `large_string`.
    fields = [
        field.with_type(pa.string()) if pa.types.is_large_string(field.type) else field for field in schema.as_arrow()
    ]
    return pa.schema(fields)


def _spec(name: str, schema: Schema) -> PartitionSpec:
    column = _PARTITIONS.get(name)
    if column is None:
        return UNPARTITIONED_PARTITION_SPEC
    is_day = column == "ingested_at"
    return PartitionSpec(
        PartitionField(
            schema.find_field(column).field_id,
            1000,
            DayTransform() if is_day else IdentityTransform(),
            "ingested_at_day" if is_day else column,
        )
    )


def _with_times(documents: list[Row]) -> list[Row]:
    return [{**one, "telemetryTimestamp": f"2026-03-01T{8 + hour:02d}:00:00Z"} for hour, one in enumerate(documents)]


def _rows(landing: Path) -> dict[str, list[Row]]:
    documents = _with_times(UPLOADS["one.jsonl"])
    uri = f"file://{landing}/one.jsonl"
    ingestion = {"source_uri": uri, "ingested_at": INGESTED_AT, "batch_id": BATCH}
    events = [_event(document) for document in documents[:-1]]
    bronze = [
        {**event, "document_shape": "event", "payload": json.dumps(document), "source_position": place, **ingestion}
        for place, (event, document) in enumerate(zip(events, documents[:-1], strict=True))
    ]
    rejected = {
        **ingestion,
        "source_position": len(documents) - 1,
        "reason": "missing_car_chassis",
        "message": "The car is unknown.",
        "payload": json.dumps(documents[-1]),
    }
    # The event of CAR-A has lost to that of CAR-B, whose id is the same.
    silver = [_silver(event, document) for event, document in zip(events[1:], documents[1:-1], strict=True)]
    return {
        "bronze.car_telemetry": [_of("bronze.car_telemetry", row) for row in bronze],
        "bronze.rejected_documents": [rejected],
        "silver.car_telemetry": [_of("silver.car_telemetry", row) for row in silver],
        "gold.car_current_state": [_of("gold.car_current_state", _state(row)) for row in silver[2:]],
        "gold.fuel_efficiency_monthly": [_of("gold.fuel_efficiency_monthly", _fuel(row)) for row in silver[2:]],
        "gold.performance_alerts": [_of("gold.performance_alerts", _alert(silver[0]))],
    }


def _of(table: str, row: Row) -> Row:
    """The row with the columns of a table."""
    return {name.split(":")[0]: row.get(name.split(":")[0]) for name in _COLUMNS[table].split()}


def _event(document: Row) -> Row:
    time = document["telemetryTimestamp"]
    return {
        "event_id": document.get("event_id") or f"{document['carChassis']}_{time}",
        "car_chassis": document["carChassis"],
        "event_primary_timestamp": time,
        "telemetry_timestamp": datetime.fromisoformat(time),
        "event_date": _DAY,
    }


def _silver(event: Row, document: Row) -> Row:
    metrics = document["metrics"]
    return {
        **event,
        "current_mileage_km": metrics.get("currentMileageKm"),
        "fuel_available_liters": metrics.get("fuelAvailableLiters"),
        "engine_temp_celsius": metrics.get("engineTempCelsius"),
        "event_year": _DAY.year,
        "event_month": _DAY.month,
        "event_day": _DAY.day,
        "ingested_at": INGESTED_AT,
    }


def _state(silver: Row) -> Row:
    origin = (silver["telemetry_timestamp"], silver["event_id"])
    return {
        **silver,
        "insurance_status": "UNKNOWN",
        "insurance_as_of": _DAY,
        "updated_at": INGESTED_AT,
        "telemetry_event_id": silver["event_id"],
        "current_mileage_km_known_at": origin[0],
        "current_mileage_km_event_id": origin[1],
    }


def _fuel(silver: Row) -> Row:
    km = 960.0 if silver["car_chassis"] == "CAR-B" else 0.0
    sums = {"total_km_driven": km, "trip_count": int(km > 0), "measured_km": 0.0, "total_fuel_liters": 0.0}
    return {**silver, "year_month": "2026-03", "month": _DAY, "updated_at": INGESTED_AT, **sums}


def _alert(silver: Row) -> Row:
    return {
        **silver,
        "alert_id": hashlib.sha256(f"{silver['event_id']}|LOW_FUEL".encode()).hexdigest(),
        "alert_type": "LOW_FUEL",
        "alert_severity": "CRITICAL",
        "alert_value": -5.0,
        "alert_threshold": 5.0,
        "alert_message": "Fuel in the tank of -5.0 l is below the critical bound of 5 l.",
        "alert_date": _DAY,
        "updated_at": INGESTED_AT,
    }


if __name__ == "__main__":
    build(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
