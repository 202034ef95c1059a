"""If the clock is set back during a run, the times of commits and batches stay in order."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, tzinfo
from typing import Any

import pytest

from telemetry_assets.ingestion import intake
from telemetry_assets.lakehouse.commits import set_table_properties
from telemetry_assets.tables import BRONZE, SILVER, UPLOADS
from telemetry_assets_tests.harness.deployment import Deployment
from telemetry_assets_tests.harness.made_documents import event, framed

HOURS = 3600
_time = time.time


def set_clock(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    class Shifted(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + timedelta(seconds=seconds)

    monkeypatch.setattr(time, "time", lambda: _time() + seconds)
    monkeypatch.setattr(intake, "datetime", Shifted)


def moments(deployed: Deployment, contract: Any) -> list[int]:
    """The times that Iceberg's Java library requires in order: the snapshot log, then the last update."""
    metadata = deployed.pipeline.lakehouse.table(contract).metadata
    return [*(entry.timestamp_ms for entry in metadata.snapshot_log), metadata.last_updated_ms]


def test_commits_after_a_clock_was_set_back_are_not_older_than_those_before(
    deployed: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, hours in enumerate((0, 5, -3, 0)):
        set_clock(monkeypatch, hours * HOURS)
        deployed.upload(f"{number}.json", framed([event("CAR-1", engineTempCelsius=90 + number)], "array")[1])
        deployed.process()
    for contract in (BRONZE, UPLOADS, SILVER):
        found = moments(deployed, contract)
        assert found == sorted(found), contract.full_name
    assert [row["engine_temp_celsius"] for row in deployed.rows(SILVER)] == [93]
    moments_of_batches = {row["batch_id"]: row["ingested_at"] for row in deployed.rows(UPLOADS)}
    assert sorted(moments_of_batches) == sorted(moments_of_batches, key=moments_of_batches.__getitem__)
    deployed.assert_equals_the_contract()


def test_properties_set_after_a_clock_was_set_back_do_not_decrease_the_last_update(
    deployed: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_clock(monkeypatch, 5 * HOURS)
    deployed.upload("x.json", framed([event("CAR-1")], "array")[1])
    deployed.process()
    set_clock(monkeypatch, 0)
    set_table_properties(deployed.pipeline.lakehouse.table(SILVER), {"somebody": "else"})
    found = moments(deployed, SILVER)
    assert found == sorted(found)
