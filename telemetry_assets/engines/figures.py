"""Computes a table's figures from rows in Arrow, or as aggregates of rows in Spark."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from telemetry_assets.tables.figures import DistinctValues, Figure, RowsWhere, Total

if TYPE_CHECKING:
    from pyspark.sql import Column


def figure_of_rows(figure: Figure, rows: pa.Table) -> float:
    """The figure of rows in Arrow."""
    column = rows[figure.column]
    match figure:
        case Total():
            return float(pc.sum(column).as_py() or 0)
        case RowsWhere():
            return int(pc.sum(pc.equal(column, figure.value)).as_py() or 0)
        case DistinctValues():
            return int(pc.count_distinct(column).as_py())


def figure_aggregate(figure: Figure) -> Column:
    """The figure as an aggregate of rows in Spark, named after the figure."""
    from pyspark.sql import functions as f

    match figure:
        case Total():
            aggregate = f.coalesce(f.sum(figure.column), f.lit(0.0))
        case RowsWhere():
            aggregate = f.count(f.when(f.col(figure.column) == figure.value, 1))
        case DistinctValues():
            aggregate = f.countDistinct(figure.column)
    return aggregate.alias(figure.name)
