"""Commits that replace data files and manifests, and change no row.

They have Iceberg's operation ``replace``, for which PyIceberg 0.12 has no class. A data file that replaces others has
the greatest of their data sequence numbers, so that it counts as no newer than its rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile, ManifestEntry, ManifestEntryStatus, ManifestFile
from pyiceberg.table import Table, Transaction
from pyiceberg.table.snapshots import Operation, Summary
from pyiceberg.table.update.snapshot import _SnapshotProducer
from pyiceberg.typedef import EMPTY_DICT

from telemetry_assets.lakehouse.commits import commit
from telemetry_assets.lakehouse.snapshots import MAINTENANCE


@dataclass(frozen=True)
class NewFile:
    """A data file that replaces others.

    :param file: the data file, which belongs to no table yet.
    :param sequence_number: the greatest data sequence number of the files that it replaces.
    """

    file: DataFile
    sequence_number: int


@dataclass(frozen=True)
class Rewrite:
    """The manifests of a table after a rewrite.

    :param kept: manifests that do not change.
    :param existing: data files that are in other manifests now: for each new manifest, its entries.
    :param added: the new data files.
    :param removed: the entries of the data files that the new ones replace.
    """

    kept: Sequence[ManifestFile]
    existing: Sequence[Sequence[ManifestEntry]]
    added: Sequence[NewFile]
    removed: Sequence[ManifestEntry]


def commit_rewrite(table: Table, rewrite: Rewrite, purpose: str) -> None:
    """Commit a rewrite as one snapshot.

    :param table: the table as it was loaded before its manifests were read.
    :param purpose: the value of the property ``telemetry.maintenance`` in the snapshot's summary.
    :raises CommitFailedException: if the table has changed since it was loaded.
    """

    def change(transaction: Transaction, properties: dict[str, str]) -> None:
        _RewriteFiles(transaction, table.io, properties, rewrite).commit()

    commit(table, change, {MAINTENANCE: purpose})


class _RewriteFiles(_SnapshotProducer["_RewriteFiles"]):
    def __init__(self, transaction: Transaction, io: FileIO, properties: dict[str, str], rewrite: Rewrite) -> None:
        # PyIceberg cannot compute the summary of the operation `replace`.
        super().__init__(Operation.OVERWRITE, transaction, io, snapshot_properties=properties)
        self._rewrite = rewrite
        self._added_data_files = [one.file for one in rewrite.added]
        self._deleted_data_files = {entry.data_file for entry in rewrite.removed}

    def _manifests(self) -> list[ManifestFile]:
        new = [
            ManifestEntry.from_args(
                status=ManifestEntryStatus.ADDED,
                snapshot_id=self._snapshot_id,
                sequence_number=one.sequence_number,
                data_file=one.file,
            )
            for one in self._rewrite.added
        ]
        removed = [
            _with_status(entry, ManifestEntryStatus.DELETED, self._snapshot_id) for entry in self._rewrite.removed
        ]
        existing = [
            [_with_status(entry, ManifestEntryStatus.EXISTING, entry.snapshot_id) for entry in entries]
            for entries in self._rewrite.existing
        ]
        written = [self._write(entries) for entries in (new, removed, *existing) if entries]
        return [*written, *self._rewrite.kept]

    def _write(self, entries: Sequence[ManifestEntry]) -> ManifestFile:
        with self.new_manifest_writer(self._transaction.table_metadata.spec()) as writer:
            for entry in entries:
                writer.add_entry(entry)
        return writer.to_manifest_file()

    def _summary(self, snapshot_properties: Mapping[str, str] = EMPTY_DICT) -> Summary:
        summary = super()._summary(dict(snapshot_properties))
        return Summary(Operation.REPLACE, **summary.additional_properties)

    def _deleted_entries(self) -> list[ManifestEntry]:
        return list(self._rewrite.removed)

    def _existing_manifests(self) -> list[ManifestFile]:
        return list(self._rewrite.kept)


def _with_status(entry: ManifestEntry, status: ManifestEntryStatus, snapshot_id: int | None) -> ManifestEntry:
    return ManifestEntry.from_args(
        status=status,
        snapshot_id=snapshot_id,
        sequence_number=entry.sequence_number,
        file_sequence_number=entry.file_sequence_number,
        data_file=entry.data_file,
    )
