"""Table contracts, and the Iceberg schema, Arrow schema, partition spec and table properties derived from them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import pyarrow as pa
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import DayTransform, IdentityTransform, Transform
from pyiceberg.types import (
    DateType,
    DoubleType,
    IcebergType,
    IntegerType,
    LongType,
    NestedField,
    StringType,
    TimestamptzType,
)

Layer = Literal["bronze", "silver", "gold"]
ColumnType = Literal["string", "int", "long", "double", "date", "timestamptz"]

_ICEBERG: dict[ColumnType, IcebergType] = {
    "string": StringType(),
    "int": IntegerType(),
    "long": LongType(),
    "double": DoubleType(),
    "date": DateType(),
    "timestamptz": TimestamptzType(),
}
_ARROW: dict[ColumnType, pa.DataType] = {
    "string": pa.string(),
    "int": pa.int32(),
    "long": pa.int64(),
    "double": pa.float64(),
    "date": pa.date32(),
    "timestamptz": pa.timestamp("us", tz="UTC"),
}


@dataclass(frozen=True)
class Column:
    """A column of a table.

    :param name: the name, with the unit, e.g. ``trip_distance_km``.
    :param type: the type.
    :param description: the meaning; stored in the Iceberg schema and shown in the documentation.
    :param required: whether the column never contains null.
    :param internal: whether the column is only for incremental refreshes and of no use to readers.
    """

    name: str
    type: ColumnType
    description: str
    required: bool = False
    internal: bool = False


@dataclass(frozen=True)
class TableContract:
    """The definition of a table, for all catalogs and engines.

    :param layer: the layer, which is also the name of the table's database.
    :param name: the name within the layer.
    :param description: what a row is; stored as the table property ``comment``.
    :param columns: the columns in order.
    :param key: the columns that identify a row; no two rows have the same values in them.
    :param partition: the column that partitions the table; None if it is not partitioned.
    :param partition_by_day: whether the partition is the day of ``partition`` instead of its value.
    """

    layer: Layer
    name: str
    description: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    partition: str | None = None
    partition_by_day: bool = False

    @property
    def identifier(self) -> tuple[str, str]:
        """The table's database and name."""
        return (self.layer, self.name)

    @property
    def full_name(self) -> str:
        """``<layer>.<name>``, the table's name in queries."""
        return f"{self.layer}.{self.name}"

    @property
    def column_names(self) -> tuple[str, ...]:
        """The names of the columns in order."""
        return tuple(column.name for column in self.columns)

    def column(self, name: str) -> Column:
        """The column with a name.

        :raises KeyError: if the table has no such column.
        """
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(f"{self.full_name} has no column {name}")

    @property
    def reader_columns(self) -> tuple[str, ...]:
        """The names of the columns that are not internal, in order."""
        return tuple(column.name for column in self.columns if not column.internal)

    @cached_property
    def schema(self) -> Schema:
        """The Iceberg schema, with descriptions; field ids are 1, 2, … in the order of the columns."""
        return Schema(
            *(
                NestedField(
                    field_id=position,
                    name=column.name,
                    field_type=_ICEBERG[column.type],
                    required=column.required,
                    doc=column.description,
                )
                for position, column in enumerate(self.columns, start=1)
            )
        )

    @cached_property
    def partition_spec(self) -> PartitionSpec:
        """The Iceberg partition spec."""
        if self.partition is None:
            return PartitionSpec()
        transform: Transform[Any, Any] = DayTransform() if self.partition_by_day else IdentityTransform()
        return PartitionSpec(
            PartitionField(
                source_id=self.column_names.index(self.partition) + 1,
                field_id=1000,
                transform=transform,
                name=f"{self.partition}_day" if self.partition_by_day else self.partition,
            )
        )

    @cached_property
    def arrow_schema(self) -> pa.Schema:
        """The Arrow schema of rows that are written to the table."""
        return pa.schema(
            [pa.field(column.name, _ARROW[column.type], nullable=not column.required) for column in self.columns]
        )

    @property
    def table_properties(self) -> dict[str, str]:
        """The Iceberg table properties that the table is created with."""
        return {
            "format-version": "2",
            "write.format.default": "parquet",
            "write.parquet.compression-codec": "zstd",
            "write.metadata.delete-after-commit.enabled": "true",
            "write.metadata.previous-versions-max": "100",
            "comment": self.description,
        }
