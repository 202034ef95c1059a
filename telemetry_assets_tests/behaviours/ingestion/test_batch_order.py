"""Batches stay in order despite clock changes, pauses and rollbacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from telemetry_assets.ingestion.journal.base import BatchUpload, JournalEntry
from telemetry_assets.ingestion.landing.folder import FolderLanding
from telemetry_assets.tables import BRONZE, SILVER
from telemetry_assets_tests.harness.deployment import Deployment, deployment
from telemetry_assets_tests.harness.made_documents import event, framed


def reading(temperature: float) -> bytes:
    return framed([event(event_id="evt-1", engineTempCelsius=temperature)], "array")[1]


def test_batch_that_begins_after_a_pause_is_newer_than_batches_in_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = FolderLanding.begin
    with deployment(tmp_path) as paused, deployment(tmp_path) as other:
        first = paused.upload("first.json", reading(90))
        paused.upload("second.json", reading(91))
        first.rename(paused.landing / ".not-yet")

        def begin_after_another(landing: FolderLanding, batch_id: str) -> None:
            monkeypatch.undo()
            (paused.landing / "second.json").rename(paused.landing / ".later")
            (paused.landing / ".not-yet").rename(first)
            other.process()
            (paused.landing / ".later").rename(paused.landing / "second.json")
            begin(landing, batch_id)

        monkeypatch.setattr(FolderLanding, "begin", begin_after_another)
        paused.process()
        [earlier], [later] = other.batch_reports, paused.batch_reports
        assert earlier.ingested_at < later.ingested_at
        assert [row["engine_temp_celsius"] for row in paused.rows(SILVER)] == [91]


def test_batch_rolled_back_before_its_end_is_ingested_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any) -> None:
        raise OSError("the disk is full")

    with deployment(tmp_path) as deployed:
        deployed.upload("first.json", reading(90))
        deployed.process()
        snapshot = deployed.pipeline.lakehouse.table(BRONZE).current_snapshot()
        assert snapshot is not None
        deployed.upload("second.json", reading(91))
        monkeypatch.setattr(FolderLanding, "archive", failing)
        with pytest.raises(OSError, match="full"):
            deployed.process()
        monkeypatch.undo()
        deployed.pipeline.lakehouse.table(BRONZE).manage_snapshots().rollback_to_snapshot(snapshot.snapshot_id).commit()
        deployed.process()
        assert [row["engine_temp_celsius"] for row in deployed.rows(SILVER)] == [91]
        deployed.assert_equals_the_contract()


def test_journal_entry_that_reappears_after_its_batch_removes_no_upload(deployed: Deployment) -> None:
    first = deployed.upload("first.json", reading(90))
    deployed.process()
    [batch_report] = deployed.batch_reports
    deployed.upload("first.json", reading(91))
    [waiting] = deployed.pipeline.ingestion.landing.waiting()
    # A create request leaves this if it is retried after its response was lost.
    again = JournalEntry(batch_report.batch_id, batch_report.ingested_at, (BatchUpload(waiting),))
    assert deployed.pipeline.ingestion.journal.create(again) is not None
    deployed.process()
    assert [row["engine_temp_celsius"] for row in deployed.rows(SILVER)] == [91]
    assert not first.exists()
    deployed.recall_batches()
    deployed.assert_equals_the_contract()
