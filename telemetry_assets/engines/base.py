"""The protocol of an engine, and the result of a refresh. Every engine builds its results here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel
from pyiceberg.table import Table

from telemetry_assets.engines.plan import RefreshPlan
from telemetry_assets.ingestion.batch_parser import Parser
from telemetry_assets.tables.derived import DerivedTable
from telemetry_assets.tables.figures import DistinctValues, Figure, RowsWhere, Total
from telemetry_assets.transforms.refresh import RefreshParameters

if TYPE_CHECKING:
    from pyspark.sql import Column

PREVIEW_ROWS = 5
COMMAND_LINE = "cli-"
"""The prefix of the run ids of the command line. Dagster does not know these runs, so it cannot report their end.
"""


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
    :param remote: the job run of the refresh, if the engine is remote.
    """

    contract: DerivedTable
    event_dates: tuple[date, ...]
    rows_read: Mapping[date, int]
    partitions: Partitioned
    changed: bool
    snapshot_id: int | None
    seconds: float
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
            remote=remote,
        )


class _ResultJson(BaseModel):
    """A :class:`RefreshResult` in JSON."""

    event_dates: tuple[date, ...]
    rows_read: dict[date, int]
    partitions: list[tuple[date | None, PartitionResult]]
    changed: bool
    snapshot_id: int | None


def _texts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows whose cells JSON can represent."""
    return [{name: _text(cell) for name, cell in row.items()} for row in rows]


def _text(cell: object) -> object:
    return cell if cell is None or isinstance(cell, bool | int | float | str) else str(cell)


class Engine(Protocol):
    """Refreshes tables. A process has one engine at most."""

    def refresh(
        self, contract: DerivedTable, event_dates: frozenset[date] | None, parameters: RefreshParameters, run_id: str
    ) -> RefreshResult:
        """Bring a derived table up to date, in one commit. If another writer commits first, the refresh is repeated.

        :param event_dates: the event dates to refresh; None for those on which the table is behind.
        """
        ...

    def close(self) -> None:
        """Release the engine's resources."""
        ...


class ParsingEngine(Engine, Parser, Protocol):
    """An engine that also parses batches that are too large for this process."""


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
