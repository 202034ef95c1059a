"""A long backfill holds the pool, and uploads are processed all the same."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest
from dagster import DagsterEventType, DagsterInstance, Definitions, EventRecordsFilter

from telemetry_assets.assets.metadata import asset_key
from telemetry_assets.ingestion.intake import Ingestion
from telemetry_assets.tables import ALERTS, BRONZE, SILVER
from telemetry_assets_tests.harness.dagster_runs import materialize
from telemetry_assets_tests.harness.deployment import Deployment
from telemetry_assets_tests.harness.made_documents import event

DAYS = [date(2025, 11, day) for day in (1, 2, 3, 4)]


def test_an_upload_is_in_gold_before_a_backfill_of_one_table_ends(
    defs: Definitions, instance: DagsterInstance, deployed: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = [event(f"CAR-{n}", f"{day}T10:00:00Z", engineTempCelsius=120) for day in DAYS for n in range(3)]
    deployed.upload("first.json", json.dumps(documents))
    deployed.process()
    monkeypatch.setenv("TELEMETRY_REBUILD_MAX_ROWS", "3")
    monkeypatch.setenv("TELEMETRY_GOLD_REBUILD_MAX_ROWS", "3")
    has_work = Ingestion.has_work
    alerted: list[set[str]] = []

    def arriving(ingestion: Any) -> bool:
        alerted.append({row["car_chassis"] for row in deployed.rows(ALERTS)})
        late = event(f"LATE-{len(alerted)}", "2025-11-02T09:00:00Z", engineTempCelsius=130)
        deployed.upload(f"{len(alerted)}.json", json.dumps([late]))
        return has_work(ingestion)

    monkeypatch.setattr(Ingestion, "has_work", arriving)
    assert materialize(defs, instance, DAYS[0], DAYS[-1], [asset_key(SILVER)]).success
    assert len(alerted) >= len(DAYS) - 1
    assert {"LATE-1", "LATE-2"} <= alerted[-1]
    monkeypatch.undo()
    for table in (BRONZE, SILVER, ALERTS):
        filtered = EventRecordsFilter(DagsterEventType.ASSET_MATERIALIZATION, asset_key=asset_key(table))
        partitions = {record.partition_key for record in instance.get_event_records(filtered)}
        assert "2025-11-02" in partitions
    deployed.recall_batches()
    deployed.process()
    deployed.assert_equals_the_contract()


def test_a_failure_to_process_uploads_does_not_end_the_backfill(
    defs: Definitions, instance: DagsterInstance, deployed: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = [event(f"CAR-{n}", f"{day}T10:00:00Z") for day in DAYS for n in range(3)]
    deployed.upload("first.json", json.dumps(documents))
    deployed.process()
    monkeypatch.setenv("TELEMETRY_REBUILD_MAX_ROWS", "3")
    monkeypatch.setenv("TELEMETRY_GOLD_REBUILD_MAX_ROWS", "3")

    def fail(_: Any) -> bool:
        raise OSError("the landing folder is gone")

    monkeypatch.setattr(Ingestion, "has_work", fail)
    result = materialize(defs, instance, DAYS[0], DAYS[-1], [asset_key(SILVER)])
    assert result.success
    logged = [record.user_message for record in instance.all_logs(result.run_id)]
    assert any("the landing folder is gone" in message for message in logged)
