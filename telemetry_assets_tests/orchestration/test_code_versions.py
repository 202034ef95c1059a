"""Dagster shows which partitions an older version of the code or of the alert rules has materialized, and why."""

from __future__ import annotations

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
def with_other_rules(defs: Definitions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Definitions:
    """Definitions of the same deployment, loaded after the alert rules were changed."""
    from telemetry_assets.definitions import definitions

    file = tmp_path / "rules.toml"
    file.write_text(RULES)
    with monkeypatch.context() as changed:
        changed.setenv("TELEMETRY_ALERT_RULES", str(file))
        return definitions(load_settings())


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
    deployed: Deployment,
    defs: Definitions,
    with_other_rules: Definitions,
    instance: DagsterInstance,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ingest(deployed, defs, instance, "1.json")
    assert outdated(with_other_rules, instance) == {ALERTS: ["has a new code version"]}
    monkeypatch.setenv("TELEMETRY_ALERT_RULES", str(tmp_path / "rules.toml"))
    assert materialize(with_other_rules, instance, DAY, DAY).success
    assert outdated(with_other_rules, instance) == {}
    assert [row["alert_type"] for row in deployed.rows(ALERTS)] == ["HOT"]


def test_date_that_is_materialized_after_the_rules_changed_clears_all_dates(
    deployed: Deployment,
    defs: Definitions,
    with_other_rules: Definitions,
    instance: DagsterInstance,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = ("2025-11-04T10:00:00Z", "2025-11-05T10:00:00Z")
    deployed.upload("x.json", framed([event(time=time, engineTempCelsius=120) for time in times], "array")[1])
    assert run(defs, instance, "ingest").success
    monkeypatch.setenv("TELEMETRY_ALERT_RULES", str(tmp_path / "rules.toml"))
    # The whole table is computed again, because some rows would be those of other rules.
    assert materialize(with_other_rules, instance, date(2025, 11, 5), date(2025, 11, 5)).success
    assert outdated(with_other_rules, instance) == {}


def test_materializing_bronze_again_makes_nothing_outdated(
    deployed: Deployment, defs: Definitions, instance: DagsterInstance
) -> None:
    ingest(deployed, defs, instance, "1.json")
    job = defs.resolve_implicit_global_asset_job_def()
    day = DAY.isoformat()
    assert job.execute_in_process(instance=instance, partition_key=day, asset_selection=[asset_key(BRONZE)]).success
    assert outdated(defs, instance) == {}


def test_page_of_the_alerts_shows_the_rules_in_force(with_other_rules: Definitions) -> None:
    rules = with_other_rules.resolve_asset_graph().get(asset_key(ALERTS)).metadata["alert_rules"]
    assert [record.data for record in rules.records] == [
        {"rule": "HOT", "column": "engine_temp_celsius", "WARNING": "above 90", "CRITICAL": "", "cars": "all cars"}
    ]
