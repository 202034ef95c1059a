"""Events become each car's current state: the last known value of every attribute.

The table keeps with each value the time and the id of the event that it came from, so that a change
of some event dates costs those dates and not the whole history.
"""

from __future__ import annotations

from collections.abc import Set
from datetime import date

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as f
from pyspark.sql.window import Window

from telemetry_assets.tables.derived import Changes
from telemetry_assets.tables.gold_car_current_state import CURRENT_STATE, STATE_ATTRIBUTES
from telemetry_assets.transforms.refresh import Inputs, RefreshParameters, Replacement
from telemetry_assets.transforms.shaping import keep_updated_at, shaped

_ATTRIBUTES = tuple(attribute.name for attribute in STATE_ATTRIBUTES)
# Every value that has an origin, with the columns of its origin. A car's latest event is its own origin.
_ORIGINS = {
    **{name: (f"{name}_known_at", f"{name}_event_id") for name in _ATTRIBUTES},
    "telemetry_timestamp": ("telemetry_timestamp", "telemetry_event_id"),
}
_COLUMNS = tuple(dict.fromkeys(column for name, origin in _ORIGINS.items() for column in (name, *origin)))
NEEDS_HISTORY = "_needs_history"

_MANY_DATES = 366
"""If more dates changed, the table is rebuilt rather than updated."""

_MANY_CARS = 1000
"""If more cars need their history, the history of all cars is read."""


def refresh(changes: Changes, inputs: Inputs, parameters: RefreshParameters) -> Replacement:
    """Update the state with the changed dates; rebuild it if too much has changed."""
    previous = inputs.previous(None)
    if changes.everything or len(changes.dates) > _MANY_DATES:
        known = last_known(inputs.upstream(None))
    elif changes.dates:
        known = _known_after(changes, inputs, previous)
    else:
        # Rows may have been duplicated by hand.
        known = previous.dropDuplicates(["car_chassis"])
    whole = with_insurance(known, parameters.insurance_as_of)
    return Replacement(keep_updated_at(CURRENT_STATE, whole, previous), None)


def _known_after(changes: Changes, inputs: Inputs, previous: DataFrame) -> DataFrame:
    judged = updated(previous, last_known(inputs.upstream(changes.dates)), changes.dates)
    lost = [row[0] for row in judged.where(NEEDS_HISTORY).select("car_chassis").collect()]
    if len(lost) > _MANY_CARS:
        return last_known(inputs.upstream(None))
    known = judged.where(~judged[NEEDS_HISTORY]).drop(NEEDS_HISTORY)
    if not lost:
        return known
    history = inputs.upstream(None)
    return known.unionByName(last_known(history.where(history["car_chassis"].isin(*lost))))


def last_known(silver: DataFrame) -> DataFrame:
    """Per car the last known value of each attribute among the Silver rows given, and where it came from."""
    car = Window.partitionBy("car_chassis").orderBy("telemetry_timestamp", "event_id")
    so_far = car.rowsBetween(Window.unboundedPreceding, Window.currentRow)

    def last(value: Column | str) -> Column:
        return f.last(value, ignorenulls=True).over(so_far)

    columns: list[Column] = []
    for name in _ATTRIBUTES:
        known = f.col(name).isNotNull()
        known_at, event_id = _ORIGINS[name]
        columns += [
            last(name).alias(name),
            last(f.when(known, f.col("telemetry_timestamp"))).alias(known_at),
            last(f.when(known, f.col("event_id"))).alias(event_id),
        ]
    is_last = f.lead("car_chassis").over(car).isNull()
    latest = [f.col("telemetry_timestamp"), f.col("event_id").alias("telemetry_event_id")]
    return silver.select("car_chassis", *columns, *latest, is_last.alias("_is_last")).where("_is_last").drop("_is_last")


def updated(state: DataFrame, changed: DataFrame, dates: Set[date]) -> DataFrame:
    """The state after all Silver rows of ``dates`` have been replaced.

    Where a stored value came from one of these dates and no row of them is as new, its event is gone, and only
    the car's whole history can tell what is known now: such a car has ``_needs_history`` true, and its values
    are not to be used.

    :param state: ``gold.car_current_state`` as it is.
    :param changed: :func:`last_known` of all Silver rows of ``dates``.
    :param dates: every date that changed since ``state`` was made.
    """
    stored = state.select(
        f.col("car_chassis").alias("_stored_car"), *(f.col(name).alias(f"_stored_{name}") for name in _COLUMNS)
    )
    # Rows that somebody doubled by hand must not double what is joined to them.
    stored = stored.dropDuplicates(["_stored_car"])
    both = stored.join(changed, f.col("_stored_car") == f.col("car_chassis"), "full_outer")
    values: dict[str, Column] = {}
    needs_history = f.lit(False)
    for name, origin in _ORIGINS.items():
        takes_new, is_lost = _decide(*origin, dates)
        needs_history = needs_history | is_lost
        for column in (name, *origin):
            values[column] = f.when(takes_new, f.col(column)).otherwise(f.col(f"_stored_{column}"))
    return both.select(
        f.coalesce("car_chassis", "_stored_car").alias("car_chassis"),
        *(values[column].alias(column) for column in _COLUMNS),
        needs_history.alias(NEEDS_HISTORY),
    )


def _decide(known_at: str, event_id: str, dates: Set[date]) -> tuple[Column, Column]:
    """Whether the new value is taken, and whether the stored one is lost without a new one being taken."""
    new_time, new_id = f.col(known_at), f.col(event_id)
    stored_time, stored_id = f.col(f"_stored_{known_at}"), f.col(f"_stored_{event_id}")
    as_new = (new_time > stored_time) | ((new_time == stored_time) & (new_id >= stored_id))
    takes_new = f.coalesce(new_time.isNotNull() & (stored_time.isNull() | as_new), f.lit(False))
    from_these_dates = f.coalesce(f.to_date(stored_time).isin(*sorted(dates)), f.lit(False))
    return takes_new, from_these_dates & ~takes_new


def with_insurance(state: DataFrame, as_of: date) -> DataFrame:
    """The whole table's rows: the state, and where each car's insurance stands on ``as_of``."""
    days_left = f.datediff(f.col("insurance_valid_until"), f.lit(as_of))
    status = (
        f.when(f.col("insurance_valid_until").isNull(), f.lit("UNKNOWN"))
        .when(days_left < 0, f.lit("EXPIRED"))
        .when(days_left <= 90, f.lit("EXPIRING_IN_90_DAYS"))
        .otherwise(f.lit("ACTIVE"))
    )
    return shaped(
        CURRENT_STATE,
        state,
        {
            "insurance_status": status,
            "insurance_days_expired": f.when(days_left < 0, -days_left),
            "insurance_as_of": f.lit(as_of),
            "updated_at": f.current_timestamp(),
        },
    )
