"""Benchmark of a merge: ``python -m benchmarks.merge``.

It merges 10,000 rows, half of which replace known events, into 200,000 Silver rows of 30 days. Only the merge is
measured: finding the rows of the keys, comparing them, writing files and the commit.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta

import pyarrow as pa
from pyiceberg.table import Table

from benchmarks.measuring import temporary_deployment
from telemetry_assets.lakehouse.catalog import open_lakehouse
from telemetry_assets.lakehouse.data_files import find_rows
from telemetry_assets.lakehouse.merging import commit_merge, plan_merge
from telemetry_assets.settings import load_settings
from telemetry_assets.tables import SILVER

_FIRST = datetime(2025, 11, 1, tzinfo=UTC)
ROWS, CARS, DAYS, MERGED, RUNS = 200_000, 2_000, 30, 10_000, 5


def silver_rows(numbers: range, run: int) -> pa.Table:
    """Silver rows of some events; ``run`` is their ingestion."""
    rows = []
    for number in numbers:
        car, moment = f"CAR-{number % CARS:05d}", _FIRST + timedelta(seconds=number * 86_400 * DAYS // (2 * ROWS))
        rows.append(
            {
                "event_id": f"{car}_{number}",
                "car_chassis": car,
                "event_primary_timestamp": moment.isoformat(),
                "telemetry_timestamp": moment,
                "event_date": moment.date(),
                "event_year": moment.year,
                "event_month": moment.month,
                "event_day": moment.day,
                "manufacturer": "Fiat",
                "model": "Uno",
                "current_mileage_km": float(number + run),
                "ingested_at": _FIRST + timedelta(days=100, seconds=run),
            }
        )
    return pa.Table.from_pylist(rows, SILVER.arrow_schema)


def merge(table: Table, rows: pa.Table) -> float:
    """Merge rows by key. Returns the seconds that it took."""
    started = time.monotonic()
    partitions = frozenset(rows["event_date"].unique().to_pylist())
    found = find_rows(table, SILVER, partitions, keys=rows.select(list(SILVER.key)))
    commit_merge(table, plan_merge(found, rows, SILVER.newest_by), {"telemetry.run-id": "a benchmark"}, {})
    return time.monotonic() - started


def main() -> None:
    """Run the benchmark and print a row of a Markdown table."""
    with temporary_deployment() as deployment:
        os.environ.update(deployment.environment)
        lakehouse = open_lakehouse(load_settings())
        lakehouse.prepare()
        # Every second number is a known event.
        merge(lakehouse.table(SILVER), silver_rows(range(0, 2 * ROWS, 2), 0))
        seconds = [merge(lakehouse.table(SILVER), mixed_rows(run)) for run in range(1, RUNS + 1)]
        listed = ", ".join(f"{one:.2f}" for one in seconds)
        print(f"| {MERGED:,} rows, half of them known, into {ROWS:,} | {listed} |")


def mixed_rows(run: int) -> pa.Table:
    """Rows of all days, half of them of known events, which have even numbers."""
    step = 2 * ROWS // MERGED * 2
    return pa.concat_tables([silver_rows(range(2 * run + odd, 2 * ROWS, step), run) for odd in (0, 1)])


if __name__ == "__main__":
    main()
