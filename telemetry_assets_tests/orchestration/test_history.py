"""Old runs are removed from Dagster's history, and the UI still shows the state of all assets."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from dagster import DagsterInstance, Definitions

from telemetry_assets.assets.checks import check_keys
from telemetry_assets.assets.metadata import asset_key
from telemetry_assets.automation import history
from telemetry_assets.automation.history import remove_old_runs
from telemetry_assets.tables import BRONZE, SILVER, derived_tables
from telemetry_assets_tests.harness.dagster_runs import run
from telemetry_assets_tests.harness.deployment import Deployment
from telemetry_assets_tests.harness.made_documents import event, framed

# Each test executes four runs.
pytestmark = pytest.mark.long

TABLES = (BRONZE, *derived_tables())
KEYS = [asset_key(table) for table in TABLES]
CHECKS = [key for table in TABLES for key in check_keys(table)]


@pytest.fixture
def runs(
    defs: Definitions, instance: DagsterInstance, deployed: Deployment, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """Four runs: of another date, and three of the same date."""
    # Runs in this process have no origin.
    monkeypatch.setattr(history, "is_of_this_project", lambda _: True)
    started = []
    for number, day in enumerate((3, 4, 4, 4)):
        deployed.upload(f"{number}.json", framed([event(f"CAR-{number}", f"2025-11-0{day}T10:00:00Z")], "array")[1])
        started.append(run(defs, instance, "ingest").run_id)
    return started


def left(instance: DagsterInstance) -> set[str]:
    return {one.run_id for one in instance.get_runs()}


def test_only_runs_with_the_newest_events_of_a_partition_or_a_check_remain(
    instance: DagsterInstance, runs: list[str]
) -> None:
    assert remove_old_runs(instance, datetime.now(UTC) + timedelta(hours=1), KEYS, CHECKS) == 2
    assert left(instance) == {runs[0], runs[3]}


def test_partitions_and_checks_keep_their_state(instance: DagsterInstance, runs: list[str]) -> None:
    assert runs
    partitions = {key: instance.get_materialized_partitions(key) for key in KEYS}
    checks = instance.event_log_storage.get_latest_asset_check_execution_by_key(CHECKS)
    latest = {key: instance.get_latest_materialization_event(key) for key in KEYS}
    remove_old_runs(instance, datetime.now(UTC) + timedelta(hours=1), KEYS, CHECKS)
    assert {key: instance.get_materialized_partitions(key) for key in KEYS} == partitions
    assert partitions[asset_key(SILVER)] == {"2025-11-03", "2025-11-04"}
    assert instance.event_log_storage.get_latest_asset_check_execution_by_key(CHECKS) == checks
    assert {key: instance.get_latest_materialization_event(key) for key in KEYS} == latest


def test_newer_runs_remain(instance: DagsterInstance, runs: list[str]) -> None:
    assert remove_old_runs(instance, datetime.now(UTC) - timedelta(hours=1), KEYS, CHECKS) == 0
    assert left(instance) == set(runs)


def test_nothing_of_a_removed_run_remains_on_the_disk(instance: DagsterInstance, runs: list[str]) -> None:
    remove_old_runs(instance, datetime.now(UTC) + timedelta(hours=1), KEYS, CHECKS)
    assert not [path for path in Path(instance.root_directory).rglob("*") if runs[1] in str(path)]
    executions = instance.event_log_storage.get_asset_check_execution_history(CHECKS[0], limit=10)
    assert runs[1] not in {one.run_id for one in executions}


def test_the_job_maintain_removes_old_runs(
    defs: Definitions, instance: DagsterInstance, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TELEMETRY_RUN_HISTORY_DAYS", "0.0000001")
    result = run(defs, instance, "maintain")
    assert result.success
    assert left(instance) == {runs[0], runs[3], result.run_id}
