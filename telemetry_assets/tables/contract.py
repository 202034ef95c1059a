"""What a table's contract can say, and what is derived from it: Iceberg and Arrow schemas, partitioning, properties."""

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
    """One column: its name (with the unit), type and meaning; ``required`` means never null."""

    name: str
    type: ColumnType
    description: str
    required: bool = False
    internal: bool = False
    """Whether the column only keeps the table incremental and says nothing to a reader."""


@dataclass(frozen=True)
class TableContract:
    """What one table is, on every catalog and for every engine.

    :param key: the columns that identify a row; no two rows share them.
    :param partition: the column that partitions the table, ``None`` where it has one partition.
    :param partition_by_day: whether the partition is the day of ``partition`` rather than its value.
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
        """``<layer>.<name>``, as a query writes it."""
        return f"{self.layer}.{self.name}"

    @property
    def column_names(self) -> tuple[str, ...]:
        """The columns in order."""
        return tuple(column.name for column in self.columns)

    def column(self, name: str) -> Column:
        """The column of a name.

        :raises KeyError: where the table has no such column.
        """
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(f"{self.full_name} has no column {name}")

    @property
    def reader_columns(self) -> tuple[str, ...]:
        """The columns that say something to a reader, in order."""
        return tuple(column.name for column in self.columns if not column.internal)

    @cached_property
    def schema(self) -> Schema:
        """The Iceberg schema, with descriptions, ids from 1 in order."""
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
        """The schema that data has on its way into the table."""
        return pa.schema(
            [pa.field(column.name, _ARROW[column.type], nullable=not column.required) for column in self.columns]
        )

    @property
    def table_properties(self) -> dict[str, str]:
        """The Iceberg table properties that the table is made with."""
        return {
            "format-version": "2",
            "write.format.default": "parquet",
            "write.parquet.compression-codec": "zstd",
            "write.metadata.delete-after-commit.enabled": "true",
            "write.metadata.previous-versions-max": "100",
            "comment": self.description,
        }
