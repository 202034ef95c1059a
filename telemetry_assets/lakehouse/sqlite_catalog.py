"""The SQLite catalog of a lakehouse in a folder, opened so that every look sees what another process would see.

PyIceberg's own :class:`SqlCatalog` keeps its connections in a pool. After a COMMIT that failed as busy, a pooled
connection still shows its own change, which is not in the file. Here each session has a connection of its own.
"""

from __future__ import annotations

import errno
import os
import re
import sqlite3
import weakref
from contextlib import closing
from pathlib import Path

from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.io import PY_IO_IMPL
from sqlalchemy import create_engine, event
from sqlalchemy.engine import Engine, ExceptionContext
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from telemetry_assets.errors import CatalogBusyError, CatalogUnusableError, StorageError
from telemetry_assets.file_system.errors import is_storage_error, storage_advice
from telemetry_assets.lakehouse.commit_times import OrderedCommits
from telemetry_assets.lakehouse.local_file_io import sync_written_files
from telemetry_assets.text.plain import plain_logger

logger = plain_logger(__name__)

_FILE_IO = "telemetry_assets.lakehouse.local_file_io.LocalFileIO"

_JOURNAL_SWITCH_SECONDS = 0.2
"""How long a change of the journal mode waits for other processes; the next opening tries again."""

_MOUNTS = Path("/proc/self/mountinfo")
_OCTAL = re.compile(r"\\([0-7]{3})")

_SHARED_MEMORY_FILE_SYSTEMS = frozenset(
    {
        *("bcachefs", "btrfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "jfs", "ntfs3", "overlay", "ramfs"),
        *("reiserfs", "tmpfs", "vfat", "xfs", "zfs"),
    }
)
"""File systems of one machine. SQLite's WAL needs memory that all processes share, which a network file system and
FUSE do not give; see https://www.sqlite.org/wal.html."""

_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_STORAGE = {sqlite3.SQLITE_FULL: errno.ENOSPC, sqlite3.SQLITE_IOERR: errno.EIO}
_UNUSABLE = {
    sqlite3.SQLITE_READONLY: "this user may not write to it, or its file system is read-only; grant access",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; see that this user may write to its folder, and that the limit of "
    "open files (`ulimit -n`) is not reached",
    sqlite3.SQLITE_CORRUPT: "its content is damaged; bring it back from a backup",
    sqlite3.SQLITE_NOTADB: "it is not a SQLite database; bring it back from a backup",
    sqlite3.SQLITE_PERM: "this user may not use it; grant access",
    sqlite3.SQLITE_AUTH: "this user may not use it; grant access",
}


class _OrderedSqlCatalog(OrderedCommits, SqlCatalog):
    """PyIceberg's own, with moments of commits in their order."""

    def __init__(self, name: str, **properties: str) -> None:
        try:
            super().__init__(name, **properties)
        except SQLAlchemyError:
            # The error's traceback would keep the pooled connection open, and whoever closes the last connection
            # removes the WAL.
            self.engine.dispose()
            raise


def open_sqlite_catalog(name: str, file: Path, warehouse: str, busy_seconds: float) -> SqlCatalog:
    """Open the catalog, and make its file and its own tables where they are missing.

    :param busy_seconds: how long a request waits while another process has locked the file.
    :raises CatalogBusyError: where another process has locked the file for longer; also raised by later requests.
    :raises CatalogUnusableError: where the file cannot be read or written; also raised by later requests.
    """
    _choose_journal(file)
    uri = f"sqlite:///{file}?timeout={busy_seconds}"
    try:
        catalog = _opened(name, uri, warehouse)
    except DBAPIError as error:
        raise _translated(error.orig, file, busy_seconds) or error from error
    catalog.engine.dispose()
    catalog.engine = _engine(uri, file, busy_seconds)
    # Without a reader that stays, the end of the last session would remove the WAL, and then a user without write
    # permission on the folder could not read the catalog.
    _stay_open(catalog, file)
    return catalog


def _opened(name: str, uri: str, warehouse: str) -> SqlCatalog:
    try:
        return _OrderedSqlCatalog(name, uri=uri, warehouse=warehouse, **{PY_IO_IMPL: _FILE_IO})
    except (IntegrityError, OperationalError) as error:
        if _code(error.orig) in (_BUSY | _STORAGE.keys() | _UNUSABLE.keys()):
            raise
        # Two processes made the catalog's own tables at the same moment; they are there now.
        return _OrderedSqlCatalog(name, uri=uri, warehouse=warehouse, **{PY_IO_IMPL: _FILE_IO})


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
    """The error of storage that keeps this process from opening anything, which SQLite does not say; 0 for none."""
    try:
        os.close(os.open(folder, os.O_RDONLY))
    except OSError as error:
        return (error.errno or 0) if is_storage_error(error) else 0
    return 0


def _code(error: BaseException | None) -> int:
    """SQLite's primary result code; 0 where the error is none of SQLite's."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _choose_journal(file: Path) -> None:
    """Keep the catalog in WAL mode where its file system can carry it, so that readers never block a commit."""
    wanted = "wal" if _file_system(file) in _SHARED_MEMORY_FILE_SYSTEMS else "delete"
    try:
        with closing(sqlite3.connect(file, timeout=_JOURNAL_SWITCH_SECONDS, isolation_level=None)) as connection:
            [found] = connection.execute("PRAGMA journal_mode").fetchone()
            if found != wanted:
                connection.execute(f"PRAGMA journal_mode={wanted}")
    except sqlite3.Error as error:
        # Another process uses it, or this user may only read it. Commits are as safe in the mode that it has.
        logger.debug("the journal mode of %s stays as it is: %s", file, error)


def _file_system(path: Path) -> str:
    """The type of the file system that holds a file; empty where this system does not say."""
    try:
        lines = os.fsdecode(_MOUNTS.read_bytes()).splitlines()
    except OSError:
        return ""
    best, kind = "", ""
    resolved = str(path.parent.resolve())
    for line in lines:
        before, _, after = line.partition(" - ")
        # White space and backslashes are written as octal numbers.
        mount = _OCTAL.sub(lambda found: chr(int(found[1], 8)), before.split(" ")[4])
        if f"{resolved}/".startswith(f"{mount.rstrip('/')}/") and len(mount) >= len(best):
            best, kind = mount, after.split()[0]
    return kind


def _stay_open(catalog: SqlCatalog, file: Path) -> None:
    """Keep one connection to the catalog's file that only reads, for as long as the catalog is used.

    A connection that may not write leaves the WAL where it is when it is the last one to be closed.
    """
    uri = f"{file.as_uri()}?mode=ro"
    try:
        reader = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
        reader.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        logger.debug("no connection to %s stays open: %s", file, error)
        return
    weakref.finalize(catalog, reader.close)


def checkpoint(file: Path) -> None:
    """Move what the WAL holds into the catalog's file, so that a copy of the file alone is whole."""
    try:
        with closing(sqlite3.connect(file, timeout=_JOURNAL_SWITCH_SECONDS, isolation_level=None)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error as error:
        # Another process reads an older state; SQLite does it by itself at a later commit.
        logger.debug("the WAL of %s stays as it is: %s", file, error)
