"""The interface between transforms and engines.

A transform computes the rows of a table from those of its upstream, in one or two ways. ``rebuild`` computes whole
partitions; every transform has it. ``update`` computes only the rows that changed upstream rows affect; transforms of
tables with ``newest_by`` or ``affected_by`` in their contract have it. Both produce the same table.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from datetime import date
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from telemetry_assets.lakehouse.cars import CAR, CarRange
from telemetry_assets.tables.alert_rules import AlertRules
from telemetry_assets.tables.contract import DerivedTable

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


class RebuildInputs(Protocol):
    """What a transform can read to rebuild a part of a table. Each table is read at the same snapshot throughout."""

    @property
    def parts(self) -> frozenset[date]:
        """The partitions to rebuild; of a table without partitions, the event dates."""
        ...

    @property
    def cars(self) -> CarRange:
        """The cars whose rows are rebuilt."""
        ...

    @property
    def pending(self) -> frozenset[date]:
        """All partitions or event dates that are still to be rebuilt, these parts included."""
        ...

    @property
    def upstream_dates(self) -> frozenset[date]:
        """All event dates of the upstream."""
        ...

    def upstream(self) -> DataFrame:
        """The rows of the upstream that the parts need. They may be of other cars too."""
        ...

    def previous(self, partitions: frozenset[date] | None) -> DataFrame:
        """The rows of the table itself before the rebuild, in some partitions or in all. They may be of other cars."""
        ...

    def evaluated(self, rows: DataFrame) -> DataFrame:
        """The rows of a data frame, computed once, so that the plans that use them remain small."""
        ...

    def history(self, cars: Set[str], columns: Sequence[str]) -> DataFrame:
        """All rows of the upstream of some cars, with some columns."""
        ...


class UpdateInputs(Protocol):
    """What a transform can read to update a table. Each table is read at the same snapshot throughout."""

    @property
    def dates(self) -> frozenset[date]:
        """The event dates of the changed rows."""
        ...

    def added(self) -> DataFrame:
        """The rows that were added to the upstream, among them the new versions of changed rows."""
        ...

    def removed(self) -> DataFrame:
        """The rows that were removed from the upstream, among them the old versions of changed rows."""
        ...

    def evaluated(self, rows: DataFrame) -> DataFrame:
        """The rows of a data frame, computed once, so that the plans that use them remain small."""
        ...

    def affected(self) -> DataFrame:
        """The partitions and the values of ``affected_by`` of the rows of the table that the changed rows affect."""
        ...

    def previous(self, partitions: frozenset[date] | None) -> DataFrame:
        """The rows of the table itself of the changed cars, in some partitions or in all.

        The rows of all cars, if the table depends on the day of the refresh and its rows are of another day.
        """
        ...

    def history(self, cars: Set[str], columns: Sequence[str], event_dates: frozenset[date] | None = None) -> DataFrame:
        """The rows of the upstream of some cars, with some columns, on some event dates or on all."""
        ...


@dataclass(frozen=True)
class RefreshParameters:
    """The parameters of a refresh that a run sets.

    :param insurance_as_of: the date for which the insurance status is computed.
    :param alert_rules: the alert rules in force.
    """

    insurance_as_of: date
    alert_rules: AlertRules


class RebuildNeededError(Exception):
    """An update cannot compute the rows with bounded work. The engine rebuilds a part of the table instead.

    :param reason: the reason, as a sentence part.
    :param partitions: the partitions to rebuild; None for the whole table.
    """

    def __init__(self, reason: str, partitions: frozenset[date] | None = None) -> None:
        super().__init__(reason)
        self.partitions = partitions


class Transform(Protocol):
    """A module of this package that computes a derived table."""

    def rebuild(self, inputs: RebuildInputs, parameters: RefreshParameters) -> DataFrame:
        """Compute all rows of a part of the table."""
        ...

    def update(self, inputs: UpdateInputs, parameters: RefreshParameters) -> DataFrame:
        """Compute all rows of the table that the changed upstream rows affect.

        :raises RebuildNeededError: if the table has to be rebuilt instead.
        """
        ...


def transform_of(table: DerivedTable) -> Transform:
    """The transform that computes a table.

    :raises ModuleNotFoundError: if the table names a module that does not exist.
    """
    return cast(Transform, import_module(table.transform))


def of_cars(rows: DataFrame, cars: CarRange) -> DataFrame:
    """The rows of some cars."""
    if cars.after is not None:
        rows = rows.where(rows[CAR] > cars.after)
    return rows if cars.through is None else rows.where(rows[CAR] <= cars.through)
