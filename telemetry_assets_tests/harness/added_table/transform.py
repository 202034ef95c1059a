"""Computes kilometers per model and event date from events."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as f

from telemetry_assets.transforms.refresh import RebuildInputs, RefreshParameters
from telemetry_assets.transforms.shaping import shaped
from telemetry_assets_tests.harness.added_table.table import DAILY_DISTANCE


def rebuild(inputs: RebuildInputs, parameters: RefreshParameters) -> DataFrame:
    return daily_distance(inputs.upstream())


def daily_distance(silver: DataFrame) -> DataFrame:
    trips = silver.where(f.col("model").isNotNull() & f.col("trip_distance_km").isNotNull())
    distances = trips.groupBy("model", "event_date").agg(f.sum("trip_distance_km").alias("distance_km"))
    return shaped(DAILY_DISTANCE, distances, {"updated_at": f.current_timestamp()})
