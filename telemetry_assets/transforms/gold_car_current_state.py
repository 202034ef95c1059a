"""The transform of ``gold.car_current_state``: the last known value of each attribute of each car.

For each value, internal columns contain its origin: the time and id of the event that it comes from. So an update reads
only the changed events, and not the whole history.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Set
from datetime import date
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as f

from telemetry_assets.lakehouse.rebuilds import consecutive_dates
from telemetry_assets.tables.gold_car_current_state import CURRENT_STATE, STATE_ATTRIBUTES
from telemetry_assets.transforms.refresh import (
    RebuildInputs,
    RebuildNeededError,
    RefreshParameters,
    UpdateInputs,
    of_cars,
)
from telemetry_assets.transforms.shaping import shaped

_ATTRIBUTES = tuple(attribute.name for attribute in STATE_ATTRIBUTES)
# Each value column, and the two columns of its origin. The origin of `telemetry_timestamp` is the car's latest event.
_ORIGINS = {
    **{name: (f"{name}_known_at", f"{name}_event_id") for name in _ATTRIBUTES},
    "telemetry_timestamp": ("telemetry_timestamp", "telemetry_event_id"),
}
_COLUMNS = tuple(dict.fromkeys(column for name, origin in _ORIGINS.items() for column in (name, *origin)))
_OF_EVENTS = ("car_chassis", "event_id", "telemetry_timestamp", *_ATTRIBUTES)
"""The Silver columns from which the state is computed."""
NEEDS_HISTORY = "_needs_history"
_REMOVED_EVENTS = "_removed_events"

_MANY_CARS = 100
"""If more cars need their history, the table is rebuilt."""


def rebuild(inputs: RebuildInputs, parameters: RefreshParameters) -> DataFrame:
    """Compute the state again from some event dates.

    A stored value is lost if its event is on one of these dates, or on a date that the upstream no longer has, and
    there is no newer one. It is dropped if all dates up to its own are still to be rebuilt, because an older value will
    be found on them. Otherwise the car needs its history.
    """
    previous = of_cars(inputs.previous(None), inputs.cars)
    new = last_known(of_cars(inputs.upstream(), inputs.cars))
    first_done = min(inputs.upstream_dates - inputs.pending, default=date.max)
    state = updated(
        previous,
        new,
        lambda name: _is_on(name, inputs.parts) | ~_is_on(name, inputs.upstream_dates),
        lambda name: _day_of(name) < f.lit(first_done),
    )
    return with_insurance(_with_histories(inputs, state), parameters.insurance_as_of)


def update(inputs: UpdateInputs, parameters: RefreshParameters) -> DataFrame:
    """Compute the state of the changed cars, or of all cars if their insurance status is of another day."""
    previous = inputs.previous(None)
    if not inputs.dates:
        # Another writer may have repeated rows.
        return with_insurance(previous.dropDuplicates(["car_chassis"]), parameters.insurance_as_of)
    state = updated(_with_removed_events(previous, inputs.removed()), last_known(inputs.added()), _is_removed)
    return with_insurance(_with_histories(inputs, state), parameters.insurance_as_of)


def _with_histories(inputs: RebuildInputs | UpdateInputs, state: DataFrame) -> DataFrame:
    """The state, in which the cars that need their history have the last values of all their events.

    :raises RebuildNeededError: if there are too many such cars.
    """
    state = inputs.evaluated(state)
    cars = {row[0] for row in state.where(NEEDS_HISTORY).select("car_chassis").limit(_MANY_CARS + 1).collect()}
    if len(cars) > _MANY_CARS:
        raise RebuildNeededError(f"events that more than {_MANY_CARS} cars have their values from were removed")
    known = state.where(~state[NEEDS_HISTORY]).drop(NEEDS_HISTORY)
    return known.unionByName(last_known(inputs.history(cars, _OF_EVENTS))) if cars else known


def _with_removed_events(state: DataFrame, removed: DataFrame) -> DataFrame:
    """Add the column ``_removed_events``: the times and ids of each car's removed events."""
    events = removed.groupBy("car_chassis").agg(
        f.collect_set(_event("telemetry_timestamp", "event_id")).alias(_REMOVED_EVENTS)
    )
    return state.join(events, ["car_chassis"], "left")


def _is_removed(name: str) -> Column:
    """Whether the event of a stored value is among the removed ones."""
    known_at, event_id = _ORIGINS[name]
    event = _event(f"_stored_{known_at}", f"_stored_{event_id}")
    return f.coalesce(f.array_contains(f.col(_REMOVED_EVENTS), event), f.lit(False))


def _is_on(name: str, dates: Set[date]) -> Column:
    """Whether the event of a stored value has one of some event dates."""
    day = _day_of(name)
    within = [day.between(f.lit(start), f.lit(end)) for start, end in consecutive_dates(dates)]
    return f.coalesce(reduce(operator.or_, within, f.lit(False)), f.lit(False))


def _day_of(name: str) -> Column:
    """The event date of a stored value."""
    return f.to_date(f"_stored_{_ORIGINS[name][0]}")


def _event(time: str, event_id: str) -> Column:
    return f.concat_ws("|", f.unix_micros(time).cast("string"), event_id)


def last_known(silver: DataFrame) -> DataFrame:
    """The last known value of each attribute of each car in some Silver rows, and its origin."""
    event = f.struct("telemetry_timestamp", "event_id")
    latest = {"telemetry_timestamp": "telemetry_timestamp", "telemetry_event_id": "event_id"}
    columns = [f.max_by(column, event).alias(name) for name, column in latest.items()]
    for name in _ATTRIBUTES:
        known_at, event_id = _ORIGINS[name]
        of_value = {name: name, known_at: "telemetry_timestamp", event_id: "event_id"}
        # `max_by` ignores rows whose second argument is null.
        known = f.when(f.col(name).isNotNull(), event)
        columns += [f.max_by(column, known).alias(alias) for alias, column in of_value.items()]
    return silver.groupBy("car_chassis").agg(*columns).select("car_chassis", *_COLUMNS)


def updated(
    state: DataFrame,
    changed: DataFrame,
    is_lost: Callable[[str], Column],
    is_dropped: Callable[[str], Column] = lambda _: f.lit(False),
) -> DataFrame:
    """The state after a change of Silver.

    If the event of a stored value may be gone, and the new rows contain no event at least as new, the value must be
    computed from all events of the car: ``_needs_history`` is true, and the other columns of this car must not be used.

    :param state: the current rows of ``gold.car_current_state``.
    :param changed: the result of :func:`last_known` for the new Silver rows.
    :param is_lost: returns for a value column whether the event of the stored value may be gone. The stored columns
        have the prefix ``_stored_``.
    :param is_dropped: returns for a value column whether such a value is replaced by that of the new rows, or by null
        if they have none. A car without a latest event is left out.
    """
    both = _beside(state, changed)
    values: dict[str, Column] = {}
    needs_history = f.lit(False)
    for name, origin in _ORIGINS.items():
        takes_new = _takes_new(*origin)
        is_known = f.col(f"_stored_{origin[0]}").isNotNull()
        lost, dropped = is_known & is_lost(name) & ~takes_new, f.coalesce(is_dropped(name), f.lit(False))
        needs_history = needs_history | (lost & ~dropped)
        for column in dict.fromkeys((name, *origin)):
            values[column] = f.when(takes_new | (lost & dropped), f.col(column)).otherwise(f.col(f"_stored_{column}"))
    return both.select(
        f.coalesce("car_chassis", "_stored_car").alias("car_chassis"),
        *(values[column].alias(column) for column in _COLUMNS),
        needs_history.alias(NEEDS_HISTORY),
    ).where("telemetry_timestamp is not null")


def _beside(state: DataFrame, changed: DataFrame) -> DataFrame:
    """The new values of each car, and beside them its stored ones, with the prefix ``_stored_``."""
    others = [name for name in (_REMOVED_EVENTS,) if name in state.columns]
    stored = state.select(
        f.col("car_chassis").alias("_stored_car"),
        *(f.col(name).alias(f"_stored_{name}") for name in _COLUMNS),
        *others,
    )
    # If another writer duplicated rows, the join would duplicate the new rows too.
    stored = stored.dropDuplicates(["_stored_car"])
    return stored.join(changed, f.col("_stored_car") == f.col("car_chassis"), "full_outer")


def _takes_new(known_at: str, event_id: str) -> Column:
    """Whether the new value's event is at least as new as that of the stored value."""
    new_time, new_id = f.col(known_at), f.col(event_id)
    stored_time, stored_id = f.col(f"_stored_{known_at}"), f.col(f"_stored_{event_id}")
    as_new = (new_time > stored_time) | ((new_time == stored_time) & (new_id >= stored_id))
    return f.coalesce(new_time.isNotNull() & (stored_time.isNull() | as_new), f.lit(False))


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
