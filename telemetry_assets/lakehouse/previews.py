"""Rows of a table for display: samples of partitions, first rows."""

from __future__ import annotations

from collections.abc import Set
from datetime import date

import pyarrow as pa
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.expressions import AlwaysTrue, EqualTo
from pyiceberg.io.pyarrow import ArrowScan
from pyiceberg.table import FileScanTask, Table

from telemetry_assets.errors import TableMissingError
from telemetry_assets.lakehouse.catalog import Lakehouse
from telemetry_assets.lakehouse.changes import partition_date
from telemetry_assets.tables.contract import TableContract

_SAMPLED_PARTITIONS = 100
"""If there are more partitions, :func:`partition_sample` returns no rows."""


def partition_sample(
    table: Table, contract: TableContract, partitions: Set[date], columns: tuple[str, ...], rows: int = 5
) -> dict[date, tuple[int, list[dict[str, object]]]]:
    """For each partition, the number of its rows, from the manifests, and some of the rows, from one data file.

    :param rows: the greatest number of rows for a partition.
    """
    sample: dict[date, tuple[int, list[dict[str, object]]]] = {day: (0, []) for day in partitions}
    for task in table.scan(contract.partition_filter(partitions)).plan_files():
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
    """The first rows of a table, in the order of its key, and the number of all rows.

    The rows of Bronze tables are in descending order of their ingestion time.

    :param car: the chassis number of a car whose rows are read; None for all cars.
    :param limit: the greatest number of rows.
    :param internal: whether to include internal columns.
    :raises TableMissingError: if the table is not in the catalog.
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
