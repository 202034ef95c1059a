"""Reads of a table: row filters, samples of partitions, first rows."""

from __future__ import annotations

from collections.abc import Set
from datetime import date

import pyarrow as pa
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.expressions import AlwaysTrue, BooleanExpression, EqualTo, In
from pyiceberg.io.pyarrow import ArrowScan
from pyiceberg.table import FileScanTask, Table

from telemetry_assets.errors import TableMissingError
from telemetry_assets.lakehouse.catalog import Lakehouse
from telemetry_assets.lakehouse.changes import partition_date
from telemetry_assets.tables.contract import TableContract

_SAMPLED_PARTITIONS = 100
"""Above so many partitions nobody looks at a few rows of each."""


def partition_filter(contract: TableContract, partitions: Set[date] | None) -> BooleanExpression:
    """Rows of these partitions; all rows for None, or where the table has one partition only."""
    if partitions is None or contract.partition is None:
        return AlwaysTrue()
    return In(term=contract.partition, literals=set(partitions))


def partition_sample(
    table: Table, contract: TableContract, partitions: Set[date], columns: tuple[str, ...], rows: int = 5
) -> dict[date, tuple[int, list[dict[str, object]]]]:
    """For each partition how many rows it holds, from the manifests, and a few of them, from one of its files."""
    sample: dict[date, tuple[int, list[dict[str, object]]]] = {day: (0, []) for day in partitions}
    for task in table.scan(partition_filter(contract, partitions)).plan_files():
        day = partition_date(task.file)
        count, shown = sample[day]
        if not shown and len(partitions) <= _SAMPLED_PARTITIONS:
            shown = _head(table, task, columns, rows)
        sample[day] = (count + task.file.record_count, shown)
    return sample


def _head(table: Table, task: FileScanTask, columns: tuple[str, ...], rows: int) -> list[dict[str, object]]:
    scan = ArrowScan(table.metadata, table.io, table.schema().select(*columns), AlwaysTrue(), limit=rows)
    head: list[dict[str, object]] = scan.to_table([task]).to_pylist()
    return head


def first_rows(
    lakehouse: Lakehouse, contract: TableContract, car: str | None, limit: int, *, internal: bool
) -> tuple[pa.Table, int]:
    """A table's first rows, and how many there are, of one car or of all: by key, but the newest batch's of Bronze.

    :param internal: whether the columns that only keep the table incremental are wanted too.
    :raises TableMissingError: where the catalog has no such table.
    """
    where = EqualTo(term="car_chassis", value=car) if car is not None else AlwaysTrue()
    columns = contract.column_names if internal else contract.reader_columns
    try:
        table = lakehouse.table(contract)
    except NoSuchTableError as error:
        raise TableMissingError(contract.full_name) from error
    rows = table.scan(where, selected_fields=columns).to_arrow()
    order = [(name, "ascending") for name in contract.key if name in columns]
    if contract.layer == "bronze":
        order.insert(0, ("ingested_at", "descending"))
    return rows.sort_by(order).slice(0, limit), rows.num_rows
