"""What a transform reads and what it replaces when a table is refreshed. Independent of the engine that runs it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from telemetry_assets.tables.derived import Changes, DerivedTable, Partitions

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


class Inputs(Protocol):
    """What a transform may read. Each table is read at one snapshot throughout the refresh."""

    def upstream(self, event_dates: Partitions) -> DataFrame:
        """The upstream's rows of these event dates."""
        ...

    def arrived(self, event_dates: Partitions) -> DataFrame | None:
        """The upstream's rows of these dates since the last refresh; None if rows were also changed or removed."""
        ...

    def previous(self, partitions: Partitions) -> DataFrame:
        """The table's own rows of these partitions before the refresh."""
        ...


@dataclass(frozen=True)
class Replacement:
    """What a refresh writes: ``rows`` replace all rows of ``partitions`` (None: of the whole table)."""

    rows: DataFrame
    partitions: Partitions


@dataclass(frozen=True)
class RefreshParameters:
    """What a run decides about a refresh.

    :param insurance_as_of: the date for which the insurance status is computed.
    :param rebuild: whether the chosen dates are computed from all their upstream rows, as in a backfill.
    """

    insurance_as_of: date
    rebuild: bool = False


class Transform(Protocol):
    """A module of this package that computes a derived table."""

    def refresh(self, changes: Changes, inputs: Inputs, parameters: RefreshParameters) -> Replacement:
        """Compute the rows that replace those of the partitions that the changes concern."""
        ...


def transform_of(table: DerivedTable) -> Transform:
    """The transform that computes a table.

    :raises ModuleNotFoundError: if the table names a module that does not exist.
    """
    return cast(Transform, import_module(table.transform))
