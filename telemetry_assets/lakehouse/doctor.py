"""Compares each table's contract, catalog entry and Iceberg metadata, and repairs catalog entries.

A repair changes a catalog entry or creates a missing table; it never changes a row. If a repair could lose data, the
finding gives the reason instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError, TableAlreadyExistsError, ValidationError
from pyiceberg.io import load_file_io
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata

from telemetry_assets.errors import ConcurrentWriteError, TableMismatchError
from telemetry_assets.lakehouse.catalog import Lakehouse
from telemetry_assets.lakehouse.changes import changes_since_watermark
from telemetry_assets.lakehouse.entries import CatalogEntry, catalog_entries
from telemetry_assets.lakehouse.evolution import additive_changes
from telemetry_assets.lakehouse.metadata_files import AmbiguousMetadataError, is_later, metadata_files, newest_metadata
from telemetry_assets.lakehouse.quality import repeated_by_partition
from telemetry_assets.lakehouse.rebuilds import PendingRebuild
from telemetry_assets.lakehouse.snapshots import summary_of
from telemetry_assets.tables import all_tables
from telemetry_assets.tables.contract import DerivedTable, TableContract
from telemetry_assets.text.formatting import counted


@dataclass(frozen=True)
class Finding:
    """One result of examining a table.

    :param table: the table's name, e.g. ``silver.car_telemetry``.
    :param text: what was found.
    :param needs_action: whether it is a problem.
    :param repair: repairs the problem and returns a description of the repair; None if no safe repair exists.
    :param refusal: why the doctor does not repair the problem, and what to do; empty if ``repair`` is given.
    """

    table: str
    text: str
    needs_action: bool = False
    repair: Callable[[], str] | None = None
    refusal: str = ""


def examine(lakehouse: Lakehouse) -> list[Finding]:
    """The findings of all tables, in the order of the registry. Each table has at least one finding."""
    lakehouse.forget_metadata()
    return [finding for contract in all_tables() for finding in _Examination(lakehouse, contract).findings()]


def examine_keys(lakehouse: Lakehouse) -> Iterator[Finding]:
    """The partitions of derived tables with rows that have the same key. All keys are read, one partition at a time."""
    for contract in all_tables():
        if isinstance(contract, DerivedTable) and (table := lakehouse.existing(contract)) is not None:
            for day, count in repeated_by_partition(table, contract).items():
                place = f" with {contract.partition} {day}" if day else ""
                text = f"{counted(count, 'row')}{place} have the same {', '.join(contract.key)} as another row"
                refusal = "`telemetry-assets rebuild` of these event dates removes them"
                yield Finding(contract.full_name, text, True, refusal=refusal)


@dataclass(frozen=True)
class _Examination:
    lakehouse: Lakehouse
    contract: TableContract

    @property
    def _catalog(self) -> Catalog:
        return self.lakehouse.catalog

    def findings(self) -> Iterator[Finding]:
        """The findings of the table."""
        entry = catalog_entries(self._catalog).entry(self.contract.identifier)
        if entry is None:
            yield self._without_entry()
            return
        if not entry.is_iceberg:
            yield self._without_metadata(self._not_iceberg(entry), entry)
            return
        try:
            table = self.lakehouse.table(self.contract)
        except NoSuchTableError:
            # The table was dropped after the entry was read.
            yield self._without_entry()
        except (FileNotFoundError, ValidationError) as error:
            unreadable = f"its metadata cannot be read, so the table cannot be read or written: {error}"
            yield self._without_metadata(unreadable, entry, entry.metadata_location)
        except OSError as error:
            yield self._finding(f"its metadata cannot be read now: {error}", refusal="run the doctor again later")
        else:
            yield from self._of_table(table, entry)

    def _finding(self, text: str, repair: Callable[[], str] | None = None, refusal: str = "") -> Finding:
        return Finding(self.contract.full_name, text, True, repair, refusal)

    def _not_iceberg(self, entry: CatalogEntry) -> str:
        columns = f" with {len(entry.columns)} columns" if entry.columns is not None else ""
        return (
            f"the catalog's entry{columns} (table type {entry.table_type}, metadata "
            f"{entry.metadata_location or 'none'}) is not that of an Iceberg table, so no engine can open it as one"
        )

    def _without_entry(self) -> Finding:
        if not metadata_files(self.lakehouse.table_location(self.contract)):
            return Finding(self.contract.full_name, "does not exist yet; the first run creates it", repair=self._create)
        return self._without_metadata("the catalog has no entry for it, so no engine sees its rows", None)

    def _create(self) -> str:
        self.lakehouse.prepare((self.contract,))
        return "created the table from its contract"

    def _without_metadata(self, text: str, entry: CatalogEntry | None, lost: str | None = None) -> Finding:
        """The finding for a missing entry, or an entry without readable metadata.

        :param lost: the metadata file that the entry points at and that cannot be read.
        """
        location = self.lakehouse.table_location(self.contract)
        files = metadata_files(location)
        if not files:
            return self._finding(
                text,
                refusal=f"there is no Iceberg metadata at {location}. If the entry belongs to another project, use a "
                "separate account or region for this one; otherwise drop the entry, and the next run creates the table",
            )
        try:
            newest, metadata = newest_metadata(files, load_file_io(dict(self._catalog.properties), files[0]))
        except AmbiguousMetadataError as error:
            can_rebuild = entry is None and isinstance(self.contract, DerivedTable)
            otherwise = ", or let the next run rebuild the table from its upstream" if can_rebuild else ""
            return self._finding(text, refusal=f"{error}. Register the right file by hand{otherwise}")
        if lost is not None and not is_later(newest, lost):
            return self._finding(
                text,
                refusal=f"the newest complete metadata file, {newest}, is not a later version of it, so commits could "
                f"be undone. Restore {lost} from a backup, or from an older version of the object",
            )
        return self._pointing_at(newest, metadata, text, entry)

    def _pointing_at(self, newest: str, metadata: TableMetadata, text: str, entry: CatalogEntry | None) -> Finding:
        table = Table(self.contract.identifier, metadata, newest, load_file_io({}, newest), self._catalog)
        differences = self.lakehouse.differences(table, self.contract)
        if differences:
            return self._finding(text, refusal=f"the metadata {newest} differs from the contract: {differences[0]}")
        return self._finding(text, repair=lambda: self._point_at(newest, metadata, entry))

    def _point_at(self, metadata_location: str, metadata: TableMetadata, entry: CatalogEntry | None) -> str:
        """Update the catalog's entry so that it points at a metadata file.

        :param entry: the entry as it was read before; None if there was none.
        :raises ConcurrentWriteError: if the entry has changed since it was read, e.g. because a run committed.
        """
        if entry is not None:
            entries = catalog_entries(self._catalog)
            entries.correct(self.contract.identifier, entry, metadata_location, metadata)
        else:
            self.lakehouse.create_database(self.contract.layer)
            try:
                self._catalog.register_table(self.contract.identifier, metadata_location)
            except TableAlreadyExistsError as error:
                raise ConcurrentWriteError(self.contract.full_name, 1) from error
        return f"the catalog points at {metadata_location} and agrees with it"

    def _of_table(self, table: Table, entry: CatalogEntry) -> Iterator[Finding]:
        differences = self.lakehouse.differences(table, self.contract)
        for difference in differences:
            yield self._finding(
                f"{difference}, so no run writes to it",
                refusal="the doctor does not change schemas: change the table back, or see docs/operating.md",
            )
        if entry.metadata_location == table.metadata_location:
            for difference in entry.differences(table.metadata):
                yield self._finding(difference, repair=self._write_entry)
        snapshot = table.current_snapshot()
        total = summary_of(snapshot).get("total-records") if snapshot else "0"
        rows = counted(int(total), "row") if total else "an unknown number of rows"
        snapshots = counted(len(table.snapshots()), "snapshot")
        yield Finding(self.contract.full_name, f"{rows}, {snapshots}, metadata {table.metadata_location}")
        if not differences and (changes := list(additive_changes(table, self.contract))):
            yield Finding(self.contract.full_name, f"the next run changes it to its contract: {'; '.join(changes)}")
        if isinstance(self.contract, DerivedTable) and not differences:
            yield from self._behind(self.contract, table)

    def _write_entry(self) -> str:
        """Write the entry again, from the metadata that it points at."""
        entry = catalog_entries(self._catalog).entry(self.contract.identifier)
        table = self.lakehouse.table(self.contract)
        if entry is None or entry.metadata_location != table.metadata_location:
            raise ConcurrentWriteError(self.contract.full_name, 1)
        return self._point_at(table.metadata_location, table.metadata, entry)

    def _behind(self, contract: DerivedTable, table: Table) -> Iterator[Finding]:
        upstream, edition = contract.upstream, self.lakehouse.transform_edition(contract)
        try:
            changes = changes_since_watermark(table, contract, self.lakehouse.table(upstream), edition)
        except (NoSuchTableError, TableMismatchError, OSError):
            # The findings of the upstream report this.
            return
        if pending := PendingRebuild.of(table):
            parts = counted(len(pending.parts), "date" if contract.partition is None else "partition")
            yield Finding(contract.full_name, f"{parts} are still to be rebuilt; the next run continues")
        if changes:
            dates = counted(len(changes.dates), "event date")
            behind = f"by all event dates, because {changes.rebuild_reason}" if changes.everything else f"by {dates}"
            yield Finding(contract.full_name, f"behind {upstream.full_name} {behind}; the next run refreshes it")
