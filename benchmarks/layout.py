"""Benchmark of the layout of data files: ``python -m benchmarks.layout``.

For some sizes of row groups, it writes the Silver rows of one day, and finds the rows of five cars in them.
"""

from __future__ import annotations

import os
import statistics
import time
from datetime import UTC, datetime

import pyarrow as pa

from benchmarks.large_lakehouse import LAST_DAY, car_names, events_of_day
from benchmarks.measuring import temporary_deployment
from telemetry_assets.lakehouse.cars import CarSet
from telemetry_assets.lakehouse.catalog import open_lakehouse
from telemetry_assets.lakehouse.commits import append_files
from telemetry_assets.lakehouse.data_files import find_rows
from telemetry_assets.lakehouse.merging import write_files
from telemetry_assets.settings import load_settings
from telemetry_assets.tables import SILVER
from telemetry_assets.tables.payloads import payload_columns

CARS, EVENTS_OF_A_CAR, RUNS = 5_000, 66, 5
ROWS_IN_ROW_GROUP = (512, 1_024, 4_096, 16_384, 65_536, 1_048_576)
_ROW_GROUP_LIMIT = "write.parquet.row-group-limit"


def silver_rows() -> pa.Table:
    """The Silver rows of one day."""
    bronze = events_of_day(0, LAST_DAY, CARS, EVENTS_OF_A_CAR).combine_chunks()
    values = payload_columns(bronze["payload"].chunk(0), bronze["document_shape"].chunk(0))
    columns = {name: bronze[name] for name in bronze.column_names if name in SILVER.column_names}
    columns |= {name: values[name] for name in values.column_names}
    date_parts = {"event_year": LAST_DAY.year, "event_month": LAST_DAY.month, "event_day": LAST_DAY.day}
    columns |= {name: pa.repeat(pa.scalar(part, pa.int32()), bronze.num_rows) for name, part in date_parts.items()}
    ingested_at = pa.scalar(datetime(2026, 1, 1, tzinfo=UTC), pa.timestamp("us", tz="UTC"))
    return SILVER.conform(pa.table({**columns, "ingested_at": pa.repeat(ingested_at, bronze.num_rows)}))


def measure_row_groups(limit: int, rows: pa.Table) -> str:
    """A row of a Markdown table: the rows in row groups of at most ``limit`` rows, and the search of five cars."""
    with temporary_deployment() as deployment:
        os.environ.update(deployment.environment)
        lakehouse = open_lakehouse(load_settings())
        lakehouse.prepare([SILVER])
        table = lakehouse.table(SILVER)
        with table.transaction() as transaction:
            transaction.set_properties({_ROW_GROUP_LIMIT: str(limit)})
        files = write_files(table, SILVER, rows)
        append_files(table, files, {})
        table.refresh()
        five = CarSet.of(car_names(CARS)[:: CARS // 5])
        seconds = []
        for _ in range(RUNS):
            started = time.monotonic()
            found = find_rows(table, SILVER, frozenset([LAST_DAY]), five)
            seconds.append(time.monotonic() - started)
        size = sum(file.file_size_in_bytes for file in files)
    millis = statistics.median(seconds) * 1000
    return f"| {limit:,} | {len(files)} | {size / 1e6:.1f} | {found.bytes_read / 1e6:.2f} | {millis:.0f} |"


def main() -> None:
    """Run the benchmark and print a Markdown table."""
    rows = silver_rows()
    print(f"{rows.num_rows:,} rows of {CARS:,} cars\n")
    print("| rows in a row group | files | MB | MB read for 5 cars | ms |\n|---|---|---|---|---|")
    for limit in ROWS_IN_ROW_GROUP:
        print(measure_row_groups(limit, rows), flush=True)


if __name__ == "__main__":
    main()
