"""The table doctor compares contract, catalog entry and Iceberg metadata, on every catalog."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.types import StringType
from sqlalchemy import text

from telemetry_assets.errors import TableMismatchError
from telemetry_assets.lakehouse.commits import append_files
from telemetry_assets.lakehouse.doctor import examine
from telemetry_assets.lakehouse.metadata_files import metadata_files
from telemetry_assets.tables import ALERTS, BRONZE, SILVER, all_tables
from telemetry_assets.tables.contract import TableContract
from telemetry_assets_tests.harness.deployment import Deployment, deployment
from telemetry_assets_tests.harness.examined import filled, number_of, repair, to_do, write_metadata_again
from telemetry_assets_tests.harness.made_documents import event, framed


@pytest.fixture
def deployed(in_each_catalog: Deployment) -> Deployment:
    return in_each_catalog


def test_healthy_tables_have_no_findings_to_repair(deployed: Deployment) -> None:
    assert to_do(deployed) == []
    assert [finding.table for finding in examine(deployed.pipeline.lakehouse)] == [
        one.full_name for one in all_tables()
    ]


@pytest.mark.parametrize("contract", [BRONZE, SILVER], ids=lambda one: one.full_name)
def test_table_whose_entry_is_lost_is_restored(deployed: Deployment, contract: TableContract) -> None:
    before = deployed.rows(contract)
    deployed.pipeline.lakehouse.catalog.drop_table(contract.identifier)
    [finding] = to_do(deployed)
    assert "no entry for it" in finding.text
    repair(deployed)
    assert deployed.rows(contract) == before
    deployed.process()
    deployed.assert_equals_the_contract()


def test_no_run_creates_bronze_beside_the_files_of_a_lost_one(deployed: Deployment) -> None:
    deployed.pipeline.lakehouse.catalog.drop_table(BRONZE.identifier)
    with pytest.raises(TableMismatchError, match="doctor --repair"):
        deployed.process()


def test_repair_creates_a_missing_table(deployed: Deployment) -> None:
    lakehouse = deployed.pipeline.lakehouse
    lakehouse.catalog.drop_table(ALERTS.identifier)
    for file in metadata_files(lakehouse.table_location(ALERTS)):
        lakehouse.table(SILVER).io.delete(file)
    [finding] = [one for one in examine(lakehouse) if one.table == ALERTS.full_name]
    assert not finding.needs_action
    assert finding.repair is not None
    assert "from its contract" in finding.repair()
    assert deployed.rows(ALERTS) == []
    deployed.process()
    deployed.assert_equals_the_contract()


def test_ambiguous_newest_metadata_is_not_repaired(deployed: Deployment) -> None:
    newest = number_of(deployed.pipeline.lakehouse.table(SILVER).metadata_location)
    write_metadata_again(deployed, SILVER, newest)
    deployed.pipeline.lakehouse.catalog.drop_table(SILVER.identifier)
    [finding] = to_do(deployed)
    assert finding.repair is None
    assert "could both be the newest" in finding.refusal


def test_metadata_of_a_failed_commit_is_not_considered_the_newest(deployed: Deployment) -> None:
    table = deployed.pipeline.lakehouse.table(SILVER)
    left_behind = write_metadata_again(deployed, SILVER, number_of(table.metadata_location) + 1)
    snapshot = table.current_snapshot()
    assert snapshot is not None
    with table.io.new_input(left_behind).open() as source:
        written = source.read().decode().replace(snapshot.manifest_list, f"{snapshot.manifest_list}.deleted")
    with table.io.new_output(left_behind).create(overwrite=True) as target:
        target.write(written.encode())
    deployed.pipeline.lakehouse.catalog.drop_table(SILVER.identifier)
    repair(deployed)
    assert deployed.pipeline.lakehouse.table(SILVER).metadata_location == table.metadata_location


def test_metadata_of_two_tables_in_one_location_is_not_repaired(deployed: Deployment) -> None:
    lakehouse = deployed.pipeline.lakehouse
    lakehouse.catalog.drop_table(SILVER.identifier)
    deployed.process()
    assert to_do(deployed) == []
    lakehouse.catalog.drop_table(SILVER.identifier)
    [finding] = to_do(deployed)
    assert finding.repair is None
    assert "2 different tables" in finding.refusal


def test_entry_that_points_at_lost_metadata_is_not_reset_to_older_metadata(deployed: Deployment) -> None:
    table = deployed.pipeline.lakehouse.table(SILVER)
    table.io.delete(table.metadata_location)
    [finding] = [one for one in to_do(deployed) if one.table == SILVER.full_name]
    assert finding.repair is None
    assert "commits could be undone" in finding.refusal


def test_entry_of_an_old_backup_is_advanced_to_the_newest_metadata(tmp_path: Path) -> None:
    with deployment(tmp_path) as deployed:
        filled(deployed)
        catalog = deployed.settings.lakehouse_folder() / "catalog.sqlite"
        deployed.pipeline.lakehouse.close()
        backup = shutil.copy(catalog, tmp_path / "backup.sqlite")
        old = deployed.pipeline.lakehouse.table(BRONZE)
        deployed.upload("y.json", framed([event("CAR-2")], "array")[1])
        deployed.process()
        rows = deployed.rows(BRONZE)
        deployed.pipeline.lakehouse.close()
        shutil.copy(backup, catalog)
        old.io.delete(old.metadata_location)
        [finding] = [one for one in to_do(deployed) if one.table == BRONZE.full_name]
        assert finding.repair is not None
        finding.repair()
        assert deployed.rows(BRONZE) == rows


def test_table_that_differs_from_its_contract_is_not_repaired(deployed: Deployment) -> None:
    with deployed.pipeline.lakehouse.table(SILVER).update_schema() as update:
        update.add_column("nickname", StringType())
    [finding] = to_do(deployed)
    assert "`nickname` (string) is not in the contract, so no run writes to it" in finding.text
    assert finding.repair is None
    assert finding.refusal


def test_a_schema_that_was_widened_and_put_back_is_healthy(deployed: Deployment) -> None:
    for change in ("add_column", "delete_column"):
        with deployed.pipeline.lakehouse.table(SILVER).update_schema(allow_incompatible_changes=True) as update:
            getattr(update, change)("nickname", *([StringType()] if change == "add_column" else []))
    assert to_do(deployed) == []
    deployed.process()


def test_entry_without_a_metadata_location_is_repaired_in_sqlite_too(tmp_path: Path) -> None:
    with deployment(tmp_path) as deployed:
        filled(deployed)
        rows = deployed.rows(SILVER)
        engine: Any = deployed.pipeline.lakehouse.catalog.engine  # type: ignore[attr-defined]  # of SQLite's
        with engine.begin() as connection:
            connection.execute(
                text("UPDATE iceberg_tables SET metadata_location = NULL WHERE table_namespace = 'silver'")
            )
        repair(deployed)
        assert deployed.rows(SILVER) == rows


def test_metadata_of_an_interrupted_table_creation_is_harmless(deployed: Deployment) -> None:
    lakehouse = deployed.pipeline.lakehouse
    documents = sorted(row["payload"] for row in deployed.rows(BRONZE))
    for contract in (BRONZE, SILVER):
        lakehouse.catalog.drop_table(contract.identifier)
        for file in metadata_files(lakehouse.table_location(contract)):
            lakehouse.table(ALERTS).io.delete(file)
    lakehouse.prepare((BRONZE,))
    lakehouse.catalog.drop_table(BRONZE.identifier)
    deployed.process()
    assert sorted(row["payload"] for row in deployed.rows(BRONZE)) == documents


def test_a_backup_of_the_catalog_can_be_restored_after_many_commits(tmp_path: Path) -> None:
    catalog, backup = tmp_path / "lakehouse" / "catalog.sqlite", tmp_path / "backup.sqlite"
    with deployment(tmp_path) as deployed:
        filled(deployed)
    shutil.copy(catalog, backup)
    with deployment(tmp_path) as deployed:
        for _ in range(25):
            append_files(deployed.pipeline.lakehouse.table(ALERTS), (), {})
        before = deployed.rows(ALERTS)
    for suffix in ("-wal", "-shm"):
        Path(f"{catalog}{suffix}").unlink(missing_ok=True)
    shutil.copy(backup, catalog)
    with deployment(tmp_path) as deployed:
        [finding] = to_do(deployed)
        assert "cannot be read" in finding.text
        repair(deployed)
        assert len(deployed.pipeline.lakehouse.table(ALERTS).snapshots()) > 20
        assert deployed.rows(ALERTS) == before
