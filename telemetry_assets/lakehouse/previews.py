"""Rows of a table for display: samples of partitions, first rows."""

from __future__ import annotations

from collections.abc import Set
from datetime import date

import pyarrow as pa
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.expressions import AlwaysTrue, EqualTo
from pyiceberg.table import Table

from telemetry_assets.errors import TableMissingError
from telemetry_assets.lakehouse.catalog import Lakehouse
from telemetry_assets.lakehouse.data_files import files_by_partition, read_rows
from telemetry_assets.tables.contract import TableContract

SAMPLED_PARTITIONS = 100
"""If there are more partitions, :func:`partition_sample` returns no rows."""


def partition_sample(
    table: Table, contract: TableContract, partitions: Set[date], columns: tuple[str, ...], rows: int = 5
) -> dict[date, tuple[int, list[dict[str, object]]]]:
    """For each partition, the number of its rows, from the manifests, and some of the rows, from one data file.

    :param rows: the greatest number of rows for a partition.
    """
    sample: dict[date, tuple[int, list[dict[str, object]]]] = {day: (0, []) for day in partitions}
    is_sampled = len(partitions) <= SAMPLED_PARTITIONS
    for day, files in files_by_partition(table, contract, partitions).items():
        if day is not None:
            shown = read_rows(table, files[:1], columns, rows).to_pylist() if is_sampled else []
            sample[day] = (sum(task.file.record_count for task in files), shown)
    return sample


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
