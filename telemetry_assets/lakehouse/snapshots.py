"""The snapshots of a table: their order, the properties in their summaries, and positions. Nothing is written.

A :class:`Position` describes a snapshot so that the table can be compared with it after it has expired, as other
programs may expire snapshots that this project has recorded. The data sequence numbers of the data files then say
which rows are newer. A program that only rewrites files keeps these numbers, as Spark's ``rewrite_data_files`` does
(Iceberg's option ``use-starting-sequence-number``, on by default).
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict, ValidationError
from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile, ManifestContent, ManifestFile
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Operation, Snapshot

_TOTAL_RECORDS, _ADDED_RECORDS = "total-records", "added-records"

NO_SNAPSHOT = "none"
"""Stands for the snapshot of a table that has none."""
RUN_ID = "telemetry.run-id"
"""The property in a snapshot's summary with the id of the run that committed it."""
CHANGED_ROWS = "telemetry.changed-rows"
"""The property in a snapshot's summary with the number of rows that it added, replaced or removed.

Its files may have more rows, which have only moved."""
COMMIT_ID = "telemetry.commit-id"
"""The property in a snapshot's summary with the id of its commit. An overwrite may commit two snapshots."""
BATCH_ID = "telemetry.batch-id"
"""The property in a snapshot's summary with the id of the ingestion batch that it appended."""
REMOVED_BATCH_ID = "telemetry.removed-batch-id"
"""The property in a snapshot's summary with the id of a batch whose rows it removed. They are appended again."""
MAINTENANCE = "telemetry.maintenance"
"""The property in the summary of a snapshot that rewrites files and changes no row."""


def current_ancestors(table: Table) -> Iterator[Snapshot]:
    """The current snapshot of a table and its ancestors, newest first, until one has expired."""
    return ancestors(table.metadata)


def ancestors(metadata: TableMetadata) -> Iterator[Snapshot]:
    """See :func:`current_ancestors`. PyIceberg's ``ancestors_of`` searches all snapshots for each ancestor."""
    by_id = {snapshot.snapshot_id: snapshot for snapshot in metadata.snapshots}
    snapshot = metadata.current_snapshot()
    while snapshot is not None:
        yield snapshot
        snapshot = by_id.get(snapshot.parent_snapshot_id) if snapshot.parent_snapshot_id is not None else None


def ids_of(snapshot: Snapshot) -> tuple[str, str]:
    """The ids of a snapshot and of its parent, which may have expired. PyIceberg's expiry removes the parent's id."""
    return str(snapshot.snapshot_id), str(snapshot.parent_snapshot_id)


def summary_of(snapshot: Snapshot) -> dict[str, str]:
    """The properties in a snapshot's summary."""
    return dict(snapshot.summary.additional_properties) if snapshot.summary else {}


def changes_no_row(snapshot: Snapshot) -> bool:
    """Whether a snapshot only rewrites files: marked maintenance, or Iceberg's operation ``replace``."""
    is_replacement = snapshot.summary is not None and snapshot.summary.operation == Operation.REPLACE
    return is_replacement or bool(summary_of(snapshot).get(MAINTENANCE))


def is_own(snapshot: Snapshot) -> bool:
    """Whether a run of this project committed a snapshot."""
    summary = summary_of(snapshot)
    return RUN_ID in summary or BATCH_ID in summary


class Position(BaseModel):
    """A snapshot of a table, with what is needed to compare a later state of the table with it.

    :param table_uuid: the table's UUID; a table that was dropped and created again has another one.
    :param snapshot_id: the id of the snapshot.
    :param sequence_number: its sequence number. Files that are added later have a greater one.
    :param newest: the sequence number of the newest snapshot up to it that added rows.
    :param rows: the number of rows in its data files.
    """

    model_config = ConfigDict(frozen=True)

    table_uuid: str
    snapshot_id: str
    sequence_number: int
    newest: int
    rows: int

    @classmethod
    def of(cls, metadata: TableMetadata, io: FileIO) -> Position | None:
        """The current snapshot of a table; None if it has none, or if its summary has no number of rows."""
        snapshot = metadata.current_snapshot()
        rows = summary_of(snapshot).get(_TOTAL_RECORDS) if snapshot is not None else None
        if snapshot is None or rows is None:
            return None
        adding = next(filter(_adds_rows, ancestors(metadata)), None)
        # The snapshot that added the newest rows may have expired.
        newest = adding.sequence_number if adding is not None else _newest_file(snapshot, io)
        return cls(
            table_uuid=str(metadata.table_uuid),
            snapshot_id=str(snapshot.snapshot_id),
            sequence_number=snapshot.sequence_number or 0,
            newest=newest or 0,
            rows=int(rows),
        )

    @classmethod
    def from_json(cls, text: str, snapshot_id: str) -> Position | None:
        """A position that was stored as JSON; None if the text has none, or that of another snapshot."""
        try:
            position = cls.model_validate_json(text)
        except ValidationError:
            return None
        return position if position.snapshot_id == snapshot_id else None

    def to_json(self) -> str:
        """The position as JSON."""
        return self.model_dump_json()


def files_added_after(table: Table, position: Position) -> list[DataFile] | None:
    """The data files that were added after a position.

    :returns: None if rows of the position may have been removed or replaced since.
    """
    snapshot = table.current_snapshot()
    if snapshot is None or str(table.metadata.table_uuid) != position.table_uuid:
        return None
    if (snapshot.sequence_number or 0) < position.sequence_number:
        # The table was rolled back.
        return None
    rows, newest = 0, 0
    added: list[DataFile] = []
    for manifest in snapshot.manifests(table.io):
        written = manifest.sequence_number or 0
        if manifest.content == ManifestContent.DELETES:
            if written > position.sequence_number:
                return None
        elif written < position.newest:
            rows += (manifest.added_rows_count or 0) + (manifest.existing_rows_count or 0)
        else:
            for sequence_number, file in _data_files(manifest, table.io):
                if sequence_number > position.sequence_number:
                    added.append(file)
                else:
                    rows += file.record_count
                    newest = max(newest, sequence_number)
    # All rows of the position are there if none is missing and the newest ones are there. After a rollback to a
    # snapshot before the newest rows, the number of rows may be the same.
    return added if rows == position.rows and newest >= position.newest else None


def _adds_rows(snapshot: Snapshot) -> bool:
    return not changes_no_row(snapshot) and int(summary_of(snapshot).get(_ADDED_RECORDS, "0")) > 0


def _newest_file(snapshot: Snapshot, io: FileIO) -> int:
    """The greatest data sequence number of a snapshot's data files; 0 if it has none."""
    manifests = [one for one in snapshot.manifests(io) if one.content == ManifestContent.DATA]
    return max((number for one in manifests for number, _ in _data_files(one, io)), default=0)


def _data_files(manifest: ManifestFile, io: FileIO) -> Iterator[tuple[int, DataFile]]:
    """The data files of a manifest, with their data sequence numbers."""
    for entry in manifest.fetch_manifest_entry(io):
        yield entry.sequence_number or 0, entry.data_file
