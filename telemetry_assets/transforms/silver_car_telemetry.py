"""The transform of ``silver.car_telemetry``: the newest ingestion of each event, parsed into typed columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as f
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.window import Window

from telemetry_assets.lakehouse.cars import ALL_CARS
from telemetry_assets.tables.document_shapes import JSON_WHITE_SPACE, VALUE_COLUMNS, VIN
from telemetry_assets.tables.payloads import payload_columns
from telemetry_assets.tables.silver_car_telemetry import SILVER
from telemetry_assets.transforms.refresh import RebuildInputs, RefreshParameters, UpdateInputs, of_cars
from telemetry_assets.transforms.shaping import shaped

_NOT_PARSED = (
    "event_id",
    "car_chassis",
    "event_primary_timestamp",
    "telemetry_timestamp",
    "event_date",
    "ingested_at",
)
_PARSED = from_arrow_schema(pa.schema([SILVER.arrow_schema.field(name) for name in (*_NOT_PARSED, *VALUE_COLUMNS)]))


def rebuild(inputs: RebuildInputs, parameters: RefreshParameters) -> DataFrame:
    """Compute some event dates from all their Bronze rows."""
    bronze = inputs.upstream()
    if inputs.cars != ALL_CARS:
        bronze = of_cars(with_car_names(bronze), inputs.cars)
    return car_telemetry(bronze)


def update(inputs: UpdateInputs, parameters: RefreshParameters) -> DataFrame:
    """Compute the rows of the appended Bronze rows. They are merged by key, as ``newest_by`` of the contract says."""
    return car_telemetry(inputs.added())


def car_telemetry(bronze: DataFrame) -> DataFrame:
    """Compute Silver rows from Bronze rows: the newest of them for each event, with typed columns.

    docs/contract.md, section 3. The result is complete for an event date only if ``bronze`` has all rows of that date.
    """
    events = newest_ingestion(with_car_names(bronze))
    # A function of batches is faster than one of rows, which has to convert each row to and from Python.
    parsed = events.select(*_NOT_PARSED, "payload", "document_shape").mapInArrow(parsed_batches, _PARSED)
    return shaped(
        SILVER,
        parsed,
        {
            "event_year": f.year("event_date"),
            "event_month": f.month("event_date"),
            "event_day": f.dayofmonth("event_date"),
        },
    )


def parsed_batches(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """For ``mapInArrow``: replace the columns ``payload`` and ``document_shape`` by the typed values of the payload."""
    for batch in batches:
        values = payload_columns(batch["payload"], batch["document_shape"]).combine_chunks()
        columns = [batch[name] for name in _NOT_PARSED] + [values[name] for name in VALUE_COLUMNS]
        yield from pa.table(columns, [*_NOT_PARSED, *VALUE_COLUMNS]).to_batches()


def with_car_names(bronze: DataFrame) -> DataFrame:
    """Bronze rows with the car's name and the event id of docs/contract.md, section 1.2.

    Ingestion writes these names, with :func:`telemetry_assets.tables.document_shapes.car_name`. Rows of version 0.1.0
    have the car as its documents spell it. Their car may be blank; such rows are left out.
    """
    trimmed = f.regexp_replace("car_chassis", rf"\A[{JSON_WHITE_SPACE}]+|[{JSON_WHITE_SPACE}]+\z", "")
    name = f.when(trimmed.rlike(rf"\A{VIN}\z"), f.upper(trimmed)).otherwise(trimmed)
    is_formula = f.col("event_id") == f.concat_ws("_", "car_chassis", "event_primary_timestamp")
    event_id = f.when(is_formula, f.concat_ws("_", name, "event_primary_timestamp")).otherwise(f.col("event_id"))
    return bronze.withColumn("event_id", event_id).withColumn("car_chassis", name).where("car_chassis != ''")


def newest_ingestion(bronze: DataFrame) -> DataFrame:
    """Select the newest Bronze row of each event.

    This is the row with the greatest (``ingested_at``, ``source_uri``, ``source_position``).
    """
    order: list[Column] = [f.col(name).desc() for name in ("ingested_at", "source_uri", "source_position")]
    window = Window.partitionBy(*SILVER.key).orderBy(*order)
    return bronze.withColumn("_place", f.row_number().over(window)).where("_place = 1").drop("_place")
