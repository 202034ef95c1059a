"""Rebuilds: the part of a derived table that still has to be computed from its upstream, and the pieces of this work.

The part is a property of the table. Each piece is committed with the property that no longer contains it, so a rebuild
continues after a kill, and other runs can refresh the table between two pieces. A piece has a bounded number of
upstream rows: those of some partitions, or of some cars in one partition.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import date, timedelta
from itertools import pairwise

from pyiceberg.table import Table

from telemetry_assets.lakehouse.cars import ALL_CARS, CAR, CarRange
from telemetry_assets.lakehouse.data_files import last_car, partition_date, record_counts
from telemetry_assets.lakehouse.watermarks import PENDING_REBUILD
from telemetry_assets.tables.contract import DerivedTable, Partitions

_DAY = timedelta(days=1)


@dataclass(frozen=True)
class PendingRebuild:
    """The part of a table that still has to be rebuilt.

    :param parts: the partitions; of a table without partitions, the event dates.
    :param reason: why the whole table is rebuilt, as a sentence part; empty if only a part is.
    :param request: the event dates that a person or a backfill has chosen, as text; empty if there are none.
    :param begun: the partitions of which the rows of some cars are rebuilt already.
    :param cars_done: the last of these cars.
    """

    parts: frozenset[date] = frozenset()
    reason: str = ""
    request: str = ""
    begun: frozenset[date] = frozenset()
    cars_done: str | None = None

    def __bool__(self) -> bool:
        return bool(self.parts)

    def with_changed(self, parts: frozenset[date]) -> PendingRebuild:
        """Add parts, because their upstream rows have changed."""
        pending = replace(self, parts=self.parts | parts)
        return replace(pending, begun=frozenset(), cars_done=None) if parts & self.begun else pending

    def with_requested(self, parts: frozenset[date], request: str) -> PendingRebuild:
        """Add parts that were chosen. If the same request is unfinished, it is continued."""
        if self.request == request and parts & self.parts:
            return self
        return replace(self.with_changed(parts), request=request)

    def without(self, piece: Piece) -> PendingRebuild:
        """What is left after a piece."""
        if piece.cars.through is not None:
            return replace(self, begun=piece.parts, cars_done=piece.cars.through)
        parts = self.parts - piece.parts
        return PendingRebuild(parts, self.reason, self.request) if parts else PendingRebuild()

    def to_property(self) -> dict[str, str]:
        """The table property. Its value is empty if nothing is left."""
        if not self.parts:
            return {PENDING_REBUILD: ""}
        content = {
            "parts": date_ranges(self.parts),
            "reason": self.reason,
            "request": self.request,
            "begun": date_ranges(self.begun),
            "cars_done": self.cars_done,
        }
        return {PENDING_REBUILD: json.dumps({name: value for name, value in content.items() if value})}

    @classmethod
    def of(cls, table: Table) -> PendingRebuild:
        """The part of a table that has to be rebuilt, from its property."""
        text = table.properties.get(PENDING_REBUILD, "")
        if not text:
            return cls()
        content = json.loads(text)
        return cls(
            dates_in_ranges(content.get("parts", ())),
            content.get("reason", ""),
            content.get("request", ""),
            dates_in_ranges(content.get("begun", ())),
            content.get("cars_done"),
        )


@dataclass(frozen=True)
class Piece:
    """A part of a rebuild that is computed and committed at once.

    :param parts: the partitions; of a table without partitions, the event dates.
    :param dates: the event dates whose upstream rows are needed.
    :param rows: an estimate of the number of these rows.
    :param cars: the cars whose rows are rebuilt.
    """

    parts: frozenset[date]
    dates: frozenset[date]
    rows: int
    cars: CarRange = ALL_CARS

    def partitions(self, contract: DerivedTable) -> Partitions:
        """The partitions of the table that the piece replaces; None if the table is not partitioned."""
        return None if contract.partition is None else self.parts

    def __str__(self) -> str:
        parts = ", ".join(date_ranges(self.parts))
        return f"{parts}, {self.cars}, about {self.rows:,} rows" if self.cars != ALL_CARS else parts


def next_piece(
    contract: DerivedTable, upstream: Table, pending: PendingRebuild, most_rows: int, *, splits: bool = True
) -> Piece:
    """The next piece of a rebuild, newest partitions first, or oldest first if they depend on each other.

    :param pending: must not be empty.
    :param most_rows: the greatest number of upstream rows of a piece. One partition may have more.
    :param splits: whether such a partition is split by cars, if the table has cars.
    """
    if not splits:
        pending = replace(pending, begun=frozenset(), cars_done=None)
    tasks = list(upstream.scan().plan_files())
    rows = record_counts(task.file for task in tasks)

    def rows_for(parts: Iterable[date]) -> int:
        return sum(rows[day] for day in contract.dates_of(frozenset(parts)))

    # The rows of a partition may be computed from those of the one before, so that one is rebuilt first.
    is_newest_first = contract.next_partition is None
    parts = pending.begun or _first_parts(sorted(pending.parts, reverse=is_newest_first), rows_for, most_rows)
    count, dates = rows_for(parts), contract.dates_of(frozenset(parts))
    piece = Piece(frozenset(parts), dates, count)
    if not pending.begun and (count <= most_rows or not splits or not _has_cars(contract)):
        return piece
    of_piece = [task for task in tasks if partition_date(task.file) in dates]
    through = last_car(upstream, of_piece, pending.cars_done, most_rows / max(count, 1))
    return replace(piece, rows=min(count, most_rows), cars=CarRange(pending.cars_done, through))


def _first_parts(parts: Iterable[date], rows_for: Callable[[Iterable[date]], int], most_rows: int) -> frozenset[date]:
    """The first parts that together need at most ``most_rows`` upstream rows, or the first one if it needs more."""
    taken: list[date] = []
    for part in parts:
        if taken and rows_for([*taken, part]) > most_rows:
            break
        taken.append(part)
    return frozenset(taken)


def _has_cars(contract: DerivedTable) -> bool:
    return CAR in (*contract.key, *contract.affected_by)


def date_ranges(days: Iterable[date]) -> list[str]:
    """Dates as texts, ``2025-11-04`` or ``2025-11-04/2025-11-09`` for consecutive dates."""
    return [f"{start}/{end}" if end > start else f"{start}" for start, end in consecutive_dates(days)]


def consecutive_dates(days: Iterable[date]) -> list[tuple[date, date]]:
    """The first and the last date of each run of consecutive dates."""
    ordered = sorted(days)
    starts = [day for before, day in pairwise([date.min, *ordered]) if before == date.min or day - before > _DAY]
    ends = [day for day, after in pairwise([*ordered, date.max]) if after == date.max or after - day > _DAY]
    return list(zip(starts, ends, strict=True))


def dates_in_ranges(ranges: Iterable[str]) -> frozenset[date]:
    """The dates of which :func:`date_ranges` returned ``ranges``."""
    days: set[date] = set()
    for text in ranges:
        start, _, end = text.partition("/")
        first, last = date.fromisoformat(start), date.fromisoformat(end or start)
        days.update(first + timedelta(offset) for offset in range((last - first).days + 1))
    return frozenset(days)
