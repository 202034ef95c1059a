"""The result of a refresh: what each step has read and written, and what the UI shows about the partitions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel
from pyiceberg.table import FileScanTask, Table

from telemetry_assets.engines.plan import RefreshPlan
from telemetry_assets.lakehouse.changes import NEVER_REFRESHED
from telemetry_assets.lakehouse.data_files import files_by_partition, read_rows
from telemetry_assets.lakehouse.previews import SAMPLED_PARTITIONS
from telemetry_assets.tables.contract import DerivedTable, DistinctValues, Figure, RowsWhere, Total

PREVIEW_ROWS = 5


@dataclass(frozen=True)
class Outcome:
    """The rows that a step has computed and committed.

    :param target: the table after the commit.
    :param changed: whether any row has changed.
    :param rows: the number of rows of each partition that the step may have changed, after the step.
    :param written: the number of rows that were inserted or replaced, by partition.
    :param repeated_keys: the number of rows that have the same key as another row, among the keys of the step.
    :param shared_ids: the ids that the contract's ``shared_id_check`` finds among the rows of the step.
    :param bytes_read: see :class:`RefreshResult`.
    :param bytes_written: see :class:`RefreshResult`.
    """

    target: Table
    changed: bool
    rows: Mapping[date | None, int] = field(default_factory=dict)
    written: Mapping[date | None, int] = field(default_factory=dict)
    repeated_keys: int = 0
    shared_ids: Sequence[str] = ()
    bytes_read: int = 0
    bytes_written: int = 0


@dataclass(frozen=True)
class PartitionResult:
    """A partition of a table after a refresh.

    :param rows: the number of its rows.
    :param figures: numbers that the UI plots over partitions, by name.
    :param preview: some of its rows.
    :param written: the number of rows that the refresh inserted or replaced.
    """

    rows: int
    figures: dict[str, int | float]
    preview: list[dict[str, Any]]
    written: int = 0


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
    :param partitions: the partitions that may have changed and have rows.
    :param changed: whether any row has changed; if not, no snapshot was committed.
    :param snapshot_id: the table's current snapshot; None if the table never had a row.
    :param seconds: how long the refresh took, including the start of a remote service.
    :param rebuild_reason: why the whole table was rebuilt, as a sentence part; empty if it was not, or is new.
    :param left: what is still to be rebuilt, as event dates or partitions.
    :param repeated_keys: the number of rows that have the same key as another row, among the keys that were refreshed.
    :param shared_ids: the ids that the contract's ``shared_id_check`` finds among the rows that were refreshed.
    :param bytes_read: the size of the changed and the affected rows in data files that this process has read. What the
        session reads for a rebuild is not counted.
    :param bytes_written: the size of the data files that were written.
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
    left: frozenset[date] = frozenset()
    repeated_keys: int = 0
    shared_ids: tuple[str, ...] = ()
    bytes_read: int = 0
    bytes_written: int = 0
    remote: RemoteRun | None = None

    @property
    def rows_written(self) -> int:
        """Rows that were inserted or replaced."""
        return sum(one.written for one in self.partitions.values())

    @property
    def has_more_steps(self) -> bool:
        """Whether a part of the table is still to be rebuilt."""
        return bool(self.left)

    def followed_by(self, step: RefreshResult) -> RefreshResult:
        """The result of this step and the next one together."""
        both = self.partitions.keys() & step.partitions.keys()
        written = {day: replace(step.partitions[day], written=self._written(day) + step._written(day)) for day in both}
        return replace(
            step,
            event_dates=tuple(sorted({*self.event_dates, *step.event_dates})),
            rows_read=Counter(self.rows_read) + Counter(step.rows_read),
            partitions={**self.partitions, **step.partitions, **written},
            changed=self.changed or step.changed,
            seconds=self.seconds + step.seconds,
            rebuild_reason=self.rebuild_reason or step.rebuild_reason,
            repeated_keys=self.repeated_keys + step.repeated_keys,
            shared_ids=tuple(sorted({*self.shared_ids, *step.shared_ids})),
            bytes_read=self.bytes_read + step.bytes_read,
            bytes_written=self.bytes_written + step.bytes_written,
        )

    def _written(self, partition: date | None) -> int:
        return self.partitions[partition].written

    def of_event_date(self, day: date) -> PartitionResult:
        """The partition that has the rows of an event date."""
        return self.partitions.get(self.contract.partition_of(day), PartitionResult(0, {}, []))

    def to_json(self) -> dict[str, Any]:
        """The result as a job run reports it, without the contract. Cells of the previews become texts."""
        partitions = [(day, replace(one, preview=_texts(one.preview))) for day, one in self.partitions.items()]
        same = {name: getattr(self, name) for name in _ResultJson.model_fields}
        return _ResultJson(**{**same, "partitions": partitions}).model_dump(mode="json")

    @staticmethod
    def from_json(contract: DerivedTable, value: dict[str, Any], remote: RemoteRun, seconds: float) -> RefreshResult:
        """The result of which :meth:`to_json` returned ``value``.

        :param seconds: how long the caller waited for it.
        """
        reported = dict(_ResultJson.model_validate(value))
        partitions = dict(reported.pop("partitions"))
        return RefreshResult(contract=contract, partitions=partitions, seconds=seconds, remote=remote, **reported)


class _ResultJson(BaseModel):
    """A :class:`RefreshResult` in JSON."""

    event_dates: tuple[date, ...]
    rows_read: dict[date, int]
    partitions: list[tuple[date | None, PartitionResult]]
    changed: bool
    snapshot_id: int | None
    rebuild_reason: str
    left: frozenset[date]
    repeated_keys: int
    shared_ids: tuple[str, ...]
    bytes_read: int
    bytes_written: int


def _texts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows whose cells JSON can represent."""
    return [{name: _text(cell) for name, cell in row.items()} for row in rows]


def _text(cell: object) -> object:
    return cell if cell is None or isinstance(cell, bool | int | float | str) else str(cell)


def refresh_result(
    plan: RefreshPlan,
    outcome: Outcome,
    *,
    rows_read: Mapping[date, int],
    seconds: float,
    remote: RemoteRun | None = None,
) -> RefreshResult:
    """The result of a step of a refresh."""
    current = outcome.target.current_snapshot()
    reason = plan.changes.rebuild_reason or plan.pending.reason
    return RefreshResult(
        contract=plan.contract,
        event_dates=tuple(sorted(plan.event_dates)),
        rows_read=rows_read,
        partitions=partition_results(plan.contract, outcome),
        changed=outcome.changed,
        snapshot_id=current.snapshot_id if current else None,
        seconds=seconds,
        rebuild_reason="" if reason == NEVER_REFRESHED else reason,
        left=plan.left.parts,
        repeated_keys=outcome.repeated_keys,
        shared_ids=tuple(outcome.shared_ids),
        bytes_read=outcome.bytes_read,
        bytes_written=outcome.bytes_written,
        remote=remote,
    )


def partition_results(contract: DerivedTable, outcome: Outcome) -> Partitioned:
    """The partitions that a step may have changed and that have rows, with figures and previews from the table."""
    partitions = {day: rows for day, rows in outcome.rows.items() if rows > 0}
    if not partitions:
        return {}
    target, days = outcome.target, frozenset(day for day in partitions if day is not None)
    files = files_by_partition(target, contract, days)
    previewed = PREVIEW_ROWS if len(partitions) <= SAMPLED_PARTITIONS else 0
    return {
        day: PartitionResult(
            rows,
            _figures(target, contract, files[day]),
            read_rows(target, files[day][:1], contract.column_names, previewed).to_pylist() if previewed else [],
            outcome.written.get(day, 0),
        )
        for day, rows in partitions.items()
    }


def _figures(table: Table, contract: DerivedTable, files: Sequence[FileScanTask]) -> dict[str, int | float]:
    if not contract.figures:
        return {}
    rows = read_rows(table, files, list(dict.fromkeys(figure.column for figure in contract.figures)))
    return {figure.name: figure_of_rows(figure, rows) for figure in contract.figures}


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
