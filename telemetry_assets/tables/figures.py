"""Numbers of a partition that the UI plots. How an engine computes them is in ``engines/base.py``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Total:
    """The sum of a column."""

    name: str
    column: str


@dataclass(frozen=True)
class RowsWhere:
    """The number of rows whose column has a value."""

    name: str
    column: str
    value: str


@dataclass(frozen=True)
class DistinctValues:
    """The number of distinct values of a column."""

    name: str
    column: str


Figure = Total | RowsWhere | DistinctValues
"""A number of some rows; its name ends in its unit, e.g. ``driven_km``."""
