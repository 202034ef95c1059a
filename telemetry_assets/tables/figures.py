"""Figures: numbers per partition that the UI plots. ``engines/base.py`` computes the figures."""

from __future__ import annotations

from dataclasses import dataclass


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
"""A number that is computed from the rows of a partition. Its name ends with its unit, e.g. ``driven_km``."""
