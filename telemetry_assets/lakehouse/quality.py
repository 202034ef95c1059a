"""What a consumer of a table relies on, measured from the table itself."""

from __future__ import annotations

from collections.abc import Set
from datetime import date

import pyarrow as pa
from pyiceberg.table import Table

from telemetry_assets.errors import QualityError
from telemetry_assets.lakehouse.scans import partition_filter
from telemetry_assets.tables.contract import TableContract


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
