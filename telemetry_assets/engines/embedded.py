"""The embedded engine: transforms run on Sail, a Spark Connect server in this process.

PyIceberg plans the data files of a pinned snapshot, Sail reads them as Parquet, and PyIceberg commits the rows.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io import FileIO
from pyiceberg.table import FileScanTask
from pyspark.sql.pandas.types import from_arrow_schema

from telemetry_assets.aws.limits import MOST_THREADS
from telemetry_assets.aws.locations import is_s3
from telemetry_assets.engines.base import TransformingEngine, merge_rows
from telemetry_assets.engines.plan import Limits, RefreshPlan, RefreshRequest, TableScan, plan_piece_after
from telemetry_assets.engines.result import Outcome, RefreshResult
from telemetry_assets.engines.spark.configuration import SESSION
from telemetry_assets.lakehouse.cars import ALL_CARS
from telemetry_assets.lakehouse.catalog import Lakehouse
from telemetry_assets.lakehouse.data_files import find_rows, read_rows
from telemetry_assets.lakehouse.rebuilds import Piece
from telemetry_assets.tables.contract import TableContract
from telemetry_assets.text.plain import plain_logger
from telemetry_assets.transforms.refresh import RefreshParameters

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

logger = plain_logger(__name__)

_LOST_RESPONSE = ("Exception deserializing response", "task context not found for operation")
"""Messages of gRPC, and of Sail if PySpark asks for the rest of a response that Sail has already sent."""


class SailSession:
    """A session on a Sail server in this process, from construction to :meth:`close`."""

    def __init__(self) -> None:
        from pysail.spark import SparkConnectServer
        from pyspark.sql.connect.session import SparkSession as ConnectSession

        # Without it, functions of `pyspark.sql` need a JVM.
        os.environ.setdefault("SPARK_CONNECT_MODE_ENABLED", "1")
        # Sail logs the start and end of each session at INFO. A level that the user has set is kept.
        os.environ.setdefault("RUST_LOG", "error")
        with ExitStack() as opened:
            server = SparkConnectServer("127.0.0.1", 0)
            server.start(background=True)
            opened.callback(server.stop)
            _, port = server.listening_address
            session = ConnectSession.builder.remote(f"sc://127.0.0.1:{port}").create()
            opened.callback(session.stop)
            opened.callback(session.client.close)
            # The finalizer of a PySpark session closes its client, which waits for threads under a lock. A garbage
            # collection in one of these threads would run the finalizer, and block the process for ever.
            session.client.close = lambda: None  # type: ignore[method-assign]
            # PySpark makes a text of each plan for its log, even if it logs nothing. This is slow. If another version
            # does not call this method, nothing is lost.
            session.client._proto_to_string = lambda p: "(a plan)"  # type: ignore[method-assign]
            for name, value in SESSION.items():
                session.conf.set(name, value)
            self.spark: SparkSession = session
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Stop the session and the server."""
        self._opened.close()


class _Frames:
    """Data frames of a Sail session, and the temporary files that they are read from.

    :param copies: a folder for copies of data files in S3, which other objects of this class may use too.
    :param folder: an empty folder for all other temporary files.
    """

    def __init__(self, spark: SparkSession, copies: Path, folder: Path) -> None:
        self._spark = spark
        self._copies = copies
        self._folder = folder

    def clear(self) -> None:
        """Remove the temporary files. Copies of data files are kept."""
        shutil.rmtree(self._folder)
        self._folder.mkdir()

    def read(self, scan: TableScan) -> DataFrame:
        """See :meth:`telemetry_assets.engines.base.TransformingEngine.read`."""
        schema = from_arrow_schema(scan.contract.arrow_schema)
        if any(task.delete_files for task in scan.files):
            # Sail does not apply delete files, which other writers may have written. So PyIceberg reads these data
            # files.
            return self._spark.read.schema(schema).parquet(f"file://{self._copy_without_deleted_rows(scan)}")
        if not scan.files:
            return self._spark.createDataFrame([], schema)
        return self._spark.read.schema(schema).parquet(*self._local_paths(scan.table.io, scan.files))

    def to_frame(self, rows: pa.Table) -> DataFrame:
        """See :meth:`telemetry_assets.engines.base.TransformingEngine.to_frame`."""
        schema = from_arrow_schema(rows.schema)
        if not rows.num_rows:
            return self._spark.createDataFrame([], schema)
        path = self._folder / f"{uuid.uuid4().hex}.parquet"
        # The files are short-lived and local, so compression would take longer than it saves.
        pq.write_table(rows, path, compression="none")
        return self._spark.read.schema(schema).parquet(f"file://{path}")

    def evaluated(self, rows: DataFrame) -> DataFrame:
        """See :meth:`telemetry_assets.engines.base.TransformingEngine.evaluated`."""
        folder = self._folder / uuid.uuid4().hex
        rows.write.parquet(f"file://{folder}", compression="uncompressed")
        # Sail creates no folder for a data frame without rows.
        if not folder.exists():
            return self._spark.createDataFrame([], rows.schema)
        # The schema is that of any file. To ask Sail for it would take another analysis of the plan.
        schema = from_arrow_schema(pq.read_schema(next(folder.iterdir())))
        return self._spark.read.schema(schema).parquet(f"file://{folder}")

    def to_arrow(self, rows: DataFrame, contract: TableContract) -> pa.Table:
        """See :meth:`telemetry_assets.engines.base.TransformingEngine.to_arrow`.

        The rows are written to files and read from there, because a row with long texts can exceed the size limit of a
        gRPC message.
        """
        folder = self._folder / uuid.uuid4().hex
        try:
            rows.write.parquet(f"file://{folder}", compression="uncompressed")
            # Sail creates neither files nor a folder for a data frame without rows.
            computed = pq.read_table(folder) if folder.exists() else contract.arrow_schema.empty_table()
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return contract.conform(computed)

    def _copy_without_deleted_rows(self, scan: TableScan) -> Path:
        path = self._folder / f"{uuid.uuid4().hex}.parquet"
        rows = read_rows(scan.table, scan.files, scan.contract.column_names)
        pq.write_table(scan.contract.conform(rows), path)
        return path

    def _local_paths(self, io: FileIO, tasks: Iterable[FileScanTask]) -> list[str]:
        """Paths from which Sail can read the data files. Files in S3 are copied to this machine.

        Sail can read S3 too, but it does not support all credential providers and retries of the AWS SDK.
        """
        paths = [task.file.file_path for task in tasks]
        if not any(is_s3(path) for path in paths):
            return [_existing(path) for path in paths]
        with ThreadPoolExecutor(MOST_THREADS) as threads:
            return list(threads.map(lambda path: self._copy_of(io, path), paths))

    def _copy_of(self, io: FileIO, path: str) -> str:
        # Data files are immutable, so a copy from another scan can be used again.
        copy = self._copies / f"{hashlib.sha256(path.encode()).hexdigest()}.parquet"
        if not copy.exists():
            draft = copy.with_name(f"{uuid.uuid4().hex}.draft")
            with io.new_input(path).open(seekable=False) as source, draft.open("wb") as target:
                shutil.copyfileobj(source, target)
            draft.rename(copy)
        return f"file://{copy}"


@dataclass(frozen=True)
class _Computation:
    """What the rows of a piece are computed from.

    :param files: the paths of the upstream's data files, and of their delete files. They are immutable.
    """

    table: str
    edition: str
    piece: Piece
    parameters: RefreshParameters
    files: frozenset[str]

    @classmethod
    def of(cls, plan: RefreshPlan, piece: Piece, parameters: RefreshParameters) -> _Computation:
        """The computation of a piece of a table whose rebuild reads only the upstream."""
        files = [file.file_path for task in plan.rows_of_piece.files for file in (task.file, *task.delete_files)]
        return cls(plan.contract.full_name, plan.edition, piece, parameters, frozenset(files))


_Computed = tuple[_Computation, pa.Table]


class EmbeddedEngine(TransformingEngine):
    """Runs transforms on a :class:`SailSession`, from construction to :meth:`close`.

    While a piece of a rebuild is committed, Sail computes the next one, if it does not depend on the rows of the first.
    """

    def __init__(self, lakehouse: Lakehouse, limits: Limits) -> None:
        super().__init__(lakehouse, limits)
        self._computed: _Computed | None = None
        self._ahead: Future[_Computed | None] | None = None
        with ExitStack() as opened:
            self._folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="telemetry-assets-")))
            # The session is closed first, so that a computation in the thread ends.
            self._executor = opened.enter_context(ThreadPoolExecutor(1))
            self._spark = opened.enter_context(closing(SailSession())).spark
            of_steps = self._folder / "step"
            of_steps.mkdir()
            self._frames = _Frames(self._spark, self._folder, of_steps)
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Stop the session and the server, and remove temporary files."""
        self._opened.close()

    def step(self, request: RefreshRequest) -> RefreshResult:
        """See :meth:`telemetry_assets.engines.base.TransformingEngine.step`.

        A step is repeated once if a response of Sail is lost. Rarely, gRPC cannot decode a response, for an unknown
        reason. If it is the last response to a query, Sail does not send it again, and PySpark fails.
        """
        from pyspark.errors.exceptions.connect import SparkConnectGrpcException

        try:
            return super().step(request)
        except SparkConnectGrpcException as error:
            if not any(message in str(error) for message in _LOST_RESPONSE):
                raise
            logger.warning("%s: a response of the engine was lost, so the step is repeated", request.contract.full_name)
            return super().step(request)

    def end_step(self) -> None:
        """See :meth:`telemetry_assets.engines.base.TransformingEngine.end_step`."""
        self._frames.clear()

    def read(self, scan: TableScan) -> DataFrame:
        """See :meth:`telemetry_assets.engines.base.TransformingEngine.read`."""
        return self._frames.read(scan)

    def to_frame(self, rows: pa.Table) -> DataFrame:
        """See :meth:`telemetry_assets.engines.base.TransformingEngine.to_frame`."""
        return self._frames.to_frame(rows)

    def evaluated(self, rows: DataFrame) -> DataFrame:
        """See :meth:`telemetry_assets.engines.base.TransformingEngine.evaluated`."""
        return self._frames.evaluated(rows)

    def to_arrow(self, rows: DataFrame, contract: TableContract) -> pa.Table:
        """See :meth:`telemetry_assets.engines.base.TransformingEngine.to_arrow`."""
        return self._frames.to_arrow(rows, contract)

    def rebuild(self, plan: RefreshPlan, piece: Piece, parameters: RefreshParameters) -> Outcome:
        """See :meth:`telemetry_assets.engines.base.TransformingEngine.rebuild`. Only changed files are written."""
        contract = plan.contract
        if contract.rebuild_reads_itself:
            new = self.to_arrow(self.new_rows(plan, piece, parameters, self), contract)
        else:
            new = self._rows_of(plan, piece, parameters)
            if self._ahead is None:
                self._ahead = self._executor.submit(self._compute_next, plan, parameters)
        cars = None if piece.cars == ALL_CARS else piece.cars
        outcome = merge_rows(plan, new, find_rows(plan.target, contract, piece.partitions(contract), cars))
        self._computed = None
        return outcome

    def _rows_of(self, plan: RefreshPlan, piece: Piece, parameters: RefreshParameters) -> pa.Table:
        """The new rows of a piece. They are computed once, also if another writer's commit makes the step repeat."""
        wanted = _Computation.of(plan, piece, parameters)
        if self._computed is None or self._computed[0] != wanted:
            self._computed = self._take_ahead()
        if self._computed is None or self._computed[0] != wanted:
            self._computed = wanted, self.to_arrow(self.new_rows(plan, piece, parameters, self), plan.contract)
        return self._computed[1]

    def _take_ahead(self) -> _Computed | None:
        ahead, self._ahead = self._ahead, None
        try:
            return ahead.result() if ahead is not None else None
        except Exception as error:
            logger.info("a piece could not be computed ahead, so it is computed now: %s", error)
            return None

    def _compute_next(self, plan: RefreshPlan, parameters: RefreshParameters) -> _Computed | None:
        """Compute the piece after that of a plan. Executed in the thread."""
        following = plan_piece_after(plan, self._limits)
        if following is None or following.piece is None:
            return None
        with tempfile.TemporaryDirectory(prefix="ahead-", dir=self._folder) as folder:
            frames = _Frames(self._spark, self._folder, Path(folder))
            rows = self.new_rows(following, following.piece, parameters, frames)
            computation = _Computation.of(following, following.piece, parameters)
            return computation, frames.to_arrow(rows, plan.contract)


def _existing(path: str) -> str:
    """The URI of a local file. Other writers may write paths as ``file:/folder/name``, which Sail does not support.

    :raises FileNotFoundError: if the file does not exist, which Sail would treat as a file without rows.
    """
    local = Path(path.removeprefix("file:"))
    if not local.exists():
        raise FileNotFoundError(errno.ENOENT, "a data file of the table is missing", str(local))
    return f"file://{local.resolve()}"
