"""Expiry: removes old snapshots of a table, and then the files that only they needed.

It never removes

- the current snapshot, and the snapshots that branches and tags refer to,
- a snapshot that was current within the retention, or that is among the newest ones,
- a snapshot that a derived table needs to find the changes of its upstream, or that a table's properties were set with,
- a file that a remaining snapshot needs.

If the process ends between the commit and the removal of the files, they belong to no snapshot, and
:mod:`~telemetry_assets.lakehouse.orphans` removes them. It also removes the files of snapshots that are no ancestors of
the current one, and those of a snapshot whose tag was removed after later snapshots had expired.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Set
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import chain, pairwise, takewhile

from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile, ManifestFile
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRefType
from pyiceberg.table.snapshots import Snapshot

from telemetry_assets.aws.limits import MOST_THREADS
from telemetry_assets.lakehouse.commits import change_snapshots
from telemetry_assets.lakehouse.data_files import partition_bounds, partition_date
from telemetry_assets.lakehouse.snapshots import ancestors

DAILY_TAG = "telemetry-daily-"
"""The prefix of the tags that keep the last snapshot of a day. It is followed by the date."""


@dataclass(frozen=True)
class Retention:
    """How long snapshots are kept.

    :param age: a snapshot is kept for this long after another one has replaced it as the current one. So a reader can
        use a snapshot at least for this long.
    :param least: the number of newest snapshots that are kept even if they are older.
    :param days: the last snapshot of each day (UTC) is kept for this number of days, as the tag
        ``telemetry-daily-<date>``.
    """

    age: timedelta
    least: int
    days: int


@dataclass(frozen=True)
class Expiry:
    """The changes of a table's snapshots and tags that are due.

    :param removed: the ids of the snapshots to remove.
    :param tags: the tags to create, with the ids of their snapshots.
    :param old_tags: the tags to remove.
    """

    removed: frozenset[int]
    tags: Mapping[str, int]
    old_tags: frozenset[str]

    def __bool__(self) -> bool:
        return bool(self.removed or self.tags or self.old_tags)


def plan_expiry(
    metadata: TableMetadata,
    retention: Retention,
    protected: Collection[int],
    now: datetime,
    most: int | None = None,
) -> Expiry:
    """The changes that are due.

    The remaining ancestors of the current snapshot have no gap except before snapshots with a tag or a branch, so that
    the changes between them can be found.

    :param protected: the ids of snapshots that must be kept.
    :param now: the current time.
    :param most: the greatest number of snapshots to remove, the oldest first; None for all.
    """
    oldest_ms = (now - retention.age).timestamp() * 1000
    lineage = list(ancestors(metadata))
    replaced_ms = [float("inf"), *(newer.timestamp_ms for newer in lineage[:-1])]
    is_kept = [
        place < retention.least or at >= oldest_ms or one.snapshot_id in protected
        for place, (one, at) in enumerate(zip(lineage, replaced_ms, strict=False))
    ]
    old = lineage[max((place + 1 for place, kept in enumerate(is_kept) if kept), default=0) :]
    known = {one.snapshot_id for one in lineage}
    # Other snapshots were rolled back, or were never current.
    until = _current_until(metadata)
    others = (one for one in metadata.snapshots if one.snapshot_id not in known)
    rolled_back = [one for one in others if until.get(one.snapshot_id, one.timestamp_ms) < oldest_ms]
    tags, old_tags = _daily_tags(metadata, lineage, retention.days, now)
    needed = {*protected, *tags.values(), *_referenced(metadata, old_tags)}
    removed = [one.snapshot_id for one in (*reversed(old), *rolled_back) if one.snapshot_id not in needed]
    return Expiry(frozenset(removed[:most]), tags, old_tags)


def _current_until(metadata: TableMetadata) -> dict[int, int]:
    """When each snapshot was last replaced as the current one, in milliseconds since 1970."""
    return {old.snapshot_id: new.timestamp_ms for old, new in pairwise(metadata.snapshot_log)}


def _daily_tags(
    metadata: TableMetadata, lineage: Iterable[Snapshot], days: int, now: datetime
) -> tuple[dict[str, int], frozenset[str]]:
    """The tags that are missing, with their snapshots, and the tags that are too old."""
    last_of_day: dict[date, int] = {}
    for snapshot in lineage:
        day = datetime.fromtimestamp(snapshot.timestamp_ms / 1000, UTC).date()
        last_of_day.setdefault(day, snapshot.snapshot_id)
    today = now.astimezone(UTC).date()
    first = today - timedelta(days=days)
    tags = {
        f"{DAILY_TAG}{day}": snapshot_id
        for day, snapshot_id in last_of_day.items()
        if first <= day < today and f"{DAILY_TAG}{day}" not in metadata.refs
    }
    old = frozenset(
        name
        for name, ref in metadata.refs.items()
        if ref.snapshot_ref_type == SnapshotRefType.TAG and name.startswith(DAILY_TAG) and name < f"{DAILY_TAG}{first}"
    )
    return tags, old


def _referenced(metadata: TableMetadata, except_for: Set[str]) -> set[int]:
    """The snapshots of tags, and those of branches other than ``main`` with their ancestors.

    :param except_for: tags that are not considered.
    """
    by_id = {one.snapshot_id: one for one in metadata.snapshots}
    found: set[int] = set()
    for name, ref in metadata.refs.items():
        if name in except_for:
            continue
        snapshot = by_id.get(ref.snapshot_id)
        found.add(ref.snapshot_id)
        while name != MAIN_BRANCH and ref.snapshot_ref_type == SnapshotRefType.BRANCH and snapshot is not None:
            found.add(snapshot.snapshot_id)
            snapshot = by_id.get(snapshot.parent_snapshot_id) if snapshot.parent_snapshot_id is not None else None
    return found


def expire(table: Table, expiry: Expiry) -> list[str]:
    """Remove snapshots from a table, and create and remove tags, in one commit.

    :param table: the table as it was loaded before ``expiry`` was planned.
    :returns: the URIs of the files that no remaining snapshot needs. They can be deleted.
    :raises CommitFailedException: if a branch or a tag has changed since the table was loaded, or another writer has
        removed one of the snapshots.
    """
    unneeded = _unneeded(table.metadata, expiry.removed, table.io)
    change_snapshots(table, expiry.removed, expiry.tags, expiry.old_tags)
    return unneeded


def _unneeded(metadata: TableMetadata, snapshot_ids: Set[int], io: FileIO) -> list[str]:
    """The files of some ancestors of the current snapshot that no other snapshot needs, data files first.

    The files of other snapshots, which were rolled back, are left to the removal of orphans, because any snapshot may
    have them.
    """
    lineage = list(ancestors(metadata))
    removed = [one for one in lineage if one.snapshot_id in snapshot_ids]
    newest = list(takewhile(lambda one: one.snapshot_id not in snapshot_ids, lineage))
    # A file is usually added only once. If one of the newest ancestors has a file of a removed snapshot, the oldest of
    # them has it too, so only that one is read. Another program may have added a removed file again, so the current
    # snapshot is also read.
    not_read = {one.snapshot_id for one in newest[1:-1]} | snapshot_ids
    others = [one for one in metadata.snapshots if one.snapshot_id not in not_read]
    with ThreadPoolExecutor(MOST_THREADS) as threads:
        needed, unneeded = _manifests(others, io, threads), _manifests(removed, io, threads)
        for path in needed:
            unneeded.pop(path, None)
        files = _data_files(unneeded.values(), io, threads)
        in_partitions = [one for one in needed.values() if _may_have_any(one, files.values())]
        remaining = files.keys() - _data_files(in_partitions, io, threads).keys()
    return [*sorted(remaining), *sorted(unneeded), *(one.manifest_list for one in removed)]


def _may_have_any(manifest: ManifestFile, files: Collection[DataFile]) -> bool:
    """Whether a manifest may have one of some files, by their partitions. A file is always in the same partition."""
    of_spec = [file for file in files if file.spec_id == manifest.partition_spec_id]
    bounds = partition_bounds(manifest)
    if bounds is None:
        return bool(of_spec)
    return any(bounds[0] <= partition_date(file) <= bounds[1] for file in of_spec)


def _manifests(snapshots: Iterable[Snapshot], io: FileIO, threads: Executor) -> dict[str, ManifestFile]:
    found = threads.map(lambda snapshot: snapshot.manifests(io), snapshots)
    return {manifest.manifest_path: manifest for manifest in chain.from_iterable(found)}


def _data_files(manifests: Iterable[ManifestFile], io: FileIO, threads: Executor) -> dict[str, DataFile]:
    """The files that a snapshot with these manifests has, by their paths."""
    entries = threads.map(lambda manifest: manifest.fetch_manifest_entry(io), manifests)
    return {entry.data_file.file_path: entry.data_file for entry in chain.from_iterable(entries)}
