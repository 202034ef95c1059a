"""The SQLite catalog of a lakehouse in a folder, opened so that every read sees what other processes see.

PyIceberg's :class:`SqlCatalog` keeps its connections in a pool. After a COMMIT that failed because the file was busy, a
pooled connection still reads its own change, which is not in the file. Therefore, each session of this catalog has a
new connection.
"""

from __future__ import annotations

import errno
import os
import re
import sqlite3
import weakref
from contextlib import closing
from pathlib import Path

from pyiceberg.catalog.sql import IcebergTables, SqlCatalog
from pyiceberg.io import PY_IO_IMPL
from pyiceberg.table import Table
from sqlalchemy import create_engine, event
from sqlalchemy.engine import Engine, ExceptionContext
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from telemetry_assets.errors import CatalogBusyError, CatalogUnusableError, StorageError
from telemetry_assets.file_system import is_storage_error, storage_advice
from telemetry_assets.lakehouse.local_file_io import sync_written_files
from telemetry_assets.lakehouse.metastore import LakehouseCatalog
from telemetry_assets.text.plain import plain_logger

logger = plain_logger(__name__)

_FILE_IO = "telemetry_assets.lakehouse.local_file_io.LocalFileIO"

_JOURNAL_SWITCH_SECONDS = 0.2
"""How long a change of the journal mode waits for other processes. If it fails, the next process that opens the catalog
tries again."""

_MOUNTS = Path("/proc/self/mountinfo")
_OCTAL = re.compile(r"\\([0-7]{3})")

_SHARED_MEMORY_FILE_SYSTEMS = frozenset(
    {
        *("bcachefs", "btrfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "jfs", "ntfs3", "overlay", "ramfs"),
        *("reiserfs", "tmpfs", "vfat", "xfs", "zfs"),
    }
)
"""Local file systems. SQLite's WAL needs memory that all processes share, which network file systems and FUSE do not
provide; see https://www.sqlite.org/wal.html."""

_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_STORAGE = {sqlite3.SQLITE_FULL: errno.ENOSPC, sqlite3.SQLITE_IOERR: errno.EIO}
_UNUSABLE = {
    sqlite3.SQLITE_READONLY: "this user may not write to it, or its file system is read-only; grant access",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; check that this user may write to its folder, and that the "
    "limit of open files (`ulimit -n`) is not reached",
    sqlite3.SQLITE_CORRUPT: "its content is damaged; restore it from a backup",
    sqlite3.SQLITE_NOTADB: "it is not a SQLite database; restore it from a backup",
    sqlite3.SQLITE_PERM: "this user may not use it; grant access",
    sqlite3.SQLITE_AUTH: "this user may not use it; grant access",
}


class _SqliteCatalog(LakehouseCatalog, SqlCatalog):
    """PyIceberg's catalog, with what :class:`LakehouseCatalog` adds."""

    def __init__(self, name: str, **properties: str) -> None:
        try:
            super().__init__(name, **properties)
        except SQLAlchemyError:
            # The error's traceback would keep the pooled connection open, and closing the last connection removes
            # the WAL.
            self.engine.dispose()
            raise

    def _convert_orm_to_iceberg(self, orm_table: IcebergTables) -> Table:
        identifier = (orm_table.table_namespace, orm_table.table_name)
        load = super()._convert_orm_to_iceberg
        return self._loaded(identifier, orm_table.metadata_location, lambda: load(orm_table))


def open_sqlite_catalog(name: str, file: Path, warehouse: str, busy_seconds: float) -> SqlCatalog:
    """Open the catalog. Create its file and its own tables if they are missing.

    Later requests to the catalog raise the same errors.

    :param busy_seconds: how long a request waits while another process has locked the file.
    :raises CatalogBusyError: if another process has locked the file for longer.
    :raises CatalogUnusableError: if the file cannot be read or written.
    :raises StorageError: if the file system is full, read-only, or reports an I/O error.
    """
    _choose_journal(file)
    uri = f"sqlite:///{file}?timeout={busy_seconds}"
    try:
        catalog = _opened(name, uri, warehouse)
    except DBAPIError as error:
        raise _translated(error.orig, file, busy_seconds) or error from error
    catalog.engine.dispose()
    catalog.engine = _engine(uri, file, busy_seconds)
    # Closing the last connection would remove the WAL. Then a user without write permission on the folder could not
    # read the catalog.
    _stay_open(catalog, file)
    return catalog


def _opened(name: str, uri: str, warehouse: str) -> SqlCatalog:
    try:
        return _SqliteCatalog(name, uri=uri, warehouse=warehouse, **{PY_IO_IMPL: _FILE_IO})
    except (IntegrityError, OperationalError) as error:
        if _code(error.orig) in (_BUSY | _STORAGE.keys() | _UNUSABLE.keys()):
            raise
        # Another process created the catalog's own tables at the same time. They exist now.
        return _SqliteCatalog(name, uri=uri, warehouse=warehouse, **{PY_IO_IMPL: _FILE_IO})


def _engine(uri: str, file: Path, busy_seconds: float) -> Engine:
    engine = create_engine(uri, poolclass=NullPool)

    @event.listens_for(engine, "handle_error")
    def translate(context: ExceptionContext) -> None:
        translated = _translated(context.original_exception, file, busy_seconds)
        if translated is not None:
            raise translated from context.original_exception

    @event.listens_for(engine, "commit")
    def sync(_: object) -> None:
        sync_written_files()

    return engine


def _translated(error: BaseException | None, file: Path, busy_seconds: float) -> Exception | None:
    code = _code(error)
    if code in _BUSY:
        return CatalogBusyError(str(file), busy_seconds)
    if code in _STORAGE:
        return StorageError(storage_advice(_STORAGE[code], file.parent))
    if code == sqlite3.SQLITE_READONLY and os.statvfs(file.parent).f_flag & os.ST_RDONLY:
        return StorageError(storage_advice(errno.EROFS, file.parent))
    if code == sqlite3.SQLITE_CANTOPEN and (number := _why_not_opened(file.parent)):
        return StorageError(storage_advice(number, file.parent))
    return CatalogUnusableError(str(file), f"{error}: {_UNUSABLE[code]}") if code in _UNUSABLE else None


def _why_not_opened(folder: Path) -> int:
    """The number of the storage error that SQLITE_CANTOPEN hides, such as too many open files; 0 if there is none."""
    try:
        os.close(os.open(folder, os.O_RDONLY))
    except OSError as error:
        return (error.errno or 0) if is_storage_error(error) else 0
    return 0


def _code(error: BaseException | None) -> int:
    """SQLite's primary result code; 0 if the error is not from SQLite."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _choose_journal(file: Path) -> None:
    """Use WAL mode, in which readers never block a commit, if the file system supports it."""
    wanted = "wal" if _file_system(file) in _SHARED_MEMORY_FILE_SYSTEMS else "delete"
    try:
        with closing(sqlite3.connect(file, timeout=_JOURNAL_SWITCH_SECONDS, isolation_level=None)) as connection:
            [found] = connection.execute("PRAGMA journal_mode").fetchone()
            if found != wanted:
                connection.execute(f"PRAGMA journal_mode={wanted}")
    except sqlite3.Error as error:
        # Another process uses the file, or this user may only read it. Commits are safe in either mode.
        logger.debug("the journal mode of %s was not changed: %s", file, error)


def _file_system(path: Path) -> str:
    """The type of a file's file system, e.g. ``ext4``; empty if the operating system does not report it."""
    try:
        lines = os.fsdecode(_MOUNTS.read_bytes()).splitlines()
    except OSError:
        return ""
    best, kind = "", ""
    resolved = str(path.parent.resolve())
    for line in lines:
        before, _, after = line.partition(" - ")
        # White space and backslashes are octal escapes.
        mount = _OCTAL.sub(lambda found: chr(int(found[1], 8)), before.split(" ")[4])
        if f"{resolved}/".startswith(f"{mount.rstrip('/')}/") and len(mount) >= len(best):
            best, kind = mount, after.split()[0]
    return kind


def _stay_open(catalog: SqlCatalog, file: Path) -> None:
    """Keep a read-only connection to the catalog's file open for as long as the catalog is used.

    If a read-only connection is the last one to be closed, it does not remove the WAL.
    """
    uri = f"{file.as_uri()}?mode=ro"
    try:
        reader = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
        reader.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        logger.debug("no connection to %s is kept open: %s", file, error)
        return
    weakref.finalize(catalog, reader.close)


def checkpoint(file: Path) -> None:
    """Move the content of the WAL into the catalog's file, so that a copy of the file alone is complete."""
    try:
        with closing(sqlite3.connect(file, timeout=_JOURNAL_SWITCH_SECONDS, isolation_level=None)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error as error:
        # Another process reads an older state. SQLite does a checkpoint at a later commit.
        logger.debug("the WAL of %s was not moved into it: %s", file, error)
