"""Dagster shows which partitions an older version of the code or of the alert rules has materialized, and why."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from dagster import DagsterInstance, Definitions
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from telemetry_assets.assets.lakehouse import asset_tables
from telemetry_assets.assets.metadata import asset_key
from telemetry_assets.settings import load_settings
from telemetry_assets.tables import ALERTS, BRONZE
from telemetry_assets.tables.contract import TableContract
from telemetry_assets_tests.harness.dagster_runs import materialize, run
from telemetry_assets_tests.harness.deployment import Deployment
from telemetry_assets_tests.harness.made_documents import event, framed

DAY = date(2025, 11, 4)
RULES = """
[[rules]]
name = "HOT"
column = "engine_temp_celsius"
direction = "above"
bounds = { WARNING = 90 }
message = "{value}"
"""


def outdated(defs: Definitions, instance: DagsterInstance) -> dict[TableContract, list[str]]:
    """The tables whose partition Dagster shows as outdated, with the reasons."""
    resolver = CachingStaleStatusResolver(instance, defs.resolve_asset_graph(), LoadingContextForTest(instance))
    statuses = {table: resolver.get_status(asset_key(table), DAY.isoformat()) for table in asset_tables()}
    assert StaleStatus.MISSING not in statuses.values()
    return {
        table: [cause.reason for cause in resolver.get_stale_causes(asset_key(table), DAY.isoformat())]
        for table, status in statuses.items()
        if status == StaleStatus.STALE
    }


@pytest.fixture
def change_rules(defs: Definitions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Definitions]:
    """Changes the alert rules of the deployment, and returns definitions that are loaded after that."""
    from telemetry_assets.definitions import definitions

    def change() -> Definitions:
        (tmp_path / "rules.toml").write_text(RULES)
        monkeypatch.setenv("TELEMETRY_ALERT_RULES", str(tmp_path / "rules.toml"))
        return definitions(load_settings())

    return change


def ingest(deployed: Deployment, defs: Definitions, instance: DagsterInstance, name: str) -> None:
    deployed.upload(name, framed([event(name, engineTempCelsius=120)], "array")[1])
    assert run(defs, instance, "ingest").success


def test_nothing_is_outdated_after_uploads_were_ingested(
    deployed: Deployment, defs: Definitions, instance: DagsterInstance
) -> None:
    for name in ("1.json", "2.json"):
        ingest(deployed, defs, instance, name)
        assert outdated(defs, instance) == {}


def test_changed_alert_rules_make_the_alerts_outdated_until_they_are_materialized(
    deployed: Deployment, defs: Definitions, instance: DagsterInstance, change_rules: Callable[[], Definitions]
) -> None:
    ingest(deployed, defs, instance, "1.json")
    changed = change_rules()
    assert outdated(changed, instance) == {ALERTS: ["has a new code version"]}
    assert materialize(changed, instance, DAY, DAY).success
    assert outdated(changed, instance) == {}
    assert [row["alert_type"] for row in deployed.rows(ALERTS)] == ["HOT"]


def test_date_that_is_materialized_after_the_rules_changed_clears_all_dates(
    deployed: Deployment, defs: Definitions, instance: DagsterInstance, change_rules: Callable[[], Definitions]
) -> None:
    times = ("2025-11-04T10:00:00Z", "2025-11-05T10:00:00Z")
    deployed.upload("x.json", framed([event(time=time, engineTempCelsius=120) for time in times], "array")[1])
    assert run(defs, instance, "ingest").success
    changed = change_rules()
    # The whole table is computed again, because some rows would be those of other rules.
    assert materialize(changed, instance, date(2025, 11, 5), date(2025, 11, 5)).success
    assert outdated(changed, instance) == {}


def test_materializing_bronze_again_makes_nothing_outdated(
    deployed: Deployment, defs: Definitions, instance: DagsterInstance
) -> None:
    ingest(deployed, defs, instance, "1.json")
    job = defs.resolve_implicit_global_asset_job_def()
    day = DAY.isoformat()
    assert job.execute_in_process(instance=instance, partition_key=day, asset_selection=[asset_key(BRONZE)]).success
    assert outdated(defs, instance) == {}


def test_page_of_the_alerts_shows_the_rules_in_force(change_rules: Callable[[], Definitions]) -> None:
    rules = change_rules().resolve_asset_graph().get(asset_key(ALERTS)).metadata["alert_rules"]
    assert [record.data for record in rules.records] == [
        {"rule": "HOT", "column": "engine_temp_celsius", "WARNING": "above 90", "CRITICAL": "", "cars": "all cars"}
    ]
