"""What every engine answers, and what is asked of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from telemetry_assets.engines.figures import figure_of_rows
from telemetry_assets.ingestion.batch_parser import Parser
from telemetry_assets.tables.derived import DerivedTable
from telemetry_assets.transforms.refresh import RefreshParameters

PREVIEW_ROWS = 5
COMMAND_LINE = "cli-"
"""What the ids of the command line's runs begin with. No Dagster has a record of them that says how they ended."""


@dataclass(frozen=True)
class PartitionResult:
    """What a partition of a table holds after a refresh.

    :param figures: numbers worth a plot over partitions, by name.
    """

    rows: int
    figures: dict[str, float]
    preview: list[dict[str, Any]]


@dataclass(frozen=True)
class RemoteRun:
    """Where a step ran that did not run on this machine.

    :param service: the service's name, as people know it.
    :param link: where people see the run.
    """

    service: str
    run_id: str
    link: str


@dataclass(frozen=True)
class RefreshResult:
    """What a refresh did to a table.

    :param event_dates: the event dates that it took, oldest first.
    :param rows_read: rows in the upstream's files that were read, by their event date.
    :param rows_written: rows put into the replaced partitions; 0 where they were as they are.
    :param partitions: the replaced partitions that hold rows; a table without partitions has one, under None.
    :param changed: whether any row differs from before; if not, no snapshot was made.
    :param snapshot_id: the table's current snapshot, None where it never had a row.
    :param remote: the run of a remote service that did it, if any.
    """

    contract: DerivedTable
    event_dates: tuple[date, ...]
    rows_read: Mapping[date, int]
    rows_written: int
    partitions: dict[date | None, PartitionResult]
    changed: bool
    snapshot_id: int | None
    seconds: float
    remote: RemoteRun | None = None

    def dated_partitions(self) -> frozenset[date] | None:
        """The replaced partitions that hold rows, None for a table without partitions."""
        if self.contract.partition is None:
            return None
        return frozenset(day for day in self.partitions if day is not None)

    def of_event_date(self, day: date) -> PartitionResult:
        """The partition that the rows of an event date went to."""
        return self.partitions.get(self.contract.partition_of(day), PartitionResult(0, {}, []))


class Engine(Protocol):
    """Runs steps. One engine per process."""

    def refresh(
        self, contract: DerivedTable, event_dates: frozenset[date] | None, parameters: RefreshParameters, run_id: str
    ) -> RefreshResult:
        """Bring a derived table up to date, in one commit, redone from the read where others commit in between.

        :param event_dates: the dates to take; None for those that the table is behind on.
        """
        ...

    def close(self) -> None:
        """Release what the engine holds."""
        ...


class ParsingEngine(Engine, Parser, Protocol):
    """An engine that also parses backlogs that are too large for this process."""


def partition_results(contract: DerivedTable, rows: pa.Table) -> dict[date | None, PartitionResult]:
    """What each partition holds, of a table's rows in the order of their partitions."""
    if contract.partition is None:
        return {None: _partition_result(contract, rows)}
    results: dict[date | None, PartitionResult] = {}
    start = 0
    for counted in pc.value_counts(rows[contract.partition]).to_pylist():
        results[counted["values"]] = _partition_result(contract, rows.slice(start, counted["counts"]))
        start += counted["counts"]
    return results


def _partition_result(contract: DerivedTable, rows: pa.Table) -> PartitionResult:
    figures = {figure.name: figure_of_rows(figure, rows) for figure in contract.figures}
    return PartitionResult(rows.num_rows, figures, rows.slice(0, PREVIEW_ROWS).to_pylist())
