"""What the catalog itself says about a table, beside the Iceberg metadata that it points at."""

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
# Named otherwise than Iceberg names them, among the types of the contract.
_GLUE_TYPES = {LongType(): "bigint", TimestamptzType(): "timestamp"}


@dataclass(frozen=True)
class CatalogEntry:
    """A catalog's entry of a table.

    :param metadata_location: the Iceberg metadata that it points at, None where it points at none.
    :param table_type: what the catalog says that the table is; Iceberg engines open ``ICEBERG`` only.
    :param location: where the catalog says that the table's files are; None where it does not say.
    :param columns: names and types that the catalog shows; None where it keeps none.
    :param version: which state of the entry this is, where the catalog tells.
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
        """What the entry says otherwise than the metadata that it points at, each with its consequence."""
        wanted = tuple((field.name, _glue_type(field.field_type)) for field in metadata.schema().fields)
        if self.columns is not None and self.columns != wanted:
            yield _columns_in_words(dict(self.columns), dict(wanted))
        if self.location is not None and self.location.rstrip("/") != metadata.location.rstrip("/"):
            yield (
                f"the catalog says that its files are at {self.location}, the metadata says {metadata.location}: "
                "permissions by location would be those of the wrong place"
            )


def _glue_type(iceberg_type: Any) -> str:
    return _GLUE_TYPES.get(iceberg_type, str(iceberg_type))


def _columns_in_words(found: dict[str, str], wanted: dict[str, str]) -> str:
    missing = [name for name in wanted if name not in found]
    other = [name for name in found if name in wanted and found[name] != wanted[name]]
    unknown = [name for name in found if name not in wanted]
    parts = [
        f"{said} {', '.join(names[:5])}{' and others' if len(names) > 5 else ''}"
        for said, names in (("without", missing), ("with another type of", other), ("with an unknown", unknown))
        if names
    ]
    return (
        f"the catalog shows {len(found)} columns where the metadata has {len(wanted)}"
        f" ({'; '.join(parts) or 'in another order'}): engines that go by the catalog refuse inserts, and readers miss "
        "columns"
    )


class CatalogEntries(Protocol):
    """Reads a catalog's entries and corrects them."""

    def entry(self, identifier: tuple[str, str]) -> CatalogEntry | None:
        """The entry of a table, None where there is none."""
        ...

    def correct(
        self, identifier: tuple[str, str], entry: CatalogEntry, metadata_location: str, metadata: TableMetadata
    ) -> None:
        """Let an entry, as it was read, say what the metadata says, and point at it.

        :raises ConcurrentWriteError: where somebody has changed the entry since it was read.
        """
        ...


def catalog_entries(catalog: Catalog) -> CatalogEntries:
    """The entries of a catalog of a kind that the settings can name."""
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
            table_type=parameters.get(TABLE_TYPE, found.get("TableType", "not said")),
            location=storage.get("Location", "nowhere"),
            # Columns of earlier schemas stay in the entry, marked as such.
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
        # The one maker of entries, at each commit too; a second one is what let entries and metadata differ.
        from pyiceberg.catalog.glue import _construct_table_input

        from telemetry_assets.aws.clients import glue_client

        layer, name = identifier
        found = self._found(identifier)
        if found is None or found["VersionId"] != entry.version:
            raise ConcurrentWriteError(".".join(identifier), 1)
        before = entry.metadata_location if entry.metadata_location != metadata_location else None
        corrected = _construct_table_input(name, metadata_location, metadata.properties, metadata, found, before)  # type: ignore[arg-type]  # as Glue answers
        try:
            # Not the catalog's own client, which takes an update that leaves the pointer as it was for done.
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
    """What the catalog says about a loaded table otherwise than its metadata."""
    layer, name = table.name()
    entry = entries.entry((layer, name))
    if entry is None or entry.metadata_location != table.metadata_location:
        # Somebody has committed since the table was loaded, and with that has written the entry.
        return []
    return list(entry.differences(table.metadata))
