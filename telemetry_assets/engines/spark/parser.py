"""A backlog that is too large for one machine, parsed in Spark: the same functions, over the uploads of a batch.

Executors read uploads, judge their documents, and write the rows as data files of the two Bronze tables. No table has
these files until the batch is committed, in the same way as every other batch; those of a run that dies are orphans.
"""

from __future__ import annotations

import os
import pickle
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from py4j.protocol import Py4JError
from pyiceberg.io.pyarrow import _dataframe_to_data_files
from pyspark.errors import PySparkException

from telemetry_assets.aws.clients import region
from telemetry_assets.errors import SparkError
from telemetry_assets.ingestion.batch_parser import BatchRows, LocalParser
from telemetry_assets.ingestion.journal.base import JournalEntry, journal_entry_from_json, written
from telemetry_assets.ingestion.landing.base import open_landing
from telemetry_assets.ingestion.parsing.arrow_rows import Counts, UploadReport
from telemetry_assets.lakehouse.catalog import Lakehouse, open_lakehouse
from telemetry_assets.lakehouse.encoded_rows import decoded_bytes, decoded_rows
from telemetry_assets.lakehouse.local_file_io import sync_written_files
from telemetry_assets.settings import MEBIBYTE, Settings
from telemetry_assets.tables import BRONZE, REJECTED

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_LEAST_TASKS = 4
_BYTES_OF_TASK = 64 * MEBIBYTE
_BYTES_OF_FILE = 128 * MEBIBYTE
_ACCOUNTS_AND_FILES = "kind string, payload binary"
_UPLOAD, _COUNTS = "upload", "counts"
"""Kinds of what a task tells; the others are the names of the tables that data files are of."""
_SCHEMA = pa.schema([("kind", pa.string()), ("payload", pa.binary())])


def parsed_in_spark(spark: SparkSession, settings: Settings, entry: JournalEntry) -> BatchRows:
    """The rows of a batch, parsed in the executors of a session; see :class:`Parser`. Nothing is too much for it.

    :raises SparkError: where Spark itself fails, or an executor cannot read.
    """
    numbered = [(number,) for number, item in enumerate(entry.uploads) if item.is_in_batch]
    size = sum(entry.uploads[number].upload.size for (number,) in numbered)
    tasks = max(_LEAST_TASKS, -(-size // _BYTES_OF_TASK))
    parse = partial(_parsed, settings=settings.model_dump(mode="json"), entry=written(entry), region=region())
    try:
        uploads = spark.createDataFrame(numbered, "number int").repartition(tasks)
        rows = uploads.mapInArrow(parse, _ACCOUNTS_AND_FILES).collect()
    except (Py4JError, PySparkException) as error:
        raise SparkError(BRONZE.full_name, java_cause(error)) from error
    return _gathered([(row["kind"], pickle.loads(row["payload"])) for row in rows], entry)


def _gathered(told: list[tuple[str, Any]], entry: JournalEntry) -> BatchRows:
    """What all tasks have told, together; what became of each upload is noted in the journal entry."""
    by_kind: defaultdict[str, list[Any]] = defaultdict(list)
    for kind, one in told:
        by_kind[kind].append(one)
    reports: list[UploadReport] = []
    for number, outcome, problem, report in sorted(by_kind[_UPLOAD], key=lambda one: one[0]):
        entry.uploads[number].outcome, entry.uploads[number].problem = outcome, problem
        reports += [report] if report is not None else []
    counts = Counts()
    for one in by_kind[_COUNTS]:
        counts.add_all(one)
    bronze, rejections = by_kind[BRONZE.name], by_kind[REJECTED.name]
    accepted, rejected = (sum(file.record_count for file in files) for files in (bronze, rejections))
    return BatchRows(reports, accepted, rejected, counts, bronze, rejections)


def java_cause(error: Exception) -> str:
    """What went wrong in the JVM: the innermost exception, without the stack."""
    lines = str(error).splitlines() or [type(error).__name__]
    causes = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")]
    outermost = next((line.removeprefix(": ") for line in lines if line.startswith(": ")), lines[0])
    return causes[-1] if causes else outermost


def _parsed(
    numbers: Iterator[pa.RecordBatch], settings: dict[str, Any], entry: bytes, region: str | None
) -> Iterator[pa.RecordBatch]:
    """Parse the uploads of these numbers, and tell what became of them and which data files hold their rows."""
    if region:
        os.environ.setdefault("AWS_REGION", region)
    chosen = Settings(**settings)
    lakehouse = open_lakehouse(chosen)
    batch = journal_entry_from_json(entry, "", "the journal entry")
    parser = LocalParser(open_landing(chosen), lakehouse, chosen)
    files, counts = _Files(lakehouse), Counts()
    for batch_of_numbers in numbers:
        for number in batch_of_numbers.column(0).to_pylist():
            item = batch.uploads[number]
            rows = parser.rows_of(batch, item)
            yield _told(_UPLOAD, (number, item.outcome, item.problem, rows.report if rows else None))
            if rows is not None:
                counts.add_all(rows.counts)
                yield from files.add(rows.bronze, rows.rejected)
    yield from files.finish()
    yield _told(_COUNTS, counts)


def _told(kind: str, what: object) -> pa.RecordBatch:
    # From an executor to its driver, as Spark itself sends Python's objects.
    return pa.RecordBatch.from_pydict({"kind": [kind], "payload": [pickle.dumps(what)]}, schema=_SCHEMA)


@dataclass
class _Files:
    """Rows on their way into data files, gathered up to some bytes."""

    lakehouse: Lakehouse
    gathered: dict[str, list[pa.Table]] = field(default_factory=lambda: {BRONZE.name: [], REJECTED.name: []})
    sizes: Counter[str] = field(default_factory=Counter)

    def add(self, bronze: pa.Table, rejected: pa.Table) -> Iterator[pa.RecordBatch]:
        """Take in an upload's rows, and tell the files that are written of what has gathered."""
        for contract, rows in ((BRONZE, bronze), (REJECTED, rejected)):
            self.gathered[contract.name].append(rows)
            self.sizes[contract.name] += decoded_bytes(rows)
            if self.sizes[contract.name] >= _BYTES_OF_FILE:
                yield from self._written(contract.name)

    def finish(self) -> Iterator[pa.RecordBatch]:
        """Tell the files of what is left."""
        for name in self.gathered:
            yield from self._written(name)

    def _written(self, name: str) -> Iterator[pa.RecordBatch]:
        rows, self.gathered[name] = self.gathered[name], []
        self.sizes[name] = 0
        if not sum(one.num_rows for one in rows):
            return
        contract = BRONZE if name == BRONZE.name else REJECTED
        table = self.lakehouse.table(contract)
        plain = decoded_rows(contract, pa.concat_tables(rows))
        files = list(_dataframe_to_data_files(table.metadata, plain, table.io))
        # The driver, which commits them, does not know what this process has written.
        sync_written_files()
        for file in files:
            yield _told(name, file)
