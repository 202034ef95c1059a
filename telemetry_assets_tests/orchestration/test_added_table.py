"""A new Gold table needs a table, a transform and an entry in the registry; everything else is derived from them."""

from __future__ import annotations

import pytest
from dagster import DagsterInstance, Definitions

from telemetry_assets import tables
from telemetry_assets.assets.metadata import asset_key
from telemetry_assets.settings import load_settings
from telemetry_assets.tables.documentation import tables_page
from telemetry_assets_tests.harness.added_table.table import DAILY_DISTANCE
from telemetry_assets_tests.harness.dagster_runs import metadata_by_date, run
from telemetry_assets_tests.harness.deployment import Deployment
from telemetry_assets_tests.harness.made_documents import framed, vehicle


@pytest.fixture(autouse=True)
def added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "TABLES", (*tables.TABLES, DAILY_DISTANCE))


@pytest.fixture
def with_added_table(defs: Definitions) -> Definitions:
    """Definitions that are loaded after the table was added; ``defs`` sets their environment."""
    from telemetry_assets.definitions import definitions

    return definitions(load_settings())


def upload(deployed: Deployment) -> None:
    static = {"Model": "Uno"}
    documents = [
        vehicle("CAR-1", "2025-11-04T10:00:00Z", static=static, trip={"tripMileage": 12.5, "tripFuelLiters": 1}),
        vehicle("CAR-2", "2025-11-04T11:00:00Z", static=static, trip={"tripMileage": 30, "tripFuelLiters": 2}),
        vehicle("CAR-2", "2025-11-05T11:00:00Z", static=static, trip={"tripMileage": 8, "tripFuelLiters": 1}),
    ]
    deployed.upload("x.json", framed(documents, "array")[1])


def distances(deployed: Deployment) -> dict[tuple[str, str], float]:
    return {(row["model"], str(row["event_date"])): row["distance_km"] for row in deployed.rows(DAILY_DISTANCE)}


def test_embedded_engine_refreshes_it(deployed: Deployment) -> None:
    upload(deployed)
    deployed.process()
    assert distances(deployed) == {("Uno", "2025-11-04"): 42.5, ("Uno", "2025-11-05"): 8.0}
    assert DAILY_DISTANCE not in deployed.pipeline.tables_behind()


def test_dagster_materializes_it_with_the_others(
    with_added_table: Definitions, instance: DagsterInstance, deployed: Deployment
) -> None:
    upload(deployed)
    result = run(with_added_table, instance, "ingest")
    assert result.success
    shown = metadata_by_date(instance, DAILY_DISTANCE)
    assert {day: figures["distance_km"] for day, figures in shown.items()} == {"2025-11-04": 42.5, "2025-11-05": 8.0}
    checks = {
        one.check_name for one in result.get_asset_check_evaluations() if one.asset_key == asset_key(DAILY_DISTANCE)
    }
    assert checks == {"schema_as_contracted", "one_row_per_model_and_date"}


def test_graph_shows_it_below_its_upstream(with_added_table: Definitions) -> None:
    node = with_added_table.resolve_asset_graph().get(asset_key(DAILY_DISTANCE))
    assert node.parent_keys == {asset_key(DAILY_DISTANCE.upstream)}
    assert node.group_name == "gold"


def test_page_of_tables_describes_it() -> None:
    assert "## gold.daily_distance_by_model" in tables_page()
