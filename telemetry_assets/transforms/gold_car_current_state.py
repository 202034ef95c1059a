"""The transform of ``gold.car_current_state``: the last known value of each attribute of each car.

For each value, internal columns contain its origin: the time and id of the event that it comes from. So an update for
some event dates reads only the events of these dates, and not the whole history.
"""

from __future__ import annotations

from collections.abc import Set
from datetime import date

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as f
from pyspark.sql.window import Window

from telemetry_assets.tables.contract import Changes
from telemetry_assets.tables.gold_car_current_state import CURRENT_STATE, STATE_ATTRIBUTES
from telemetry_assets.transforms.refresh import Inputs, RefreshParameters, Replacement
from telemetry_assets.transforms.shaping import keep_updated_at, shaped

_ATTRIBUTES = tuple(attribute.name for attribute in STATE_ATTRIBUTES)
# Each value column, and the two columns of its origin. The origin of `telemetry_timestamp` is the car's latest event.
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
    """Update the state from the changed dates, or rebuild it if there are too many of them."""
    previous = inputs.previous(None)
    if changes.everything or len(changes.dates) > _MANY_DATES:
        known = last_known(inputs.upstream(None))
    elif changes.dates:
        known = _known_after(changes, inputs, previous)
    else:
        # Another writer may have duplicated rows.
        known = previous.dropDuplicates(["car_chassis"])
    whole = with_insurance(known, parameters.insurance_as_of)
    return Replacement(keep_updated_at(CURRENT_STATE, whole, previous), None)


def _known_after(changes: Changes, inputs: Inputs, previous: DataFrame) -> DataFrame:
    state = updated(previous, last_known(inputs.upstream(changes.dates)), changes.dates)
    cars = [row[0] for row in state.where(NEEDS_HISTORY).select("car_chassis").collect()]
    if len(cars) > _MANY_CARS:
        return last_known(inputs.upstream(None))
    known = state.where(~state[NEEDS_HISTORY]).drop(NEEDS_HISTORY)
    if not cars:
        return known
    history = inputs.upstream(None)
    return known.unionByName(last_known(history.where(history["car_chassis"].isin(*cars))))


def last_known(silver: DataFrame) -> DataFrame:
    """The last known value of each attribute of each car in some Silver rows, and its origin."""
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
    """The state after all Silver rows of ``dates`` were replaced.

    If a stored value comes from one of these dates, and the new rows contain no event at least as new, the event of the
    stored value was removed. The value must then be computed from all events of the car: ``_needs_history`` is true,
    and the other columns of this car must not be used.

    :param state: the current rows of ``gold.car_current_state``.
    :param changed: the result of :func:`last_known` for all Silver rows of ``dates``.
    :param dates: all dates that changed since ``state`` was computed.
    """
    stored = state.select(
        f.col("car_chassis").alias("_stored_car"), *(f.col(name).alias(f"_stored_{name}") for name in _COLUMNS)
    )
    # If another writer duplicated rows, the join would duplicate the new rows too.
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
    """Whether to use the new value, and whether the stored value's event was removed and there is no newer value."""
    new_time, new_id = f.col(known_at), f.col(event_id)
    stored_time, stored_id = f.col(f"_stored_{known_at}"), f.col(f"_stored_{event_id}")
    as_new = (new_time > stored_time) | ((new_time == stored_time) & (new_id >= stored_id))
    takes_new = f.coalesce(new_time.isNotNull() & (stored_time.isNull() | as_new), f.lit(False))
    from_these_dates = f.coalesce(f.to_date(stored_time).isin(*sorted(dates)), f.lit(False))
    return takes_new, from_these_dates & ~takes_new


def with_insurance(state: DataFrame, as_of: date) -> DataFrame:
    """The rows of the table: the state, and each car's insurance status on ``as_of``. docs/contract.md, section 4.1."""
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
