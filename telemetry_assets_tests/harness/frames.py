"""A Spark session in this process, small DataFrames, and rows of Silver."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql.pandas.types import from_arrow_schema

from telemetry_assets.tables.contract import TableContract

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

Row = Mapping[str, Any]
NOON = datetime(2025, 11, 4, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Frames:
    """Creates DataFrames of a table's columns and reads their rows, through files as the engine does."""

    spark: SparkSession
    folder: Path

    def of(self, contract: TableContract, *rows: Row) -> DataFrame:
        """A DataFrame of a table's rows; columns missing from a row are null."""
        schema = pa.schema([field.with_nullable(True) for field in contract.arrow_schema])
        if unknown := {name for row in rows for name in row} - set(schema.names):
            raise KeyError(f"{contract.full_name} has no column {', '.join(sorted(unknown))}")
        path = self.folder / f"{uuid.uuid4().hex}.parquet"
        pq.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema), path)
        return self.spark.read.schema(from_arrow_schema(schema)).parquet(f"file://{path}")

    def rows(self, frame: DataFrame, *order: str) -> list[dict[str, Any]]:
        """The frame's rows, sorted by these columns; times are aware datetimes in UTC."""
        written = self.folder / uuid.uuid4().hex
        frame.write.parquet(f"file://{written}")
        try:
            # Sail creates no folder if there are no rows.
            rows: list[dict[str, Any]] = pq.read_table(written).to_pylist() if written.exists() else []
        finally:
            shutil.rmtree(written, ignore_errors=True)
        return sorted(rows, key=lambda row: tuple(row[name] for name in order))


@contextmanager
def frames_in(folder: Path) -> Iterator[Frames]:
    """A Sail server in this process and one session on it, configured like every engine's session."""
    from telemetry_assets.engines.embedded import SailSession

    with closing(SailSession()) as session:
        yield Frames(session.spark, folder)


def silver_row(event_id: str = "e1", at: datetime = NOON, *, car: str = "CAR-1", **values: Any) -> Row:
    """A row of Silver: its identity and dates, and the given columns."""
    return {
        "event_id": event_id,
        "car_chassis": car,
        "event_primary_timestamp": at.isoformat(),
        "telemetry_timestamp": at,
        "event_date": at.date(),
        "event_year": at.year,
        "event_month": at.month,
        "event_day": at.day,
        "ingested_at": NOON,
        **values,
    }
