"""Orphans: files below a table's location that no snapshot of the table needs.

They remain when a process is killed, when a commit fails, or when a snapshot that was rolled back expires. A file that
a process has written and will commit looks the same, so only old files are removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import chain

from pyiceberg.table import Table

from telemetry_assets.aws.limits import MOST_THREADS
from telemetry_assets.lakehouse.snapshots import ancestors
from telemetry_assets.lakehouse.stored_files import StoredFile, path_of, stored_files

_ENDINGS = (".parquet", ".avro", ".metadata.json", ".puffin")
"""The endings of the files that Iceberg writes. Other files are not touched."""


def orphans(load: Callable[[], Table], written_before: datetime) -> list[StoredFile]:
    """The orphans of a table that were written before a time, and before its oldest snapshot.

    The second condition protects files that are being written if the clock of a machine is wrong.

    :param load: loads the table. It is called after the files are listed, so that a commit in between is seen.
    :returns: nothing if the manifest list of the oldest snapshot is not below the table's location.
    """
    listed = [one for one in stored_files(load().location()) if one.uri.endswith(_ENDINGS)]
    table = load()
    lineage = list(ancestors(table.metadata))
    if lineage:
        oldest = path_of(lineage[-1].manifest_list)
        written = [one.modified for one in listed if path_of(one.uri) == oldest]
        if not written:
            return []
        written_before = min(written_before, *written)
    needed = set(map(path_of, _needed(table)))
    return [one for one in listed if one.modified < written_before and path_of(one.uri) not in needed]


def _needed(table: Table) -> Iterator[str]:
    """All files that a table's metadata refers to."""
    metadata = table.metadata
    yield table.metadata_location
    yield from (past.metadata_file for past in metadata.metadata_log)
    yield from (one.statistics_path for one in (*metadata.statistics, *metadata.partition_statistics))
    yield from (snapshot.manifest_list for snapshot in metadata.snapshots)
    with ThreadPoolExecutor(MOST_THREADS) as threads:
        lists = threads.map(lambda snapshot: snapshot.manifests(table.io), metadata.snapshots)
        manifests = {one.manifest_path: one for one in chain.from_iterable(lists)}
        yield from manifests
        # Deleted entries are among them: their files may be needed by the snapshot before.
        entries = threads.map(lambda one: one.fetch_manifest_entry(table.io, discard_deleted=False), manifests.values())
        yield from (entry.data_file.file_path for entry in chain.from_iterable(entries))
