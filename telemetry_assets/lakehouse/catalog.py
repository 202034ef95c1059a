"""Opens the Iceberg catalog; makes every table from its contract and refuses one that differs from it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import (
    NoSuchIcebergTableError,
    NoSuchPropertyException,
    NoSuchTableError,
    TableAlreadyExistsError,
    ValidationError,
)
from pyiceberg.io import FileIO, load_file_io
from pyiceberg.table import Table
from sqlalchemy.exc import IntegrityError

from telemetry_assets.errors import SettingsError, TableMismatchError
from telemetry_assets.lakehouse.entries import catalog_entries, entry_differences
from telemetry_assets.lakehouse.metadata_files import holds_rows, metadata_files
from telemetry_assets.lakehouse.sqlite_catalog import checkpoint, open_sqlite_catalog
from telemetry_assets.settings import Settings
from telemetry_assets.tables import all_tables
from telemetry_assets.tables.contract import TableContract
from telemetry_assets.text.plain import plain_logger

logger = plain_logger(__name__)

CATALOG_NAME = "telemetry"
CATALOG_FILE = "catalog.sqlite"


@dataclass(frozen=True)
class Lakehouse:
    """The seven tables in one catalog.

    :param catalog: any PyIceberg catalog.
    :param location: what all table locations begin with, without a slash at the end.
    """

    catalog: Catalog
    location: str

    def table(self, contract: TableContract) -> Table:
        """The table as it is now, freshly loaded.

        :raises NoSuchTableError: before :meth:`prepare` has made it.
        :raises TableMismatchError: where the catalog has an entry of its name that is no Iceberg table.
        """
        try:
            return self.catalog.load_table(contract.identifier)
        except (NoSuchPropertyException, NoSuchIcebergTableError) as error:
            raise TableMismatchError(
                contract.full_name,
                [f"its entry is not that of an Iceberg table ({error})"],
                in_catalog=True,
            ) from error

    def existing(self, contract: TableContract) -> Table | None:
        """The table as it is now, None where it is not made yet."""
        try:
            return self.table(contract)
        except NoSuchTableError:
            return None

    def prepare(self, contracts: Iterable[TableContract] | None = None) -> None:
        """Create the tables that are missing, and compare each table and its catalog entry with the contract.

        :param contracts: the tables; all tables if not given.
        :raises TableMismatchError: for the first table that differs, listing all its differences.
        """
        entries = catalog_entries(self.catalog)
        for contract in all_tables() if contracts is None else contracts:
            table = self._created(contract)
            of_table, of_entry = self.differences(table, contract), entry_differences(entries, table)
            if of_table or of_entry:
                raise TableMismatchError(contract.full_name, [*of_table, *of_entry], in_catalog=not of_table)

    def table_location(self, contract: TableContract) -> str:
        """Where the table's files are."""
        return "/".join((self.location, *contract.identifier))

    def _created(self, contract: TableContract) -> Table:
        try:
            return self.table(contract)
        except NoSuchTableError:
            if (lost := self._lost_rows(contract)) is not None:
                return self._just_made(contract, lost)
            self.create_database(contract.layer)
        except (FileNotFoundError, ValidationError) as error:
            unreadable = f"its metadata cannot be read: {error}"
            raise TableMismatchError(contract.full_name, [unreadable], in_catalog=True) from error
        try:
            return self.catalog.create_table(
                contract.identifier,
                schema=contract.schema,
                location=self.table_location(contract),
                partition_spec=contract.partition_spec,
                properties=contract.table_properties,
            )
        except TableAlreadyExistsError:
            return self.table(contract)

    def _lost_rows(self, contract: TableContract) -> str | None:
        """The metadata of rows of Bronze of which the catalog says nothing; a new table would hide them.

        Only the archive has them too. A file without a snapshot is what a run leaves that is about to make the table.
        """
        if contract.layer != "bronze":
            return None
        files = metadata_files(self.table_location(contract))
        return next((file for file in files if holds_rows(file, self._io(file))), None)

    def _just_made(self, contract: TableContract, metadata: str) -> Table:
        """The table, which another run may have made and filled since it was looked for."""
        table = self.existing(contract)
        if table is None:
            lost = f"the catalog has no entry of it, and its rows are in {metadata}"
            raise TableMismatchError(contract.full_name, [lost], in_catalog=True)
        return table

    def _io(self, location: str) -> FileIO:
        return load_file_io(dict(self.catalog.properties), location)

    def close(self) -> None:
        """Move what SQLite's WAL holds into the catalog's file. The lakehouse can still be used."""
        if isinstance(self.catalog, SqlCatalog):
            checkpoint(Path(self.location.removeprefix("file://")) / CATALOG_FILE)

    def create_database(self, name: str) -> None:
        """Make a database where there is none of this name."""
        try:
            # Asked first, because making one needs a permission that a user of existing ones may lack.
            if not self.catalog.namespace_exists(name):
                self.catalog.create_namespace_if_not_exists(name)
        except IntegrityError:
            # SQLite: another process made it between the look and the creation.
            logger.info("another process has just made the database %s", name)

    def differences(self, table: Table, contract: TableContract) -> list[str]:
        """What in the table is not as its contract says, one sentence each."""
        return [*_column_differences(table, contract), *_layout_differences(table, contract, self)]


def _column_differences(table: Table, contract: TableContract) -> Iterable[str]:
    found = {field.name: field for field in table.schema().fields}
    for wanted in contract.schema.fields:
        field = found.pop(wanted.name, None)
        if field is None:
            yield f"column `{wanted.name}` ({wanted.field_type}) is missing"
        elif field.field_type != wanted.field_type:
            yield f"column `{wanted.name}` is {field.field_type}, by contract {wanted.field_type}"
        elif field.required != wanted.required:
            nullable = {True: "may not be null", False: "may be null"}
            yield f"column `{wanted.name}` {nullable[field.required]}, by contract it {nullable[wanted.required]}"
    for name, field in found.items():
        yield f"column `{name}` ({field.field_type}) is not in the contract"


def _layout_differences(table: Table, contract: TableContract, lakehouse: Lakehouse) -> Iterable[str]:
    names = {field.field_id: field.name for field in table.schema().fields}
    found = [(names.get(part.source_id), str(part.transform)) for part in table.spec().fields]
    wanted = [
        (contract.column_names[part.source_id - 1], str(part.transform)) for part in contract.partition_spec.fields
    ]
    if found != wanted:
        yield f"it is partitioned by {_partitioning(found)}, by contract by {_partitioning(wanted)}"
    if table.format_version != 2:
        yield f"its format version is {table.format_version}, by contract 2"
    if table.location().rstrip("/") != lakehouse.table_location(contract):
        yield f"its location is {table.location()}, by contract {lakehouse.table_location(contract)}"


def _partitioning(fields: Sequence[tuple[str | None, str]]) -> str:
    return ", ".join(f"{transform}({name})" for name, transform in fields) or "nothing"


def open_lakehouse(settings: Settings) -> Lakehouse:
    """Open the catalog that the settings name, making an empty one where there is none. Makes no table.

    With a folder the catalog is SQLite at ``<lakehouse>/catalog.sqlite``, named ``telemetry``; with S3 it is the Glue
    Data Catalog.

    :raises SettingsError: where the folder cannot be made, or its path cannot stand in a file's URI.
    :raises CatalogBusyError: where another process keeps the SQLite catalog locked.
    :raises CatalogUnusableError: where the SQLite catalog cannot be read or written.
    """
    if any(character in settings.lakehouse_uri for character in "#?%*[]{}"):
        raise SettingsError(
            f"TELEMETRY_LAKEHOUSE_URI={settings.lakehouse_uri} has one of #?%*[] or a brace in it, which no table "
            "location may."
        )
    if settings.catalog == "glue":
        from telemetry_assets.lakehouse.glue_catalog import open_glue_catalog

        catalog = open_glue_catalog(CATALOG_NAME, settings.lakehouse_uri, settings.kms_key_id)
        return Lakehouse(catalog, settings.lakehouse_uri)
    folder = settings.lakehouse_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"TELEMETRY_LAKEHOUSE_URI={folder} cannot be made a folder: {error.strerror}.") from error
    file = folder / CATALOG_FILE
    catalog = open_sqlite_catalog(CATALOG_NAME, file, f"file://{folder}", settings.catalog_busy_seconds)
    return Lakehouse(catalog, f"file://{folder}")


def has_lakehouse(settings: Settings) -> bool:
    """Whether the lakehouse that the settings name has a catalog already. Makes nothing."""
    return settings.catalog == "glue" or (settings.lakehouse_folder() / CATALOG_FILE).exists()
