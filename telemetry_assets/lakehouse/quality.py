"""Data quality: no two rows of a table have the same key."""

from __future__ import annotations

from collections.abc import Set
from datetime import date

import pyarrow as pa
from pyiceberg.table import Table

from telemetry_assets.errors import QualityError
from telemetry_assets.tables.contract import TableContract


def repeated_keys(table: Table, contract: TableContract, partitions: Set[date] | None = None) -> int:
    """The number of rows that have the same key as an earlier row, in some partitions or in the whole table."""
    keys = table.scan(contract.partition_filter(partitions), selected_fields=contract.key).to_arrow()
    return repeated_among(keys, contract)


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
