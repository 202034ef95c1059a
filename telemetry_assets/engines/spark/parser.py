"""Parses a batch that is too large for one machine in Spark, with the same functions as on one machine.

Executors read and parse the uploads and write the rows as data files of the two Bronze tables. The files belong to no
table until the run commits the batch. If the run dies before that, they are orphan files.
"""

from __future__ import annotations

import os
import pickle
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from py4j.protocol import Py4JError
from pyiceberg.io.pyarrow import _dataframe_to_data_files
from pyspark.errors import PySparkException

from telemetry_assets.aws.clients import region
from telemetry_assets.errors import SparkError
from telemetry_assets.ingestion.batch_parser import LocalParser, ParsedBatch
from telemetry_assets.ingestion.journal.base import JournalEntry
from telemetry_assets.ingestion.landing import open_landing
from telemetry_assets.ingestion.parsing.arrow_rows import Counts
from telemetry_assets.lakehouse.catalog import Lakehouse, open_lakehouse
from telemetry_assets.lakehouse.local_file_io import sync_written_files
from telemetry_assets.settings import MEBIBYTE, Settings
from telemetry_assets.tables import BRONZE, REJECTED
from telemetry_assets.tables.contract import decoded_bytes

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_LEAST_TASKS = 4
_BYTES_OF_TASK = 64 * MEBIBYTE
_BYTES_OF_FILE = 128 * MEBIBYTE
_RESULT_COLUMNS = "kind string, payload binary"
_UPLOAD, _COUNTS = "upload", "counts"
"""Kinds of results that a task returns. The other kinds are names of tables: a data file of the table."""
_RESULT_SCHEMA = pa.schema([("kind", pa.string()), ("payload", pa.binary())])


def parsed_in_spark(spark: SparkSession, settings: Settings, entry: JournalEntry) -> ParsedBatch:
    """Parse a batch in the executors of a session. See :meth:`Parser.parse`. No upload is postponed.

    :raises SparkError: if Spark fails, or an executor cannot read the landing location.
    """
    numbered = [(number,) for number, item in enumerate(entry.uploads) if item.is_in_batch]
    size = sum(entry.uploads[number].upload.size for (number,) in numbered)
    tasks = max(_LEAST_TASKS, -(-size // _BYTES_OF_TASK))
    parse = partial(_parsed, settings=settings.model_dump(mode="json"), entry=entry.to_json(), region=region())
    try:
        uploads = spark.createDataFrame(numbered, "number int").repartition(tasks)
        rows = uploads.mapInArrow(parse, _RESULT_COLUMNS).collect()
    except (Py4JError, PySparkException) as error:
        raise SparkError(BRONZE.full_name, java_cause(error)) from error
    return _parsed_batch([(row["kind"], pickle.loads(row["payload"])) for row in rows], entry)


def _parsed_batch(results: list[tuple[str, Any]], entry: JournalEntry) -> ParsedBatch:
    """The parsed batch, from the results of all tasks."""
    by_kind: defaultdict[str, list[Any]] = defaultdict(list)
    for kind, result in results:
        by_kind[kind].append(result)
    uploads = list(entry.uploads)
    parsed = sorted(by_kind[_UPLOAD], key=lambda one: one[0])
    for number, outcome, problem, _ in parsed:
        uploads[number] = replace(uploads[number], outcome=outcome, problem=problem)
    reports = [report for *_, report in parsed if report is not None]
    counts = Counts()
    for one in by_kind[_COUNTS]:
        counts.add_all(one)
    bronze, rejections = by_kind[BRONZE.name], by_kind[REJECTED.name]
    accepted, rejected = (sum(file.record_count for file in files) for files in (bronze, rejections))
    return ParsedBatch(tuple(uploads), reports, accepted, rejected, counts, bronze, rejections)


def java_cause(error: Exception) -> str:
    """The innermost exception of the JVM, without its stack trace."""
    lines = str(error).splitlines() or [type(error).__name__]
    causes = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")]
    outermost = next((line.removeprefix(": ") for line in lines if line.startswith(": ")), lines[0])
    return causes[-1] if causes else outermost


def _parsed(
    numbers: Iterator[pa.RecordBatch], settings: dict[str, Any], entry: bytes, region: str | None
) -> Iterator[pa.RecordBatch]:
    """Parse the uploads with these numbers. Yields their outcomes, the data files of their rows, and the counts."""
    if region:
        os.environ.setdefault("AWS_REGION", region)
    chosen = Settings(**settings)
    lakehouse = open_lakehouse(chosen)
    batch = JournalEntry.from_json(entry, "", "the journal entry")
    parser = LocalParser(open_landing(chosen), lakehouse, chosen)
    files, counts = _Files(lakehouse), Counts()
    for batch_of_numbers in numbers:
        for number in batch_of_numbers.column(0).to_pylist():
            item, rows = parser.parse_one(batch, batch.uploads[number])
            yield _result(_UPLOAD, (number, item.outcome, item.problem, rows.report if rows else None))
            if rows is not None:
                counts.add_all(rows.counts)
                yield from files.add(rows.bronze, rows.rejected)
    yield from files.finish()
    yield _result(_COUNTS, counts)


def _result(kind: str, value: object) -> pa.RecordBatch:
    # Pickled, as Spark itself sends Python objects from executors to the driver.
    return pa.RecordBatch.from_pydict({"kind": [kind], "payload": [pickle.dumps(value)]}, schema=_RESULT_SCHEMA)


@dataclass
class _Files:
    """Collects rows, and writes them as data files of bounded size."""

    lakehouse: Lakehouse
    gathered: dict[str, list[pa.Table]] = field(default_factory=lambda: {BRONZE.name: [], REJECTED.name: []})
    sizes: Counter[str] = field(default_factory=Counter)

    def add(self, bronze: pa.Table, rejected: pa.Table) -> Iterator[pa.RecordBatch]:
        """Add the rows of an upload. Yields the files that are written now."""
        for contract, rows in ((BRONZE, bronze), (REJECTED, rejected)):
            self.gathered[contract.name].append(rows)
            self.sizes[contract.name] += decoded_bytes(rows)
            if self.sizes[contract.name] >= _BYTES_OF_FILE:
                yield from self._written(contract.name)

    def finish(self) -> Iterator[pa.RecordBatch]:
        """Write the remaining rows. Yields the files."""
        for name in self.gathered:
            yield from self._written(name)

    def _written(self, name: str) -> Iterator[pa.RecordBatch]:
        rows, self.gathered[name] = self.gathered[name], []
        self.sizes[name] = 0
        if not sum(one.num_rows for one in rows):
            return
        contract = BRONZE if name == BRONZE.name else REJECTED
        table = self.lakehouse.table(contract)
        plain = contract.conform(pa.concat_tables(rows))
        files = list(_dataframe_to_data_files(table.metadata, plain, table.io))
        # The driver commits the files, but cannot sync what this process has written.
        sync_written_files()
        for file in files:
            yield _result(name, file)
