"""Contracts of tables: columns, keys, partitions, and for derived tables, how they are computed.

The Iceberg schema, Arrow schema, partition spec, sort order and table properties follow from the contract.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cached_property
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.expressions import AlwaysTrue, BooleanExpression, In
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER, SortField, SortOrder
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

Partitions = frozenset[date] | None
"""Partition values of a table; None means the whole table."""

_ROWS_IN_ROW_GROUP = 4_096
"""Iceberg's Java library ignores this property; its row groups have 128 MiB at most."""
_BYTES_IN_FILE = 16 * 1024 * 1024
"""PyIceberg compares it with the size of the rows in memory: a Silver file has about 50,000 rows and 4 MB."""

CONTRACT_EDITION = "telemetry.contract-edition"
"""The table property with the :attr:`TableContract.edition` of the contract that the table was last changed to."""

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
class Range:
    """The valid values of a numeric column.

    :param least: the lower bound.
    :param greatest: the upper bound, which is a valid value.
    :param is_open: whether the lower bound is not a valid value.
    """

    least: float
    greatest: float
    is_open: bool = False

    def contains(self, number: float) -> bool:
        """Whether a number is valid."""
        return (self.least < number if self.is_open else self.least <= number) and number <= self.greatest

    def contains_each(self, numbers: pa.Array) -> pa.Array:
        """For each of some numbers, whether it is valid."""
        above = pc.greater if self.is_open else pc.greater_equal
        return pc.and_(above(numbers, self.least), pc.less_equal(numbers, self.greatest))

    def __str__(self) -> str:
        # Years have no separator of thousands.
        separator = "" if self.least >= 1_000 else ","
        return f"{'above ' if self.is_open else ''}{self.least} to {self.greatest:{separator}}"


@dataclass(frozen=True)
class Column:
    """A column of a table.

    :param name: the name, with the unit, e.g. ``trip_distance_km``.
    :param type: the type.
    :param description: the meaning; stored in the Iceberg schema and shown in the documentation.
    :param required: whether the column never contains null.
    :param internal: whether the column is only for incremental refreshes and of no use to readers.
    :param valid_range: the valid values; a document's value outside of it is null in Silver. None if all are valid.
    """

    name: str
    type: ColumnType
    description: str
    required: bool = False
    internal: bool = False
    valid_range: Range | None = None


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
    :param sort_by: the columns by which the rows of each data file are sorted.
    """

    layer: Layer
    name: str
    description: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    partition: str | None = None
    partition_by_day: bool = False
    sort_by: tuple[str, ...] = ()

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

    @cached_property
    def sort_order(self) -> SortOrder:
        """The Iceberg sort order of the rows of each data file."""
        if not self.sort_by:
            return UNSORTED_SORT_ORDER
        identity: Transform[Any, Any] = IdentityTransform()
        return SortOrder(
            *(SortField(source_id=self.column_names.index(name) + 1, transform=identity) for name in self.sort_by)
        )

    @cached_property
    def edition(self) -> str:
        """A short text that changes if a column is added or changed, or the partitions change."""
        content = [(column.name, column.type, column.required) for column in self.columns]
        text = json.dumps([content, self.key, self.partition, self.partition_by_day])
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    def conform(self, rows: pa.Table) -> pa.Table:
        """Rows with the columns and Arrow types of the table. Dictionary-encoded columns are decoded.

        :raises KeyError: if a column is missing.
        :raises ValueError: if a value does not fit its type, or a required value is null.
        """
        return rows.select(list(self.column_names)).cast(self.arrow_schema)

    def partition_filter(self, partitions: Set[date] | None) -> BooleanExpression:
        """A filter for the rows of some partitions.

        It matches all rows if ``partitions`` is None or the table is not partitioned.
        """
        if partitions is None or self.partition is None:
            return AlwaysTrue()
        return In(term=self.partition, literals=set(partitions))

    @property
    def table_properties(self) -> dict[str, str]:
        """The Iceberg table properties that the contract decides. Other properties of a table are not changed."""
        return {
            CONTRACT_EDITION: self.edition,
            "write.format.default": "parquet",
            "write.parquet.compression-codec": "zstd",
            "write.parquet.row-group-limit": str(_ROWS_IN_ROW_GROUP),
            "write.metadata.delete-after-commit.enabled": "true",
            "write.metadata.previous-versions-max": "20",
            **self._bounds_in_manifests(),
            "comment": self.description,
        }

    def _bounds_in_manifests(self) -> dict[str, str]:
        """Manifests have the whole bounds of the texts by which rows are found, and no bounds of other texts.

        PyIceberg 0.12 cannot shorten every text: the next character after U+D7FF is none, and its commit fails.
        """
        found_by = {*self.key, *self.sort_by}
        return {
            f"write.metadata.metrics.column.{column.name}": "full" if column.name in found_by else "counts"
            for column in self.columns
            if column.type == "string"
        }


def decoded_bytes(rows: pa.Table) -> int:
    """An upper estimate of the memory of rows after :meth:`TableContract.conform`, in bytes."""
    return int(rows.nbytes) + sum(
        _bytes_of_texts(chunk)
        for column in rows.columns
        if pa.types.is_dictionary(column.type)
        for chunk in column.chunks
        if len(chunk)
    )


def _bytes_of_texts(encoded: pa.DictionaryArray) -> int:
    return int(pc.sum(pc.binary_length(encoded.dictionary).take(encoded.indices)).as_py() or 0)


@dataclass(frozen=True)
class Total:
    """The sum of a column."""

    name: str
    column: str


@dataclass(frozen=True)
class RowsWhere:
    """The number of rows with a given value in a column."""

    name: str
    column: str
    value: str


@dataclass(frozen=True)
class DistinctValues:
    """The number of distinct values of a column."""

    name: str
    column: str


Figure = Total | RowsWhere | DistinctValues
"""A number that ``engines/base.py`` computes from the rows of a partition, and that the UI plots.

Its name ends with its unit, e.g. ``driven_km``.
"""


@dataclass(frozen=True)
class SharedIdCheck:
    """A warning check for ids that several owners use in one partition.

    :param name: the name of the asset check.
    :param id_column: the key column with the ids.
    :param owner_column: the key column with the owners.
    :param description: what a shared id means; shown in the UI.
    """

    name: str
    id_column: str
    owner_column: str
    description: str


def identity_partition(event_date: date) -> date:
    """The partition of a table that is partitioned by event date."""
    return event_date


def same_dates(partitions: frozenset[date]) -> frozenset[date]:
    """The event dates of the partitions of a table that is partitioned by event date."""
    return partitions


@dataclass(frozen=True, kw_only=True)
class DerivedTable(TableContract):
    """A table that a transform computes from an upstream table.

    :param upstream: the table from which it is computed.
    :param transform: the module whose function ``refresh`` computes the rows; see
        :class:`telemetry_assets.transforms.refresh.Transform`. It is a name, because transforms import PySpark.
    :param key_check: the name of the asset check for rows with the same key, e.g. ``one_row_per_event``.
    :param shared_id_check: a warning check for ids that should belong to one owner; None if there is none.
    :param rebuild_description: what a materialization of chosen event dates replaces; shown on the asset's page.
    :param partition_of: returns the partition of an event date's rows; returns None if the table is not partitioned.
    :param next_partition: returns the partition after one; None if no row depends on events of the partition before.
    :param dates_of: returns the event dates whose upstream rows are needed to compute some partitions.
    :param affected_by: columns of both tables. A row of the upstream affects only rows of this table that have the same
        values in these columns, in the partitions of its event date. If it is empty, a refresh computes whole
        partitions.
    :param newest_by: if given, new upstream rows are merged by key: of two rows with the same key, the one with the
        greater value in this column remains, and of two with the same value, the one that was computed later.
    :param figures: the numbers per partition that the UI plots.
    :param sources: for columns computed from an upstream column of another name, the name of that column.
    :param fresh_within: the UI shows the table as stale if its newest materialization is older than this.
    :param transform_edition: raise it if the transform computes other rows from the same upstream. The next run then
        rebuilds the table.
    :param uses_alert_rules: whether the transform depends on the alert rules. If they change, the table is rebuilt too.
    :param as_of: the column with the date for which the rows are computed; None if they do not depend on the day of the
        refresh.
    """

    upstream: TableContract
    transform: str
    key_check: str
    rebuild_description: str
    partition_of: Callable[[date], date | None] = identity_partition
    next_partition: Callable[[date], date] | None = None
    dates_of: Callable[[frozenset[date]], frozenset[date]] = same_dates
    affected_by: tuple[str, ...] = ()
    newest_by: str | None = None
    figures: tuple[Figure, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict, hash=False)
    fresh_within: timedelta | None = None
    as_of: str | None = None
    transform_edition: int = 1
    uses_alert_rules: bool = False
    shared_id_check: SharedIdCheck | None = None

    @property
    def table_properties(self) -> dict[str, str]:
        """See :attr:`TableContract.table_properties`.

        Files are small, because a refresh rewrites the files of the rows that it replaces.
        """
        return {**super().table_properties, "write.target-file-size-bytes": str(_BYTES_IN_FILE)}

    def partitions_of(self, event_dates: Iterable[date]) -> frozenset[date]:
        """The partitions with rows that depend on upstream rows of some event dates.

        The rows of a table without partitions are refreshed by event date, so the dates are returned.
        """
        own = self.own_partitions_of(event_dates)
        return own if self.next_partition is None else own | frozenset(map(self.next_partition, own))

    def own_partitions_of(self, event_dates: Iterable[date]) -> frozenset[date]:
        """The partitions of some event dates; of a table without partitions, the event dates."""
        days = frozenset(event_dates)
        if self.partition is None:
            return days
        return frozenset(partition for day in days if (partition := self.partition_of(day)) is not None)

    @property
    def rebuild_reads_itself(self) -> bool:
        """Whether a rebuild computes rows also from the table's other rows, and not only from the upstream."""
        return self.partition is None or self.next_partition is not None

    def column_sources(self) -> dict[str, str]:
        """For each column that has an upstream column, its name: the one in ``sources``, or the same name."""
        same_name = {name: name for name in self.column_names if name in self.upstream.column_names}
        return {**same_name, **self.sources}
