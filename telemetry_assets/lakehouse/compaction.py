"""Compaction: merges the small data files of each partition into sorted ones, and small manifests into larger ones.

Each commit is a :class:`~telemetry_assets.lakehouse.rewrites.Rewrite` of exactly the snapshot that was read. It changes
no row. The rows in memory are bounded, except that all rows of one car in a partition are in memory together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from itertools import accumulate, chain
from typing import TypeVar

import pyarrow as pa
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.manifest import DataFile, ManifestContent, ManifestEntry, ManifestFile
from pyiceberg.table import FileScanTask, Table

from telemetry_assets.lakehouse.cars import CAR, CarRange
from telemetry_assets.lakehouse.data_files import (
    THREADS,
    car_bounds,
    find_rows,
    last_car,
    partition_date,
    read_rows,
)
from telemetry_assets.lakehouse.merging import write_files
from telemetry_assets.lakehouse.rewrites import NewFile, Rewrite, commit_rewrite
from telemetry_assets.tables.contract import TableContract

COMPACTION = "compaction"
"""The purpose of the snapshots that this module commits."""

_SMALL_BYTES = 2 * 1024 * 1024
"""A smaller data file is merged with others. That is half the size of a full file of Silver."""
_SMALL_ROWS = 25_000
_BYTES_IN_MEMORY = 128 * 1024 * 1024
"""The decoded size of the rows that are in memory together. The last data file read may exceed it."""
_MOST_GROUPS_IN_COMMIT = 16
_MOST_OVERLAPPING = 4
"""If more data files of a partition may have rows of the same car, the partition is sorted again."""
_ENTRIES_IN_MANIFEST = 200
_SMALL_MANIFEST = 100
"""A manifest with fewer data files is merged with others."""

Bound = TypeVar("Bound", str, date)


@dataclass(frozen=True)
class Extent:
    """How much a compaction does.

    :param least_files: a partition is compacted if it has at least this number of small data files.
    :param most_bytes: the greatest stored size of data files that are replaced together.
    :param most_rows: the greatest number of their rows.
    :param most_manifests: if given, at most this number of manifests is read: the oldest small ones. Data files in
        others are not replaced.
    """

    least_files: int
    most_bytes: int
    most_rows: int
    most_manifests: int | None = None

    @property
    def is_full(self) -> bool:
        """Whether all manifests are read.

        Then, partitions in which too many data files may have the same car are sorted again, and manifests are sorted
        by partition.
        """
        return self.most_manifests is None

    def fits(self, entries: Iterable[ManifestEntry]) -> bool:
        """Whether data files are few enough to be replaced together."""
        files = [entry.data_file for entry in entries]
        rows, size = (sum(file.record_count for file in files), sum(file.file_size_in_bytes for file in files))
        return rows <= self.most_rows and size <= self.most_bytes


FULL = Extent(least_files=2, most_bytes=16 * 1024 * 1024, most_rows=250_000)
"""Everything that there is to do."""
BRIEF = Extent(least_files=8, most_bytes=4 * 1024 * 1024, most_rows=50_000, most_manifests=32)
"""What takes some tenths of a second, whatever the size of the table."""


@dataclass(frozen=True)
class _Group:
    """Data files of one partition that are replaced together.

    :param entries: their entries in the manifests.
    :param is_whole: whether these are all files of the partition, which are sorted again.
    """

    partition: date | None
    entries: tuple[ManifestEntry, ...]
    is_whole: bool = False

    @property
    def name(self) -> tuple[date | None, str]:
        """The partition, and the first file if there are others."""
        return self.partition, "" if self.is_whole else self.entries[0].data_file.file_path

    @property
    def rows(self) -> int:
        """The number of rows in the files."""
        return sum(entry.data_file.record_count for entry in self.entries)

    @property
    def sequence_number(self) -> int:
        """The greatest data sequence number of the files."""
        return max(entry.sequence_number or 0 for entry in self.entries)


@dataclass(frozen=True)
class _Manifests:
    """The manifests of a table's current snapshot.

    :param data: those of data files that were read, each with the entries of its live files.
    :param unread: those of data files that were not read, among them those of other partition specs.
    :param deletes: those of delete files.
    """

    data: tuple[tuple[ManifestFile, tuple[ManifestEntry, ...]], ...]
    unread: tuple[ManifestFile, ...]
    deletes: tuple[ManifestFile, ...]

    @classmethod
    def of(cls, table: Table, most: int | None = None) -> _Manifests:
        """Read the manifests.

        :param most: if given, at most this number is read: the oldest small ones.
        """
        snapshot = table.current_snapshot()
        manifests = snapshot.manifests(table.io) if snapshot is not None else []
        data = [one for one in manifests if one.content == ManifestContent.DATA]
        of_spec = [one for one in data if one.partition_spec_id == table.spec().spec_id]
        small = sorted(filter(_is_small_manifest, of_spec), key=lambda one: one.sequence_number or 0)
        read = of_spec if most is None else small[:most]
        with ThreadPoolExecutor(THREADS) as threads:
            entries = threads.map(lambda one: tuple(one.fetch_manifest_entry(table.io)), read)
            paths = {one.manifest_path for one in read}
            return cls(
                tuple(zip(read, entries, strict=True)),
                tuple(one for one in data if one.manifest_path not in paths),
                tuple(one for one in manifests if one.content == ManifestContent.DELETES),
            )

    def by_partition(self, contract: TableContract) -> Mapping[date | None, list[ManifestEntry]]:
        """The entries of each partition, oldest first."""
        entries: dict[date | None, list[ManifestEntry]] = defaultdict(list)
        for entry in chain.from_iterable(of_manifest for _, of_manifest in self.data):
            entries[_partition(contract, entry.data_file)].append(entry)
        for of_partition in entries.values():
            of_partition.sort(key=lambda entry: entry.sequence_number or 0)
        return entries


@dataclass(frozen=True)
class Compacted:
    """What one or more compactions of a table have done.

    :param commits: the number of commits.
    :param removed: the number of data files that were replaced.
    :param added: the number of data files that replace them.
    """

    commits: int = 0
    removed: int = 0
    added: int = 0

    @property
    def is_any(self) -> bool:
        """Whether anything was committed."""
        return self.commits > 0

    def __add__(self, other: Compacted) -> Compacted:
        return Compacted(self.commits + other.commits, self.removed + other.removed, self.added + other.added)


def small_manifests(table: Table) -> int:
    """The number of small manifests of a table. Each commit of rows adds one or two. Only the manifest list is read."""
    snapshot = table.current_snapshot()
    return sum(map(_is_small_manifest, snapshot.manifests(table.io))) if snapshot is not None else 0


def most_small_files(table: Table, contract: TableContract) -> int:
    """The greatest number of small data files in a partition. All manifests are read."""
    partitions = _Manifests.of(table).by_partition(contract).values()
    return max((sum(_is_small(entry.data_file) for entry in entries) for entries in partitions), default=0)


def planned_compaction(table: Table, contract: TableContract) -> Compacted:
    """What a full compaction would replace. How many data files it would add is not known."""
    groups = _groups(table, contract, _Manifests.of(table), FULL)
    return Compacted(removed=sum(len(group.entries) for group in groups))


def compact(
    table: Table, contract: TableContract, extent: Extent, is_time_up: Callable[[], bool]
) -> Iterator[Compacted]:
    """Compact a table in one or more commits. Yields after each of them.

    :param table: the table, which is loaded again after each commit.
    :param is_time_up: called before each group of data files; if it returns true, no further one is compacted.
    :raises CommitFailedException: if another writer has changed the table. The commits so far remain.
    """
    tried: set[tuple[date | None, str]] = set()
    has_more = True
    while has_more:
        manifests = _Manifests.of(table, extent.most_manifests)
        groups = [one for one in _groups(table, contract, manifests, extent) if one.name not in tried]
        replaced: list[tuple[_Group, list[DataFile]]] = []
        for group in groups[:_MOST_GROUPS_IN_COMMIT]:
            if is_time_up():
                break
            tried.add(group.name)
            files = _write_group(table, contract, manifests, group, extent)
            if group.is_whole or len(files) < len(group.entries):
                replaced.append((group, files))
            else:
                _delete(table, files)
        rewrite = _rewrite(contract, manifests, replaced, sorts=extent.is_full)
        if rewrite is not None:
            _commit(table, rewrite)
            yield Compacted(1, len(rewrite.removed), len(rewrite.added))
            table.refresh()
        has_more = len(groups) > _MOST_GROUPS_IN_COMMIT and not is_time_up()


def _commit(table: Table, rewrite: Rewrite) -> None:
    try:
        commit_rewrite(table, rewrite, COMPACTION)
    except CommitFailedException:
        _delete(table, (one.file for one in rewrite.added))
        raise


def _delete(table: Table, files: Iterable[DataFile]) -> None:
    """Delete data files that belong to no table."""
    for file in files:
        table.io.delete(file.file_path)


def _groups(table: Table, contract: TableContract, manifests: _Manifests, extent: Extent) -> list[_Group]:
    """The data files to replace, those with the most files first."""
    groups: list[_Group] = []
    if manifests.deletes and not extent.is_full:
        # To find the delete files of a data file, all manifests are read.
        return groups
    for partition, entries in manifests.by_partition(contract).items():
        if extent.is_full and _is_sorted_by_car(contract) and _overlapping(_cars(table, entries)) > _MOST_OVERLAPPING:
            groups.append(_Group(partition, tuple(entries), is_whole=True))
            continue
        small = [entry for entry in entries if _is_small(entry.data_file)]
        groups += [_Group(partition, chunk) for chunk in _bounded(small, extent) if len(chunk) >= extent.least_files]
    return sorted(groups, key=lambda group: len(group.entries), reverse=True)


def _bounded(entries: Iterable[ManifestEntry], extent: Extent) -> Iterator[tuple[ManifestEntry, ...]]:
    """Divide entries into groups whose files are replaced together."""
    group: list[ManifestEntry] = []
    for entry in entries:
        if group and not extent.fits([*group, entry]):
            yield tuple(group)
            group = []
        group.append(entry)
    if group:
        yield tuple(group)


def _write_group(
    table: Table, contract: TableContract, manifests: _Manifests, group: _Group, extent: Extent
) -> list[DataFile]:
    """Write the rows of a group to new data files.

    :raises RuntimeError: if these have another number of rows, which must not happen.
    """
    tasks = _tasks(table, manifests, group)
    pieces = (
        _rows_by_file(table, contract, tasks)
        if extent.fits(group.entries)
        else _rows_by_car(table, contract, group, tasks, extent)
    )
    files = list(chain.from_iterable(write_files(table, contract, rows) for rows in pieces if rows.num_rows))
    written = sum(file.record_count for file in files)
    if written != group.rows and not any(task.delete_files for task in tasks):
        _delete(table, files)
        raise RuntimeError(
            f"{contract.full_name}: {len(tasks)} data files of partition {group.partition} were not compacted, because "
            f"the number of their rows would have changed from {group.rows} to {written}"
        )
    return files


def _rows_by_file(table: Table, contract: TableContract, tasks: Iterable[FileScanTask]) -> Iterator[pa.Table]:
    """The rows of data files, a bounded size at a time."""
    read: list[pa.Table] = []
    for task in tasks:
        read.append(contract.conform(read_rows(table, [task], contract.column_names)))
        if sum(rows.nbytes for rows in read) > _BYTES_IN_MEMORY:
            yield pa.concat_tables(read)
            read = []
    if read:
        yield pa.concat_tables(read)


def _rows_by_car(
    table: Table, contract: TableContract, group: _Group, tasks: Sequence[FileScanTask], extent: Extent
) -> Iterator[pa.Table]:
    """The rows of a group in the order of their cars, a bounded number at a time."""
    partitions = None if group.partition is None else frozenset([group.partition])
    size = sum(entry.data_file.file_size_in_bytes for entry in group.entries)
    share = min(extent.most_rows / group.rows, extent.most_bytes / size)
    cars: CarRange | None = CarRange()
    while cars is not None:
        cars = CarRange(cars.after, last_car(table, tasks, cars.after, share))
        yield find_rows(table, contract, partitions, cars).rows
        cars = CarRange(cars.through) if cars.through is not None else None


def _tasks(table: Table, manifests: _Manifests, group: _Group) -> list[FileScanTask]:
    """The data files of a group, with their delete files."""
    if not manifests.deletes:
        return [FileScanTask(entry.data_file) for entry in group.entries]
    paths = {entry.data_file.file_path for entry in group.entries}
    return [task for task in table.scan().plan_files() if task.file.file_path in paths]


def _rewrite(
    contract: TableContract,
    manifests: _Manifests,
    replaced: Sequence[tuple[_Group, Sequence[DataFile]]],
    *,
    sorts: bool,
) -> Rewrite | None:
    """The manifests after some groups were replaced and small manifests were merged; None if nothing changes."""
    removed = [entry for group, _ in replaced for entry in group.entries]
    paths = {entry.data_file.file_path for entry in removed}
    dates = [[_day(contract, entry) for entry in entries] for _, entries in manifests.data]
    rewrites_all = sorts and _overlapping((min(one), max(one)) for one in dates if one) > _MOST_OVERLAPPING
    kept: list[ManifestFile] = list(manifests.unread)
    moved: list[ManifestEntry] = []
    for manifest, entries in manifests.data:
        left = [entry for entry in entries if entry.data_file.file_path not in paths]
        if rewrites_all or _is_small_manifest(manifest) or len(left) < len(entries):
            moved += left
        else:
            kept.append(manifest)
    moved.sort(key=lambda entry: _day(contract, entry))
    existing = [moved[start : start + _ENTRIES_IN_MANIFEST] for start in range(0, len(moved), _ENTRIES_IN_MANIFEST)]
    # The data files that were added and removed are in two more manifests.
    if not replaced and len(kept) + len(existing) >= len(manifests.data) + len(manifests.unread) - 2:
        return None
    added = [NewFile(file, group.sequence_number) for group, files in replaced for file in files]
    return Rewrite([*kept, *manifests.deletes], existing, added, removed)


def _is_small(file: DataFile) -> bool:
    return file.file_size_in_bytes < _SMALL_BYTES and file.record_count < _SMALL_ROWS


def _is_small_manifest(manifest: ManifestFile) -> bool:
    files = (manifest.added_files_count or 0) + (manifest.existing_files_count or 0)
    return manifest.content == ManifestContent.DATA and files < _SMALL_MANIFEST


def _is_sorted_by_car(contract: TableContract) -> bool:
    return contract.sort_by[:1] == (CAR,) and contract.column(CAR).required


def _cars(table: Table, entries: Iterable[ManifestEntry]) -> Iterator[tuple[str, str]]:
    """The bounds of the cars in data files. Files without bounds have a name that is too long for them."""
    for entry in entries:
        lower, upper = car_bounds(table, entry.data_file)
        if lower is not None and upper is not None:
            yield lower, upper


def _day(contract: TableContract, entry: ManifestEntry) -> date:
    return _partition(contract, entry.data_file) or date.min


def _partition(contract: TableContract, file: DataFile) -> date | None:
    return partition_date(file) if contract.partition else None


def _overlapping(ranges: Iterable[tuple[Bound, Bound]]) -> int:
    """The greatest number of ranges that overlap in more than a bound.

    Sorted files of the same car have the same bounds, and sorting them again would change nothing.
    """
    # At the same value, ranges end before others begin.
    steps = sorted(chain.from_iterable(((lower, True), (upper, False)) for lower, upper in ranges if lower < upper))
    return max(accumulate(1 if is_begin else -1 for _, is_begin in steps), default=0)
