"""The protocol of an engine, and the steps of a refresh that engines with a Spark session share."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa

from telemetry_assets.engines.inputs import ChangeInputs, PieceInputs, Reader
from telemetry_assets.engines.plan import Limits, RefreshPlan, RefreshRequest, TableScan, plan_refresh
from telemetry_assets.engines.result import Outcome, RefreshResult, refresh_result
from telemetry_assets.ingestion.batch_parser import Parser
from telemetry_assets.lakehouse.catalog import Lakehouse
from telemetry_assets.lakehouse.changes import changed_rows, was_changed_by_others
from telemetry_assets.lakehouse.commits import set_table_properties, until_committed
from telemetry_assets.lakehouse.data_files import FoundRows
from telemetry_assets.lakehouse.merging import commit_merge, plan_merge, rows_by_partition
from telemetry_assets.lakehouse.quality import (
    repeated_among,
    repeated_keys,
    require_unique_new_keys,
    require_unique_upstream_keys,
    shared_ids,
)
from telemetry_assets.lakehouse.rebuilds import Piece
from telemetry_assets.tables.contract import DerivedTable, TableContract
from telemetry_assets.text.plain import plain_logger
from telemetry_assets.transforms.refresh import RebuildNeededError, RefreshParameters, transform_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

logger = plain_logger(__name__)

COMMAND_LINE = "cli-"
"""The prefix of the run ids of the command line, whose runs Dagster does not know."""


def no_callback(_: RefreshResult) -> None:
    """Do nothing."""


class Engine(Protocol):
    """Refreshes tables. A process has one engine at most."""

    def refresh(
        self, request: RefreshRequest, between_steps: Callable[[RefreshResult], None] = no_callback
    ) -> RefreshResult:
        """Bring a derived table up to date, in one or more steps. Each step is one commit of rows.

        The first step updates the rows that changed upstream rows affect. The others rebuild the table, or a part of
        it, in pieces. A step is repeated if another writer commits first.

        :param between_steps: called with the result of each step but the last. It may refresh tables, also this one.
        """
        ...

    def close(self) -> None:
        """Release the engine's resources."""
        ...


class ParsingEngine(Engine, Parser, Protocol):
    """An engine that also parses batches that are too large for this process."""


class TransformingEngine(ABC):
    """An engine with a Spark session. Subclasses define how tables are read, and how pieces of a rebuild are committed.

    Updates are small, so this process reads the rows that they replace, and commits the new ones. Only the transform
    runs in the session.

    :param lakehouse: where the tables are.
    :param limits: how many rows a step reads at most.
    """

    def __init__(self, lakehouse: Lakehouse, limits: Limits) -> None:
        self._lakehouse = lakehouse
        self._limits = limits

    @abstractmethod
    def read(self, scan: TableScan) -> DataFrame:
        """The rows of a scan."""

    @abstractmethod
    def to_frame(self, rows: pa.Table) -> DataFrame:
        """A data frame of some rows."""

    @abstractmethod
    def evaluated(self, rows: DataFrame) -> DataFrame:
        """The rows of a data frame, computed once, so that the plans that use them remain small."""

    @abstractmethod
    def to_arrow(self, rows: DataFrame, contract: TableContract) -> pa.Table:
        """The rows of a data frame with the columns of a contract."""

    @abstractmethod
    def rebuild(self, plan: RefreshPlan, piece: Piece, parameters: RefreshParameters) -> Outcome:
        """Compute the rows of a piece, replace the stored ones in one commit, and set the plan's properties.

        :raises CommitFailedException: if another writer has committed to the table since it was read.
        """

    @abstractmethod
    def end_step(self) -> None:
        """Release what the data frames of a step have used. Called after each step."""

    def refresh(
        self, request: RefreshRequest, between_steps: Callable[[RefreshResult], None] = no_callback
    ) -> RefreshResult:
        """See :meth:`telemetry_assets.engines.base.Engine.refresh`."""
        result = until_committed(request.contract, lambda: self.step(request))
        # The first step has registered the chosen dates in the table.
        following = replace(request, event_dates=None)
        while result.has_more_steps and request.rebuilds:
            between_steps(result)
            result = result.followed_by(until_committed(request.contract, lambda: self.step(following)))
        return result

    def step(self, request: RefreshRequest) -> RefreshResult:
        """Perform the next step of a refresh.

        :raises CommitFailedException: if another writer has committed to the table since it was read.
        """
        started = time.monotonic()
        try:
            plan, outcome, rows_read = self._attempt(request)
        finally:
            self.end_step()
        return refresh_result(plan, outcome, rows_read=rows_read, seconds=time.monotonic() - started)

    def _attempt(self, request: RefreshRequest) -> tuple[RefreshPlan, Outcome, Mapping[date, int]]:
        contract = request.contract
        plan = plan_refresh(self._lakehouse, request, self._limits)
        if plan.changes.is_foreign and isinstance(contract.upstream, DerivedTable):
            require_unique_upstream_keys(plan.upstream, contract.upstream)
        checks_all_keys = was_changed_by_others(plan.target)
        try:
            outcome, rows_read = self._perform(plan, request.parameters)
        except RebuildNeededError as error:
            if plan.piece is not None and plan.pending.reason == str(error):
                # The whole table is being rebuilt for this reason already.
                raise
            plan = plan.with_pending(error.partitions, str(error))
            outcome, rows_read = _set_properties(plan), {}
        if checks_all_keys:
            outcome = replace(outcome, repeated_keys=repeated_keys(outcome.target, contract))
        return plan, outcome, rows_read

    def _perform(self, plan: RefreshPlan, parameters: RefreshParameters) -> tuple[Outcome, Mapping[date, int]]:
        if plan.action == "register":
            return _set_properties(plan), {}
        if plan.piece is not None:
            logger.info("%s: rebuilding %s", plan.contract.full_name, plan.piece)
            return self.rebuild(plan, plan.piece, parameters), plan.rows_of_piece.rows_by_date()
        changed = changed_rows(plan.upstream, plan.contract.upstream, plan.changes)
        if not changed and not plan.affects_all_rows:
            return _set_properties(plan), {}
        reads = ChangeInputs(self, plan, changed)
        new = self.to_arrow(transform_of(plan.contract).update(reads, parameters), plan.contract)
        return merge_rows(plan, new, reads.replaced_by(new)), plan.changes.rows_added()

    def new_rows(self, plan: RefreshPlan, piece: Piece, parameters: RefreshParameters, reader: Reader) -> DataFrame:
        """The rows of a piece, computed from the tables of the plan."""
        return transform_of(plan.contract).rebuild(PieceInputs(reader, plan, piece), parameters)


def _set_properties(plan: RefreshPlan) -> Outcome:
    # Set the watermark on the table that was compared. If another writer has committed since, this fails.
    set_table_properties(plan.target, plan.properties)
    return Outcome(plan.target, changed=False)


def merge_rows(plan: RefreshPlan, new: pa.Table, found: FoundRows) -> Outcome:
    """Merge computed rows into the table, and commit them with the plan's properties.

    :param found: the rows of the table that the computed ones replace.
    """
    contract = plan.contract
    require_unique_new_keys(contract, repeated_among(new, contract))
    merge = plan_merge(found, new, contract.newest_by).changed_now()
    written = commit_merge(plan.target, merge, plan.summary, plan.properties)
    remaining = merge.remaining()
    check = contract.shared_id_check
    return Outcome(
        plan.target,
        merge.changes_rows,
        merge.partition_rows(),
        rows_by_partition(merge.written, contract),
        # The new keys are unique. So are all, if no found row remains.
        repeated_among(remaining, contract) if merge.keeps_rows else 0,
        shared_ids(remaining, contract, check) if check is not None else (),
        found.bytes_read + written.bytes_read + plan.changes.bytes,
        written.bytes_written,
    )
