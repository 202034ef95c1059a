"""Maintenance in Dagster: the job, what a run does by itself, and the check of ill-kept tables."""

from __future__ import annotations

import pytest
from dagster import AssetCheckKey, AssetSelection, DagsterInstance, Definitions, define_asset_job

from telemetry_assets.assets.checks import WELL_KEPT
from telemetry_assets.assets.metadata import asset_key
from telemetry_assets.automation import history
from telemetry_assets.tables import BRONZE, FUEL_EFFICIENCY, SILVER, derived_tables
from telemetry_assets_tests.harness.dagster_runs import run
from telemetry_assets_tests.harness.deployment import Deployment
from telemetry_assets_tests.harness.made_documents import event, framed


def upload(deployed: Deployment, number: int) -> None:
    deployed.upload(f"{number}.json", framed([event(f"CAR-{number}")], "array")[1])


def observed(instance: DagsterInstance) -> dict[str, object]:
    """The metadata of the newest observation of Silver."""
    observation = instance.fetch_observations(asset_key(SILVER), limit=1).records[0].asset_observation
    assert observation is not None
    return {name: value.value for name, value in observation.metadata.items()}


def test_the_job_maintain_compacts_tables_and_shows_it_on_the_assets(
    defs: Definitions, instance: DagsterInstance, deployed: Deployment
) -> None:
    for number in range(3):
        upload(deployed, number)
        deployed.process()
    result = run(defs, instance, "maintain")
    assert result.success
    figures = observed(instance)
    assert (figures["data_files_before"], figures["data_files"], figures["data_files_compacted"]) == (3, 1, 3)
    checked = {one.asset_key: one.passed for one in result.get_asset_check_evaluations()}
    assert checked == {asset_key(table): True for table in (BRONZE, *derived_tables())}
    deployed.assert_equals_the_contract()


@pytest.mark.parametrize("config", [{"dry_run": True}, {"tables": [FUEL_EFFICIENCY.full_name]}])
def test_the_job_maintain_does_not_do_more_than_its_configuration_says(
    defs: Definitions,
    instance: DagsterInstance,
    deployed: Deployment,
    monkeypatch: pytest.MonkeyPatch,
    config: dict[str, object],
) -> None:
    monkeypatch.setattr(history, "is_of_this_project", lambda _: True)
    for name in ("ARCHIVE_RETENTION_DAYS", "REJECTED_RETENTION_DAYS", "RUN_HISTORY_DAYS"):
        monkeypatch.setenv(f"TELEMETRY_{name}", "0.0000001")
    for number in range(3):
        upload(deployed, number)
        run(defs, instance, "ingest")
    runs = len(instance.get_runs())
    assert run(defs, instance, "maintain", config).success
    assert len(list(deployed.pipeline.lakehouse.table(SILVER).scan().plan_files())) == 3
    assert len(list(deployed.pipeline.landing.archived_batches())) == 3
    assert len(instance.get_runs()) == runs + 1
    assert run(defs, instance, "maintain").success
    assert len(list(deployed.pipeline.lakehouse.table(SILVER).scan().plan_files())) == 1
    assert list(deployed.pipeline.landing.archived_batches()) == []
    assert len(instance.get_runs()) < runs + 1


def test_the_job_maintain_names_the_tables_if_one_does_not_exist(
    defs: Definitions, instance: DagsterInstance, deployed: Deployment
) -> None:
    result = run(defs, instance, "maintain", {"tables": ["gold.nothing"]})
    assert not result.success
    [failure] = result.get_step_failure_events()
    assert "Valid tables are: bronze.car_telemetry" in str(failure.step_failure_data.error)
    assert deployed.pipeline.lakehouse.existing(SILVER) is None


def test_a_run_compacts_by_itself(
    defs: Definitions, instance: DagsterInstance, deployed: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TELEMETRY_COMMITS_BEFORE_COMPACTION", "8")
    monkeypatch.setenv("TELEMETRY_MAINTENANCE_SECONDS", "60")
    for number in range(8):
        upload(deployed, number)
        assert run(defs, instance, "ingest").success
    assert observed(instance)["data_files_compacted"] == 8
    assert len(deployed.rows(SILVER)) == 8


def test_a_table_with_many_commits_that_were_not_compacted_is_ill_kept(
    defs: Definitions, instance: DagsterInstance, deployed: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(9):
        upload(deployed, number)
        deployed.process()
    monkeypatch.setenv("TELEMETRY_COMMITS_BEFORE_COMPACTION", "1")
    job = define_asset_job("check", selection=AssetSelection.checks(AssetCheckKey(asset_key(SILVER), WELL_KEPT)))
    checking = Definitions.merge(defs, Definitions(jobs=[job])).resolve_job_def("check")
    [found] = checking.execute_in_process(instance=instance).get_asset_check_evaluations()
    assert not found.passed
    assert found.metadata["problems"].value == [
        "it has 9 small manifests, more than 8",
        "it has 9 small data files in one partition, more than 8",
    ]
