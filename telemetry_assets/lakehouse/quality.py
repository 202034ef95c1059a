"""What a consumer of a table relies on, measured from the table itself."""

from __future__ import annotations

from collections.abc import Set
from datetime import date

from pyiceberg.expressions import AlwaysTrue, BooleanExpression, EqualTo, In
from pyiceberg.table import Table

from telemetry_assets.lakehouse.catalog import Lakehouse
from telemetry_assets.lakehouse.contracts import BRONZE, REJECTED, TableContract


def partition_filter(contract: TableContract, partitions: Set[date] | None) -> BooleanExpression:
    """Rows of these partitions; all rows for None, or where the table has one partition only."""
    if partitions is None or contract.partition is None:
        return AlwaysTrue()
    return In(contract.partition, set(partitions))


def repeated_keys(table: Table, contract: TableContract, partitions: Set[date] | None = None) -> int:
    """How many rows share their key with an earlier one, in these partitions or in the whole table."""
    keys = table.scan(partition_filter(contract, partitions), selected_fields=contract.key).to_arrow()
    return int(keys.num_rows - keys.group_by(list(contract.key)).aggregate([]).num_rows)


def batch_rows(lakehouse: Lakehouse, batch_id: str) -> tuple[int, int]:
    """The rows that a batch has in Bronze and among the rejected documents, counted in the tables."""
    return _rows_of_batch(lakehouse, BRONZE, batch_id), _rows_of_batch(lakehouse, REJECTED, batch_id)


def _rows_of_batch(lakehouse: Lakehouse, contract: TableContract, batch_id: str) -> int:
    table = lakehouse.table(contract)
    return int(table.scan(EqualTo("batch_id", batch_id)).count())
