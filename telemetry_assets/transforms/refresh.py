"""The interface between transforms and engines: inputs, parameters and the result of a refresh."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from telemetry_assets.tables.alert_rules import AlertRules
from telemetry_assets.tables.contract import Changes, DerivedTable, Partitions

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


class Inputs(Protocol):
    """The tables that a transform can read. Each table is read at the same snapshot during the whole refresh."""

    def upstream(self, event_dates: Partitions) -> DataFrame:
        """The rows of the upstream with these event dates."""
        ...

    def arrived(self, event_dates: Partitions) -> DataFrame | None:
        """The rows of the upstream with these event dates that batches appended after the watermark.

        None if other commits also changed the upstream after the watermark.
        """
        ...

    def previous(self, partitions: Partitions) -> DataFrame:
        """The rows of the table itself in these partitions, before the refresh."""
        ...


@dataclass(frozen=True)
class Replacement:
    """The result of a transform: ``rows`` replace all rows of ``partitions``, or of the whole table if that is None."""

    rows: DataFrame
    partitions: Partitions


@dataclass(frozen=True)
class RefreshParameters:
    """The parameters of a refresh that a run sets.

    :param insurance_as_of: the date for which the insurance status is computed.
    :param alert_rules: the alert rules in force.
    :param rebuild: whether to compute the changed dates from all their upstream rows, as a backfill does.
    """

    insurance_as_of: date
    alert_rules: AlertRules
    rebuild: bool = False


class Transform(Protocol):
    """A module of this package that computes a derived table."""

    def refresh(self, changes: Changes, inputs: Inputs, parameters: RefreshParameters) -> Replacement:
        """Compute the new rows of the partitions that the changes affect."""
        ...


def transform_of(table: DerivedTable) -> Transform:
    """The transform that computes a table.

    :raises ModuleNotFoundError: if the table names a module that does not exist.
    """
    return cast(Transform, import_module(table.transform))
