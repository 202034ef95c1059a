"""The inputs of transforms: the tables at the snapshots of a plan, as data frames of an engine."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from telemetry_assets.engines.plan import RefreshPlan, TableScan
from telemetry_assets.lakehouse.cars import CAR, CarRange, CarSet
from telemetry_assets.lakehouse.changes import ChangedRows
from telemetry_assets.lakehouse.data_files import FoundRows, dates_in, find_rows
from telemetry_assets.lakehouse.rebuilds import Piece
from telemetry_assets.tables.contract import DerivedTable, Partitions

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_EVENT_DATE = "event_date"


class Reader(Protocol):
    """An engine, as far as inputs need it."""

    def read(self, scan: TableScan) -> DataFrame:
        """The rows of a scan."""
        ...

    def to_frame(self, rows: pa.Table) -> DataFrame:
        """A data frame of some rows."""
        ...

    def evaluated(self, rows: DataFrame) -> DataFrame:
        """The rows of a data frame, computed once."""
        ...


@dataclass(frozen=True)
class PieceInputs:
    """See :class:`RebuildInputs`: the tables at the snapshots of the plan."""

    engine: Reader
    plan: RefreshPlan
    piece: Piece

    @property
    def parts(self) -> frozenset[date]:
        """See :class:`telemetry_assets.transforms.refresh.RebuildInputs`."""
        return self.piece.parts

    @property
    def cars(self) -> CarRange:
        """See :class:`telemetry_assets.transforms.refresh.RebuildInputs`."""
        return self.piece.cars

    @property
    def pending(self) -> frozenset[date]:
        """See :class:`telemetry_assets.transforms.refresh.RebuildInputs`."""
        return self.plan.pending.parts

    @cached_property
    def upstream_dates(self) -> frozenset[date]:
        """See :class:`telemetry_assets.transforms.refresh.RebuildInputs`."""
        return dates_in(self.plan.upstream)

    def upstream(self) -> DataFrame:
        """See :class:`telemetry_assets.transforms.refresh.RebuildInputs`."""
        return self.engine.read(self.plan.rows_of_piece)

    def previous(self, partitions: frozenset[date] | None) -> DataFrame:
        """See :class:`telemetry_assets.transforms.refresh.RebuildInputs`."""
        return self.engine.read(self.plan.previous_rows(partitions, self.piece.cars))

    def evaluated(self, rows: DataFrame) -> DataFrame:
        """See :class:`telemetry_assets.transforms.refresh.RebuildInputs`."""
        return self.engine.evaluated(rows)

    def history(self, cars: Set[str], columns: Sequence[str]) -> DataFrame:
        """See :class:`telemetry_assets.transforms.refresh.RebuildInputs`."""
        return _history(self.engine, self.plan, cars, columns, None)


@dataclass(frozen=True)
class ChangeInputs:
    """See :class:`UpdateInputs`: the tables at the snapshots of the plan."""

    engine: Reader
    plan: RefreshPlan
    changed: ChangedRows

    @property
    def dates(self) -> frozenset[date]:
        """See :class:`telemetry_assets.transforms.refresh.UpdateInputs`."""
        return frozenset(self.changed.both[_EVENT_DATE].unique().to_pylist())

    def added(self) -> DataFrame:
        """See :class:`telemetry_assets.transforms.refresh.UpdateInputs`."""
        return self._added

    def removed(self) -> DataFrame:
        """See :class:`telemetry_assets.transforms.refresh.UpdateInputs`."""
        return self._removed

    def previous(self, partitions: frozenset[date] | None) -> DataFrame:
        """See :class:`telemetry_assets.transforms.refresh.UpdateInputs`."""
        return self.engine.to_frame(self._found(partitions).rows)

    def history(self, cars: Set[str], columns: Sequence[str], event_dates: frozenset[date] | None = None) -> DataFrame:
        """See :class:`telemetry_assets.transforms.refresh.UpdateInputs`."""
        return _history(self.engine, self.plan, cars, columns, event_dates)

    def evaluated(self, rows: DataFrame) -> DataFrame:
        """See :class:`telemetry_assets.transforms.refresh.UpdateInputs`."""
        return self.engine.evaluated(rows)

    def affected(self) -> DataFrame:
        """See :class:`telemetry_assets.transforms.refresh.UpdateInputs`."""
        return self.engine.to_frame(affected_keys(self.plan.contract, self.changed.both))

    def replaced_by(self, new: pa.Table) -> FoundRows:
        """The rows of the table that the computed rows replace."""
        contract, target = self.plan.contract, self.plan.target
        if contract.newest_by is not None:
            keys = new.select(list(contract.key))
        elif contract.partition is None:
            return self._found(None)
        else:
            keys = affected_keys(contract, self.changed.both)
        partitions = frozenset(keys[contract.partition].unique().to_pylist())
        return find_rows(target, contract, partitions, keys=keys)

    def _found(self, partitions: frozenset[date] | None) -> FoundRows:
        cars = None if self.plan.affects_all_rows else CarSet.of(self.changed.both[CAR].unique().to_pylist())
        return find_rows(self.plan.target, self.plan.contract, partitions, cars)

    @cached_property
    def _added(self) -> DataFrame:
        return self.engine.to_frame(self.changed.added)

    @cached_property
    def _removed(self) -> DataFrame:
        return self.engine.to_frame(self.changed.removed)


def affected_keys(contract: DerivedTable, changed: pa.Table) -> pa.Table:
    """The partitions of a table and the values of its columns ``affected_by`` that changed upstream rows affect."""
    by = list(contract.affected_by)
    changed = changed.select([_EVENT_DATE, *by]).group_by([_EVENT_DATE, *by]).aggregate([])
    keys = [
        of_day.select(by).append_column(contract.partition, pa.repeat(pa.scalar(part, pa.date32()), of_day.num_rows))
        for day in changed[_EVENT_DATE].unique().to_pylist()
        for of_day in [changed.filter(pc.equal(changed[_EVENT_DATE], pa.scalar(day, pa.date32())))]
        for part in contract.partitions_of([day])
    ]
    return pa.concat_tables(keys).group_by([contract.partition, *by]).aggregate([])


def _history(
    engine: Reader, plan: RefreshPlan, cars: Set[str], columns: Sequence[str], event_dates: Partitions
) -> DataFrame:
    found = find_rows(plan.upstream, plan.contract.upstream, event_dates, CarSet(frozenset(cars)), columns=columns)
    return engine.to_frame(found.rows)
