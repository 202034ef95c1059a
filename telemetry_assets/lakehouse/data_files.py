"""The data files of a table: their partitions, their rows, and the rows of some cars or keys.

To find rows, as little as possible is read. Data files are found by their partition and the bounds of their cars in the
manifests, row groups by their statistics. All columns are read only from row groups that have a row of the keys.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import partial
from itertools import accumulate
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io.pyarrow import ArrowScan
from pyiceberg.manifest import DataFile, ManifestFile
from pyiceberg.table import FileScanTask, Table

from telemetry_assets.lakehouse.cars import CAR, Cars, CarSet
from telemetry_assets.tables.contract import Partitions, TableContract

THREADS = 4
_ROWS_IN_MEMORY = 500_000
_EPOCH = date(1970, 1, 1)
_FILE, _POSITION = "_file", "_position"
_SAMPLED_FILES = 64
_SAMPLED_ROW_GROUPS = 8
_SAMPLED_ROWS = 100_000

Item = TypeVar("Item")


def partition_date(file: DataFile) -> date:
    """The partition value of a data file, in a table that is partitioned by a date."""
    value = file.partition[0]
    return value if isinstance(value, date) else _EPOCH + timedelta(days=value)


def dates_in(table: Table) -> frozenset[date]:
    """The partitions of a table that is partitioned by a date."""
    return frozenset(partition_date(task.file) for task in table.scan().plan_files())


def earliest_partition(table: Table) -> date | None:
    """The earliest date in the partitions of a table, from its manifest list; None if the table has no data file."""
    snapshot = table.current_snapshot()
    manifests = snapshot.manifests(table.io) if snapshot else []
    bounds = [partition_bounds(one) for one in manifests if one.has_existing_files() | one.has_added_files()]
    return min((one[0] for one in bounds if one is not None), default=None)


def partition_bounds(manifest: ManifestFile) -> tuple[date, date] | None:
    """The earliest and the latest date in the partitions of a manifest's files; None if it has no bounds.

    The files in a manifest of another partition spec may have no date.
    """
    summary = manifest.partitions[0] if manifest.partitions else None
    if summary is None or not summary.lower_bound or not summary.upper_bound:
        return None
    # Iceberg stores a date as the number of days in four bytes.
    lower, upper = (int.from_bytes(one, "little", signed=True) for one in (summary.lower_bound, summary.upper_bound))
    return _EPOCH + timedelta(days=lower), _EPOCH + timedelta(days=upper)


def read_rows(
    table: Table,
    tasks: Iterable[FileScanTask],
    columns: Sequence[str],
    limit: int | None = None,
) -> pa.Table:
    """Some columns of the rows of data files, without deleted rows.

    :param columns: they are returned in the order of the table.
    :param limit: the greatest number of rows.
    """
    schema = table.schema().select(*columns)
    return ArrowScan(table.metadata, table.io, schema, AlwaysTrue(), limit=limit).to_table(list(tasks))


def files_by_partition(
    table: Table, contract: TableContract, partitions: Set[date] | None
) -> dict[date | None, list[FileScanTask]]:
    """The data files of some partitions; of a table without partitions, all files under None."""
    files: dict[date | None, list[FileScanTask]] = defaultdict(list)
    for task in table.scan(contract.partition_filter(partitions)).plan_files():
        files[partition_date(task.file) if contract.partition else None].append(task)
    return files


def record_counts(files: Iterable[DataFile]) -> Counter[date]:
    """The number of rows in data files, by partition, in a table that is partitioned by a date."""
    counts: Counter[date] = Counter()
    for file in files:
        counts[partition_date(file)] += file.record_count
    return counts


def car_bounds(table: Table, file: DataFile) -> tuple[str | None, str | None]:
    """The bounds of the cars in a data file, from the manifest. They may be shortened."""
    field_id = table.schema().find_field(CAR).field_id
    lower, upper = (file.lower_bounds or {}).get(field_id), (file.upper_bounds or {}).get(field_id)
    return (lower.decode() if lower is not None else None, upper.decode() if upper is not None else None)


@dataclass(frozen=True)
class FileRows:
    """Rows of one data file.

    :param task: the data file, with its delete files.
    :param rows: the rows.
    :param positions: the places of the rows among all rows of the file that are not deleted, ascending.
    :param bytes_read: the size of the parts of the file that were read.
    :param others: the other rows of the file, if all row groups were read and all files together have few rows.
    :param footer: the file's metadata, if it was read.
    """

    task: FileScanTask
    rows: pa.Table
    positions: pa.Array
    bytes_read: int
    others: pa.Table | None = None
    footer: pq.FileMetaData | None = None

    @property
    def is_whole_file(self) -> bool:
        """Whether these are all rows of the file."""
        return not self.task.delete_files and self.rows.num_rows == self.task.file.record_count


@dataclass(frozen=True)
class FoundRows:
    """Rows of a table at one snapshot, with the data files that have them.

    :param schema: the columns that were read.
    :param files: the data files that have at least one of the rows.
    :param partition_rows: the number of all rows in the partitions that were searched.
    :param bytes_read: the size of the parts of all files that were read.
    """

    contract: TableContract
    schema: pa.Schema
    files: tuple[FileRows, ...]
    partition_rows: Mapping[date | None, int]
    bytes_read: int

    @property
    def rows(self) -> pa.Table:
        """The rows."""
        return pa.concat_tables([self.schema.empty_table(), *(one.rows for one in self.files)])


def find_rows(
    table: Table,
    contract: TableContract,
    partitions: Partitions,
    cars: Cars | None = None,
    keys: pa.Table | None = None,
    columns: Sequence[str] = (),
) -> FoundRows:
    """Read rows of a table.

    :param table: the loaded table; its current snapshot is read.
    :param partitions: the partitions of the rows; None for all.
    :param cars: the cars of the rows; None for all. It must not be given if the table has no column ``car_chassis``.
    :param keys: values of some columns, among them ``car_chassis``. If given, only rows with these values are read.
    :param columns: the columns to read, among them ``car_chassis``; all if it is empty. Not with ``keys``.
    """
    if keys is not None:
        cars = CarSet.of(keys[CAR].unique().to_pylist())
    planned = list(table.scan(contract.partition_filter(partitions)).plan_files())
    candidates = [task for task in planned if cars is None or cars.may_be_between(*car_bounds(table, task.file))]
    reader = _Reader(table, contract, cars, sum(task.file.record_count for task in candidates) <= _ROWS_IN_MEMORY)
    # Not PyIceberg's threads: its own scans, which a task may contain, wait for them.
    with ThreadPoolExecutor(THREADS) as threads:
        if keys is None:
            found = list(threads.map(partial(reader.scan, columns=tuple(columns) or None), candidates))
        else:
            found = []
            for tasks in bounded(candidates, lambda task: task.file.record_count):
                scans = list(threads.map(partial(reader.scan, columns=tuple(keys.column_names)), tasks))
                found += threads.map(reader.read, scans, _positions_of(scans, keys))
    return FoundRows(
        contract,
        pa.schema([contract.arrow_schema.field(name) for name in columns or contract.column_names]),
        tuple(one for one in found if one.rows.num_rows),
        _partition_rows(contract, (task.file for task in planned)),
        sum(one.bytes_read for one in found),
    )


def _partition_rows(contract: TableContract, files: Iterable[DataFile]) -> Mapping[date | None, int]:
    counts: Counter[date | None] = Counter()
    for file in files:
        counts[partition_date(file) if contract.partition else None] += file.record_count
    return counts


def other_rows(table: Table, contract: TableContract, found: FileRows) -> pa.Table:
    """The rows of a data file that are not among the found ones."""
    if found.others is not None:
        return found.others
    return _without(_Reader(table, contract, None).scan(found.task).rows, found.positions)


def _without(rows: pa.Table, positions: pa.Array) -> pa.Table:
    return rows.filter(pc.invert(pc.is_in(_range(0, rows.num_rows), positions)))


def only(rows: pa.Table, others: pa.Table, columns: Sequence[str]) -> pa.Table:
    """The rows whose values in some columns are in a row of ``others``."""
    if not rows.num_rows:
        return rows
    number = "_number"
    numbered = rows.select(list(columns)).append_column(number, _range(0, rows.num_rows))
    wanted = others.select(list(columns)).cast(rows.select(list(columns)).schema)
    kept = numbered.join(wanted, list(columns), join_type="left semi")
    return rows.take(kept[number].combine_chunks().sort())


def bounded(items: Iterable[Item], rows_of: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Divide items into consecutive groups with a bounded number of rows, which are in memory together.

    A group of one item may have more rows.
    """
    group: list[Item] = []
    rows = 0
    for item in items:
        if group and rows + rows_of(item) > _ROWS_IN_MEMORY:
            yield group
            group, rows = [], 0
        group.append(item)
        rows += rows_of(item)
    if group:
        yield group


def last_car(table: Table, tasks: Sequence[FileScanTask], after: str | None, share: float) -> str | None:
    """The last car of a piece with a share of the rows of some files; None if the piece has all cars that are left.

    The share is estimated from a sample of the files.

    :param after: the last car of the piece before; None if this is the first piece.
    """
    # The order of paths is unrelated to the cars in the files.
    sampled = sorted(tasks, key=lambda task: hashlib.sha256(task.file.file_path.encode()).digest())[:_SAMPLED_FILES]
    every = -(-sum(task.file.record_count for task in sampled) // _SAMPLED_ROWS)
    names = sorted(name for task in sampled for name in _some_cars(table, task, every))
    left = [name for name in names if after is None or name > after]
    wanted = max(int(len(names) * share), 1)
    return left[wanted - 1] if len(left) > 1.2 * wanted else None


def _some_cars(table: Table, task: FileScanTask, every: int) -> list[str]:
    """The cars of some rows of a data file.

    :param every: the cars of one in this number of rows are returned.
    """
    with table.io.new_input(task.file.file_path).open() as source, pq.ParquetFile(source) as file:
        groups = file.num_row_groups
        chosen = range(0, groups, -(-groups // _SAMPLED_ROW_GROUPS)) if groups else range(0)
        rows: pa.Table = file.read_row_groups(list(chosen), [CAR])
        return list(rows[CAR].take(pa.array(range(0, rows.num_rows, every), pa.int64())).to_pylist())


def _positions_of(scans: Sequence[FileRows], keys: pa.Table) -> list[pa.Array]:
    """For each scan, the places of its rows that have one of the keys."""
    numbered = [
        scan.rows.append_column(_FILE, pa.repeat(pa.scalar(number, pa.int32()), scan.rows.num_rows)).append_column(
            _POSITION, scan.positions
        )
        for number, scan in enumerate(scans)
        if scan.rows.num_rows
    ]
    if not numbered:
        return [pa.array([], pa.int64())] * len(scans)
    # One join of all files is much faster than one for each file.
    matching = only(pa.concat_tables(numbered), keys, keys.column_names)
    return [
        matching.filter(pc.equal(matching[_FILE], number))[_POSITION].combine_chunks() for number in range(len(scans))
    ]


@dataclass(frozen=True)
class _Reader:
    table: Table
    contract: TableContract
    cars: Cars | None
    keeps_others: bool = False

    def scan(self, task: FileScanTask, columns: tuple[str, ...] | None = None) -> FileRows:
        """The rows of the cars in a file, with some columns or with all."""
        names = columns or self.contract.column_names
        if task.delete_files:
            rows, size = self._without_deleted_rows(task), task.file.file_size_in_bytes
            return self._of_cars(FileRows(task, rows.select(list(names)), _range(0, rows.num_rows), size))
        with self._open(task) as file:
            groups, firsts = self._row_groups(file), _first_rows(file)
            rows, size = self._read(file, groups, names)
            positions = [_range(firsts[group], firsts[group + 1]) for group in groups]
            places = pa.concat_arrays([_range(0, 0), *positions])
            size += file.metadata.serialized_size
            return self._of_cars(FileRows(task, rows, places, size, footer=file.metadata))

    def read(self, scan: FileRows, positions: pa.Array) -> FileRows:
        """Some rows of a scanned file, with all columns."""
        if not len(positions):
            return FileRows(scan.task, self.contract.arrow_schema.empty_table(), positions, scan.bytes_read)
        if scan.task.delete_files:
            rows = self._without_deleted_rows(scan.task)
            return FileRows(scan.task, rows.take(positions), positions, scan.bytes_read)
        with self._open(scan.task, scan.footer) as file:
            firsts = _first_rows(file)
            group_of = [bisect_right(firsts, position) - 1 for position in positions.to_pylist()]
            groups = sorted(set(group_of))
            rows, size = self._read(file, groups, self.contract.column_names)
            others = _without(rows, positions) if self.keeps_others and len(groups) == file.num_row_groups else None
        sizes = [firsts[group + 1] - firsts[group] for group in groups]
        # How far the rows of each group are from their place in the file.
        moved = {
            group: start - firsts[group] for group, start in zip(groups, accumulate(sizes, initial=0), strict=False)
        }
        taken = pc.add(positions, pa.array([moved[group] for group in group_of], pa.int64()))
        return FileRows(scan.task, rows.take(taken), positions, scan.bytes_read + size, others)

    def _of_cars(self, scan: FileRows) -> FileRows:
        if self.cars is None:
            return scan
        wanted = self.cars.among(scan.rows[CAR])
        positions = scan.positions.filter(wanted.combine_chunks())
        return replace(scan, rows=scan.rows.filter(wanted), positions=positions)

    def _without_deleted_rows(self, task: FileScanTask) -> pa.Table:
        return self.contract.conform(read_rows(self.table, [task], self.contract.column_names))

    @contextmanager
    def _open(self, task: FileScanTask, footer: pq.FileMetaData | None = None) -> Iterator[pq.ParquetFile]:
        with (
            self.table.io.new_input(task.file.file_path).open() as source,
            pq.ParquetFile(source, metadata=footer) as file,
        ):
            yield file

    def _read(self, file: pq.ParquetFile, groups: Sequence[int], columns: Sequence[str]) -> tuple[pa.Table, int]:
        """Rows with some columns of the contract, and their stored size.

        A file may lack columns that were added after it was written.
        """
        names = file.schema_arrow.names
        stored = [name for name in columns if name in names]
        rows = file.read_row_groups(list(groups), stored)
        schema = pa.schema([self.contract.arrow_schema.field(name) for name in columns])
        for column in schema:
            if column.name not in rows.column_names:
                rows = rows.append_column(column.name, pa.nulls(rows.num_rows, column.type))
        return rows.select(list(columns)).cast(schema), _size(
            file.metadata, groups, [names.index(name) for name in stored]
        )

    def _row_groups(self, file: pq.ParquetFile) -> list[int]:
        metadata, names = file.metadata, file.schema_arrow.names
        if self.cars is None or CAR not in names:
            return list(range(metadata.num_row_groups))
        column = names.index(CAR)
        return [
            group
            for group in range(metadata.num_row_groups)
            if self.cars.may_be_between(*_statistics(metadata.row_group(group).column(column)))
        ]


def _range(start: int, end: int) -> pa.Array:
    return pa.array(np.arange(start, end, dtype=np.int64))


def _first_rows(file: pq.ParquetFile) -> list[int]:
    """The place of the first row of each row group, and the number of all rows."""
    metadata = file.metadata
    return list(accumulate((metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)), initial=0))


def _statistics(column: pq.ColumnChunkMetaData) -> tuple[str | None, str | None]:
    statistics = column.statistics
    return (statistics.min, statistics.max) if statistics is not None and statistics.has_min_max else (None, None)


def _size(footer: pq.FileMetaData, groups: Iterable[int], columns: Sequence[int]) -> int:
    """The stored size of some columns of some row groups."""
    row_groups = [footer.row_group(group) for group in groups]
    return sum(group.column(column).total_compressed_size for group in row_groups for column in columns)
