"""Computes kilometers per model and event date from events."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as f

from telemetry_assets.tables.contract import Changes
from telemetry_assets.transforms.refresh import Inputs, RefreshParameters, Replacement
from telemetry_assets.transforms.shaping import keep_updated_at, shaped
from telemetry_assets_tests.harness.added_table.table import DAILY_DISTANCE


def refresh(changes: Changes, inputs: Inputs, parameters: RefreshParameters) -> Replacement:
    dates = changes.partitions
    rows = daily_distance(inputs.upstream(dates))
    return Replacement(keep_updated_at(DAILY_DISTANCE, rows, inputs.previous(dates)), dates)


def daily_distance(silver: DataFrame) -> DataFrame:
    trips = silver.where(f.col("model").isNotNull() & f.col("trip_distance_km").isNotNull())
    distances = trips.groupBy("model", "event_date").agg(f.sum("trip_distance_km").alias("distance_km"))
    return shaped(DAILY_DISTANCE, distances, {"updated_at": f.current_timestamp()})
