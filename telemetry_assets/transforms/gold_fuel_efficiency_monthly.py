"""The transform of ``gold.fuel_efficiency_monthly``: distance and fuel per car and month."""

from __future__ import annotations

from datetime import date

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as f
from pyspark.sql.window import Window, WindowSpec

from telemetry_assets.tables.contract import Changes, Partitions
from telemetry_assets.tables.gold_fuel_efficiency_monthly import FUEL_EFFICIENCY
from telemetry_assets.tables.months import days_of_month, first_of_month, next_month, previous_month
from telemetry_assets.transforms.refresh import Inputs, RefreshParameters, Replacement
from telemetry_assets.transforms.shaping import keep_updated_at, shaped

_IN_EVENT_ORDER = ("telemetry_timestamp", "event_id")
_FASTEST_KMH, _TOLERATED_KM = 300.0, 1.0
"""A distance that is greater than a car at this speed can drive, plus the tolerance, is an error of the odometer."""
_MICROSECONDS_PER_HOUR = 3_600_000_000.0


def refresh(changes: Changes, inputs: Inputs, parameters: RefreshParameters) -> Replacement:
    """Replace the months of the changed dates, and the month after each."""
    months = None if changes.everything else _months_to_replace(changes)
    monthly = fuel_efficiency_monthly(inputs.upstream(_dates_to_read(months)))
    if months is not None:
        monthly = monthly.where(monthly["month"].isin(*sorted(months)))
    return Replacement(keep_updated_at(FUEL_EFFICIENCY, monthly, inputs.previous(months)), months)


def _months_to_replace(changes: Changes) -> frozenset[date]:
    # The reference of an event in a month may be in the month before.
    return frozenset(month for day in changes.dates for month in (first_of_month(day), next_month(day)))


def _dates_to_read(months: Partitions) -> Partitions:
    if months is None:
        return None
    return frozenset(
        day for month in months for first in (previous_month(month), month) for day in days_of_month(first)
    )


def fuel_efficiency_monthly(silver: DataFrame) -> DataFrame:
    """Compute one row per car and month from some Silver rows. docs/contract.md, section 4.2.

    :param silver: the rows of one or more months. The rows of a month are correct only if ``silver`` contains all
        Silver rows of this month and of the month before.
    """
    events = _with_distance_and_fuel(silver)
    month = Window.partitionBy("car_chassis", "_month").orderBy(*_IN_EVENT_ORDER)
    so_far = month.rowsBetween(Window.unboundedPreceding, Window.currentRow)
    contributes = f.col("_km") >= 0
    measured = contributes & (f.col("_liters") >= 0)
    totals = events.select(
        "car_chassis",
        "_month",
        # The sums are in the order of events, because the sum of doubles depends on the order.
        f.sum(f.when(contributes, f.col("_km")).otherwise(f.lit(0.0))).over(so_far).alias("total_km_driven"),
        f.sum(f.when(contributes, f.lit(1)).otherwise(f.lit(0))).over(so_far).alias("trip_count"),
        f.sum(f.when(measured, f.col("_km")).otherwise(f.lit(0.0))).over(so_far).alias("measured_km"),
        f.sum(f.when(measured, f.col("_liters")).otherwise(f.lit(0.0))).over(so_far).alias("total_fuel_liters"),
        f.last("manufacturer", ignorenulls=True).over(so_far).alias("manufacturer"),
        f.last("model", ignorenulls=True).over(so_far).alias("model"),
        _is_last(month).alias("_is_last"),
    ).where("_is_last")
    # If both sums exceed the range of doubles, they are infinite, and their quotient is NaN.
    efficiency = f.col("measured_km") / f.col("total_fuel_liters")
    return shaped(
        FUEL_EFFICIENCY,
        totals,
        {
            "year_month": f.date_format("_month", "yyyy-MM"),
            "month": f.col("_month"),
            "avg_fuel_efficiency_kmpl": f.when(f.col("total_fuel_liters") > 0, f.nanvl(efficiency, f.lit(None))),
            "updated_at": f.current_timestamp(),
        },
    )


def _is_last(window: WindowSpec) -> Column:
    return f.lead("car_chassis").over(window).isNull()


def _with_distance_and_fuel(silver: DataFrame) -> DataFrame:
    """Add the month of each event, and its distance ``_km`` and fuel ``_liters``; these are null if unknown."""
    # The reference of an event with an odometer reading is the car's event before it that has a reading too.
    has_reading = f.col("current_mileage_km").isNotNull()
    readings = Window.partitionBy("car_chassis", has_reading).orderBy(*_IN_EVENT_ORDER)
    month = f.trunc("event_date", "month")
    earliest = f.add_months(month, -1)
    of_the_trip = f.col("trip_distance_km").isNotNull() & f.col("trip_fuel_liters").isNotNull()
    has_reference = has_reading & (f.lag("event_date").over(readings) >= earliest)
    distance = f.col("current_mileage_km") - f.lag("current_mileage_km").over(readings)
    hours = (_microseconds() - f.lag(_microseconds()).over(readings)) / f.lit(_MICROSECONDS_PER_HOUR)
    is_possible = distance <= f.lit(_FASTEST_KMH) * hours + f.lit(_TOLERATED_KM)
    return silver.select(
        "car_chassis",
        *_IN_EVENT_ORDER,
        "manufacturer",
        "model",
        month.alias("_month"),
        f.when(of_the_trip, f.col("trip_distance_km")).when(has_reference & is_possible, distance).alias("_km"),
        f.when(of_the_trip, f.col("trip_fuel_liters"))
        .when(has_reference, f.lag("fuel_available_liters").over(readings) - f.col("fuel_available_liters"))
        .alias("_liters"),
    )


def _microseconds() -> Column:
    return f.unix_micros(f.col("telemetry_timestamp"))
