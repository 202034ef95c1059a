"""Commits whose moments never go back, whatever this machine's clock does.

Iceberg's Java library, and with it Spark, Trino and Athena, opens no table whose snapshots are out of order by more
than a minute (``TableMetadata``: "Expected sorted snapshot log entries"). PyIceberg writes what the clock says.
"""

from __future__ import annotations

from pyiceberg.catalog import MetastoreCatalog
from pyiceberg.table import StagedTable, Table
from pyiceberg.table.update import AddSnapshotUpdate, TableRequirement, TableUpdate
from pyiceberg.typedef import Identifier


class OrderedCommits(MetastoreCatalog):
    """For a catalog class to inherit from first: a commit is never older than the one before it."""

    def _update_and_stage_table(
        self,
        current_table: Table | None,
        table_identifier: Identifier,
        requirements: tuple[TableRequirement, ...],
        updates: tuple[TableUpdate, ...],
    ) -> StagedTable:
        if current_table is None:
            return super()._update_and_stage_table(current_table, table_identifier, requirements, updates)
        latest = current_table.metadata.last_updated_ms
        in_order = tuple(_not_before(update, latest) for update in updates)
        staged = super()._update_and_stage_table(current_table, table_identifier, requirements, in_order)
        # Of updates without a snapshot.
        if staged.metadata.last_updated_ms < latest:
            staged.metadata = staged.metadata.model_copy(update={"last_updated_ms": latest})
        return staged


def _not_before(update: TableUpdate, moment: int) -> TableUpdate:
    if not isinstance(update, AddSnapshotUpdate) or update.snapshot.timestamp_ms >= moment:
        return update
    return update.model_copy(update={"snapshot": update.snapshot.model_copy(update={"timestamp_ms": moment})})
