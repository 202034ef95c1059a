"""Sets of cars, and which data files and row groups may have rows of them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

CAR = "car_chassis"
"""The column of the car in every table that has one. The files of these tables are sorted by it."""


class Cars(Protocol):
    """A set of cars."""

    def may_be_between(self, lower: str | None, upper: str | None) -> bool:
        """Whether a car of the set may be in a file or row group with these bounds; None if a bound is unknown."""
        ...

    def among(self, names: pa.ChunkedArray) -> pa.ChunkedArray:
        """For each of some car names, whether the set contains it."""
        ...


@dataclass(frozen=True)
class CarRange:
    """Cars in the order of their names.

    :param after: the cars are greater than this name; None if there is no lower bound.
    :param through: the last car; None if there is no upper bound.
    """

    after: str | None = None
    through: str | None = None

    def may_be_between(self, lower: str | None, upper: str | None) -> bool:
        """See :meth:`Cars.may_be_between`."""
        too_low = self.after is not None and upper is not None and upper <= self.after
        too_high = self.through is not None and lower is not None and lower > self.through
        return not (too_low or too_high)

    def among(self, names: pa.ChunkedArray) -> pa.ChunkedArray:
        """See :meth:`Cars.among`."""
        inside = pc.is_valid(names)
        if self.after is not None:
            inside = pc.and_(inside, pc.greater(names, self.after))
        if self.through is not None:
            inside = pc.and_(inside, pc.less_equal(names, self.through))
        return inside

    def __str__(self) -> str:
        after = f" after {self.after}" if self.after is not None else ""
        through = f" through {self.through}" if self.through is not None else ""
        return f"cars{after}{through}" if after or through else "all cars"


ALL_CARS = CarRange()


@dataclass(frozen=True)
class CarSet:
    """The cars with some names."""

    names: frozenset[str]
    _sorted: list[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_sorted", sorted(self.names))

    @classmethod
    def of(cls, names: Iterable[str]) -> CarSet:
        """The set of some names."""
        return cls(frozenset(names))

    def may_be_between(self, lower: str | None, upper: str | None) -> bool:
        """See :meth:`Cars.may_be_between`."""
        first = bisect_left(self._sorted, lower) if lower is not None else 0
        return first < len(self._sorted) and (upper is None or self._sorted[first] <= upper)

    def among(self, names: pa.ChunkedArray) -> pa.ChunkedArray:
        """See :meth:`Cars.among`."""
        return pc.is_in(names, pa.array(self._sorted, pa.string()))
