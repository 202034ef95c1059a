"""Holds contract, catalog entry and Iceberg metadata of every table against each other; says in words what differs.

What is safe to mend can be mended: it changes what the catalog says, never a row. Everything else is refused, with the
reason, for a person to decide.
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
from telemetry_assets.lakehouse.changes import changes_since_applied
from telemetry_assets.lakehouse.commits import summary_of
from telemetry_assets.lakehouse.entries import CatalogEntry, catalog_entries
from telemetry_assets.lakehouse.metadata_files import AmbiguousMetadataError, metadata_files, newest_metadata
from telemetry_assets.tables import all_tables
from telemetry_assets.tables.contract import TableContract
from telemetry_assets.tables.derived import DerivedTable
from telemetry_assets.text.formatting import counted


@dataclass(frozen=True)
class Finding:
    """One thing to know about a table.

    :param needs_action: whether somebody has to do something about it.
    :param repair: mends it, where that is safe; it answers what it did.
    :param refusal: why it is not mended, where somebody has to decide.
    """

    table: str
    text: str
    needs_action: bool = False
    repair: Callable[[], str] | None = None
    refusal: str = ""


def examine(lakehouse: Lakehouse) -> list[Finding]:
    """The findings of all tables, in the order of the contracts; a healthy table has one that says so."""
    return [finding for contract in all_tables() for finding in _Examination(lakehouse, contract).findings()]


@dataclass(frozen=True)
class _Examination:
    lakehouse: Lakehouse
    contract: TableContract

    @property
    def _catalog(self) -> Catalog:
        return self.lakehouse.catalog

    def findings(self) -> Iterator[Finding]:
        """What is to be known about the table."""
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
            # Dropped since the entry was read.
            yield self._without_entry()
        except (FileNotFoundError, ValidationError) as error:
            unreadable = f"its metadata cannot be read, so nobody can read or write the table: {error}"
            yield self._without_metadata(unreadable, entry, entry.metadata_location)
        except OSError as error:
            yield self._finding(f"its metadata cannot be read now: {error}", refusal="look again when it can be")
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
            return Finding(self.contract.full_name, "not there yet; the first run makes it", repair=self._make)
        return self._without_metadata("the catalog has no entry of it, so no engine sees the rows in its files", None)

    def _make(self) -> str:
        self.lakehouse.prepare((self.contract,))
        return "made it from its contract"

    def _without_metadata(self, text: str, entry: CatalogEntry | None, lost: str | None = None) -> Finding:
        """What to do about an entry that points at no metadata, or at some that is lost."""
        location = self.lakehouse.table_location(self.contract)
        files = metadata_files(location)
        if not files:
            return self._finding(
                text,
                refusal=f"there is no Iceberg metadata at {location}. If the entry is not yours, give this project an "
                "account or a region of its own; if it is, drop it, and the next run makes the table",
            )
        try:
            newest, metadata = newest_metadata(files, load_file_io(dict(self._catalog.properties), files[0]))
        except AmbiguousMetadataError as error:
            anew = entry is None and isinstance(self.contract, DerivedTable)
            otherwise = ", or let the next run make the table anew from its upstream" if anew else ""
            return self._finding(text, refusal=f"{error}. Register the right one by hand{otherwise}")
        if lost is not None and all(past.metadata_file != lost for past in metadata.metadata_log):
            return self._finding(
                text,
                refusal=f"the newest whole metadata there, {newest}, does not come after it, so commits could be "
                f"undone. Bring {lost} back from a backup, or from an older version of the object",
            )
        return self._pointing_at(newest, metadata, text, entry)

    def _pointing_at(self, newest: str, metadata: TableMetadata, text: str, entry: CatalogEntry | None) -> Finding:
        table = Table(self.contract.identifier, metadata, newest, load_file_io({}, newest), self._catalog)
        differences = self.lakehouse.differences(table, self.contract)
        if differences:
            return self._finding(text, refusal=f"the metadata {newest} differs from the contract: {differences[0]}")
        return self._finding(text, repair=lambda: self._point_at(newest, metadata, entry))

    def _point_at(self, metadata_location: str, metadata: TableMetadata, entry: CatalogEntry | None) -> str:
        """Only where the entry still is as it was read: a run may have committed since."""
        if entry is not None:
            entries = catalog_entries(self._catalog)
            entries.correct(self.contract.identifier, entry, metadata_location, metadata)
        else:
            self.lakehouse.create_database(self.contract.layer)
            try:
                self._catalog.register_table(self.contract.identifier, metadata_location)
            except TableAlreadyExistsError as error:
                raise ConcurrentWriteError(self.contract.full_name, 1) from error
        return f"the catalog points at {metadata_location} now, and shows what it says"

    def _of_table(self, table: Table, entry: CatalogEntry) -> Iterator[Finding]:
        differences = self.lakehouse.differences(table, self.contract)
        for difference in differences:
            yield self._finding(
                f"{difference}, so no run writes to it",
                refusal="a table's own schema is nobody's to guess: change it back, or see docs/operating.md",
            )
        if entry.metadata_location == table.metadata_location:
            for difference in entry.differences(table.metadata):
                yield self._finding(difference, repair=self._write_entry)
        snapshot = table.current_snapshot()
        total = summary_of(snapshot).get("total-records") if snapshot else "0"
        rows = counted(int(total), "row") if total else "an unknown number of rows"
        snapshots = counted(len(table.snapshots()), "snapshot")
        yield Finding(self.contract.full_name, f"{rows}, {snapshots}, metadata {table.metadata_location}")
        if isinstance(self.contract, DerivedTable) and not differences:
            yield from self._behind(self.contract.upstream, table)

    def _write_entry(self) -> str:
        """The entry anew from the metadata that it points at now."""
        entry = catalog_entries(self._catalog).entry(self.contract.identifier)
        table = self.lakehouse.table(self.contract)
        if entry is None or entry.metadata_location != table.metadata_location:
            raise ConcurrentWriteError(self.contract.full_name, 1)
        return self._point_at(table.metadata_location, table.metadata, entry)

    def _behind(self, upstream: TableContract, table: Table) -> Iterator[Finding]:
        try:
            changes = changes_since_applied(table, upstream, self.lakehouse.table(upstream))
        except (NoSuchTableError, TableMismatchError, OSError):
            # The upstream's own finding says so.
            return
        if changes:
            dates = "everything" if changes.everything else f"{len(changes.dates)} event dates"
            yield Finding(self.contract.full_name, f"behind {upstream.full_name} by {dates}; the next run takes it")
