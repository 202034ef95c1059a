"""Data quality: repeated keys, and ids that several owners share."""

from __future__ import annotations

from collections.abc import Iterator, Set
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.table import Table

from telemetry_assets.errors import QualityError
from telemetry_assets.lakehouse.data_files import dates_in
from telemetry_assets.tables.contract import SharedIdCheck, TableContract


def repeated_keys(table: Table, contract: TableContract) -> int:
    """The number of rows of the whole table that have the same key as an earlier row."""
    return sum(repeated_by_partition(table, contract).values())


def repeated_by_partition(table: Table, contract: TableContract) -> dict[date | None, int]:
    """The partitions with rows that have the same key as an earlier row, and the number of these rows.

    The keys of one partition are in memory at a time. The partition is a part of the key, or decides a part of it.
    """
    repeated = {
        day: repeated_among(keys_in(table, contract, {day} if day else None), contract)
        for day in _partitions(table, contract)
    }
    return {day: count for day, count in repeated.items() if count}


def keys_by_partition(table: Table, contract: TableContract) -> Iterator[pa.Table]:
    """The key columns of all rows, one partition at a time."""
    for day in _partitions(table, contract):
        yield keys_in(table, contract, {day} if day else None)


def _partitions(table: Table, contract: TableContract) -> list[date | None]:
    return [None] if contract.partition is None else [*sorted(dates_in(table))]


def keys_in(table: Table, contract: TableContract, partitions: Set[date] | None = None) -> pa.Table:
    """The key columns of the rows in some partitions or in the whole table."""
    return table.scan(contract.partition_filter(partitions), selected_fields=contract.key).to_arrow()


def shared_ids(keys: pa.Table, contract: TableContract, check: SharedIdCheck) -> list[str]:
    """The ids that several owners use in one partition, sorted.

    :param keys: rows from :func:`keys_in`.
    """
    groups = [name for name in (check.id_column, contract.partition) if name is not None]
    owners = keys.group_by(groups).aggregate([(check.owner_column, "count_distinct")])
    shared = owners.filter(pc.field(f"{check.owner_column}_count_distinct") > 1)
    return sorted(set(shared[check.id_column].to_pylist()))


def require_unique_new_keys(contract: TableContract, repeated: int) -> None:
    """Check the rows of a refresh before they are written.

    :param repeated: the number of new rows that have the same key as another new row.
    :raises QualityError: if there are any.
    """
    if repeated:
        raise QualityError(
            f"{contract.full_name} was not written, because {repeated} of its new rows have the same "
            f"{', '.join(contract.key)} as another. This is a defect of its transform; report it.",
            contract.full_name,
            repeated,
        )


def require_unique_upstream_keys(table: Table, contract: TableContract) -> None:
    """Check all rows of an upstream before a table is computed from it.

    :param contract: the contract of the upstream.
    :raises QualityError: if rows have the same key.
    """
    repeated = repeated_by_partition(table, contract)
    if repeated:
        days = sorted(day for day in repeated if day is not None)
        dates = f"the event dates {days[0]} to {days[-1]} of {contract.full_name}" if days else contract.full_name
        count = sum(repeated.values())
        raise QualityError(
            f"{contract.full_name} has {count} rows with the same {', '.join(contract.key)} as another row, so no "
            f"table was computed from it. The table was changed by hand: materialize {dates} again.",
            contract.full_name,
            count,
        )


def repeated_among(rows: pa.Table, contract: TableContract) -> int:
    """The number of rows that have the same key as an earlier row."""
    return int(rows.num_rows - rows.group_by(list(contract.key)).aggregate([]).num_rows)
