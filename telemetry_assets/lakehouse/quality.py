"""What a consumer of a table relies on, measured from the table itself."""

from __future__ import annotations

from collections.abc import Set
from datetime import date

import pyarrow as pa
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.expressions import AlwaysTrue, BooleanExpression, EqualTo, In
from pyiceberg.io.pyarrow import ArrowScan
from pyiceberg.table import FileScanTask, Table

from telemetry_assets.errors import QualityError, TableMissingError
from telemetry_assets.lakehouse.catalog import Lakehouse
from telemetry_assets.lakehouse.changes import partition_date
from telemetry_assets.tables import BRONZE, REJECTED, UPLOADS
from telemetry_assets.tables.contract import TableContract

_SAMPLED_PARTITIONS = 100
"""Above so many partitions nobody looks at a few rows of each."""


def partition_filter(contract: TableContract, partitions: Set[date] | None) -> BooleanExpression:
    """Rows of these partitions; all rows for None, or where the table has one partition only."""
    if partitions is None or contract.partition is None:
        return AlwaysTrue()
    return In(term=contract.partition, literals=set(partitions))


def repeated_keys(table: Table, contract: TableContract, partitions: Set[date] | None = None) -> int:
    """How many rows share their key with an earlier one, in these partitions or in the whole table."""
    keys = table.scan(partition_filter(contract, partitions), selected_fields=contract.key).to_arrow()
    return repeated_among(keys, contract)


def require_unique_new_keys(contract: TableContract, repeated: int) -> None:
    """Stand between a step and its commit: rows that would mislead a consumer are not written.

    :param repeated: how many of the new rows share their key with another.
    :raises QualityError: where any do.
    """
    if repeated:
        raise QualityError(
            f"{contract.full_name} was not written, because {repeated} of its new rows share their "
            f"{', '.join(contract.key)} with another. That is a defect of its transform; report it.",
            contract.full_name,
            repeated,
        )


def require_unique_upstream_keys(contract: TableContract, partitions: Set[date] | None, repeated: int) -> None:
    """Stand between an upstream and what is made from it, for as long as it would mislead.

    :param repeated: how many rows of these partitions share their key with another.
    :raises QualityError: where any do.
    """
    if repeated:
        days = sorted(partitions or ())
        dates = f"the event dates {days[0]} to {days[-1]} of {contract.full_name}" if days else contract.full_name
        raise QualityError(
            f"{contract.full_name} holds {repeated} rows whose {', '.join(contract.key)} another row has too, so "
            f"nothing is made from them. Somebody has changed it by hand: materialize {dates} anew.",
            contract.full_name,
            repeated,
        )


def repeated_among(rows: pa.Table, contract: TableContract) -> int:
    """How many of these rows share their key with an earlier one."""
    return int(rows.num_rows - rows.group_by(list(contract.key)).aggregate([]).num_rows)


def uploads_with_rows(lakehouse: Lakehouse, batch_ids: Set[str]) -> set[tuple[str, str]]:
    """The uploads of which a table of Bronze has rows, by batch and URI."""
    of_batches = In(term="batch_id", literals=set(batch_ids))
    columns = ("batch_id", "source_uri")
    found: set[tuple[str, str]] = set()
    for contract in (BRONZE, REJECTED, UPLOADS):
        rows = lakehouse.table(contract).scan(of_batches, selected_fields=columns).to_arrow().group_by(list(columns))
        found.update((row["batch_id"], row["source_uri"]) for row in rows.aggregate([]).to_pylist())
    return found


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
