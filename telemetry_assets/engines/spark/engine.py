"""The Spark engine: a JVM session reads and writes the tables through Iceberg's Spark catalog.

PyIceberg plans the refresh and sets the watermark, so all engines use the same snapshots and event dates.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from typing import TYPE_CHECKING

from py4j.protocol import Py4JError
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table
from pyspark.errors import PySparkException
from pyspark.sql import functions as f
from pyspark.sql.pandas.types import from_arrow_schema

from telemetry_assets.engines.base import (
    PREVIEW_ROWS,
    Partitioned,
    PartitionResult,
    RefreshResult,
    TransformingEngine,
    figure_aggregate,
)
from telemetry_assets.engines.plan import RefreshPlan, TableScan
from telemetry_assets.engines.spark.configuration import table_name
from telemetry_assets.engines.spark.parser import java_cause, parsed_in_spark
from telemetry_assets.errors import SparkError
from telemetry_assets.ingestion.batch_parser import ParsedBatch
from telemetry_assets.ingestion.journal.base import JournalEntry
from telemetry_assets.lakehouse.catalog import Lakehouse
from telemetry_assets.lakehouse.commits import (
    COMMIT_ID,
    has_commit,
    is_current_commit,
    set_table_properties,
    until_committed,
)
from telemetry_assets.lakehouse.previews import partition_sample
from telemetry_assets.settings import Settings
from telemetry_assets.tables.contract import DerivedTable, Partitions, TableContract
from telemetry_assets.text.plain import plain_logger
from telemetry_assets.transforms.refresh import RefreshParameters, Replacement
from telemetry_assets.transforms.shaping import shaped

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

logger = plain_logger(__name__)

_NOT_VALID = "org.apache.iceberg.exceptions.ValidationException"
_NOT_COMMITTED = "org.apache.iceberg.exceptions.CommitFailedException"
_PREVIEWED_PARTITIONS = 100


class SparkEngine(TransformingEngine):
    """A Spark session with the catalog of a lakehouse: of this process's JVM, or of a remote service.

    :param settings: the settings with which executors parse a batch.
    """

    def __init__(self, lakehouse: Lakehouse, settings: Settings, spark: SparkSession) -> None:
        super().__init__(lakehouse)
        self._settings = settings
        self._spark = spark

    def parse(self, entry: JournalEntry, run_id: str) -> ParsedBatch:
        """See :meth:`telemetry_assets.ingestion.batch_parser.Parser.parse`."""
        return parsed_in_spark(self._spark, self._settings, entry)

    def close(self) -> None:
        """Do nothing. The JVM ends with this process, because a process cannot start a second one."""

    def refresh(
        self, contract: DerivedTable, event_dates: frozenset[date] | None, parameters: RefreshParameters, run_id: str
    ) -> RefreshResult:
        """See :meth:`telemetry_assets.engines.base.Engine.refresh`.

        :raises SparkError: if Spark fails.
        """
        try:
            return super().refresh(contract, event_dates, parameters, run_id)
        except (Py4JError, PySparkException) as error:
            raise SparkError(contract.full_name, java_cause(error)) from error

    def read(self, scan: TableScan) -> DataFrame:
        """See :meth:`telemetry_assets.engines.base.TransformingEngine.read`."""
        contract, snapshot = scan.contract, scan.table.current_snapshot()
        if snapshot is None or scan.after == str(snapshot.snapshot_id):
            return self._spark.createDataFrame([], from_arrow_schema(contract.arrow_schema))
        current = str(snapshot.snapshot_id)
        options = {"snapshot-id": current}
        if scan.after is not None:
            # An incremental scan reads appended rows only. The plan has established that there are no other changes.
            options = {"start-snapshot-id": scan.after, "end-snapshot-id": current}
        rows = self._spark.read.options(**options).table(table_name(contract))
        # A snapshot is read with the schema that it was written with, which may lack columns that were added since.
        added = {name: f.lit(None) for name in contract.column_names if name not in rows.columns}
        return shaped(contract, rows.where(_in_partitions(contract, scan.partitions)), added)

    def repeated_keys(self, scan: TableScan) -> int:
        """See :meth:`telemetry_assets.engines.base.TransformingEngine.repeated_keys`."""
        return _repeated_keys(self.read(scan), scan.contract)

    @contextmanager
    def evaluate(self, plan: RefreshPlan, replacement: Replacement) -> Iterator[_SparkRows]:
        """See :meth:`telemetry_assets.engines.base.TransformingEngine.evaluate`."""
        rows = replacement.rows.select(*plan.contract.column_names).persist()
        try:
            previous = self.read(plan.previous_rows(replacement.partitions))
            yield _SparkRows(self._lakehouse, plan, replacement.partitions, rows, rows.count(), previous)
        finally:
            rows.unpersist()

    def add_previews(self, target: Table, contract: DerivedTable, partitions: Partitioned) -> Partitioned:
        """See :meth:`telemetry_assets.engines.base.TransformingEngine.add_previews`."""
        if contract.partition is None:
            rows = target.scan(limit=PREVIEW_ROWS).to_arrow().to_pylist()
            return {day: replace(one, preview=rows) for day, one in partitions.items()}
        days = frozenset(day for day in partitions if day is not None)
        if len(days) > _PREVIEWED_PARTITIONS:
            return partitions
        sample = partition_sample(target, contract, days, contract.column_names, PREVIEW_ROWS)
        return {day: replace(one, preview=sample[day][1]) if day else one for day, one in partitions.items()}


@dataclass(frozen=True)
class _SparkRows:
    """Evaluated rows that Spark has persisted; see :class:`EvaluatedRows`.

    :param replaced: the partitions whose rows are replaced.
    :param count: the number of the rows.
    :param previous: the rows that are replaced.
    """

    lakehouse: Lakehouse
    plan: RefreshPlan
    replaced: Partitions
    rows: DataFrame
    count: int
    previous: DataFrame

    def repeated_keys(self) -> int:
        """See :meth:`telemetry_assets.engines.base.EvaluatedRows.repeated_keys`."""
        return _repeated_keys(self.rows, self.plan.contract)

    def differ(self) -> bool:
        """See :meth:`telemetry_assets.engines.base.EvaluatedRows.differ`."""
        # Keys are unique, so two sets of the same size are equal if one contains the other.
        return self.previous.count() != self.count or not self.rows.exceptAll(self.previous).isEmpty()

    def partitions(self) -> Partitioned:
        """See :meth:`telemetry_assets.engines.base.EvaluatedRows.partitions`."""
        return _partition_figures(self.rows, self.plan.contract)

    def commit(self) -> Table:
        """See :meth:`telemetry_assets.engines.base.EvaluatedRows.commit`.

        Spark cannot set table properties in the same commit, so a second commit sets the watermark, unless the table
        was rolled back in between.
        """
        commit_id = _replace(self.plan, self.replaced, self.rows)

        def set_watermark() -> Table:
            table = self.lakehouse.table(self.plan.contract)
            if is_current_commit(table, commit_id):
                set_table_properties(table, self.plan.watermark)
            return table

        return until_committed(self.plan.contract, set_watermark)


def _in_partitions(contract: TableContract, partitions: Partitions) -> Column:
    if partitions is None or contract.partition is None:
        return f.lit(True)
    return f.col(contract.partition).isin(*sorted(partitions))


def _repeated_keys(rows: DataFrame, contract: TableContract) -> int:
    counted = rows.groupBy(*contract.key).count().where("count > 1")
    [repeated] = counted.select(f.coalesce(f.sum(f.col("count") - 1), f.lit(0))).collect()
    return int(repeated[0])


def _partition_figures(rows: DataFrame, contract: DerivedTable) -> Partitioned:
    figures = [figure_aggregate(figure) for figure in contract.figures]
    counted = rows.groupBy(*([contract.partition] if contract.partition else []))
    return {
        row[contract.partition] if contract.partition else None: PartitionResult(
            row["_rows"], {figure.name: row[figure.name] for figure in contract.figures}, []
        )
        for row in counted.agg(f.count(f.lit(1)).alias("_rows"), *figures).collect()
    }


def _replace(plan: RefreshPlan, partitions: Partitions, rows: DataFrame) -> str:
    """Replace the rows of the partitions in one commit. Returns the id of the commit.

    :raises CommitFailedException: if another writer has changed the partitions since they were read.
    """
    commit_id = uuid.uuid4().hex
    writer = rows.writeTo(table_name(plan.contract)).option("isolation-level", "serializable")
    snapshot = plan.target.current_snapshot()
    if snapshot is not None:
        writer = writer.option("validate-from-snapshot-id", str(snapshot.snapshot_id))
    for name, value in {**plan.summary, COMMIT_ID: commit_id}.items():
        writer = writer.option(f"snapshot-property.{name}", value)
    try:
        writer.overwrite(_in_partitions(plan.contract, partitions))
    except Exception as error:
        now = plan.target.refresh()
        if has_commit(now, commit_id):
            logger.warning("a commit failed with an error, but the table has it: %s", java_cause(error))
        elif _is_conflict(error, changed=now.current_snapshot() != snapshot):
            raise CommitFailedException(f"it has changed since it was read: {java_cause(error)}") from error
        else:
            raise
    return commit_id


def _is_conflict(error: Exception, *, changed: bool) -> bool:
    # The text of Spark's and of Py4J's exceptions names Iceberg's exception. A validation that fails although the table
    # has not changed would fail again.
    return _NOT_COMMITTED in str(error) or (changed and _NOT_VALID in str(error))
