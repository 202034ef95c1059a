"""A SQLite catalog shared with other processes: no commit is assumed that others do not see, and none is lost."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog

from telemetry_assets.errors import CatalogBusyError, CatalogUnusableError, TelemetryAssetsError
from telemetry_assets.ingestion.reconciliation import reconcile
from telemetry_assets.lakehouse import sqlite_catalog
from telemetry_assets.tables import BRONZE, CURRENT_STATE, SILVER
from telemetry_assets_tests.harness.deployment import Deployment, deployment
from telemetry_assets_tests.harness.made_documents import event, framed

SECOND = "CAR-2"


def one(car: str) -> bytes:
    return framed([event(car)], "array")[1]


def catalog_file(deployed: Deployment) -> Path:
    return deployed.settings.lakehouse_folder() / "catalog.sqlite"


@contextmanager
def other_process(deployed: Deployment, begin: str) -> Iterator[sqlite3.Connection]:
    """A connection of another process, which holds the catalog in a transaction."""
    connection = sqlite3.connect(catalog_file(deployed), isolation_level=None)
    connection.execute(begin)
    connection.execute("SELECT * FROM iceberg_tables").fetchall()
    try:
        yield connection
    finally:
        connection.execute("ROLLBACK")
        connection.close()


@pytest.fixture
def without_wal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that does not support WAL."""
    monkeypatch.setattr(sqlite_catalog, "_file_system", lambda _: "nfs4")


def journal_mode(deployed: Deployment) -> str:
    with sqlite3.connect(catalog_file(deployed)) as connection:
        return str(connection.execute("PRAGMA journal_mode").fetchone()[0])


def cars(deployed: Deployment) -> list[str]:
    return sorted(row["car_chassis"] for row in deployed.rows(BRONZE))


def test_sqlite_reader_loses_batch(tmp_path: Path) -> None:
    with deployment(tmp_path, catalog_busy_seconds=0.2) as deployed:
        deployed.upload("first.json", one("CAR-1"))
        deployed.process()
        deployed.upload("second.json", one(SECOND))
        assert journal_mode(deployed) == "wal"
        with other_process(deployed, "BEGIN"):
            deployed.process()
        assert cars(deployed) == ["CAR-1", SECOND]
        deployed.assert_equals_the_contract()


@pytest.mark.usefixtures("without_wal")
def test_a_reader_that_blocks_a_commit_without_wal_leaves_the_batch_to_the_next_run(tmp_path: Path) -> None:
    with deployment(tmp_path, catalog_busy_seconds=0.2) as deployed:
        deployed.upload("first.json", one("CAR-1"))
        deployed.process()
        deployed.upload("second.json", one(SECOND))
        assert journal_mode(deployed) == "delete"
        with (
            other_process(deployed, "BEGIN"),
            pytest.raises(CatalogBusyError, match=r"Another process has kept .*catalog.sqlite locked for 0.2 s"),
        ):
            deployed.process()
        assert cars(deployed) == ["CAR-1"]
        assert not list(deployed.settings.lakehouse_folder().glob("archive/*/second.json"))
        deployed.process()
        assert cars(deployed) == ["CAR-1", SECOND]
        deployed.assert_equals_the_contract()


@pytest.mark.parametrize("begin", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
def test_a_writer_that_blocks_a_commit_leaves_the_batch_to_the_next_run(tmp_path: Path, begin: str) -> None:
    with deployment(tmp_path, catalog_busy_seconds=0.2) as deployed:
        deployed.upload("first.json", one("CAR-1"))
        deployed.process()
        deployed.upload("second.json", one(SECOND))
        with other_process(deployed, begin), pytest.raises(CatalogBusyError):
            deployed.process()
        deployed.process()
        assert cars(deployed) == ["CAR-1", SECOND]
        deployed.assert_equals_the_contract()


def test_a_writer_that_is_done_within_the_time_out_is_waited_for(tmp_path: Path) -> None:
    with deployment(tmp_path) as deployed:
        deployed.upload("first.json", one("CAR-1"))
        deployed.process()
        code = (
            f"import sqlite3, sys, time; c = sqlite3.connect({str(catalog_file(deployed))!r}, isolation_level=None);"
            "c.execute('BEGIN IMMEDIATE'); print('locked', flush=True); time.sleep(1.5); c.execute('ROLLBACK')"
        )
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"locked\n"
            deployed.upload("second.json", one(SECOND))
            deployed.process()
        assert cars(deployed) == ["CAR-1", SECOND]


def test_commit_that_failed_as_busy_is_not_visible(tmp_path: Path) -> None:
    """In PyIceberg's own connection pool, the connection of the failed commit shows its own change."""
    with deployment(tmp_path, catalog_busy_seconds=0.2) as deployed:
        deployed.process()
        table = deployed.pipeline.lakehouse.table(BRONZE)
        rows = pa.Table.from_pylist([{name: _value(name) for name in BRONZE.column_names}], schema=BRONZE.arrow_schema)
        with other_process(deployed, "BEGIN IMMEDIATE"), pytest.raises(TelemetryAssetsError):
            table.append(rows)
        assert table.refresh().current_snapshot() is None


def _value(name: str) -> object:
    from datetime import UTC, datetime

    moment = datetime(2026, 3, 1, tzinfo=UTC)
    values: dict[str, object] = {
        "telemetry_timestamp": moment,
        "ingested_at": moment,
        "event_date": moment.date(),
        "source_position": 0,
    }
    return values.get(name, "x")


def test_user_with_read_permission_only_can_read_the_tables(tmp_path: Path) -> None:
    with deployment(tmp_path) as deployed:
        deployed.upload("first.json", one("CAR-1"))
        deployed.process()
        file = catalog_file(deployed)
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(folder.stat().st_mode | stat.S_IXOTH | stat.S_IROTH)
    code = (
        "import os, sqlite3; os.getuid() or (os.setgid(65534), os.setuid(65534));"
        f"c = sqlite3.connect({str(file)!r});"
        "print(c.execute('SELECT count(*) FROM iceberg_tables').fetchone()[0])"
    )
    if os.getuid():
        file.parent.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        read = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    finally:
        file.parent.chmod(stat.S_IRWXU)
    assert read.stdout == "7\n", read.stderr


def test_copy_of_the_catalog_file_alone_is_complete(tmp_path: Path) -> None:
    with deployment(tmp_path) as deployed:
        deployed.upload("first.json", one("CAR-1"))
        deployed.process()
        file = catalog_file(deployed)
    copy = tmp_path / "copy.sqlite"
    copy.write_bytes(file.read_bytes())
    catalog = SqlCatalog("telemetry", uri=f"sqlite:///{copy}", warehouse=f"file://{file.parent}")
    assert catalog.load_table(SILVER.identifier).scan().count() == 1


def test_catalog_that_is_no_database_is_reported_with_its_remedy(tmp_path: Path) -> None:
    (tmp_path / "lakehouse").mkdir()
    (tmp_path / "lakehouse" / "catalog.sqlite").write_text("this is no database, and it is long enough" * 100)
    with pytest.raises(CatalogUnusableError, match=r"(?s)catalog.sqlite cannot be used.*restore it from a backup"):
        deployment(tmp_path).__enter__()


@pytest.mark.long
def test_readers_and_a_writer_beside_runs_cause_no_error(tmp_path: Path) -> None:
    with deployment(tmp_path) as deployed:
        deployed.upload("0.json", one("CAR-0"))
        deployed.process()
        others = [
            subprocess.Popen([sys.executable, "-c", code, str(deployed.settings.lakehouse_folder())])
            for code in (_READER, _READER, _READER, _WRITER)
        ]
        try:
            for number in range(1, 5):
                deployed.upload(f"{number}.json", one(f"CAR-{number}"))
                deployed.process()
        finally:
            for other in others:
                other.terminate()
        assert [other.wait(30) for other in others] == [-15] * 4
        assert len(deployed.rows(CURRENT_STATE)) == 5
        assert all(batch.conserved for batch in reconcile(deployed.pipeline.lakehouse).batches)
        deployed.assert_equals_the_contract()


_READER = """
import sys
from pyiceberg.catalog.sql import SqlCatalog
folder = sys.argv[1]
while True:
    catalog = SqlCatalog("telemetry", uri=f"sqlite:///{folder}/catalog.sqlite", warehouse=f"file://{folder}")
    catalog.load_table("gold.car_current_state").scan().to_arrow()
"""
_WRITER = """
import sqlite3, sys, time
connection = sqlite3.connect(f"{sys.argv[1]}/catalog.sqlite", isolation_level=None)
connection.execute("CREATE TABLE IF NOT EXISTS of_somebody_else (number INTEGER)")
while True:
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT INTO of_somebody_else VALUES (1)")
    time.sleep(0.05)
    connection.execute("COMMIT")
    time.sleep(0.02)
"""


def test_the_file_system_of_a_mount_with_an_unusual_name_is_recognised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_bytes(
        b"22 1 0:1 / / rw - ext4 /dev/sda rw\n"
        b"23 22 0:2 / /srv/m\xc3\xbcnchen\\040s\xfcd rw shared:1 - nfs4 server:/ rw\n"
    )
    monkeypatch.setattr(sqlite_catalog, "_MOUNTS", mounts)
    assert sqlite_catalog._file_system(Path(os.fsdecode(b"/srv/m\xc3\xbcnchen s\xfcd/catalog.sqlite"))) == "nfs4"
    assert sqlite_catalog._file_system(Path("/srv/other/catalog.sqlite")) == "ext4"
