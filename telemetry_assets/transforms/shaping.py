"""Functions that all transforms use: the columns and types of a contract, and the column ``updated_at``."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as f

from telemetry_assets.tables.contract import ColumnType, TableContract

_SPARK_NAMES: dict[ColumnType, str] = {
    "string": "string",
    "int": "int",
    "long": "bigint",
    "double": "double",
    "date": "date",
    "timestamptz": "timestamp",
}


def shaped(contract: TableContract, rows: DataFrame, computed: Mapping[str, Column]) -> DataFrame:
    """Select the columns of a contract in its order and cast them to its types.

    :param computed: the expressions of columns that are not taken from ``rows``.
    """
    return rows.select(
        *(
            computed.get(column.name, f.col(column.name)).cast(_SPARK_NAMES[column.type]).alias(column.name)
            for column in contract.columns
        )
    )


def keep_updated_at(contract: TableContract, rows: DataFrame, previous: DataFrame) -> DataFrame:
    """Set ``updated_at`` of unchanged rows to its previous value, so that it is the time of a row's last change.

    :param previous: the rows of the table that ``rows`` will replace.
    """
    content = [name for name in contract.column_names if name not in ("updated_at", *contract.key)]
    before = previous.select(
        *(f.col(name).alias(f"_before_{name}") for name in (*contract.key, *content)),
        f.col("updated_at").alias("_before_updated_at"),
    ).dropDuplicates([f"_before_{name}" for name in contract.key])
    same_key = reduce(operator.and_, (f.col(name) == f.col(f"_before_{name}") for name in contract.key))
    unchanged = reduce(operator.and_, (f.col(name).eqNullSafe(f.col(f"_before_{name}")) for name in content))
    known = f.col("_before_updated_at").isNotNull()
    updated_at = f.when(known & unchanged, f.col("_before_updated_at")).otherwise(f.col("updated_at"))
    return shaped(contract, rows.join(before, same_key, "left"), {"updated_at": updated_at})
