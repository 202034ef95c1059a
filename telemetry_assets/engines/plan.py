"""The plan of one step of a refresh: the tables, each at one snapshot, and what the step computes.

Every engine begins each attempt at a step with a plan. A plan reads metadata only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from typing import Literal

from pyiceberg.table import FileScanTask, Table

from telemetry_assets.errors import TableMismatchError
from telemetry_assets.lakehouse.cars import ALL_CARS, CarRange
from telemetry_assets.lakehouse.catalog import Lakehouse
from telemetry_assets.lakehouse.changes import Changes, changes_since_watermark
from telemetry_assets.lakehouse.data_files import car_bounds, dates_in, record_counts
from telemetry_assets.lakehouse.quality import repeated_among
from telemetry_assets.lakehouse.rebuilds import PendingRebuild, Piece, date_ranges, next_piece
from telemetry_assets.lakehouse.snapshots import RUN_ID
from telemetry_assets.lakehouse.watermarks import watermark_properties
from telemetry_assets.settings import Settings
from telemetry_assets.tables.contract import DerivedTable, Partitions, TableContract
from telemetry_assets.transforms.refresh import RefreshParameters

_DATES_LISTED = 100
_NO_EVENTS = date(1970, 1, 1)
"""Stands for the event dates of an upstream without rows."""

Action = Literal["update", "rebuild", "register"]
"""What a step does: update the rows that changed upstream rows affect, rebuild a piece, or only set properties."""


@dataclass(frozen=True)
class RefreshRequest:
    """What a run wants of a table.

    :param event_dates: event dates to rebuild; None to refresh only what is behind.
    :param run_id: the run that refreshes the table.
    :param rebuilds: if false, parts of the table that have to be rebuilt are registered in it for a later refresh.
    """

    contract: DerivedTable
    event_dates: frozenset[date] | None
    parameters: RefreshParameters
    run_id: str
    rebuilds: bool = True


@dataclass(frozen=True)
class Limits:
    """How many rows a step reads at most.

    :param updated: changed upstream rows of an update. If more rows have changed, their event dates are rebuilt.
    :param of_bronze: Bronze rows of a piece of a rebuild.
    :param of_silver: Silver rows of a piece. They have no payload, and the Gold tables need few of their columns.
    :param splits_partitions: whether a partition with more rows is rebuilt in several pieces, each of some cars.
    """

    updated: int
    of_bronze: int
    of_silver: int
    splits_partitions: bool = True

    def most_rows_of_piece(self, contract: DerivedTable) -> int:
        """The greatest number of upstream rows of a piece of a table."""
        return self.of_silver if isinstance(contract.upstream, DerivedTable) else self.of_bronze


def embedded_limits(settings: Settings) -> Limits:
    """The limits of the embedded engine."""
    return Limits(settings.update_max_rows, settings.rebuild_max_rows, settings.gold_rebuild_max_rows)


def spark_limits(settings: Settings) -> Limits:
    """The limits of Spark, on this machine or remote. It replaces whole partitions, so it does not split them."""
    most_rows = settings.spark_rebuild_max_rows
    return Limits(settings.update_max_rows, most_rows, most_rows, splits_partitions=False)


@dataclass(frozen=True)
class TableScan:
    """Rows of a table, at the snapshot that was current when the table was loaded.

    :param partitions: the partitions of the rows; None for the whole table.
    :param cars: the cars whose rows are needed. Rows of other cars may be read too.
    """

    contract: TableContract
    table: Table
    partitions: Partitions
    cars: CarRange

    @cached_property
    def files(self) -> list[FileScanTask]:
        """The data files that may have the rows."""
        planned = self.table.scan(self.contract.partition_filter(self.partitions)).plan_files()
        # In Bronze, names of cars may be as their documents spell them.
        if self.cars == ALL_CARS or not isinstance(self.contract, DerivedTable):
            return list(planned)
        return [task for task in planned if self.cars.may_be_between(*car_bounds(self.table, task.file))]

    def rows_by_date(self) -> Counter[date]:
        """The number of rows in the data files, by partition date."""
        return record_counts(task.file for task in self.files)


@dataclass(frozen=True)
class RefreshPlan:
    """One attempt at a step of a refresh.

    :param contract: the table that is refreshed.
    :param target: the loaded table.
    :param changes: the changes of the upstream after the watermark.
    :param event_dates: the event dates that the step refreshes.
    :param pending: what is to be rebuilt, before the step.
    :param piece: what the step rebuilds; None if it rebuilds nothing.
    :param affects_all_rows: whether an update computes all rows of the table, and not only those of the changed cars.
    :param edition: the edition of the transform that is in force.
    :param run_id: the run that refreshes the table.
    """

    contract: DerivedTable
    target: Table
    upstream: Table
    changes: Changes
    event_dates: frozenset[date]
    pending: PendingRebuild
    piece: Piece | None
    action: Action
    affects_all_rows: bool
    edition: str
    run_id: str

    @property
    def left(self) -> PendingRebuild:
        """What is to be rebuilt after the step."""
        return self.pending.without(self.piece) if self.piece is not None else self.pending

    @property
    def properties(self) -> Mapping[str, str]:
        """The table properties that the step sets."""
        return self._properties(self.left)

    def properties_on(self, table: Table) -> Mapping[str, str]:
        """The table properties that the step sets in a separate commit after that of its rows.

        :param table: the table after the first commit. Another run may have registered more to rebuild since the plan.
            If these parts are among the rebuilt ones, they are not rebuilt again: the watermark is that of the plan, so
            the next run finds later changes again.
        """
        registered = PendingRebuild.of(table)
        left = self.left.with_changed(registered.parts - self.pending.parts)
        reason, request = left.reason or registered.reason, left.request or registered.request
        return self._properties(replace(left, reason=reason, request=request))

    def _properties(self, left: PendingRebuild) -> Mapping[str, str]:
        applied = watermark_properties(self.contract.upstream, self.upstream, self.edition)
        return {**applied, **left.to_property()}

    @property
    def summary(self) -> dict[str, str]:
        """The properties in the summary of each snapshot that the step commits."""
        return {
            RUN_ID: self.run_id,
            "telemetry.step": self.contract.full_name,
            "telemetry.event-dates": _dates_text(self.event_dates),
        }

    def with_pending(self, partitions: Partitions, reason: str) -> RefreshPlan:
        """A plan that only registers what has to be rebuilt.

        :param partitions: the partitions; None for the whole table.
        :param reason: why the whole table is rebuilt.
        """
        existing = _parts_with_rows(self.target, self.contract, dates_in(self.upstream))
        pending = (
            PendingRebuild(existing, reason) if partitions is None else self.pending.with_changed(partitions & existing)
        )
        return replace(self, pending=pending, piece=None, action="register", event_dates=frozenset())

    def upstream_rows(self, event_dates: Partitions, cars: CarRange = ALL_CARS) -> TableScan:
        """The upstream's rows of these event dates."""
        return TableScan(self.contract.upstream, self.upstream, event_dates, cars)

    @cached_property
    def rows_of_piece(self) -> TableScan:
        """The upstream's rows that the piece is computed from. There are none if the step rebuilds nothing."""
        if self.piece is None:
            return self.upstream_rows(frozenset())
        return self.upstream_rows(self.piece.dates, self.piece.cars)

    def previous_rows(self, partitions: Partitions, cars: CarRange = ALL_CARS) -> TableScan:
        """The table's own rows of these partitions before the step."""
        return TableScan(self.contract, self.target, partitions, cars)


def plan_refresh(lakehouse: Lakehouse, request: RefreshRequest, limits: Limits) -> RefreshPlan:
    """Load the tables, and determine the next step of a refresh.

    :raises TableMismatchError: if the table differs from its contract.
    """
    contract, event_dates = request.contract, request.event_dates
    target, upstream = lakehouse.table(contract), lakehouse.table(contract.upstream)
    # Another version of this project may have changed the table since the run began.
    if differences := lakehouse.differences(target, contract):
        raise TableMismatchError(contract.full_name, differences)
    edition = lakehouse.transform_edition(contract)
    has_update = bool(contract.newest_by or contract.affected_by)
    changes = changes_since_watermark(target, contract, upstream, edition, limits.updated if has_update else 0)
    pending = _pending(target, contract, upstream, changes, event_dates)
    affects_all_rows = _affects_all_rows(target, contract, request.parameters.insurance_as_of)
    action, piece = _action(contract, upstream, changes, pending, limits, rebuilds=request.rebuilds)
    if action == "update" and contract.next_partition is not None:
        # These partitions are updated from rows of the partition before, which are still to be rebuilt.
        after_pending = frozenset(map(contract.next_partition, pending.parts))
        pending = pending.with_changed(after_pending & contract.partitions_of(changes.dates))
    if action == "update" and contract.partition is None and pending and pending.reason:
        # While all older dates are still to be rebuilt, the transform may drop a value whose event was removed, because
        # an older value will be found. So a new date that is older than these is rebuilt too.
        older = frozenset(day for day in changes.dates if day < max(pending.parts))
        pending = pending.with_changed(older - pending.parts)
    if action == "register" and affects_all_rows and not pending:
        action = "update"
    taken = _event_dates(contract, upstream, changes, event_dates, action, piece)
    return RefreshPlan(
        contract, target, upstream, changes, taken, pending, piece, action, affects_all_rows, edition, request.run_id
    )


def plan_piece_after(plan: RefreshPlan, limits: Limits) -> RefreshPlan | None:
    """The plan of the piece after that of a plan. None if there is none, or if it needs the rows of this piece.

    The next step makes its own plan, which differs if another writer commits in the meantime.
    """
    if not plan.left or plan.contract.rebuild_reads_itself:
        return None
    return replace(plan, pending=plan.left, piece=_next_piece(plan.contract, plan.upstream, plan.left, limits))


def _next_piece(contract: DerivedTable, upstream: Table, pending: PendingRebuild, limits: Limits) -> Piece:
    return next_piece(contract, upstream, pending, limits.most_rows_of_piece(contract), splits=limits.splits_partitions)


def _pending(
    target: Table, contract: DerivedTable, upstream: Table, changes: Changes, event_dates: frozenset[date] | None
) -> PendingRebuild:
    if changes.everything:
        return PendingRebuild(_parts_with_rows(target, contract, changes.dates), changes.rebuild_reason)
    pending = PendingRebuild.of(target)
    if not changes.dates_to_rebuild and not event_dates:
        return pending
    existing = _parts_with_rows(target, contract, dates_in(upstream))
    changed, chosen = contract.partitions_of(changes.dates_to_rebuild), contract.partitions_of(event_dates or ())
    if contract.partition is not None:
        changed, chosen = changed & existing, chosen & existing
    pending = pending.with_changed(changed)
    return pending.with_requested(chosen, ",".join(date_ranges(event_dates))) if event_dates else pending


def _parts_with_rows(target: Table, contract: DerivedTable, upstream_dates: frozenset[date]) -> frozenset[date]:
    """The partitions that have rows, or will have some. Of a table without partitions, the upstream's event dates."""
    if contract.partition is None:
        # Without events, the table becomes empty, which is a piece too.
        return upstream_dates or (frozenset() if target.current_snapshot() is None else frozenset([_NO_EVENTS]))
    return contract.own_partitions_of(upstream_dates) | dates_in(target)


def _action(
    contract: DerivedTable,
    upstream: Table,
    changes: Changes,
    pending: PendingRebuild,
    limits: Limits,
    *,
    rebuilds: bool,
) -> tuple[Action, Piece | None]:
    if changes.added or changes.removed:
        return "update", None
    if pending and rebuilds:
        return "rebuild", _next_piece(contract, upstream, pending, limits)
    return "register", None


def _affects_all_rows(target: Table, contract: DerivedTable, as_of: date) -> bool:
    """Whether the rows of a table that depends on the day of the refresh are of another day, or a key is repeated."""
    if contract.as_of is None:
        return False
    rows = target.scan(selected_fields=(*contract.key, contract.as_of)).to_arrow()
    return rows[contract.as_of].unique().to_pylist() not in ([], [as_of]) or repeated_among(rows, contract) > 0


def _event_dates(
    contract: DerivedTable,
    upstream: Table,
    changes: Changes,
    chosen: frozenset[date] | None,
    action: Action,
    piece: Piece | None,
) -> frozenset[date]:
    """The event dates that a step refreshes.

    They are those that were chosen or have changed, if each partition of the piece has one. Otherwise an earlier run or
    step has registered a partition, and they are all dates of the piece.
    """
    if action == "update":
        return changes.dates - changes.dates_to_rebuild
    if piece is None:
        return frozenset()
    known = changes.dates | (chosen or frozenset())
    if piece.parts <= contract.partitions_of(known):
        return frozenset(day for day in known if contract.partitions_of([day]) & piece.parts)
    if contract.partition is None:
        return piece.parts - {_NO_EVENTS}
    return frozenset(day for day in dates_in(upstream) if contract.partition_of(day) in piece.parts)


def _dates_text(dates: frozenset[date]) -> str:
    if len(dates) <= _DATES_LISTED:
        return ",".join(day.isoformat() for day in sorted(dates))
    return f"{len(dates)} dates from {min(dates)} to {max(dates)}"
