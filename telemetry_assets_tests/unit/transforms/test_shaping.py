"""The functions that the transforms share: a contract's columns, and when a row counts as updated."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pyspark.sql import functions as f

from telemetry_assets.tables import FUEL_EFFICIENCY, SILVER
from telemetry_assets.transforms.shaping import keep_updated_at, shaped
from telemetry_assets_tests.harness.frames import NOON, Frames, Row, silver_row

LATER = NOON + timedelta(hours=1)


def month(updated_at: Any = NOON, **columns: Any) -> Row:
    return {"car_chassis": "CAR-1", "year_month": "2025-11", "updated_at": updated_at, **columns}


def test_a_table_s_rows_have_its_columns_in_its_order_and_types(frames: Frames) -> None:
    rows = frames.of(SILVER, silver_row()).withColumn("extra", f.lit(1))
    made = shaped(SILVER, rows, {"year": f.lit(2025.0), "model": f.lit("Uno")})
    assert made.columns == list(SILVER.column_names)
    assert dict(made.dtypes)["year"] == "int"
    [row] = frames.rows(made)
    assert (row["year"], row["model"]) == (2025, "Uno")


@pytest.mark.parametrize(
    ("before", "updated_at"),
    [
        (month(trip_count=2), NOON),
        (month(trip_count=3), LATER),
        (month(trip_count=None), LATER),
        (month(trip_count=2, year_month="2025-10"), LATER),
    ],
    ids=["unchanged", "another value", "was null", "another row"],
)
def test_only_a_row_that_changed_is_updated(frames: Frames, before: Row, updated_at: Any) -> None:
    rows = frames.of(FUEL_EFFICIENCY, month(LATER, trip_count=2))
    [row] = frames.rows(keep_updated_at(FUEL_EFFICIENCY, rows, frames.of(FUEL_EFFICIENCY, before)))
    assert row["updated_at"] == updated_at


def test_null_is_equal_to_null(frames: Frames) -> None:
    rows = frames.of(FUEL_EFFICIENCY, month(LATER))
    [row] = frames.rows(keep_updated_at(FUEL_EFFICIENCY, rows, frames.of(FUEL_EFFICIENCY, month())))
    assert row["updated_at"] == NOON


def test_manually_duplicated_previous_rows_duplicate_nothing(frames: Frames) -> None:
    rows = frames.of(FUEL_EFFICIENCY, month(LATER))
    assert len(frames.rows(keep_updated_at(FUEL_EFFICIENCY, rows, frames.of(FUEL_EFFICIENCY, month(), month())))) == 1
