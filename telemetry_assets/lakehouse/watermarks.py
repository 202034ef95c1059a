"""The watermark of a derived table: the snapshot of its upstream that it has processed.

The watermark is a property of the derived table, so no other store has to agree with the tables. It is the id of the
upstream's snapshot, or ``none`` for an upstream without snapshots.
"""

from __future__ import annotations

from datetime import UTC, datetime

from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from telemetry_assets.lakehouse.commits import was_rolled_back
from telemetry_assets.tables.contract import TableContract

NO_SNAPSHOT = "none"
"""The watermark for an upstream that had no snapshot."""


def watermark_property(upstream: TableContract) -> str:
    """The name of the table property that has the watermark."""
    return f"telemetry.applied.{upstream.full_name}"


def watermark_properties(upstream: TableContract, snapshot: Snapshot | None) -> dict[str, str]:
    """The table property for a derived table that has processed a snapshot of its upstream.

    :param snapshot: the upstream's current snapshot; None if it has none.
    """
    return {watermark_property(upstream): str(snapshot.snapshot_id) if snapshot else NO_SNAPSHOT}


def watermark_of(derived: Table, upstream: TableContract) -> str | None:
    """The watermark of a derived table; None if it was never refreshed."""
    return derived.properties.get(watermark_property(upstream))


def is_behind(derived: Table, upstream_contract: TableContract, upstream: Table) -> bool:
    """Whether the upstream's current snapshot differs from the watermark, or the table was rolled back.

    No manifest is read.
    """
    if was_rolled_back(derived):
        return True
    current = upstream.current_snapshot()
    applied = watermark_of(derived, upstream_contract) or NO_SNAPSHOT
    return applied != (str(current.snapshot_id) if current else NO_SNAPSHOT)


def behind_since(derived: Table | None, upstream_contract: TableContract, upstream: Table) -> datetime | None:
    """The time of the first upstream change that a derived table has not processed; None if it has processed all.

    No manifest is read. If one of the two tables was rolled back, it is the time of that table's last update.

    :param derived: None if the table does not exist; then the upstream's first known change counts.
    """
    if derived is not None and not is_behind(derived, upstream_contract, upstream):
        return None
    if derived is not None and was_rolled_back(derived):
        return _time(derived.metadata.last_updated_ms)
    applied = (watermark_of(derived, upstream_contract) if derived else None) or NO_SNAPSHOT
    first, snapshot = None, upstream.current_snapshot()
    while snapshot is not None and str(snapshot.snapshot_id) != applied:
        first, parent = snapshot, snapshot.parent_snapshot_id
        snapshot = upstream.snapshot_by_id(parent) if parent is not None else None
    if snapshot is None and applied != NO_SNAPSHOT:
        return _time(upstream.metadata.last_updated_ms)
    return _time(first.timestamp_ms) if first else None


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
