"""The transform of ``gold.fuel_efficiency_monthly``: distance and fuel per car and month.

Internal columns of each row contain the car's last event and last odometer reading of the month. So events after them
are added to the row, and the month's other events are not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as f
from pyspark.sql.window import Window, WindowSpec

from telemetry_assets.tables.gold_fuel_efficiency_monthly import (
    FUEL_EFFICIENCY,
    days_of_month,
    first_of_month,
    next_month,
    previous_month,
)
from telemetry_assets.transforms.refresh import (
    RebuildInputs,
    RebuildNeededError,
    RefreshParameters,
    UpdateInputs,
    of_cars,
)
from telemetry_assets.transforms.shaping import shaped

_IN_EVENT_ORDER = ("telemetry_timestamp", "event_id")
_FASTEST_KMH, _TOLERATED_KM = 300.0, 1.0
"""A distance that is greater than a car at this speed can drive, plus the tolerance, is an error of the odometer."""
_MICROSECONDS_PER_HOUR = 3_600_000_000.0

_SUMS = {"total_km_driven": "double", "trip_count": "bigint", "measured_km": "double", "total_fuel_liters": "double"}
"""The columns with sums over the contributing events, and their types."""
_PAIR = ("car_chassis", "month")
_OF_EVENTS = (
    "car_chassis",
    *_IN_EVENT_ORDER,
    "event_date",
    "manufacturer",
    "model",
    "current_mileage_km",
    "fuel_available_liters",
    "trip_distance_km",
    "trip_fuel_liters",
)
"""The Silver columns from which months are computed."""
_MANY_PAIRS = 500
"""If more cars and months have to be computed from all their events, the months are rebuilt, in pieces."""
_CARRIED = "_carried"
"""Whether an event represents the events of a stored row."""


def rebuild(inputs: RebuildInputs, parameters: RefreshParameters) -> DataFrame:
    """Compute some months from all their events, and from the stored rows of the months before them.

    These rows have the last readings of their months. They are not to be rebuilt, because earlier months are rebuilt
    first.
    """
    before = frozenset(map(previous_month, inputs.parts)) - inputs.parts
    events = events_of_months(inputs.upstream()).unionByName(_carried(inputs.previous(before)))
    monthly = monthly_sums(of_cars(events, inputs.cars))
    return monthly.where(monthly["month"].isin(*sorted(inputs.parts)))


def update(inputs: UpdateInputs, parameters: RefreshParameters) -> DataFrame:
    """Compute the months of the changed events, and the month after each, of their cars.

    If all changed events of a car and month are new and later than its other events, they are added to the stored row.
    Otherwise the row is computed from all events of the car in this month.
    """
    changed = {first_of_month(day) for day in inputs.dates}
    stored = inputs.previous(
        frozenset(month for one in changed for month in (previous_month(one), one, next_month(one)))
    )
    actions = inputs.evaluated(actions_of(inputs.added(), inputs.removed(), stored))
    events = _after_stored(actions, inputs.added(), stored)
    recomputed = actions.where("_recompute").select(*_PAIR).limit(_MANY_PAIRS + 1).collect()
    if len(recomputed) > _MANY_PAIRS:
        months = frozenset(month for one in changed for month in (one, next_month(one)))
        raise RebuildNeededError("events before the last ones of many cars have changed", months)
    if recomputed:
        events = events.unionByName(_from_history(inputs, actions, recomputed))
    computed = monthly_sums(events.unionByName(_references(actions, stored)))
    computed = computed.join(actions.select(*_PAIR), list(_PAIR), "left_semi")
    unaffected = stored.join(inputs.affected(), list(_PAIR), "left_semi")
    unaffected = unaffected.dropDuplicates(list(_PAIR))
    return computed.unionByName(unaffected.join(actions.select(*_PAIR), list(_PAIR), "left_anti"))


def actions_of(added: DataFrame, removed: DataFrame, stored: DataFrame) -> DataFrame:
    """The cars and months that have to be computed, and whether from all their events: ``_recompute``.

    :param added: the added and removed Silver rows.
    :param stored: the stored rows of the cars in the months of these rows and the month after each.
    """
    changes = (
        events_of_months(added)
        .withColumn("_is_removed", f.lit(False))
        .unionByName(events_of_months(removed).withColumn("_is_removed", f.lit(True)))
    )
    of_month = changes.groupBy(*_PAIR).agg(
        f.max("_is_removed").alias("_loses_events"),
        f.max(f.col("current_mileage_km").isNotNull()).alias("_changes_readings"),
        f.min("telemetry_timestamp").alias("_first_at"),
    )
    # Another writer may have repeated a row.
    rows = stored.groupBy(*_PAIR).agg(
        f.max("last_event_at").alias("last_event_at"), (f.count(f.lit(1)) > 1).alias("_is_repeated")
    )
    changed = of_month.join(rows, list(_PAIR), "left").select(
        *_PAIR,
        "_changes_readings",
        # Events at the same time are ordered by their ids. This is rare, so the row is computed from all events.
        (
            f.col("_is_repeated").isNotNull()
            & (
                f.col("_is_repeated")
                | f.col("_loses_events")
                | ~f.coalesce(f.col("_first_at") > f.col("last_event_at"), f.lit(False))
            )
        ).alias("_recompute"),
    )
    # The first reading of a month refers to the last one of the month before.
    after = changed.where("_changes_readings").select("car_chassis", f.add_months("month", 1).alias("month"))
    after = after.join(rows, list(_PAIR), "left_semi").withColumn("_recompute", f.lit(True))
    both = changed.select(*_PAIR, "_recompute").unionByName(after)
    return both.groupBy(*_PAIR).agg(f.max("_recompute").alias("_recompute"))


def _after_stored(actions: DataFrame, added: DataFrame, stored: DataFrame) -> DataFrame:
    """The events of the months whose stored rows are extended: the stored rows, and the added events."""
    extended = actions.where(~f.col("_recompute")).select(*_PAIR)
    new = events_of_months(added).join(extended, list(_PAIR), "left_semi")
    return new.unionByName(_carried(stored.join(extended, list(_PAIR), "left_semi")))


def _from_history(inputs: UpdateInputs, actions: DataFrame, recomputed: Sequence[tuple[str, date]]) -> DataFrame:
    """All events of the months that are computed from their events."""
    cars = {car for car, _ in recomputed}
    days = frozenset(day for _, month in recomputed for day in days_of_month(month))
    return events_of_months(inputs.history(cars, _OF_EVENTS, days)).join(
        actions.where("_recompute").select(*_PAIR), list(_PAIR), "left_semi"
    )


def _references(actions: DataFrame, stored: DataFrame) -> DataFrame:
    """The last readings of the months before those that are computed, if these are not computed too."""
    before = actions.select("car_chassis", f.add_months("month", -1).alias("month"))
    rows = stored.join(before, list(_PAIR), "left_semi").join(actions.select(*_PAIR), list(_PAIR), "left_anti")
    return _carried(rows)


def events_of_months(silver: DataFrame) -> DataFrame:
    """The columns of events from which months are computed."""
    return silver.select(
        "car_chassis",
        f.trunc("event_date", "month").alias("month"),
        *_IN_EVENT_ORDER,
        "manufacturer",
        "model",
        f.col("telemetry_timestamp").alias("_reading_at"),
        "current_mileage_km",
        "fuel_available_liters",
        "trip_distance_km",
        "trip_fuel_liters",
        f.lit(False).alias(_CARRIED),
        *(f.lit(None).cast(type_name).alias(f"_{name}") for name, type_name in _SUMS.items()),
    )


def _carried(rows: DataFrame) -> DataFrame:
    """One event for each stored row: it has the row's sums, and the last reading of its month."""
    return rows.select(
        *_PAIR,
        f.col("last_event_at").alias("telemetry_timestamp"),
        f.col("last_event_id").alias("event_id"),
        "manufacturer",
        "model",
        f.col("last_reading_at").alias("_reading_at"),
        f.col("last_reading_km").alias("current_mileage_km"),
        f.col("last_reading_fuel_liters").alias("fuel_available_liters"),
        f.lit(None).cast("double").alias("trip_distance_km"),
        f.lit(None).cast("double").alias("trip_fuel_liters"),
        f.lit(True).alias(_CARRIED),
        *(f.col(name).alias(f"_{name}") for name in _SUMS),
    )


def monthly_sums(events: DataFrame) -> DataFrame:
    """Compute one row per car and month from the columns that :func:`events_of_months` selects."""
    totals = _totals(_with_distance_and_fuel(events))
    # If both sums exceed the range of doubles, they are infinite, and their quotient is NaN.
    efficiency = f.col("measured_km") / f.col("total_fuel_liters")
    return shaped(
        FUEL_EFFICIENCY,
        totals,
        {
            "year_month": f.date_format("month", "yyyy-MM"),
            "avg_fuel_efficiency_kmpl": f.when(f.col("total_fuel_liters") > 0, f.nanvl(efficiency, f.lit(None))),
            "updated_at": f.current_timestamp(),
            "last_reading_at": f.col("_reading._reading_at"),
            "last_reading_km": f.col("_reading.current_mileage_km"),
            "last_reading_fuel_liters": f.col("_reading.fuel_available_liters"),
        },
    )


def _totals(events: DataFrame) -> DataFrame:
    """The sums of each car and month, its last event, and its last reading ``_reading``."""
    month = Window.partitionBy(*_PAIR).orderBy(*_IN_EVENT_ORDER)
    so_far = month.rowsBetween(Window.unboundedPreceding, Window.currentRow)
    reading = f.struct("_reading_at", "current_mileage_km", "fuel_available_liters")
    last_values = {
        "manufacturer": f.col("manufacturer"),
        "model": f.col("model"),
        "_reading": f.when(f.col("current_mileage_km").isNotNull(), reading),
    }
    return events.select(
        *_PAIR,
        # The sums are in the order of events, because the sum of doubles depends on the order.
        *(f.sum(value).over(so_far).alias(name) for name, value in _summands().items()),
        *(f.last(value, ignorenulls=True).over(so_far).alias(name) for name, value in last_values.items()),
        f.col("telemetry_timestamp").alias("last_event_at"),
        f.col("event_id").alias("last_event_id"),
        _is_last(month).alias("_is_last"),
    ).where("_is_last")


def _summands() -> dict[str, Column]:
    """What an event adds to each sum. An event that represents a stored row adds the row's sums."""
    contributes = f.col("_km") >= 0
    measured = contributes & (f.col("_liters") >= 0)
    of_event = {
        "total_km_driven": f.when(contributes, f.col("_km")).otherwise(f.lit(0.0)),
        "trip_count": f.when(contributes, f.lit(1)).otherwise(f.lit(0)),
        "measured_km": f.when(measured, f.col("_km")).otherwise(f.lit(0.0)),
        "total_fuel_liters": f.when(measured, f.col("_liters")).otherwise(f.lit(0.0)),
    }
    return {name: f.when(f.col(_CARRIED), f.col(f"_{name}")).otherwise(value) for name, value in of_event.items()}


def _is_last(window: WindowSpec) -> Column:
    return f.lead("car_chassis").over(window).isNull()


def _with_distance_and_fuel(events: DataFrame) -> DataFrame:
    """Add the distance of each event, ``_km``, and its fuel, ``_liters``; these are null if unknown."""
    # The reference of an event with an odometer reading is the car's event before it that has a reading too.
    has_reading = f.col("current_mileage_km").isNotNull()
    readings = Window.partitionBy("car_chassis", has_reading).orderBy(*_IN_EVENT_ORDER)
    earliest = f.add_months("month", -1)
    of_the_trip = f.col("trip_distance_km").isNotNull() & f.col("trip_fuel_liters").isNotNull()
    has_reference = has_reading & (f.lag("month").over(readings) >= earliest)
    distance = f.col("current_mileage_km") - f.lag("current_mileage_km").over(readings)
    microseconds = f.unix_micros("_reading_at")
    hours = (microseconds - f.lag(microseconds).over(readings)) / f.lit(_MICROSECONDS_PER_HOUR)
    is_possible = distance <= f.lit(_FASTEST_KMH) * hours + f.lit(_TOLERATED_KM)
    return events.select(
        "*",
        f.when(of_the_trip, f.col("trip_distance_km")).when(has_reference & is_possible, distance).alias("_km"),
        f.when(of_the_trip, f.col("trip_fuel_liters"))
        .when(has_reference, f.lag("fuel_available_liters").over(readings) - f.col("fuel_available_liters"))
        .alias("_liters"),
    )
