"""Catalog entries: the metadata location, columns and location that a catalog stores for a table.

The Glue Data Catalog shows an entry's columns to other programs, so they must agree with the Iceberg metadata.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from pyiceberg.catalog import METADATA_LOCATION, TABLE_TYPE, Catalog
from pyiceberg.catalog.sql import IcebergTables, SqlCatalog
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.types import LongType, TimestamptzType
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from telemetry_assets.errors import ConcurrentWriteError

if TYPE_CHECKING:
    from pyiceberg.catalog.glue import GlueCatalog

_ICEBERG = "ICEBERG"
_EXTERNAL_TABLE = "EXTERNAL_TABLE"
# The types in contracts whose names in Glue differ from their names in Iceberg.
_GLUE_TYPES = {LongType(): "bigint", TimestamptzType(): "timestamp"}


@dataclass(frozen=True)
class CatalogEntry:
    """A catalog's entry for a table.

    :param metadata_location: the Iceberg metadata file that the entry points at; None if it points at none.
    :param table_type: the entry's table type; Iceberg engines open only ``ICEBERG``.
    :param location: the entry's location of the table's files; None if the catalog does not store one.
    :param columns: the names and types of the entry's columns; None if the catalog does not store columns.
    :param version: the version of the entry; empty if the catalog does not count versions.
    """

    metadata_location: str | None
    table_type: str = _ICEBERG
    location: str | None = None
    columns: tuple[tuple[str, str], ...] | None = None
    version: str = ""

    @property
    def is_iceberg(self) -> bool:
        """Whether an Iceberg engine can open the table."""
        return self.table_type.upper() == _ICEBERG and self.metadata_location is not None

    def differences(self, metadata: TableMetadata) -> Iterator[str]:
        """The differences between the entry and the metadata that it points at, each with its consequence."""
        wanted = tuple((field.name, _glue_type(field.field_type)) for field in metadata.schema().fields)
        if self.columns is not None and self.columns != wanted:
            yield _column_differences(dict(self.columns), dict(wanted))
        if self.location is not None and self.location.rstrip("/") != metadata.location.rstrip("/"):
            yield (
                f"the catalog says that its files are at {self.location}, the metadata says {metadata.location}: "
                "permissions that depend on the location would apply to the wrong one"
            )


def _glue_type(iceberg_type: Any) -> str:
    return _GLUE_TYPES.get(iceberg_type, str(iceberg_type))


def _column_differences(found: dict[str, str], wanted: dict[str, str]) -> str:
    missing = [name for name in wanted if name not in found]
    other = [name for name in found if name in wanted and found[name] != wanted[name]]
    unknown = [name for name in found if name not in wanted]
    parts = [
        f"{problem}: {', '.join(names[:5])}{' and others' if len(names) > 5 else ''}"
        for problem, names in (("missing", missing), ("different type", other), ("unknown", unknown))
        if names
    ]
    return (
        f"the catalog shows {len(found)} columns where the metadata has {len(wanted)}"
        f" ({'; '.join(parts) or 'in a different order'}); engines that use the catalog's columns refuse inserts, and "
        "readers miss columns"
    )


class CatalogEntries(Protocol):
    """Reads and corrects the entries of a catalog."""

    def entry(self, identifier: tuple[str, str]) -> CatalogEntry | None:
        """The entry of a table; None if there is none."""
        ...

    def correct(
        self, identifier: tuple[str, str], entry: CatalogEntry, metadata_location: str, metadata: TableMetadata
    ) -> None:
        """Update an entry so that it points at a metadata file and agrees with its content.

        :param entry: the entry as it was read before.
        :raises ConcurrentWriteError: if the entry has changed since it was read.
        """
        ...


def catalog_entries(catalog: Catalog) -> CatalogEntries:
    """The entries of a SQLite or Glue catalog."""
    return _SqliteEntries(catalog) if isinstance(catalog, SqlCatalog) else _GlueEntries(catalog)  # type: ignore[arg-type]  # the only other kind


@dataclass(frozen=True)
class _SqliteEntries:
    catalog: SqlCatalog

    def entry(self, identifier: tuple[str, str]) -> CatalogEntry | None:
        """See :meth:`CatalogEntries.entry`."""
        with Session(self.catalog.engine) as session:
            row = session.scalar(select(IcebergTables).where(*self._of(identifier)))
            return None if row is None else CatalogEntry(row.metadata_location)

    def correct(
        self, identifier: tuple[str, str], entry: CatalogEntry, metadata_location: str, metadata: TableMetadata
    ) -> None:
        """See :meth:`CatalogEntries.correct`."""
        before = entry.metadata_location
        with Session(self.catalog.engine) as session:
            changed = session.execute(
                update(IcebergTables)
                .where(*self._of(identifier), IcebergTables.metadata_location.is_not_distinct_from(before))
                .values(metadata_location=metadata_location, previous_metadata_location=before)
            )
            session.commit()
        if not changed.rowcount:  # type: ignore[attr-defined]  # an update has one
            raise ConcurrentWriteError(".".join(identifier), 1)

    def _of(self, identifier: tuple[str, str]) -> tuple[Any, ...]:
        layer, name = identifier
        return (
            IcebergTables.catalog_name == self.catalog.name,
            IcebergTables.table_namespace == layer,
            IcebergTables.table_name == name,
        )


@dataclass(frozen=True)
class _GlueEntries:
    catalog: GlueCatalog

    def entry(self, identifier: tuple[str, str]) -> CatalogEntry | None:
        """See :meth:`CatalogEntries.entry`."""
        found = self._found(identifier)
        if found is None:
            return None
        parameters, storage = found.get("Parameters", {}), found.get("StorageDescriptor", {})
        return CatalogEntry(
            metadata_location=parameters.get(METADATA_LOCATION),
            table_type=parameters.get(TABLE_TYPE, found.get("TableType", "not set")),
            location=storage.get("Location", "an unknown location"),
            # The entry keeps the columns of earlier schemas and marks them as not current.
            columns=tuple(
                (column["Name"], column.get("Type", ""))
                for column in storage.get("Columns", [])
                if column.get("Parameters", {}).get("iceberg.field.current") != "false"
            ),
            version=found["VersionId"],
        )

    def correct(
        self, identifier: tuple[str, str], entry: CatalogEntry, metadata_location: str, metadata: TableMetadata
    ) -> None:
        """See :meth:`CatalogEntries.correct`."""
        # PyIceberg uses this function at each commit too, so a corrected entry equals an entry that a commit writes.
        from pyiceberg.catalog.glue import _construct_table_input

        from telemetry_assets.aws.clients import glue_client

        layer, name = identifier
        found = self._found(identifier)
        if found is None or found["VersionId"] != entry.version:
            raise ConcurrentWriteError(".".join(identifier), 1)
        before = entry.metadata_location if entry.metadata_location != metadata_location else None
        corrected = _construct_table_input(name, metadata_location, metadata.properties, metadata, found, before)  # type: ignore[arg-type]  # Glue's response
        try:
            # The catalog's own client would treat an update that keeps the metadata location as already done.
            glue_client().update_table(
                DatabaseName=layer, TableInput=corrected, VersionId=entry.version, SkipArchive=False
            )
        except self.catalog.glue.exceptions.ConcurrentModificationException as error:
            raise ConcurrentWriteError(".".join(identifier), 1) from error

    def _found(self, identifier: tuple[str, str]) -> dict[str, Any] | None:
        layer, name = identifier
        try:
            return dict(self.catalog.glue.get_table(DatabaseName=layer, Name=name)["Table"])
        except self.catalog.glue.exceptions.EntityNotFoundException:
            return None


def entry_differences(entries: CatalogEntries, table: Table) -> list[str]:
    """The differences between a loaded table's catalog entry and its metadata."""
    layer, name = table.name()
    entry = entries.entry((layer, name))
    if entry is None or entry.metadata_location != table.metadata_location:
        # Another writer has committed since the table was loaded, and that commit wrote the entry.
        return []
    return list(entry.differences(table.metadata))
