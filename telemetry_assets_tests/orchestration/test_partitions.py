"""The event dates that Dagster shows: from the first one in the tables or in the settings, to today."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from dagster import DagsterInstance, Definitions

from telemetry_assets.assets.partitions import event_date_partitions
from telemetry_assets.settings import Settings
from telemetry_assets.tables import BRONZE
from telemetry_assets_tests.harness.dagster_runs import run
from telemetry_assets_tests.harness.deployment import Deployment
from telemetry_assets_tests.harness.made_documents import event, framed

TODAY = datetime.now(UTC).date()


def first_of(settings: Settings) -> date:
    return date.fromisoformat(event_date_partitions(settings).get_partition_keys()[0])


def test_first_date_is_the_earliest_in_the_tables(deployed: Deployment) -> None:
    earliest = TODAY - timedelta(500)
    for number, day in enumerate((TODAY - timedelta(7), earliest, TODAY - timedelta(90))):
        deployed.upload(f"{number}.json", framed([event(time=day.isoformat())], "array")[1])
        deployed.process()
    assert first_of(deployed.settings) == earliest
    assert event_date_partitions(deployed.settings).get_partition_keys()[-1] == TODAY.isoformat()


def test_first_date_of_an_empty_lakehouse_is_a_month_ago(deployed: Deployment, tmp_path: Path) -> None:
    assert first_of(deployed.settings) == TODAY - timedelta(30)
    assert first_of(Settings(lakehouse_uri=str(tmp_path / "nothing"))) == TODAY - timedelta(30)
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("first", [date(2020, 1, 1), TODAY])
def test_setting_decides(deployed: Deployment, first: date) -> None:
    deployed.upload("x.json", framed([event()], "array")[1])
    deployed.process()
    assert first_of(deployed.settings.model_copy(update={"first_event_date": first})) == first


def test_device_whose_clock_is_wrong_does_not_add_partitions_of_decades(deployed: Deployment) -> None:
    deployed.upload("x.json", framed([event(time="2000-01-01T00:00:00Z")], "array")[1])
    deployed.process()
    assert first_of(deployed.settings) == TODAY - timedelta(3 * 366)


def test_definitions_load_with_all_partitions_if_the_catalog_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "catalog.sqlite").write_text("not a database")
    assert first_of(Settings(lakehouse_uri=str(tmp_path))) == TODAY - timedelta(3 * 366)


@pytest.mark.parametrize("content", [b"", b"garbage", b"{"])
def test_definitions_load_if_metadata_is_damaged(deployed: Deployment, content: bytes) -> None:
    deployed.upload("x.json", framed([event()], "array")[1])
    deployed.process()
    bronze = deployed.pipeline.lakehouse.table(BRONZE)
    Path(bronze.metadata_location.removeprefix("file://")).write_bytes(content)
    assert first_of(deployed.settings) == TODAY - timedelta(3 * 366)


def test_run_names_the_setting_if_event_dates_have_no_partition(
    defs: Definitions, instance: DagsterInstance, deployed: Deployment
) -> None:
    times = ("2024-12-31T10:00:00Z", "2024-12-30T10:00:00Z", "2025-01-01T10:00:00Z")
    deployed.upload("x.json", framed([event(time=time) for time in times], "array")[1])
    assert run(defs, instance, "ingest").success
    messages = [entry.user_message for entry in instance.all_logs(instance.get_runs()[0].run_id)]
    [warning] = [one for one in messages if "TELEMETRY_FIRST_EVENT_DATE" in one]
    assert "2 event dates from 2024-12-30 on" in warning
