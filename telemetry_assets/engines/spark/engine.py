"""The Spark engine: a JVM session reads and writes the tables through Iceberg's Spark catalog.

PyIceberg plans the refresh and sets the watermark, so all engines use the same snapshots and event dates.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import date
from typing import TYPE_CHECKING

import pyarrow as pa
from py4j.protocol import Py4JError
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table
from pyspark.errors import PySparkException
from pyspark.sql import functions as f
from pyspark.sql.pandas.types import from_arrow_schema

from telemetry_assets.engines.base import TransformingEngine, no_callback
from telemetry_assets.engines.plan import RefreshPlan, RefreshRequest, TableScan, spark_limits
from telemetry_assets.engines.result import Outcome, RefreshResult
from telemetry_assets.engines.spark.arrow_batches import decoded_batches, encoded_batches, from_ipc, to_ipc
from telemetry_assets.engines.spark.configuration import table_name
from telemetry_assets.engines.spark.parser import java_cause, parsed_in_spark
from telemetry_assets.errors import SparkError
from telemetry_assets.ingestion.batch_parser import ParsedBatch
from telemetry_assets.ingestion.journal.base import JournalEntry
from telemetry_assets.lakehouse.catalog import Lakehouse
from telemetry_assets.lakehouse.commits import has_commit, is_current_commit, set_table_properties, until_committed
from telemetry_assets.lakehouse.quality import require_unique_new_keys
from telemetry_assets.lakehouse.rebuilds import Piece
from telemetry_assets.lakehouse.snapshots import COMMIT_ID
from telemetry_assets.settings import Settings
from telemetry_assets.tables.contract import Partitions, TableContract
from telemetry_assets.text.plain import plain_logger
from telemetry_assets.transforms.refresh import RefreshParameters
from telemetry_assets.transforms.shaping import keep_updated_at, shaped

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

logger = plain_logger(__name__)

_NOT_VALID = "org.apache.iceberg.exceptions.ValidationException"
_NOT_COMMITTED = "org.apache.iceberg.exceptions.CommitFailedException"
_ROWS_IN_BATCH = 10_000


class SparkEngine(TransformingEngine):
    """A Spark session with the catalog of a lakehouse: of this process's JVM, or of a remote service.

    :param settings: the settings with which executors parse a batch.
    """

    def __init__(self, lakehouse: Lakehouse, settings: Settings, spark: SparkSession) -> None:
        super().__init__(lakehouse, spark_limits(settings))
        self._settings = settings
        self._spark = spark

    def parse(self, entry: JournalEntry, run_id: str) -> ParsedBatch:
        """See :meth:`telemetry_assets.ingestion.batch_parser.Parser.parse`."""
        return parsed_in_spark(self._spark, self._settings, entry)

    def end_step(self) -> None:
        """Do nothing. Spark removes checkpoints itself."""

    def close(self) -> None:
        """Do nothing. The JVM ends with this process, because a process cannot start a second one."""

    def refresh(
        self, request: RefreshRequest, between_steps: Callable[[RefreshResult], None] = no_callback
    ) -> RefreshResult:
        """See :meth:`telemetry_assets.engines.base.Engine.refresh`.

        :raises SparkError: if Spark fails.
        """
        try:
            return super().refresh(request, between_steps)
        except (Py4JError, PySparkException) as error:
            raise SparkError(request.contract.full_name, java_cause(error)) from error

    def read(self, scan: TableScan) -> DataFrame:
        """See :meth:`telemetry_assets.engines.base.TransformingEngine.read`."""
        contract, snapshot = scan.contract, scan.table.current_snapshot()
        if snapshot is None:
            return self._spark.createDataFrame([], from_arrow_schema(contract.arrow_schema))
        rows = self._spark.read.option("snapshot-id", str(snapshot.snapshot_id)).table(table_name(contract))
        # A snapshot is read with the schema that it was written with, which may lack columns that were added since.
        added = {name: f.lit(None) for name in contract.column_names if name not in rows.columns}
        return shaped(contract, rows.where(_in_partitions(contract, scan.partitions)), added)

    def to_frame(self, rows: pa.Table) -> DataFrame:
        """See :meth:`telemetry_assets.engines.base.TransformingEngine.to_frame`."""
        schema = from_arrow_schema(rows.schema)
        if not rows.num_rows:
            return self._spark.createDataFrame([], schema)
        batches = [(to_ipc(batch),) for batch in rows.to_batches(max_chunksize=_ROWS_IN_BATCH)]
        return self._spark.createDataFrame(batches, "batch binary").mapInArrow(decoded_batches, schema)

    def evaluated(self, rows: DataFrame) -> DataFrame:
        """See :meth:`telemetry_assets.engines.base.TransformingEngine.evaluated`."""
        return rows.localCheckpoint()

    def to_arrow(self, rows: DataFrame, contract: TableContract) -> pa.Table:
        """See :meth:`telemetry_assets.engines.base.TransformingEngine.to_arrow`."""
        encoded = rows.select(*contract.column_names).mapInArrow(encoded_batches, "batch binary").collect()
        batches = [batch for row in encoded for batch in from_ipc(row[0])]
        return contract.conform(pa.Table.from_batches(batches)) if batches else contract.arrow_schema.empty_table()

    def rebuild(self, plan: RefreshPlan, piece: Piece, parameters: RefreshParameters) -> Outcome:
        """See :meth:`telemetry_assets.engines.base.TransformingEngine.rebuild`. It replaces whole partitions.

        Spark cannot set table properties in the same commit, so a second commit sets them, unless the table was rolled
        back in between.
        """
        contract, partitions = plan.contract, piece.partitions(plan.contract)
        rows, previous = self.new_rows(plan, piece, parameters, self), self.read(plan.previous_rows(partitions))
        if "updated_at" in contract.column_names:
            rows = keep_updated_at(contract, rows, previous)
        rows = rows.select(*contract.column_names).persist()
        try:
            count = rows.count()
            require_unique_new_keys(contract, _repeated_keys(rows, contract))
            counts = _rows_by_partition(rows, contract)
            # Keys are unique, so two sets of the same size are equal if one contains the other.
            if previous.count() == count and rows.exceptAll(previous).isEmpty():
                set_table_properties(plan.target, plan.properties)
                return Outcome(plan.target, False, counts)
            commit_id = _replace(plan, partitions, rows)
        finally:
            rows.unpersist()

        def set_properties() -> Table:
            table = self._lakehouse.table(contract)
            if is_current_commit(table, commit_id):
                set_table_properties(table, plan.properties_on(table))
            return table

        return Outcome(until_committed(contract, set_properties), True, counts, counts)


def _in_partitions(contract: TableContract, partitions: Partitions) -> Column:
    if partitions is None or contract.partition is None:
        return f.lit(True)
    return f.col(contract.partition).isin(*sorted(partitions))


def _repeated_keys(rows: DataFrame, contract: TableContract) -> int:
    counted = rows.groupBy(*contract.key).count().where("count > 1")
    [repeated] = counted.select(f.coalesce(f.sum(f.col("count") - 1), f.lit(0))).collect()
    return int(repeated[0])


def _rows_by_partition(rows: DataFrame, contract: TableContract) -> dict[date | None, int]:
    counted = rows.groupBy(*([contract.partition] if contract.partition else []))
    return {
        row[contract.partition] if contract.partition else None: row["_rows"]
        for row in counted.agg(f.count(f.lit(1)).alias("_rows")).collect()
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
