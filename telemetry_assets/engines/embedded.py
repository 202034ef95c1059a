"""The embedded engine: Sail, a Spark Connect server in this process; PyIceberg reads and commits.

Files are planned with PyIceberg and handed to Sail as Parquet paths, which pins the snapshot.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io import FileIO
from pyiceberg.table import FileScanTask, Table
from pyspark.sql.pandas.types import from_arrow_schema

from telemetry_assets.aws.limits import MOST_THREADS
from telemetry_assets.aws.locations import is_s3
from telemetry_assets.engines.base import RefreshResult, partition_results
from telemetry_assets.engines.plan import Refresh, begin_refresh
from telemetry_assets.engines.spark.configuration import SESSION
from telemetry_assets.lakehouse.catalog import Lakehouse
from telemetry_assets.lakehouse.changes import files_appended_since_applied
from telemetry_assets.lakehouse.commits import replace_rows, set_table_properties, until_committed
from telemetry_assets.lakehouse.quality import (
    repeated_among,
    repeated_keys,
    require_unique_new_keys,
    require_unique_upstream_keys,
)
from telemetry_assets.lakehouse.scans import partition_filter
from telemetry_assets.tables.contract import TableContract
from telemetry_assets.tables.derived import DerivedTable, Partitions
from telemetry_assets.transforms.refresh import RefreshParameters, transform_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


class EmbeddedEngine:
    """A Sail server and one session on it, from construction to :meth:`close`."""

    def __init__(self, lakehouse: Lakehouse) -> None:
        from pysail.spark import SparkConnectServer
        from pyspark.sql.connect.session import SparkSession as ConnectSession

        # Without it `pyspark.sql` hands out classic functions, which need a JVM.
        os.environ.setdefault("SPARK_CONNECT_MODE_ENABLED", "1")
        # Sail logs each session's start and end at INFO; a user's own level stands.
        os.environ.setdefault("RUST_LOG", "error")
        self._lakehouse = lakehouse
        self._scratch = tempfile.TemporaryDirectory(prefix="telemetry-assets-")
        self._server = SparkConnectServer("127.0.0.1", 0)
        self._server.start(background=True)
        _, port = self._server.listening_address
        self._spark: SparkSession = ConnectSession.builder.remote(f"sc://127.0.0.1:{port}").create()
        for name, value in SESSION.items():
            self._spark.conf.set(name, value)

    def close(self) -> None:
        """End the session and the server."""
        self._spark.stop()
        self._server.stop()
        self._scratch.cleanup()

    def refresh(
        self, contract: DerivedTable, event_dates: frozenset[date] | None, parameters: RefreshParameters, run_id: str
    ) -> RefreshResult:
        """See :meth:`telemetry_assets.engines.base.Engine.refresh`."""
        return until_committed(contract, lambda: self._refresh(contract, event_dates, parameters, run_id))

    def _refresh(
        self, contract: DerivedTable, event_dates: frozenset[date] | None, parameters: RefreshParameters, run_id: str
    ) -> RefreshResult:
        started = time.monotonic()
        refresh = begin_refresh(self._lakehouse, contract, event_dates, run_id)
        inputs = _PinnedInputs(self._spark, Path(self._scratch.name), refresh)
        step = transform_of(contract).refresh(refresh.changes, inputs, parameters)
        rows = _collected(step.rows, contract, Path(self._scratch.name))
        require_unique_new_keys(contract, repeated_among(rows, contract))
        target, where = refresh.target, partition_filter(contract, step.partitions)
        changed = not _same_rows(rows, target.scan(where).to_arrow(), contract)
        if changed:
            replace_rows(target, where, rows, refresh.summary, refresh.mark)
        else:
            set_table_properties(target, refresh.mark)
        current = target.current_snapshot()
        return RefreshResult(
            contract=contract,
            event_dates=tuple(sorted(refresh.changes.dates)),
            rows_read=refresh.rows_read,
            rows_written=rows.num_rows if changed else 0,
            partitions=partition_results(contract, rows),
            changed=changed,
            snapshot_id=current.snapshot_id if current else None,
            seconds=time.monotonic() - started,
        )


@dataclass(frozen=True)
class _PinnedInputs:
    """A step's inputs, at the snapshots that the two tables were loaded with."""

    spark: SparkSession
    scratch: Path
    refresh: Refresh

    def upstream(self, event_dates: Partitions) -> DataFrame:
        """See :meth:`telemetry_assets.transforms.refresh.Inputs.upstream`."""
        table, contract = self.refresh.upstream, self.refresh.upstream_contract
        if isinstance(contract, DerivedTable):
            require_unique_upstream_keys(contract, event_dates, repeated_keys(table, contract, event_dates))
        return self._frame(table, contract, self.refresh.upstream_files(event_dates))

    def arrived(self, event_dates: Partitions) -> DataFrame | None:
        """See :meth:`telemetry_assets.transforms.refresh.Inputs.arrived`."""
        table, contract = self.refresh.upstream, self.refresh.upstream_contract
        paths = files_appended_since_applied(self.refresh.target, contract, table)
        if paths is None:
            return None
        return self._frame(table, contract, self.refresh.upstream_files(event_dates, paths))

    def previous(self, partitions: Partitions) -> DataFrame:
        """See :meth:`telemetry_assets.transforms.refresh.Inputs.previous`."""
        return self._frame(self.refresh.target, self.refresh.contract, self.refresh.target_files(partitions))

    def _frame(self, table: Table, contract: TableContract, tasks: Iterable[FileScanTask]) -> DataFrame:
        tasks = list(tasks)
        schema = from_arrow_schema(contract.arrow_schema)
        if any(task.delete_files for task in tasks):
            # Sail reads the files as they are; only PyIceberg applies another writer's deletes.
            from pyiceberg.io.pyarrow import ArrowScan

            scan = ArrowScan(table.metadata, table.io, table.schema(), partition_filter(contract, None))
            rows = scan.to_table(tasks).cast(contract.arrow_schema)
            path = self.scratch / f"{uuid.uuid4().hex}.parquet"
            pq.write_table(rows, path)
            return self.spark.read.schema(schema).parquet(f"file://{path}")
        if not tasks:
            return self.spark.createDataFrame([], schema)
        return self.spark.read.schema(schema).parquet(*self._local(table.io, tasks))

    def _local(self, io: FileIO, tasks: Iterable[FileScanTask]) -> list[str]:
        """The files' paths where Sail can read them: those in S3 are copied here.

        Sail could read S3 by itself, but neither with every kind of credentials that AWS's own tools know, nor with
        their retries.
        """
        paths = [task.file.file_path for task in tasks]
        if not any(is_s3(path) for path in paths):
            return [_existing(path) for path in paths]
        with ThreadPoolExecutor(MOST_THREADS) as threads:
            return list(threads.map(lambda path: self._copied(io, path), paths))

    def _copied(self, io: FileIO, path: str) -> str:
        # A data file never changes, and another frame of this step may have copied it already.
        copy = self.scratch / f"{hashlib.sha256(path.encode()).hexdigest()}.parquet"
        if not copy.exists():
            draft = copy.with_name(f"{uuid.uuid4().hex}.draft")
            with io.new_input(path).open(seekable=False) as source, draft.open("wb") as target:
                shutil.copyfileobj(source, target)
            draft.rename(copy)
        return f"file://{copy}"


def _existing(path: str) -> str:
    """The address of a local file as Sail reads it; another writer may have written it as ``file:/folder/name``.

    :raises FileNotFoundError: where there is no such file, which Sail would take for one without rows.
    """
    local = Path(path.removeprefix("file:"))
    if not local.exists():
        raise FileNotFoundError(errno.ENOENT, "a data file of the table is missing", str(local))
    return f"file://{local.resolve()}"


def _collected(frame: DataFrame, contract: TableContract, scratch: Path) -> pa.Table:
    """A step's rows, by way of files: as a message of gRPC, a few rows with long texts are longer than one may be."""
    folder = scratch / uuid.uuid4().hex
    try:
        # For a moment and on a local disk, where compressing would take longer than writing.
        frame.write.parquet(f"file://{folder}", compression="uncompressed")
        # Where there are no rows, Sail makes no file, and no folder either.
        rows = pq.read_table(folder) if folder.exists() else contract.arrow_schema.empty_table()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    rows = rows.select(list(contract.column_names)).cast(contract.arrow_schema)
    order = [contract.partition] if contract.partition else []
    return rows.sort_by([(name, "ascending") for name in dict.fromkeys([*order, *contract.key])])


def _same_rows(rows: pa.Table, before: pa.Table, contract: TableContract) -> bool:
    if rows.num_rows != before.num_rows:
        return False
    names = list(contract.column_names)
    keys = [(name, "ascending") for name in contract.key]
    before = before.select(names).cast(contract.arrow_schema).sort_by(keys)
    return bool(rows.sort_by(keys).equals(before))
