"""Replaces rows of a table by key, in one commit.

Only data files with a row that is replaced or removed are rewritten. Rows that are equal write nothing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from functools import partial
from itertools import accumulate, chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.io.pyarrow import _dataframe_to_data_files
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from telemetry_assets.lakehouse.commits import replace_files, set_table_properties
from telemetry_assets.lakehouse.data_files import (
    THREADS,
    FileRows,
    FoundRows,
    bounded,
    other_rows,
    partition_date,
)
from telemetry_assets.lakehouse.snapshots import CHANGED_ROWS
from telemetry_assets.tables.contract import TableContract

UPDATED_AT = "updated_at"
_BYTES_OF_A_BOUND = 4_096
"""A row group with a longer text has no bounds (parquet-cpp, ``Statistics``: `max_statistics_size`)."""
_NEW, _OLD = "_new", "_old"


@dataclass(frozen=True)
class Merge:
    """Which rows of a table are replaced by which.

    :param found: the rows of the table that may be replaced.
    :param kept: for each found row, whether it remains.
    :param written: the rows that are inserted, or replace a found row with the same key.
    """

    found: FoundRows
    kept: pa.Array
    written: pa.Table

    @property
    def changes_rows(self) -> bool:
        """Whether any row is inserted, replaced or removed."""
        return bool(self.written.num_rows) or not pc.all(self.kept, min_count=0).as_py()

    @property
    def keeps_rows(self) -> bool:
        """Whether any found row remains."""
        return bool(pc.any(self.kept, min_count=0).as_py())

    def changed_now(self) -> Merge:
        """The merge with the current time as the time of the last change of the written rows.

        They may have been computed long before, and readers look for rows that changed since they last read the table.
        """
        if UPDATED_AT not in self.written.column_names:
            return self
        place = self.written.column_names.index(UPDATED_AT)
        field = self.written.schema.field(place)
        now = pa.repeat(pa.scalar(datetime.now(UTC), field.type), self.written.num_rows)
        return replace(self, written=self.written.set_column(place, field, now))

    def changed_rows(self) -> int:
        """The number of rows that are inserted, replaced or removed. A replaced row counts twice."""
        return int(self.written.num_rows + pc.sum(pc.invert(self.kept), min_count=0).as_py())

    def remaining(self) -> pa.Table:
        """The rows that are in the table after the merge instead of the found ones."""
        return pa.concat_tables([self.found.rows.filter(self.kept), self.written])

    def partition_rows(self) -> dict[date | None, int]:
        """The number of rows in each partition after the merge."""
        rows = Counter(self.found.partition_rows)
        rows.update(rows_by_partition(self.written, self.found.contract))
        rows.subtract(rows_by_partition(self.found.rows.filter(pc.invert(self.kept)), self.found.contract))
        return dict(rows)


@dataclass(frozen=True)
class Written:
    """What a merge wrote.

    :param bytes_written: the size of the new data files.
    :param bytes_read: the size of the data files that were read to be rewritten.
    """

    bytes_written: int = 0
    bytes_read: int = 0


def plan_merge(found: FoundRows, new: pa.Table, newest_by: str | None = None) -> Merge:
    """Compare the found rows with the rows that replace them.

    A found row without a new row of its key is removed. A new row that equals the found one, except in ``updated_at``,
    is not written, so that ``updated_at`` is the time of a row's last change.

    :param new: rows with unique keys.
    :param newest_by: if given, a found row with a greater value in this column than the new one remains.
    """
    contract, old = found.contract, found.rows
    if not old.num_rows:
        return Merge(found, pa.array([], pa.bool_()), new)
    key = list(contract.key)
    numbered = old.select(key).append_column(_OLD, _numbers(old))
    # Another writer may have repeated a key. One of its rows is compared, and the others are removed.
    first = numbered.group_by(key).aggregate([(_OLD, "min")]).rename_columns([*key, _OLD])
    pairs = new.select(key).append_column(_NEW, _numbers(new)).join(first, key, join_type="full outer")
    both = pairs.filter(pc.and_(pc.is_valid(pairs[_NEW]), pc.is_valid(pairs[_OLD])))
    of_new, of_old = new.take(both[_NEW]), old.take(both[_OLD])
    stays = _equal(of_new, of_old, contract)
    if newest_by is not None:
        stays = pc.or_(stays, pc.greater(of_old[newest_by], of_new[newest_by]))
    kept = pc.is_in(_numbers(old), both[_OLD].filter(stays))
    unwritten = pc.is_in(_numbers(new), both[_NEW].filter(stays))
    return Merge(found, kept, new.filter(pc.invert(unwritten)))


def commit_merge(
    table: Table, merge: Merge, summary: Mapping[str, str], table_properties: Mapping[str, str]
) -> Written:
    """Commit a merge as one snapshot, and set table properties in the same commit.

    If the merge changes no row, only the properties are set.

    :param table: the table as it was loaded before the rows were found.
    :raises CommitFailedException: if the table has changed since it was loaded.
    """
    if not merge.changes_rows:
        set_table_properties(table, table_properties)
        return Written()
    contract = merge.found.contract
    rewritten = _rewritten_files(merge)
    added: list[DataFile] = []
    with ThreadPoolExecutor(THREADS) as threads:
        for partitions in bounded(_changed_partitions(merge, rewritten), lambda one: one.rows):
            added += chain.from_iterable(threads.map(partial(_write, table, contract), partitions))
    removed = [file.task.file for file, _ in rewritten]
    counted = {**summary, CHANGED_ROWS: str(merge.changed_rows())}
    replace_files(table, added, removed, counted, table_properties)
    read_again = sum(file.task.file.file_size_in_bytes for file, _ in rewritten if not file.is_whole_file)
    return Written(sum(file.file_size_in_bytes for file in added), read_again)


def write_files(table: Table, contract: TableContract, rows: pa.Table) -> list[DataFile]:
    """Write rows to data files that belong to no table yet, sorted as the contract says."""
    files = list(_dataframe_to_data_files(table.metadata, in_file_order(contract, rows), table.io))
    for field_id in _without_bounds(table, rows):
        for file in files:
            file.lower_bounds.pop(field_id, None)
            file.upper_bounds.pop(field_id, None)
    return files


def _without_bounds(table: Table, rows: pa.Table) -> list[int]:
    """The ids of columns with a text that is too long for the statistics of a row group.

    Such a row group has no bounds, and PyIceberg 0.12 takes those of the file's other row groups for those of the file.
    """
    return [
        table.schema().find_field(column.name).field_id
        for column in rows.schema
        if pa.types.is_string(column.type)
        and (pc.max(pc.binary_length(rows[column.name])).as_py() or 0) > _BYTES_OF_A_BOUND
    ]


def in_file_order(contract: TableContract, rows: pa.Table) -> pa.Table:
    """Rows sorted by partition, and in it by the table's sort order and key."""
    partition = [contract.partition] if contract.partition else []
    names = dict.fromkeys([*partition, *contract.sort_by, *contract.key])
    return rows.sort_by([(name, "ascending") for name in names])


def rows_by_partition(rows: pa.Table, contract: TableContract) -> dict[date | None, int]:
    """The number of rows in each partition."""
    if contract.partition is None:
        return {None: rows.num_rows}
    counted = pc.value_counts(rows[contract.partition])
    return {one["values"]: one["counts"] for one in counted.to_pylist()}


def _rewritten_files(merge: Merge) -> list[tuple[FileRows, pa.Array]]:
    """The data files that lose a row, and for each of their found rows, whether it remains."""
    starts = accumulate((file.rows.num_rows for file in merge.found.files), initial=0)
    kept = [
        (file, merge.kept.slice(start, file.rows.num_rows))
        for file, start in zip(merge.found.files, starts, strict=False)
    ]
    return [(file, of_file) for file, of_file in kept if not pc.all(of_file).as_py()]


@dataclass(frozen=True)
class _ChangedPartition:
    """The new content of a partition: the rows that are written, and those that remain in the rewritten files."""

    written: pa.Table
    rewritten: list[tuple[FileRows, pa.Array]]

    @property
    def rows(self) -> int:
        """The number of these rows, or a few more."""
        return int(self.written.num_rows) + sum(file.task.file.record_count for file, _ in self.rewritten)

    def content(self, table: Table, contract: TableContract) -> pa.Table:
        """These rows."""
        others = [other_rows(table, contract, file) for file, _ in self.rewritten if not file.is_whole_file]
        return pa.concat_tables([self.written, *(file.rows.filter(kept) for file, kept in self.rewritten), *others])


def _write(table: Table, contract: TableContract, partition: _ChangedPartition) -> list[DataFile]:
    rows = partition.content(table, contract)
    return write_files(table, contract, rows) if rows.num_rows else []


def _changed_partitions(merge: Merge, rewritten: list[tuple[FileRows, pa.Array]]) -> Iterator[_ChangedPartition]:
    partition = merge.found.contract.partition
    if partition is None:
        yield _ChangedPartition(merge.written, rewritten)
        return
    of_files: dict[date, list[tuple[FileRows, pa.Array]]] = defaultdict(list)
    for file, kept in rewritten:
        of_files[partition_date(file.task.file)].append((file, kept))
    for day in sorted({*merge.written[partition].unique().to_pylist(), *of_files}):
        written = merge.written.filter(pc.equal(merge.written[partition], pa.scalar(day)))
        yield _ChangedPartition(written, of_files[day])


def _equal(one: pa.Table, other: pa.Table, contract: TableContract) -> pa.ChunkedArray | pa.Array:
    """For each pair of rows with the same key, whether they are equal, except in ``updated_at``."""
    equal: pa.Array = pa.repeat(pa.scalar(True), one.num_rows)
    for name in contract.column_names:
        if name != UPDATED_AT and name not in contract.key:
            both_null = pc.and_(pc.is_null(one[name]), pc.is_null(other[name]))
            same = pc.or_(both_null, pc.fill_null(pc.equal(one[name], other[name]), False))
            equal = pc.and_(equal, same)
    return equal


def _numbers(rows: pa.Table) -> pa.Array:
    return pa.array(np.arange(rows.num_rows, dtype=np.int64))
