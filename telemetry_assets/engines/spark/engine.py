"""The Spark engine: a JVM session reads and writes the tables through Iceberg's own Spark catalog.

PyIceberg plans: it says which snapshot is read and which dates have changed, and keeps the marks.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from py4j.protocol import Py4JError
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table
from pyspark.errors import PySparkException
from pyspark.sql import functions as f
from pyspark.sql.pandas.types import from_arrow_schema

from telemetry_assets.engines.base import PREVIEW_ROWS, PartitionResult, RefreshResult
from telemetry_assets.engines.figures import figure_aggregate
from telemetry_assets.engines.plan import Refresh, begin_refresh
from telemetry_assets.engines.spark.configuration import table_name
from telemetry_assets.engines.spark.parser import java_cause, parsed_in_spark
from telemetry_assets.errors import SparkError
from telemetry_assets.ingestion.batch_parser import ParsedBatch
from telemetry_assets.ingestion.journal.base import JournalEntry
from telemetry_assets.lakehouse.catalog import Lakehouse
from telemetry_assets.lakehouse.changes import applied_property, files_appended_since_applied
from telemetry_assets.lakehouse.commits import (
    COMMIT_ID,
    has_commit,
    is_current_commit,
    set_table_properties,
    until_committed,
)
from telemetry_assets.lakehouse.quality import require_unique_new_keys, require_unique_upstream_keys
from telemetry_assets.lakehouse.scans import partition_sample
from telemetry_assets.settings import Settings
from telemetry_assets.tables.contract import TableContract
from telemetry_assets.tables.derived import DerivedTable, Partitions
from telemetry_assets.text.plain import plain_logger
from telemetry_assets.transforms.refresh import RefreshParameters, Replacement, transform_of

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

logger = plain_logger(__name__)

_NOT_VALID = "org.apache.iceberg.exceptions.ValidationException"
_NOT_COMMITTED = "org.apache.iceberg.exceptions.CommitFailedException"
_PREVIEWED_PARTITIONS = 100


class SparkEngine:
    """A session that knows the catalog of a lakehouse: in this process's JVM, or the one that a service has started."""

    def __init__(self, lakehouse: Lakehouse, settings: Settings, spark: SparkSession) -> None:
        self._lakehouse = lakehouse
        self._settings = settings
        self._spark = spark

    def parse(self, entry: JournalEntry, run_id: str) -> ParsedBatch:
        """See :meth:`telemetry_assets.ingestion.batch_parser.Parser.parse`."""
        return parsed_in_spark(self._spark, self._settings, entry)

    def close(self) -> None:
        """Nothing is held that does not end with the process: a JVM cannot be started twice in it."""

    def refresh(
        self, contract: DerivedTable, event_dates: frozenset[date] | None, parameters: RefreshParameters, run_id: str
    ) -> RefreshResult:
        """See :meth:`telemetry_assets.engines.base.Engine.refresh`.

        :raises SparkError: where Spark itself fails.
        """
        try:
            return until_committed(contract, lambda: self._refresh(contract, event_dates, parameters, run_id))
        except (Py4JError, PySparkException) as error:
            raise SparkError(contract.full_name, java_cause(error)) from error

    def _refresh(
        self, contract: DerivedTable, event_dates: frozenset[date] | None, parameters: RefreshParameters, run_id: str
    ) -> RefreshResult:
        started = time.monotonic()
        refresh = begin_refresh(self._lakehouse, contract, event_dates, run_id)
        inputs = _PinnedInputs(self._spark, refresh)
        step = transform_of(contract).refresh(refresh.changes, inputs, parameters)
        rows = step.rows.select(*contract.column_names).persist()
        try:
            count = rows.count()
            require_unique_new_keys(contract, _repeated_keys(rows, contract))
            changed = _differs(rows, count, inputs.previous(step.partitions))
            results = _partition_figures(rows, contract)
            commit_id = _replace(refresh, step, rows) if changed else None
        finally:
            rows.unpersist()
        if commit_id is None:
            # On the table that was compared: what somebody has done to it since is not what was found to be right.
            set_table_properties(refresh.target, refresh.mark)
            target = refresh.target
        else:
            target = self._marked(refresh, commit_id)
        current = target.current_snapshot()
        return RefreshResult(
            contract=contract,
            event_dates=tuple(sorted(refresh.changes.dates)),
            rows_read=refresh.rows_read,
            rows_written=count if changed else 0,
            partitions=_with_previews(target, contract, results),
            changed=changed,
            snapshot_id=current.snapshot_id if current else None,
            seconds=time.monotonic() - started,
        )

    def _marked(self, refresh: Refresh, commit_id: str) -> Table:
        """The table after a commit, marked with what it has taken, unless somebody has taken the commit back."""

        def mark() -> Table:
            table = self._lakehouse.table(refresh.contract)
            if is_current_commit(table, commit_id):
                set_table_properties(table, refresh.mark)
            return table

        return until_committed(refresh.contract, mark)


@dataclass(frozen=True)
class _PinnedInputs:
    """A step's inputs, at the snapshots that the two tables were loaded with."""

    spark: SparkSession
    refresh: Refresh

    def upstream(self, event_dates: Partitions) -> DataFrame:
        """See :meth:`telemetry_assets.transforms.refresh.Inputs.upstream`."""
        contract = self.refresh.upstream_contract
        self.refresh.upstream_files(event_dates)
        rows = self._rows(self.refresh.upstream, contract, event_dates)
        if isinstance(contract, DerivedTable):
            require_unique_upstream_keys(contract, event_dates, _repeated_keys(rows, contract))
        return rows

    def arrived(self, event_dates: Partitions) -> DataFrame | None:
        """See :meth:`telemetry_assets.transforms.refresh.Inputs.arrived`."""
        upstream, contract = self.refresh.upstream, self.refresh.upstream_contract
        paths = files_appended_since_applied(self.refresh.target, contract, upstream)
        if paths is None:
            return None
        self.refresh.upstream_files(event_dates, paths)
        # Batches have only appended since, so what an incremental scan shows is all that came.
        applied = self.refresh.target.properties[applied_property(contract)]
        return self._rows(upstream, contract, event_dates, since=applied)

    def previous(self, partitions: Partitions) -> DataFrame:
        """See :meth:`telemetry_assets.transforms.refresh.Inputs.previous`."""
        return self._rows(self.refresh.target, self.refresh.contract, partitions)

    def _rows(
        self, table: Table, contract: TableContract, partitions: Partitions, since: str | None = None
    ) -> DataFrame:
        snapshot = table.current_snapshot()
        if snapshot is None or since == str(snapshot.snapshot_id):
            return self.spark.createDataFrame([], from_arrow_schema(contract.arrow_schema))
        current = str(snapshot.snapshot_id)
        options = {"start-snapshot-id": since, "end-snapshot-id": current} if since else {"snapshot-id": current}
        rows = self.spark.read.options(**options).table(table_name(contract))
        return rows.select(*contract.column_names).where(_in_partitions(contract, partitions))


def _in_partitions(contract: TableContract, partitions: Partitions) -> Column:
    if partitions is None or contract.partition is None:
        return f.lit(True)
    return f.col(contract.partition).isin(*sorted(partitions))


def _repeated_keys(rows: DataFrame, contract: TableContract) -> int:
    counted = rows.groupBy(*contract.key).count().where("count > 1")
    [repeated] = counted.select(f.coalesce(f.sum(f.col("count") - 1), f.lit(0))).collect()
    return int(repeated[0])


def _differs(rows: DataFrame, count: int, before: DataFrame) -> bool:
    # Of as many rows, none of which is not among those before.
    return before.count() != count or not rows.exceptAll(before).isEmpty()


def _partition_figures(rows: DataFrame, contract: DerivedTable) -> dict[date | None, PartitionResult]:
    figures = [figure_aggregate(figure) for figure in contract.figures]
    counted = rows.groupBy(*([contract.partition] if contract.partition else []))
    return {
        row[contract.partition] if contract.partition else None: PartitionResult(
            row["_rows"], {figure.name: row[figure.name] for figure in contract.figures}, []
        )
        for row in counted.agg(f.count(f.lit(1)).alias("_rows"), *figures).collect()
    }


def _with_previews(
    table: Table, contract: DerivedTable, results: dict[date | None, PartitionResult]
) -> dict[date | None, PartitionResult]:
    if contract.partition is None:
        rows = table.scan(limit=PREVIEW_ROWS).to_arrow().to_pylist()
        return {day: PartitionResult(result.rows, result.figures, rows) for day, result in results.items()}
    days = frozenset(day for day in results if day is not None)
    if len(days) > _PREVIEWED_PARTITIONS:
        return results
    sample = partition_sample(table, contract, days, contract.column_names, PREVIEW_ROWS)
    return {
        day: PartitionResult(result.rows, result.figures, sample[day][1]) if day else result
        for day, result in results.items()
    }


def _replace(refresh: Refresh, step: Replacement, rows: DataFrame) -> str:
    """Put the rows in the place of the step's partitions, in one commit, and answer that commit's id.

    :raises CommitFailedException: where somebody else has written to these partitions since they were read.
    """
    commit_id = uuid.uuid4().hex
    writer = rows.writeTo(table_name(refresh.contract)).option("isolation-level", "serializable")
    snapshot = refresh.target.current_snapshot()
    if snapshot is not None:
        writer = writer.option("validate-from-snapshot-id", str(snapshot.snapshot_id))
    for name, value in {**refresh.summary, COMMIT_ID: commit_id}.items():
        writer = writer.option(f"snapshot-property.{name}", value)
    try:
        writer.overwrite(_in_partitions(refresh.contract, step.partitions))
    except Exception as error:
        now = refresh.target.refresh()
        if has_commit(now, commit_id):
            logger.warning("a commit answered with an error and is in the table all the same: %s", java_cause(error))
        elif _is_lost_race(error, changed=now.current_snapshot() != snapshot):
            raise CommitFailedException(f"it has changed since it was read: {java_cause(error)}") from error
        else:
            raise
    return commit_id


def _is_lost_race(error: Exception, *, changed: bool) -> bool:
    # Spark's own exception or Py4J's: all name Iceberg's in their text. What is not valid on the table that was read
    # will not be on the next attempt either.
    return _NOT_COMMITTED in str(error) or (changed and _NOT_VALID in str(error))
