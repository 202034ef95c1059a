"""Data quality: repeated keys, and ids that several owners share."""

from __future__ import annotations

from collections.abc import Set
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.table import Table

from telemetry_assets.errors import QualityError
from telemetry_assets.tables.contract import SharedIdCheck, TableContract


def repeated_keys(table: Table, contract: TableContract, partitions: Set[date] | None = None) -> int:
    """The number of rows that have the same key as an earlier row, in some partitions or in the whole table."""
    return repeated_among(keys_in(table, contract, partitions), contract)


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


def require_unique_upstream_keys(contract: TableContract, partitions: Set[date] | None, repeated: int) -> None:
    """Check the rows of an upstream before a table is computed from them.

    :param contract: the contract of the upstream.
    :param partitions: the partitions that were read; None for the whole upstream.
    :param repeated: the number of rows in these partitions that have the same key as another row.
    :raises QualityError: if there are any.
    """
    if repeated:
        days = sorted(partitions or ())
        dates = f"the event dates {days[0]} to {days[-1]} of {contract.full_name}" if days else contract.full_name
        raise QualityError(
            f"{contract.full_name} has {repeated} rows with the same {', '.join(contract.key)} as another row, so no "
            f"table was computed from it. The table was changed by hand: materialize {dates} again.",
            contract.full_name,
            repeated,
        )


def repeated_among(rows: pa.Table, contract: TableContract) -> int:
    """The number of rows that have the same key as an earlier row."""
    return int(rows.num_rows - rows.group_by(list(contract.key)).aggregate([]).num_rows)
