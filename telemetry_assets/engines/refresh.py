"""The steps of a refresh that are the same in every engine that runs transforms in its own process."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Protocol

from pyiceberg.table import Table

from telemetry_assets.engines.base import Partitioned, RefreshResult, refresh_result
from telemetry_assets.engines.plan import RefreshPlan, TableScan, plan_refresh
from telemetry_assets.lakehouse.catalog import Lakehouse
from telemetry_assets.lakehouse.commits import set_table_properties, until_committed
from telemetry_assets.lakehouse.quality import require_unique_new_keys, require_unique_upstream_keys
from telemetry_assets.tables.derived import DerivedTable, Partitions
from telemetry_assets.transforms.refresh import RefreshParameters, Replacement, transform_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


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
