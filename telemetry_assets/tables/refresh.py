"""For a table and a set of event dates: what is read, which transform runs, what is replaced.

Free of any engine: a step is given :class:`Inputs` that read, and answers with what to write.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Protocol

from telemetry_assets.lakehouse.changes import Changes
from telemetry_assets.tables.contract import TableContract
from telemetry_assets.tables.silver_car_telemetry import ALERTS, CURRENT_STATE, FUEL_EFFICIENCY, SILVER

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

Partitions = frozenset[date] | None
"""Partition values of a table, None for all."""

_MANY_DATES = 366
"""Above so many dates a table without partitions is made anew rather than updated."""

_MANY_CARS = 1000
"""Above so many cars that need their whole history, that of all cars is read."""


class Inputs(Protocol):
    """What a step may read, each table at one snapshot for the whole step."""

    def upstream(self, event_dates: Partitions) -> DataFrame:
        """The upstream's rows of these event dates."""
        ...

    def arrived(self, event_dates: Partitions) -> DataFrame | None:
        """The upstream's rows of these dates since the table last took it; None unless rows only came and none went."""
        ...

    def previous(self, partitions: Partitions) -> DataFrame:
        """The table's own rows of these partitions, as they are before the step."""
        ...


@dataclass(frozen=True)
class Replacement:
    """What a step writes: ``rows`` in the place of all rows of ``partitions`` (None: of the whole table)."""

    rows: DataFrame
    partitions: Partitions


@dataclass(frozen=True)
class StepParameters:
    """What a run decides.

    :param insurance_as_of: the date that the insurance's status is told for.
    :param rebuild: whether chosen dates are made anew from all their upstream rows, as a backfill wants.
    """

    insurance_as_of: date
    rebuild: bool = False


def replacement(contract: TableContract, changes: Changes, inputs: Inputs, parameters: StepParameters) -> Replacement:
    """Run the step of a derived table for the event dates that changed."""
    return _STEPS[contract](changes, inputs, parameters)


def _silver(changes: Changes, inputs: Inputs, parameters: StepParameters) -> Replacement:
    from telemetry_assets.transforms import silver_car_telemetry as silver

    dates = _dates(changes)
    arrived = None if parameters.rebuild or changes.everything else inputs.arrived(dates)
    if arrived is not None:
        return Replacement(silver.merged(inputs.previous(dates), silver.car_telemetry(arrived)), dates)
    return Replacement(silver.car_telemetry(inputs.upstream(dates)), dates)


def _alerts(changes: Changes, inputs: Inputs, parameters: StepParameters) -> Replacement:
    from telemetry_assets.transforms.gold_performance_alerts import performance_alerts
    from telemetry_assets.transforms.shaping import keep_updated_at

    dates = _dates(changes)
    alerts = performance_alerts(inputs.upstream(dates))
    return Replacement(keep_updated_at(ALERTS, alerts, inputs.previous(dates)), dates)


def _fuel(changes: Changes, inputs: Inputs, parameters: StepParameters) -> Replacement:
    from telemetry_assets.transforms.gold_fuel_efficiency_monthly import fuel_efficiency_monthly
    from telemetry_assets.transforms.shaping import keep_updated_at

    # A month's first event of a car leans on the car's last event of the month before.
    months = (
        None
        if changes.everything
        else frozenset(month for day in changes.dates for month in (first_of_month(day), next_month(day)))
    )
    read = (
        None
        if months is None
        else frozenset(
            day for month in months for first in (previous_month(month), month) for day in days_of_month(first)
        )
    )
    monthly = fuel_efficiency_monthly(inputs.upstream(read))
    if months is not None:
        monthly = monthly.where(monthly["month"].isin(*sorted(months)))
    return Replacement(keep_updated_at(FUEL_EFFICIENCY, monthly, inputs.previous(months)), months)


def _current_state(changes: Changes, inputs: Inputs, parameters: StepParameters) -> Replacement:
    from telemetry_assets.transforms import gold_car_current_state as state
    from telemetry_assets.transforms.shaping import keep_updated_at

    previous = inputs.previous(None)
    if changes.everything or len(changes.dates) > _MANY_DATES:
        known = state.last_known(inputs.upstream(None))
    elif not changes.dates:
        # Of rows that somebody doubled by hand one is kept.
        known = previous.dropDuplicates(["car_chassis"])
    else:
        changed = state.last_known(inputs.upstream(changes.dates))
        judged = state.updated(previous, changed, changes.dates)
        lost = [row[0] for row in judged.where(state.NEEDS_HISTORY).select("car_chassis").collect()]
        known = judged.where(~judged[state.NEEDS_HISTORY]).drop(state.NEEDS_HISTORY)
        if len(lost) > _MANY_CARS:
            known = state.last_known(inputs.upstream(None))
        elif lost:
            history = inputs.upstream(None)
            known = known.unionByName(state.last_known(history.where(history["car_chassis"].isin(*lost))))
    whole = state.with_insurance(known, parameters.insurance_as_of)
    return Replacement(keep_updated_at(CURRENT_STATE, whole, previous), None)


def _dates(changes: Changes) -> Partitions:
    return None if changes.everything else changes.dates


_STEPS: dict[TableContract, Callable[[Changes, Inputs, StepParameters], Replacement]] = {
    SILVER: _silver,
    ALERTS: _alerts,
    FUEL_EFFICIENCY: _fuel,
    CURRENT_STATE: _current_state,
}


def first_of_month(day: date) -> date:
    """The first day of the day's month."""
    return day.replace(day=1)


def next_month(day: date) -> date:
    """The first day of the month after the day's."""
    return first_of_month(first_of_month(day) + timedelta(days=31))


def previous_month(day: date) -> date:
    """The first day of the month before the day's."""
    return first_of_month(first_of_month(day) - timedelta(days=1))


def days_of_month(first: date) -> list[date]:
    """All days of the month that begins on ``first``."""
    return [first + timedelta(days=offset) for offset in range((next_month(first) - first).days)]
