"""Opens the Iceberg catalog, creates the tables from their contracts, and compares existing tables with them."""

from __future__ import annotations

from collections.abc import Iterable
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
from telemetry_assets.lakehouse.evolution import differences, evolve
from telemetry_assets.lakehouse.metadata_files import has_snapshot, metadata_files
from telemetry_assets.lakehouse.metastore import LakehouseCatalog
from telemetry_assets.lakehouse.sqlite_catalog import checkpoint, open_sqlite_catalog
from telemetry_assets.settings import Settings
from telemetry_assets.tables import all_tables
from telemetry_assets.tables.alert_rules import AlertRules, transform_edition
from telemetry_assets.tables.contract import DerivedTable, TableContract
from telemetry_assets.text.plain import plain_logger

logger = plain_logger(__name__)

CATALOG_NAME = "telemetry"
CATALOG_FILE = "catalog.sqlite"


@dataclass(frozen=True)
class Lakehouse:
    """The tables in one catalog.

    :param catalog: the PyIceberg catalog.
    :param location: the common prefix of all table locations, without a slash at the end.
    :param alert_rules: the alert rules in force.
    """

    catalog: Catalog
    location: str
    alert_rules: AlertRules

    def transform_edition(self, contract: DerivedTable) -> str:
        """The edition of a table's transform that is in force. A table of another edition is rebuilt."""
        return transform_edition(contract, self.alert_rules)

    def table(self, contract: TableContract) -> Table:
        """Load a table from the catalog.

        :raises NoSuchTableError: if the table does not exist; :meth:`prepare` creates it.
        :raises TableMismatchError: if the catalog's entry is not an Iceberg table.
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
        """Load a table from the catalog; None if it does not exist."""
        try:
            return self.table(contract)
        except NoSuchTableError:
            return None

    def prepare(self, contracts: Iterable[TableContract] | None = None) -> None:
        """Create missing tables, compare each table and its catalog entry with the contract, apply additive changes.

        :param contracts: the contracts of the tables; all tables if not given.
        :raises TableMismatchError: for the first table that differs; it lists all differences of that table.
        """
        entries = catalog_entries(self.catalog)
        # All tables are compared before one is changed, so that a refused difference leaves all of them as they are.
        tables = [(self._created(one), one) for one in (all_tables() if contracts is None else contracts)]
        for table, contract in tables:
            if of_table := self.differences(table, contract):
                raise TableMismatchError(contract.full_name, of_table, in_catalog=False)
            if of_entry := entry_differences(entries, table):
                raise TableMismatchError(contract.full_name, of_entry, in_catalog=True)
        for table, contract in tables:
            evolve(table, contract)

    def table_location(self, contract: TableContract) -> str:
        """The location of the table's files."""
        return "/".join((self.location, *contract.identifier))

    def _created(self, contract: TableContract) -> Table:
        try:
            return self.table(contract)
        except NoSuchTableError:
            if (metadata := self._orphaned_metadata(contract)) is not None:
                return self._created_meanwhile(contract, metadata)
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
                sort_order=contract.sort_order,
                properties={"format-version": "2", **contract.table_properties},
            )
        except TableAlreadyExistsError:
            return self.table(contract)

    def _orphaned_metadata(self, contract: TableContract) -> str | None:
        """The metadata file of a Bronze table with rows, whose catalog entry is missing; None if there is none.

        A new table would hide these rows, and their only other copy is in the archive. Metadata without a snapshot does
        not count, because another run may be creating the table.
        """
        if contract.layer != "bronze":
            return None
        files = metadata_files(self.table_location(contract))
        return next((file for file in files if has_snapshot(file, self._io(file))), None)

    def _created_meanwhile(self, contract: TableContract, metadata: str) -> Table:
        """Load a table again, because another run may have created and filled it since the first attempt.

        :raises TableMismatchError: if the table still does not exist.
        """
        table = self.existing(contract)
        if table is None:
            missing = f"the catalog has no entry for it, but its rows are in {metadata}"
            raise TableMismatchError(contract.full_name, [missing], in_catalog=True)
        return table

    def _io(self, location: str) -> FileIO:
        return load_file_io(dict(self.catalog.properties), location)

    def forget_metadata(self) -> None:
        """Read the metadata files of all tables again when they are loaded next, although these files are immutable.

        Another program may have deleted or replaced them.
        """
        if isinstance(self.catalog, LakehouseCatalog):
            self.catalog.forget_parsed()

    def close(self) -> None:
        """Move the content of SQLite's WAL into the catalog's file. The lakehouse can still be used."""
        if isinstance(self.catalog, SqlCatalog):
            checkpoint(Path(self.location.removeprefix("file://")) / CATALOG_FILE)

    def create_database(self, name: str) -> None:
        """Create a database if it does not exist."""
        try:
            # Creating a database needs a permission that a user of an existing database may lack.
            if not self.catalog.namespace_exists(name):
                self.catalog.create_namespace_if_not_exists(name)
        except IntegrityError:
            # SQLite: another process created it after the query above.
            logger.info("another process created the database %s at the same time", name)

    def differences(self, table: Table, contract: TableContract) -> list[str]:
        """The differences between a table and its contract that no run corrects, one sentence part each."""
        return list(differences(table, contract, self.table_location(contract)))


def open_lakehouse(settings: Settings) -> Lakehouse:
    """Open the catalog of the settings, or create an empty one if it does not exist. No table is created.

    If the lakehouse is a folder, the catalog is the SQLite file ``<lakehouse>/catalog.sqlite``, and its name is
    ``telemetry``. If the lakehouse is in S3, the catalog is the Glue Data Catalog.

    :raises SettingsError: if the folder cannot be created, or its path contains a character that is not allowed.
    :raises CatalogBusyError: if another process keeps the SQLite catalog locked.
    :raises CatalogUnusableError: if the SQLite catalog cannot be read or written.
    """
    if any(character in settings.lakehouse_uri for character in "#?%*[]{}"):
        raise SettingsError(
            f"TELEMETRY_LAKEHOUSE_URI={settings.lakehouse_uri} contains one of the characters #?%*[]{{}}, which "
            "table locations must not contain."
        )
    if settings.catalog == "glue":
        from telemetry_assets.lakehouse.glue_catalog import open_glue_catalog

        catalog = open_glue_catalog(CATALOG_NAME, settings.lakehouse_uri, settings.kms_key_id)
        return Lakehouse(catalog, settings.lakehouse_uri, settings.alert_rules)
    folder = settings.lakehouse_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"TELEMETRY_LAKEHOUSE_URI={folder} cannot be created: {error.strerror}.") from error
    file = folder / CATALOG_FILE
    catalog = open_sqlite_catalog(CATALOG_NAME, file, f"file://{folder}", settings.catalog_busy_seconds)
    return Lakehouse(catalog, f"file://{folder}", settings.alert_rules)


def has_lakehouse(settings: Settings) -> bool:
    """Whether the catalog of the settings exists. Nothing is created; Glue always counts as existing."""
    return settings.catalog == "glue" or (settings.lakehouse_folder() / CATALOG_FILE).exists()
