"""The protocol of an engine, the steps of a refresh, and its result.

Engines with a Spark session share the steps. Both ways to compute a figure, from Arrow and in Spark, are here.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import date
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel
from pyiceberg.table import Table

from telemetry_assets.engines.plan import RefreshPlan, TableScan, plan_refresh
from telemetry_assets.ingestion.batch_parser import Parser
from telemetry_assets.lakehouse.catalog import Lakehouse
from telemetry_assets.lakehouse.changes import NEVER_REFRESHED
from telemetry_assets.lakehouse.commits import set_table_properties, until_committed
from telemetry_assets.lakehouse.quality import require_unique_new_keys, require_unique_upstream_keys
from telemetry_assets.tables.contract import DerivedTable, DistinctValues, Figure, Partitions, RowsWhere, Total
from telemetry_assets.transforms.refresh import RefreshParameters, Replacement, transform_of

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

PREVIEW_ROWS = 5
COMMAND_LINE = "cli-"
"""The prefix of the run ids of the command line, whose runs Dagster does not know."""


class Engine(Protocol):
    """Refreshes tables. A process has one engine at most."""

    def refresh(
        self, contract: DerivedTable, event_dates: frozenset[date] | None, parameters: RefreshParameters, run_id: str
    ) -> RefreshResult:
        """Bring a derived table up to date, in one commit of its rows. If another writer commits first, it is repeated.

        :param event_dates: the event dates to refresh; None for those on which the table is behind.
        """
        ...

    def close(self) -> None:
        """Release the engine's resources."""
        ...


class ParsingEngine(Engine, Parser, Protocol):
    """An engine that also parses batches that are too large for this process."""


class EvaluatedRows(Protocol):
    """The rows of a :class:`Replacement`, evaluated by an engine."""

    def repeated_keys(self) -> int:
        """The number of rows that share their key with an earlier one."""
        ...

    def differ(self) -> bool:
        """Whether the rows differ from those that they replace."""
        ...

    def partitions(self) -> Partitioned:
        """The partitions of the rows, with their figures."""
        ...

    def commit(self) -> Table:
        """Replace the rows in one commit and set the watermark. Returns the table after that.

        :raises CommitFailedException: if another writer has committed to the table since it was read.
        """
        ...


class TransformingEngine(ABC):
    """An engine with a Spark session. Subclasses define how tables are read, and how rows are evaluated and committed.

    :param lakehouse: where the tables are.
    """

    def __init__(self, lakehouse: Lakehouse) -> None:
        self._lakehouse = lakehouse

    @abstractmethod
    def read(self, scan: TableScan) -> DataFrame:
        """The rows of a scan."""

    @abstractmethod
    def repeated_keys(self, scan: TableScan) -> int:
        """The number of rows of a scan that share their key with an earlier one."""

    @abstractmethod
    def evaluate(self, plan: RefreshPlan, replacement: Replacement) -> AbstractContextManager[EvaluatedRows]:
        """Evaluate the rows of a replacement. They can be used until the context ends."""

    def add_previews(self, target: Table, contract: DerivedTable, partitions: Partitioned) -> Partitioned:
        """The partitions with previews, for an engine that reads previews from the table after the commit."""
        return partitions

    def refresh(
        self, contract: DerivedTable, event_dates: frozenset[date] | None, parameters: RefreshParameters, run_id: str
    ) -> RefreshResult:
        """See :meth:`telemetry_assets.engines.base.Engine.refresh`."""
        return until_committed(contract, lambda: self._refresh(contract, event_dates, parameters, run_id))

    def _refresh(
        self, contract: DerivedTable, event_dates: frozenset[date] | None, parameters: RefreshParameters, run_id: str
    ) -> RefreshResult:
        started = time.monotonic()
        plan = plan_refresh(self._lakehouse, contract, event_dates, run_id)
        inputs = _PinnedInputs(self, plan)
        replacement = transform_of(contract).refresh(plan.changes, inputs, parameters)
        with self.evaluate(plan, replacement) as rows:
            require_unique_new_keys(contract, rows.repeated_keys())
            changed = rows.differ()
            partitions = rows.partitions()
            target = rows.commit() if changed else _set_watermark(plan)
        return refresh_result(
            plan,
            target,
            self.add_previews(target, contract, partitions),
            changed=changed,
            rows_read=inputs.rows_read,
            seconds=time.monotonic() - started,
        )


def _set_watermark(plan: RefreshPlan) -> Table:
    # Set the watermark on the table that was compared. If another writer has committed since, this fails.
    set_table_properties(plan.target, plan.watermark)
    return plan.target


@dataclass(frozen=True)
class _PinnedInputs:
    """The inputs of a transform, at the snapshots of the plan."""

    engine: TransformingEngine
    plan: RefreshPlan
    rows_read: Counter[date] = field(default_factory=Counter)

    def upstream(self, event_dates: Partitions) -> DataFrame:
        """See :meth:`telemetry_assets.transforms.refresh.Inputs.upstream`."""
        scan = self.plan.upstream_rows(event_dates)
        if isinstance(scan.contract, DerivedTable):
            require_unique_upstream_keys(scan.contract, event_dates, self.engine.repeated_keys(scan))
        return self._read_upstream(scan)

    def arrived(self, event_dates: Partitions) -> DataFrame | None:
        """See :meth:`telemetry_assets.transforms.refresh.Inputs.arrived`."""
        scan = self.plan.appended_rows(event_dates)
        return None if scan is None else self._read_upstream(scan)

    def previous(self, partitions: Partitions) -> DataFrame:
        """See :meth:`telemetry_assets.transforms.refresh.Inputs.previous`."""
        return self.engine.read(self.plan.previous_rows(partitions))

    def _read_upstream(self, scan: TableScan) -> DataFrame:
        self.rows_read.update(scan.rows_by_date())
        return self.engine.read(scan)


@dataclass(frozen=True)
class PartitionResult:
    """A partition of a table after a refresh.

    :param rows: the number of its rows.
    :param figures: numbers that the UI plots over partitions, by name.
    :param preview: its first rows.
    """

    rows: int
    figures: dict[str, int | float]
    preview: list[dict[str, Any]]


Partitioned = dict[date | None, PartitionResult]
"""Partitions by their value; a table without partitions has one, under None."""


@dataclass(frozen=True)
class RemoteRun:
    """A job run of a remote service.

    :param service: the service's name, for messages.
    :param link: the job run's page or logs in the AWS console.
    """

    service: str
    run_id: str
    link: str


@dataclass(frozen=True)
class RefreshResult:
    """What a refresh did to a table.

    :param event_dates: the event dates that were refreshed, oldest first.
    :param rows_read: rows in the upstream's data files that were read, by event date.
    :param partitions: the replaced partitions that have rows.
    :param changed: whether any row has changed; if not, no snapshot was committed.
    :param snapshot_id: the table's current snapshot; None if the table never had a row.
    :param seconds: how long the refresh took, including the start of a remote service.
    :param rebuild_reason: why the whole table was rebuilt, as a sentence part; empty if it was not, or is new.
    :param remote: the job run of the refresh, if the engine is remote.
    """

    contract: DerivedTable
    event_dates: tuple[date, ...]
    rows_read: Mapping[date, int]
    partitions: Partitioned
    changed: bool
    snapshot_id: int | None
    seconds: float
    rebuild_reason: str = ""
    remote: RemoteRun | None = None

    @property
    def rows_written(self) -> int:
        """Rows that were written into the replaced partitions; 0 if no row has changed."""
        return sum(one.rows for one in self.partitions.values()) if self.changed else 0

    def dated_partitions(self) -> frozenset[date] | None:
        """The replaced partitions that have rows; None for a table without partitions."""
        if self.contract.partition is None:
            return None
        return frozenset(day for day in self.partitions if day is not None)

    def of_event_date(self, day: date) -> PartitionResult:
        """The partition that has the rows of an event date."""
        return self.partitions.get(self.contract.partition_of(day), PartitionResult(0, {}, []))

    def to_json(self) -> dict[str, Any]:
        """The result as a job run reports it, without the contract. Cells of the previews become texts."""
        partitions = [(day, replace(one, preview=_texts(one.preview))) for day, one in self.partitions.items()]
        return _ResultJson(
            event_dates=self.event_dates,
            rows_read=dict(self.rows_read),
            partitions=partitions,
            changed=self.changed,
            snapshot_id=self.snapshot_id,
            rebuild_reason=self.rebuild_reason,
        ).model_dump(mode="json")

    @staticmethod
    def from_json(contract: DerivedTable, value: dict[str, Any], remote: RemoteRun, seconds: float) -> RefreshResult:
        """The result of which :meth:`to_json` returned ``value``.

        :param seconds: how long the caller waited for it.
        """
        reported = _ResultJson.model_validate(value)
        return RefreshResult(
            contract=contract,
            event_dates=reported.event_dates,
            rows_read=reported.rows_read,
            partitions=dict(reported.partitions),
            changed=reported.changed,
            snapshot_id=reported.snapshot_id,
            seconds=seconds,
            rebuild_reason=reported.rebuild_reason,
            remote=remote,
        )


class _ResultJson(BaseModel):
    """A :class:`RefreshResult` in JSON."""

    event_dates: tuple[date, ...]
    rows_read: dict[date, int]
    partitions: list[tuple[date | None, PartitionResult]]
    changed: bool
    snapshot_id: int | None
    rebuild_reason: str


def _texts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows whose cells JSON can represent."""
    return [{name: _text(cell) for name, cell in row.items()} for row in rows]


def _text(cell: object) -> object:
    return cell if cell is None or isinstance(cell, bool | int | float | str) else str(cell)


def refresh_result(
    plan: RefreshPlan,
    target: Table,
    partitions: Partitioned,
    *,
    changed: bool,
    rows_read: Mapping[date, int],
    seconds: float,
    remote: RemoteRun | None = None,
) -> RefreshResult:
    """The result of a refresh.

    :param target: the refreshed table, after its commit.
    """
    current = target.current_snapshot()
    return RefreshResult(
        contract=plan.contract,
        event_dates=tuple(sorted(plan.changes.dates)),
        rows_read=rows_read,
        partitions=partitions,
        changed=changed,
        snapshot_id=current.snapshot_id if current else None,
        seconds=seconds,
        rebuild_reason="" if plan.changes.rebuild_reason == NEVER_REFRESHED else plan.changes.rebuild_reason,
        remote=remote,
    )


def partition_results(contract: DerivedTable, rows: pa.Table) -> Partitioned:
    """The partitions of these rows, which are sorted by partition."""
    if contract.partition is None:
        return {None: _partition_result(contract, rows)}
    results: Partitioned = {}
    start = 0
    for counted in pc.value_counts(rows[contract.partition]).to_pylist():
        results[counted["values"]] = _partition_result(contract, rows.slice(start, counted["counts"]))
        start += counted["counts"]
    return results


def _partition_result(contract: DerivedTable, rows: pa.Table) -> PartitionResult:
    figures = {figure.name: figure_of_rows(figure, rows) for figure in contract.figures}
    return PartitionResult(rows.num_rows, figures, rows.slice(0, PREVIEW_ROWS).to_pylist())


def figure_of_rows(figure: Figure, rows: pa.Table) -> float:
    """The figure of rows in Arrow."""
    column = rows[figure.column]
    match figure:
        case Total():
            return float(pc.sum(column).as_py() or 0)
        case RowsWhere():
            return int(pc.sum(pc.equal(column, figure.value)).as_py() or 0)
        case DistinctValues():
            return int(pc.count_distinct(column).as_py())


def figure_aggregate(figure: Figure) -> Column:
    """The figure as an aggregate of rows in Spark, named after the figure."""
    from pyspark.sql import functions as f

    match figure:
        case Total():
            aggregate = f.coalesce(f.sum(figure.column), f.lit(0.0))
        case RowsWhere():
            aggregate = f.count(f.when(f.col(figure.column) == figure.value, 1))
        case DistinctValues():
            aggregate = f.countDistinct(figure.column)
    return aggregate.alias(figure.name)
