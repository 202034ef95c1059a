"""Metadata of materializations: each date shows its own figures, and none is missing."""

from __future__ import annotations

import os
from datetime import date
from typing import Any

import pytest
from dagster import AssetCheckKey, DagsterInstance, Definitions
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from telemetry_assets.assets.metadata import asset_key
from telemetry_assets.ingestion.batches import BatchWriter
from telemetry_assets.tables import ALERTS, BRONZE, SILVER
from telemetry_assets_tests.harness.dagster_runs import materialize, metadata_by_date, run
from telemetry_assets_tests.harness.deployment import Deployment
from telemetry_assets_tests.harness.made_documents import event, framed


def upload(deployed: Deployment, day: int, events: int = 1) -> None:
    documents = [event(f"CAR-{number}", f"2025-11-0{day}T08:00:00Z") for number in range(events)]
    path = deployed.upload(f"{day}.json", framed(documents, "array")[1])
    os.utime(path, (1_700_000_000 + day,) * 2)


def test_a_date_shows_its_own_rows(defs: Definitions, instance: DagsterInstance, deployed: Deployment) -> None:
    for day in (1, 2, 3):
        upload(deployed, day, events=day)
    assert run(defs, instance, "ingest").success
    for table in (BRONZE, SILVER):
        shown = metadata_by_date(instance, table)
        assert [shown[f"2025-11-0{day}"]["rows_written"] for day in (1, 2, 3)] == [1, 2, 3]
        assert [shown[f"2025-11-0{day}"]["dagster/partition_row_count"] for day in (1, 2, 3)] == [1, 2, 3]
    shown = metadata_by_date(instance, SILVER)
    assert [shown[f"2025-11-0{day}"]["rows_read"] for day in (1, 2, 3)] == [1, 2, 3]
    assert {figures["run_rows_written"] for figures in shown.values()} == {6}


def test_a_refresh_that_changes_nothing_writes_no_row(
    defs: Definitions, instance: DagsterInstance, deployed: Deployment
) -> None:
    upload(deployed, 4)
    deployed.process()
    day = date(2025, 11, 4)
    assert materialize(defs, instance, day, day).success
    assert metadata_by_date(instance, SILVER)[str(day)]["rows_written"] == 0
    assert metadata_by_date(instance, BRONZE)[str(day)]["snapshot_id"].isdigit()


def test_manual_materialization_of_bronze_shows_the_ingested_dates(
    defs: Definitions, instance: DagsterInstance, deployed: Deployment
) -> None:
    upload(deployed, 2)
    day = date(2025, 11, 4)
    assert materialize(defs, instance, day, day, [asset_key(BRONZE)]).success
    shown = metadata_by_date(instance, BRONZE)
    assert {name: figures["rows_written"] for name, figures in shown.items()} == {"2025-11-02": 1, "2025-11-04": 0}


def test_batches_completed_before_a_failed_one_are_reported(
    defs: Definitions, instance: DagsterInstance, deployed: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TELEMETRY_BATCH_MAX_UPLOADS", "1")
    finish = BatchWriter.finish
    begun: list[str] = []

    def fail_the_second(writer: BatchWriter, journal_entry: Any, **rest: Any) -> Any:
        begun.append(journal_entry.batch_id)
        if len(begun) == 2:
            raise OSError("the disk is full")
        return finish(writer, journal_entry, **rest)

    monkeypatch.setattr(BatchWriter, "finish", fail_the_second)
    upload(deployed, 1)
    upload(deployed, 2)
    assert not run(defs, instance, "ingest").success
    assert list(metadata_by_date(instance, BRONZE)) == ["2025-11-01"]
    assert run(defs, instance, "ingest").success
    assert sorted(metadata_by_date(instance, BRONZE)) == ["2025-11-01", "2025-11-02"]


@pytest.mark.parametrize("by", ["a materialization of alerts", "the daily refresh"])
def test_duplicate_rows_fail_the_check_of_their_table(
    defs: Definitions, instance: DagsterInstance, deployed: Deployment, by: str
) -> None:
    upload(deployed, 4)
    assert run(defs, instance, "ingest").success
    silver = deployed.pipeline.lakehouse.table(SILVER)
    silver.append(silver.scan().to_arrow().cast(SILVER.arrow_schema))
    day = date(2025, 11, 4)
    if by == "the daily refresh":
        assert not run(defs, instance, "refresh_insurance").success
    else:
        assert not materialize(defs, instance, day, day, [asset_key(ALERTS)]).success
    check = AssetCheckKey(asset_key(SILVER), "one_row_per_event")
    [shown] = instance.event_log_storage.get_latest_asset_check_execution_by_key([check]).values()
    assert shown.status == AssetCheckExecutionRecordStatus.FAILED
