"""Finds the rows of some cars or keys in a table, and reads as little as possible of its data files.

Data files are found by their partition and the bounds of their cars in the manifests, row groups by their statistics.
All columns are read only from row groups that have a row of the keys.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io.pyarrow import ArrowScan
from pyiceberg.manifest import DataFile
from pyiceberg.table import FileScanTask, Table
from pyiceberg.utils.concurrent import ExecutorFactory

from telemetry_assets.lakehouse.cars import CAR, Cars, CarSet
from telemetry_assets.lakehouse.changes import partition_date
from telemetry_assets.tables.contract import Partitions, TableContract


@dataclass(frozen=True)
class FileRows:
    """Rows of one data file.

    :param task: the data file, with its delete files.
    :param rows: the rows.
    :param bytes_read: the size of the parts of the file that were read.
    """

    task: FileScanTask
    rows: pa.Table
    bytes_read: int

    @property
    def is_whole_file(self) -> bool:
        """Whether these are all rows of the file."""
        return not self.task.delete_files and self.rows.num_rows == self.task.file.record_count


@dataclass(frozen=True)
class FoundRows:
    """Rows of a table at one snapshot, with the data files that have them.

    :param files: the data files that have at least one of the rows.
    :param partition_rows: the number of all rows in the partitions that were searched.
    :param bytes_read: the size of the parts of all files that were read.
    """

    contract: TableContract
    files: tuple[FileRows, ...]
    partition_rows: Mapping[date | None, int]
    bytes_read: int

    @property
    def rows(self) -> pa.Table:
        """The rows, with all columns of the contract."""
        return pa.concat_tables([self.contract.arrow_schema.empty_table(), *(one.rows for one in self.files)])


def find_rows(
    table: Table,
    contract: TableContract,
    partitions: Partitions,
    cars: Cars | None = None,
    keys: pa.Table | None = None,
) -> FoundRows:
    """Read rows of a table.

    :param table: the loaded table; its current snapshot is read.
    :param partitions: the partitions of the rows; None for all.
    :param cars: the cars of the rows; None for all. It must not be given if the table has no column ``car_chassis``.
    :param keys: values of some columns, among them ``car_chassis``. If given, only rows with these values are read.
    """
    if keys is not None:
        cars = CarSet.of(keys[CAR].unique().to_pylist())
    planned = list(table.scan(contract.partition_filter(partitions)).plan_files())
    counts: Counter[date | None] = Counter()
    for task in planned:
        counts[partition_date(task.file) if contract.partition else None] += task.file.record_count
    candidates = [task for task in planned if cars is None or cars.may_be_between(*_bounds(table, task.file))]
    reader = _Reader(table, contract, cars, keys)
    read = list(ExecutorFactory.get_or_create().map(reader.read, candidates))
    return FoundRows(
        contract,
        tuple(one for one in read if one.rows.num_rows),
        counts,
        sum(one.bytes_read for one in read),
    )


def rows_of_file(table: Table, contract: TableContract, task: FileScanTask) -> pa.Table:
    """All rows of a data file, without deleted ones."""
    scan = ArrowScan(table.metadata, table.io, table.schema(), AlwaysTrue())
    return contract.conform(scan.to_table([task]))


def without(rows: pa.Table, others: pa.Table, columns: Sequence[str]) -> pa.Table:
    """The rows whose values in some columns are in no row of ``others``."""
    return _joined(rows, others, columns, "left anti")


def only(rows: pa.Table, others: pa.Table, columns: Sequence[str]) -> pa.Table:
    """The rows whose values in some columns are in a row of ``others``."""
    return _joined(rows, others, columns, "left semi")


def _joined(rows: pa.Table, others: pa.Table, columns: Sequence[str], join: str) -> pa.Table:
    if not rows.num_rows:
        return rows
    number = "_number"
    numbered = rows.select(list(columns)).append_column(number, pa.array(range(rows.num_rows), pa.int64()))
    kept = numbered.join(
        others.select(list(columns)).cast(rows.select(list(columns)).schema), list(columns), join_type=join
    )
    return rows.take(kept[number].combine_chunks().sort())


def _bounds(table: Table, file: DataFile) -> tuple[str | None, str | None]:
    """The bounds of the cars in a data file, from the manifest. They may be shortened."""
    field_id = table.schema().find_field(CAR).field_id
    lower, upper = (file.lower_bounds or {}).get(field_id), (file.upper_bounds or {}).get(field_id)
    return (lower.decode() if lower is not None else None, upper.decode() if upper is not None else None)


@dataclass(frozen=True)
class _Reader:
    table: Table
    contract: TableContract
    cars: Cars | None
    keys: pa.Table | None

    def read(self, task: FileScanTask) -> FileRows:
        """The rows of a file that match."""
        if task.delete_files:
            rows = rows_of_file(self.table, self.contract, task)
            return FileRows(task, self._matching(rows), task.file.file_size_in_bytes)
        with self.table.io.new_input(task.file.file_path).open() as source, pq.ParquetFile(source) as file:
            names = [name for name in self.contract.column_names if name in file.schema_arrow.names]
            groups, size = self._row_groups(file), file.metadata.serialized_size
            if self.keys is not None:
                size += _size(file, groups, self.keys.column_names)
                groups = [
                    group
                    for group in groups
                    if self._matching(file.read_row_group(group, self.keys.column_names)).num_rows
                ]
            rows = self._conformed(file.read_row_groups(groups, names))
            return FileRows(task, self._matching(rows), size + _size(file, groups, names))

    def _matching(self, rows: pa.Table) -> pa.Table:
        if self.cars is not None:
            rows = rows.filter(self.cars.among(rows[CAR]))
        return rows if self.keys is None else only(rows, self.keys, self.keys.column_names)

    def _row_groups(self, file: pq.ParquetFile) -> list[int]:
        metadata = file.metadata
        if self.cars is None or CAR not in file.schema_arrow.names:
            return list(range(metadata.num_row_groups))
        column = file.schema_arrow.names.index(CAR)
        return [
            group
            for group in range(metadata.num_row_groups)
            if self.cars.may_be_between(*_statistics(metadata.row_group(group).column(column)))
        ]

    def _conformed(self, rows: pa.Table) -> pa.Table:
        """Rows with all columns of the contract. A file may lack columns that were added after it was written."""
        for column in self.contract.arrow_schema:
            if column.name not in rows.column_names:
                rows = rows.append_column(column.name, pa.nulls(rows.num_rows, column.type))
        return self.contract.conform(rows)


def _statistics(column: pq.ColumnChunkMetaData) -> tuple[str | None, str | None]:
    statistics = column.statistics
    return (statistics.min, statistics.max) if statistics is not None and statistics.has_min_max else (None, None)


def _size(file: pq.ParquetFile, groups: Iterable[int], names: Sequence[str]) -> int:
    """The stored size of some columns of some row groups."""
    columns = [file.schema_arrow.names.index(name) for name in names]
    return sum(
        file.metadata.row_group(group).column(column).total_compressed_size for group in groups for column in columns
    )
