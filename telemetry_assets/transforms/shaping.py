"""What the transforms share: the contract's columns and types, and when a row counts as updated."""

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
    """The contract's columns, in its order and types: computed where so given, else taken from ``rows``."""
    return rows.select(
        *(
            computed.get(column.name, f.col(column.name)).cast(_SPARK_NAMES[column.type]).alias(column.name)
            for column in contract.columns
        )
    )


def keep_updated_at(contract: TableContract, rows: DataFrame, previous: DataFrame) -> DataFrame:
    """Rows that are as they were keep their ``updated_at``, so that it tells when a row last changed.

    :param previous: the table's rows that ``rows`` will replace.
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
