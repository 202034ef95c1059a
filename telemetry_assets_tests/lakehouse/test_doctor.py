"""The table doctor: contract, catalog entry and Iceberg metadata against each other, on every catalog."""

from __future__ import annotations

import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from pyiceberg.types import StringType
from sqlalchemy import text

from telemetry_assets.__main__ import main
from telemetry_assets.errors import ConcurrentWriteError, TableMismatchError
from telemetry_assets.lakehouse.contracts import ALERTS, BRONZE, CONTRACTS, SILVER
from telemetry_assets.lakehouse.doctor import Finding, examine
from telemetry_assets.lakehouse.recovery import metadata_files
from telemetry_assets.lakehouse.table_contract import TableContract
from telemetry_assets_tests.aws.services import AwsServices
from telemetry_assets_tests.deployment import Deployment, deployment, deployment_in_s3
from telemetry_assets_tests.made_documents import event, framed


@pytest.fixture(params=["sqlite", "glue"])
def deployed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deployment]:
    """A deployment with rows in every table of its catalog."""
    if request.param == "sqlite":
        with deployment(tmp_path) as one:
            yield filled(one)
    else:
        with deployment_in_s3(request.getfixturevalue("aws")) as one:
            yield filled(one)


@pytest.fixture
def in_glue(aws: AwsServices) -> Iterator[Deployment]:
    """A deployment with rows in every table, in Glue."""
    with deployment_in_s3(aws) as one:
        yield filled(one)


def filled(deployed: Deployment) -> Deployment:
    deployed.upload("x.json", framed([event(engineTempCelsius=120), {}], "array")[1])
    deployed.process()
    return deployed


def to_do(deployed: Deployment) -> list[Finding]:
    return [finding for finding in examine(deployed.pipeline.lakehouse) if finding.needs_action]


def repair(deployed: Deployment) -> None:
    """Mend the one thing that has to be done; there is nothing to be done after it."""
    [finding] = to_do(deployed)
    assert finding.repair is not None, finding
    finding.repair()
    assert to_do(deployed) == []


def glue_entry(aws: AwsServices, contract: TableContract) -> dict[str, Any]:
    layer, name = contract.identifier
    entry = aws.client("glue").get_table(DatabaseName=layer, Name=name)["Table"]
    return {key: entry[key] for key in ("Name", "TableType", "Parameters", "StorageDescriptor")}


def write_glue_entry(aws: AwsServices, contract: TableContract, entry: dict[str, Any]) -> None:
    aws.client("glue").update_table(DatabaseName=contract.layer, TableInput=entry)


def write_metadata_again(deployed: Deployment, contract: TableContract, number: int) -> str:
    """A copy of a table's metadata, as one more file of this number."""
    table = deployed.pipeline.lakehouse.table(contract)
    location = f"{table.location()}/metadata/{number:05d}-{uuid.uuid4()}.metadata.json"
    with table.io.new_input(table.metadata_location).open() as source, table.io.new_output(location).create() as target:
        target.write(source.read())
    return location


def number_of(metadata_location: str) -> int:
    found = re.search(r"/(\d+)-[^/]*$", metadata_location)
    assert found is not None
    return int(found[1])


def test_healthy_tables_have_nothing_to_be_done(deployed: Deployment) -> None:
    assert to_do(deployed) == []
    assert [finding.table for finding in examine(deployed.pipeline.lakehouse)] == [one.full_name for one in CONTRACTS]


def test_the_seed_s_accident_an_entry_with_3_columns_where_the_metadata_has_all(
    in_glue: Deployment, aws: AwsServices
) -> None:
    entry = glue_entry(aws, SILVER)
    whole = entry["StorageDescriptor"]["Columns"]
    entry["StorageDescriptor"]["Columns"] = whole[:3]
    write_glue_entry(aws, SILVER, entry)
    [finding] = to_do(in_glue)
    assert f"the catalog shows 3 columns where the metadata has {len(SILVER.columns)}" in finding.text
    assert "refuse inserts" in finding.text
    with pytest.raises(TableMismatchError, match="3 columns"):
        in_glue.process()
    repair(in_glue)
    assert glue_entry(aws, SILVER)["StorageDescriptor"]["Columns"] == whole
    in_glue.upload("y.json", framed([event("CAR-2")], "array")[1])
    in_glue.process()
    in_glue.assert_equals_the_contract()


def test_an_entry_with_another_type_or_location_is_told_and_mended(in_glue: Deployment, aws: AwsServices) -> None:
    entry = glue_entry(aws, ALERTS)
    entry["StorageDescriptor"]["Columns"][0]["Type"] = "bigint"
    entry["StorageDescriptor"]["Location"] = "s3://elsewhere/alerts"
    write_glue_entry(aws, ALERTS, entry)
    columns, location = to_do(in_glue)
    assert "with another type of alert_id" in columns.text
    assert "s3://elsewhere/alerts" in location.text
    assert columns.repair is not None
    columns.repair()
    assert to_do(in_glue) == []


@pytest.mark.parametrize("parameters", [{}, {"classification": "json"}, {"table_type": "HIVE"}])
def test_an_entry_that_a_crawler_has_overwritten_is_told_and_mended(
    in_glue: Deployment, aws: AwsServices, parameters: dict[str, str]
) -> None:
    entry = glue_entry(aws, SILVER)
    columns = [{"Name": name, "Type": "string"} for name in ("col0", "col1", "col2")]
    storage = {**entry["StorageDescriptor"], "Columns": columns}
    write_glue_entry(aws, SILVER, {**entry, "Parameters": parameters, "StorageDescriptor": storage})
    [finding] = to_do(in_glue)
    assert "with 3 columns" in finding.text
    assert "not that of an Iceberg table" in finding.text
    with pytest.raises(TableMismatchError, match="not that of an Iceberg table"):
        in_glue.process()
    repair(in_glue)
    in_glue.process()
    in_glue.assert_equals_the_contract()


def test_an_entry_of_somebody_else_s_table_is_left_alone_with_the_reason(aws: AwsServices) -> None:
    glue = aws.client("glue")
    glue.create_database(DatabaseInput={"Name": "silver"})
    entry = {"Name": "car_telemetry", "TableType": "EXTERNAL_TABLE", "StorageDescriptor": {"Location": "s3://other/"}}
    glue.create_table(DatabaseName="silver", TableInput=entry)
    with deployment_in_s3(aws) as deployed:
        [finding] = to_do(deployed)
        assert finding.repair is None
        assert "drop it" in finding.refusal


@pytest.mark.parametrize("contract", [BRONZE, SILVER], ids=lambda one: one.full_name)
def test_a_table_whose_entry_is_lost_is_brought_back(deployed: Deployment, contract: TableContract) -> None:
    before = deployed.rows(contract)
    deployed.pipeline.lakehouse.catalog.drop_table(contract.identifier)
    [finding] = to_do(deployed)
    assert "no entry of it" in finding.text
    repair(deployed)
    assert deployed.rows(contract) == before
    deployed.process()
    deployed.assert_equals_the_contract()


def test_no_run_begins_bronze_anew_beside_the_files_of_a_lost_one(deployed: Deployment) -> None:
    deployed.pipeline.lakehouse.catalog.drop_table(BRONZE.identifier)
    with pytest.raises(TableMismatchError, match="doctor --repair"):
        deployed.process()


def test_a_missing_table_is_made_where_somebody_asks_for_it(deployed: Deployment) -> None:
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


def test_two_metadata_files_that_could_both_be_the_newest_are_for_a_person_to_decide(deployed: Deployment) -> None:
    newest = number_of(deployed.pipeline.lakehouse.table(SILVER).metadata_location)
    write_metadata_again(deployed, SILVER, newest)
    deployed.pipeline.lakehouse.catalog.drop_table(SILVER.identifier)
    [finding] = to_do(deployed)
    assert finding.repair is None
    assert "could both be the newest" in finding.refusal


def test_the_metadata_of_a_commit_that_failed_is_not_taken_for_the_newest(deployed: Deployment) -> None:
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


def test_metadata_of_two_tables_in_one_place_is_for_a_person_to_decide(deployed: Deployment) -> None:
    lakehouse = deployed.pipeline.lakehouse
    lakehouse.catalog.drop_table(SILVER.identifier)
    deployed.process()
    assert to_do(deployed) == []
    lakehouse.catalog.drop_table(SILVER.identifier)
    [finding] = to_do(deployed)
    assert finding.repair is None
    assert "2 different tables" in finding.refusal


def test_an_entry_that_points_at_lost_metadata_does_not_go_back_to_an_older_one(deployed: Deployment) -> None:
    table = deployed.pipeline.lakehouse.table(SILVER)
    table.io.delete(table.metadata_location)
    [finding] = [one for one in to_do(deployed) if one.table == SILVER.full_name]
    assert finding.repair is None
    assert "commits could be undone" in finding.refusal


def test_an_entry_of_an_old_backup_goes_forward_to_the_newest_metadata(tmp_path: Path) -> None:
    with deployment(tmp_path) as deployed:
        filled(deployed)
        catalog = deployed.settings.lakehouse_folder() / "catalog.sqlite"
        backup = shutil.copy(catalog, tmp_path / "backup.sqlite")
        old = deployed.pipeline.lakehouse.table(BRONZE)
        deployed.upload("y.json", framed([event("CAR-2")], "array")[1])
        deployed.process()
        rows = deployed.rows(BRONZE)
        shutil.copy(backup, catalog)
        old.io.delete(old.metadata_location)
        [finding] = [one for one in to_do(deployed) if one.table == BRONZE.full_name]
        assert finding.repair is not None
        finding.repair()
        assert deployed.rows(BRONZE) == rows


def test_a_table_that_differs_from_its_contract_is_for_a_person_to_decide(deployed: Deployment) -> None:
    with deployed.pipeline.lakehouse.table(SILVER).update_schema() as update:
        update.add_column("nickname", StringType())
    [finding] = to_do(deployed)
    assert "`nickname` (string) is not in the contract, so no run writes to it" in finding.text
    assert finding.repair is None
    assert finding.refusal


def test_a_repair_does_not_undo_what_was_committed_since_the_look(in_glue: Deployment, aws: AwsServices) -> None:
    whole = glue_entry(aws, BRONZE)
    write_glue_entry(aws, BRONZE, {**whole, "Parameters": {}})
    [finding] = to_do(in_glue)
    write_glue_entry(aws, BRONZE, whole)
    in_glue.upload("y.json", framed([event("CAR-2")], "array")[1])
    in_glue.process()
    rows = in_glue.rows(BRONZE)
    assert finding.repair is not None
    with pytest.raises(ConcurrentWriteError):
        finding.repair()
    assert in_glue.rows(BRONZE) == rows


def test_a_schema_that_was_widened_and_put_back_is_healthy(deployed: Deployment) -> None:
    for change in ("add_column", "delete_column"):
        with deployed.pipeline.lakehouse.table(SILVER).update_schema(allow_incompatible_changes=True) as update:
            getattr(update, change)("nickname", *([StringType()] if change == "add_column" else []))
    assert to_do(deployed) == []
    deployed.process()


class TestTheCommand:
    """``telemetry-assets doctor``."""

    @pytest.fixture
    def doctor(self, deployed: Deployment, monkeypatch: pytest.MonkeyPatch) -> Any:
        for name in ("landing_uri", "lakehouse_uri", "catalog"):
            monkeypatch.setenv(f"TELEMETRY_{name.upper()}", getattr(deployed.settings, name))

        def run(*arguments: str) -> Result:
            return CliRunner().invoke(main, ["doctor", *arguments])

        return run

    def test_it_mends_what_is_safe_and_ends_well(self, deployed: Deployment, doctor: Any) -> None:
        deployed.pipeline.lakehouse.catalog.drop_table(BRONZE.identifier)
        looked = doctor()
        assert looked.exit_code == 1
        assert "`telemetry-assets doctor --repair` mends it" in looked.output
        mended = doctor("--repair")
        assert (mended.exit_code, "All is well." in mended.output) == (0, True)
        assert "mended: the catalog points at" in mended.output

    def test_it_says_why_it_leaves_the_rest(self, deployed: Deployment, doctor: Any) -> None:
        with deployed.pipeline.lakehouse.table(SILVER).update_schema() as update:
            update.add_column("nickname", StringType())
        mended = doctor("--repair")
        assert mended.exit_code == 1
        assert "not to be mended by this command" in mended.output


def test_an_entry_without_a_pointer_is_mended_in_sqlite_too(tmp_path: Path) -> None:
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


def test_what_a_run_has_left_that_was_about_to_make_a_table_is_in_nobody_s_way(deployed: Deployment) -> None:
    lakehouse = deployed.pipeline.lakehouse
    for contract in (BRONZE, SILVER):
        lakehouse.catalog.drop_table(contract.identifier)
        for file in metadata_files(lakehouse.table_location(contract)):
            lakehouse.table(ALERTS).io.delete(file)
    lakehouse.prepare((BRONZE,))
    lakehouse.catalog.drop_table(BRONZE.identifier)
    deployed.process()
    assert deployed.rows(BRONZE) == []
