"""What the lakehouse's catalogs add to those of PyIceberg.

- The timestamps of a table's commits increase, even if the clock is set back. Iceberg's Java library, and with it
  Spark, Trino and Athena, does not open a table whose snapshots are out of order by more than a minute
  (``TableMetadata``: "Expected sorted snapshot log entries"). PyIceberg writes the time of the machine's clock.
- A metadata file is parsed once, because these files are immutable. PyIceberg parses it each time that a table is
  loaded, and the time for it grows with the number of snapshots.
- Metadata files that are no longer in a table's metadata log are deleted. PyIceberg does so only for commits of a
  :class:`Table` that has the whole log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

from pyiceberg.catalog import MetastoreCatalog
from pyiceberg.table import CommitTableResponse, StagedTable, Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.table.update import (
    AddSnapshotUpdate,
    SetPropertiesUpdate,
    SetSnapshotRefUpdate,
    TableRequirement,
    TableUpdate,
)
from pyiceberg.typedef import Identifier

from telemetry_assets.text.plain import plain_logger

logger = plain_logger(__name__)

_MOST_PARSED = 16
"""The number of metadata files whose content is kept in memory. A run commits to seven tables."""


class LakehouseCatalog(MetastoreCatalog):
    """A base class of catalogs. A catalog class must inherit from it first."""

    @cached_property
    def _parsed(self) -> dict[str, TableMetadata]:
        """The content of metadata files, those parsed last at the end."""
        return {}

    def forget_parsed(self) -> None:
        """Forget the content of all metadata files."""
        self._parsed.clear()

    def commit_table(
        self, table: Table, requirements: tuple[TableRequirement, ...], updates: tuple[TableUpdate, ...]
    ) -> CommitTableResponse:
        """See :meth:`pyiceberg.catalog.Catalog.commit_table`."""
        response = super().commit_table(table, requirements, updates)  # type: ignore[safe-super]
        self._keep(response.metadata_location, response.metadata)
        for file in self._superseded(response.metadata):
            try:
                table.io.delete(file)
            except OSError as error:
                # Maintenance deletes it later.
                logger.info("the old metadata file %s was not deleted: %s", file, error)
        return response

    def _loaded(self, identifier: Identifier, metadata_location: str | None, load: Callable[[], Table]) -> Table:
        """A table whose metadata is taken from memory if it was parsed before.

        :param load: loads the table and parses its metadata file.
        """
        metadata = self._parsed.get(metadata_location or "")
        if metadata_location is None or metadata is None:
            table = load()
            self._keep(table.metadata_location, table.metadata)
            return table
        return Table(
            identifier, metadata, metadata_location, self._load_file_io(metadata.properties, metadata_location), self
        )

    def _superseded(self, metadata: TableMetadata) -> set[str]:
        """The files that are no longer in the metadata log, but were in it before the last commit.

        They are not known if the metadata before is not in memory.
        """
        remaining = [past.metadata_file for past in metadata.metadata_log]
        before = self._parsed.get(remaining[-1]) if remaining else None
        return {past.metadata_file for past in before.metadata_log}.difference(remaining) if before else set()

    def _keep(self, metadata_location: str, metadata: TableMetadata) -> None:
        self._parsed.pop(metadata_location, None)
        self._parsed[metadata_location] = metadata
        for oldest in list(self._parsed)[:-_MOST_PARSED]:
            self._parsed.pop(oldest, None)

    def _update_and_stage_table(
        self,
        current_table: Table | None,
        table_identifier: Identifier,
        requirements: tuple[TableRequirement, ...],
        updates: tuple[TableUpdate, ...],
    ) -> StagedTable:
        if current_table is None:
            return super()._update_and_stage_table(current_table, table_identifier, requirements, updates)
        base = current_table.metadata
        in_order = tuple(_not_before(update, base.last_updated_ms) for update in updates)
        left_out = _not_concerned(base, updates)
        concerned = Table(
            table_identifier, _without(base, left_out), current_table.metadata_location, current_table.io, self
        )
        staged = super()._update_and_stage_table(concerned, table_identifier, requirements, in_order)
        staged.metadata = _with(staged.metadata, base, left_out)
        return staged


def _not_concerned(metadata: TableMetadata, updates: Iterable[TableUpdate]) -> list[Snapshot]:
    """The snapshots that some updates neither change nor refer to.

    PyIceberg copies all snapshots for each update, which takes longer the more there are.
    """
    if not all(isinstance(one, (AddSnapshotUpdate, SetSnapshotRefUpdate, SetPropertiesUpdate)) for one in updates):
        return []
    if not any(isinstance(one, AddSnapshotUpdate) for one in updates):
        # The requirements of a commit that only creates tags consider all snapshots.
        return []
    named = {one.snapshot_id for one in updates if isinstance(one, SetSnapshotRefUpdate)}
    named |= {ref.snapshot_id for ref in metadata.refs.values()}
    return [one for one in metadata.snapshots if one.snapshot_id not in named]


def _without(metadata: TableMetadata, left_out: Sequence[Snapshot]) -> TableMetadata:
    if not left_out:
        return metadata
    ids = {one.snapshot_id for one in left_out}
    kept = [one for one in metadata.snapshots if one.snapshot_id not in ids]
    return metadata.model_copy(update={"snapshots": kept, "snapshot_log": []})


def _with(updated: TableMetadata, base: TableMetadata, left_out: Sequence[Snapshot]) -> TableMetadata:
    """Updated metadata with the snapshots and the log that were left out, and not updated before ``base``."""
    changes: dict[str, Any] = {"last_updated_ms": max(updated.last_updated_ms, base.last_updated_ms)}
    if left_out:
        known = {one.snapshot_id for one in base.snapshots}
        kept = {one.snapshot_id: one for one in updated.snapshots}
        new = [one for one in updated.snapshots if one.snapshot_id not in known]
        changes["snapshots"] = [*(kept.get(one.snapshot_id, one) for one in base.snapshots), *new]
        changes["snapshot_log"] = [*base.snapshot_log, *updated.snapshot_log]
    return updated.model_copy(update=changes)


def _not_before(update: TableUpdate, timestamp_ms: int) -> TableUpdate:
    if not isinstance(update, AddSnapshotUpdate) or update.snapshot.timestamp_ms >= timestamp_ms:
        return update
    return update.model_copy(update={"snapshot": update.snapshot.model_copy(update={"timestamp_ms": timestamp_ms})})
