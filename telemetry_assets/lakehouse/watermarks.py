"""The watermark of a derived table: the snapshot of its upstream that it has processed.

The watermark is a property of the derived table, so no other store has to agree with the tables. It is the id of the
upstream's snapshot, or ``none`` for an upstream without snapshots. Another property has the snapshot's
:class:`~telemetry_assets.lakehouse.snapshots.Position`, so that changes can be found after the snapshot has expired.
"""

from __future__ import annotations

from datetime import UTC, datetime

from pyiceberg.table import Table

from telemetry_assets.lakehouse.commits import was_rolled_back
from telemetry_assets.lakehouse.snapshots import NO_SNAPSHOT, Position, current_ancestors, ids_of
from telemetry_assets.tables.contract import DerivedTable, TableContract

TRANSFORM_EDITION = "telemetry.transform-edition"
"""The table property with the edition of the transform that has computed the rows, and the watermark that it set."""

PENDING_REBUILD = "telemetry.pending-rebuild"
"""The table property with the part of the table that still has to be rebuilt, as JSON; empty if there is none."""

# Tables that were refreshed before there were editions do not have the property.
_FIRST_EDITION = "1"


def watermark_property(upstream: TableContract) -> str:
    """The name of the table property that has the watermark."""
    return f"telemetry.applied.{upstream.full_name}"


def watermark_properties(contract: TableContract, upstream: Table, edition: str) -> dict[str, str]:
    """The table properties for a derived table that has processed the current snapshot of its upstream.

    :param contract: the contract of the upstream.
    :param edition: the edition of the transform that has processed it.
    """
    snapshot, position = upstream.current_snapshot(), Position.of(upstream.metadata, upstream.io)
    applied = str(snapshot.snapshot_id) if snapshot else NO_SNAPSHOT
    return {
        watermark_property(contract): applied,
        _position_property(contract): position.to_json() if position else "",
        TRANSFORM_EDITION: f"{edition}@{applied}",
    }


def watermark_of(derived: Table, upstream: TableContract) -> str | None:
    """The watermark of a derived table; None if it was never refreshed."""
    return derived.properties.get(watermark_property(upstream))


def position_of(derived: Table, upstream: TableContract) -> Position | None:
    """The position of the watermark's snapshot; None if there is none, or if version 0.1.0 has set the watermark."""
    watermark = watermark_of(derived, upstream) or NO_SNAPSHOT
    return Position.from_json(derived.properties.get(_position_property(upstream), ""), watermark)


def _position_property(upstream: TableContract) -> str:
    return f"telemetry.applied-position.{upstream.full_name}"


def applied_edition(derived: Table, contract: DerivedTable) -> str | None:
    """The edition of the transform that has computed a table's rows; None if it was never refreshed."""
    watermark = watermark_of(derived, contract.upstream)
    if watermark is None:
        return None
    edition, _, applied = derived.properties.get(TRANSFORM_EDITION, "").partition("@")
    # Version 0.1.0 moves the watermark, but does not know this property.
    return edition if applied == watermark else _FIRST_EDITION


def is_behind(derived: Table, contract: DerivedTable, upstream: Table, edition: str) -> bool:
    """Whether a table needs a refresh.

    Its upstream or its transform has changed, a rebuild is unfinished, or it was rolled back. Manifests are read only
    if another program has expired the snapshot with which the table's properties were set.

    :param edition: the edition of the transform that is in force.
    """
    if was_rolled_back(derived) or applied_edition(derived, contract) not in (None, edition):
        return True
    return bool(derived.properties.get(PENDING_REBUILD)) or has_changes(derived, contract, upstream)


def has_changes(derived: Table, contract: DerivedTable, upstream: Table) -> bool:
    """Whether the upstream has another snapshot than the one of the watermark. No manifest is read."""
    current = upstream.current_snapshot()
    applied = watermark_of(derived, contract.upstream) or NO_SNAPSHOT
    return applied != (str(current.snapshot_id) if current else NO_SNAPSHOT)


def behind_since(derived: Table | None, upstream_contract: TableContract, upstream: Table) -> datetime | None:
    """The time of the first upstream change that a derived table has not processed; None if it has processed all.

    No manifest is read. If one of the two tables was rolled back, it is the time of that table's last update. A new
    edition of the transform is not considered, because its rows are in the table already.

    :param derived: None if the table does not exist; then the upstream's first known change counts.
    """
    if derived is not None and was_rolled_back(derived):
        return _time(derived.metadata.last_updated_ms)
    current = upstream.current_snapshot()
    applied = (watermark_of(derived, upstream_contract) if derived else None) or NO_SNAPSHOT
    if applied == (str(current.snapshot_id) if current else NO_SNAPSHOT):
        return None
    first = None
    for snapshot in current_ancestors(upstream):
        if str(snapshot.snapshot_id) == applied:
            break
        first = snapshot
        if applied in ids_of(snapshot):
            break
    else:
        if applied != NO_SNAPSHOT:
            return _time(upstream.metadata.last_updated_ms)
    return _time(first.timestamp_ms) if first else None


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
