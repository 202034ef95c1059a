"""The upload sensor's decisions, based on the landing folder, the lakehouse and the runs."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from dagster import (
    DagsterInstance,
    DagsterRunStatus,
    RunRequest,
    SkipReason,
    build_sensor_context,
)
from pyiceberg.expressions import AlwaysTrue

from telemetry_assets.definitions import definitions
from telemetry_assets.ingestion.journal.base import JournalEntry
from telemetry_assets.settings import load_settings
from telemetry_assets.tables import FUEL_EFFICIENCY, SILVER
from telemetry_assets_tests.harness.deployment import Deployment
from telemetry_assets_tests.harness.made_documents import event, framed
from telemetry_assets_tests.harness.made_runs import started_run

Tick = Callable[[], RunRequest | SkipReason]


@pytest.fixture
def tick(deployed: Deployment, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> Tick:
    monkeypatch.setenv("TELEMETRY_LANDING_URI", deployed.settings.landing_uri)
    monkeypatch.setenv("TELEMETRY_LAKEHOUSE_URI", deployed.settings.lakehouse_uri)
    monkeypatch.setenv("TELEMETRY_UPLOAD_MINIMUM_AGE_SECONDS", "0")
    defs = definitions(load_settings())
    sensor = defs.get_sensor_def("uploads")

    def evaluated() -> RunRequest | SkipReason:
        with build_sensor_context(instance=instance) as context:
            decision = sensor(context)
        assert isinstance(decision, RunRequest | SkipReason)
        return decision

    return evaluated


def ingest_run(instance: DagsterInstance, status: DagsterRunStatus) -> str:
    run = started_run(instance)
    if status == DagsterRunStatus.FAILURE:
        instance.report_run_failed(run, "for the test")
    if status == DagsterRunStatus.CANCELED:
        instance.report_run_canceled(run)
    return run.run_id


def reason(decision: RunRequest | SkipReason) -> str:
    assert isinstance(decision, SkipReason)
    return str(decision.skip_message)


def test_tick_without_work_is_skipped_with_a_reason(tick: Tick) -> None:
    assert "No upload waits" in reason(tick())


def test_skip_reason_names_uploads_that_cannot_be_ingested(tick: Tick, deployed: Deployment) -> None:
    assert "the folder does not exist" in reason(tick())
    deployed.landing.mkdir()
    (deployed.landing / "x.json").symlink_to("elsewhere.json")
    assert "x.json is not ingested: it is a link" in reason(tick())


def test_waiting_upload_requests_a_run_without_a_run_key(tick: Tick, deployed: Deployment) -> None:
    deployed.upload("x.json", b"{}")
    for _ in range(2):
        decision = tick()
        assert isinstance(decision, RunRequest)
        assert decision.run_key is None


@pytest.mark.parametrize("name", [".x.json", "_x.json", "x.json.tmp", "x.part", "x.crdownload"])
def test_unfinished_upload_starts_no_run(tick: Tick, deployed: Deployment, name: str) -> None:
    deployed.upload(name, b"{}")
    assert "No upload waits" in reason(tick())


def test_an_unfinished_batch_starts_a_run(tick: Tick, deployed: Deployment) -> None:
    from datetime import UTC, datetime

    entry = JournalEntry(batch_id="left behind", ingested_at=datetime.now(UTC))
    assert deployed.pipeline.ingestion.journal.create(entry) is not None
    assert isinstance(tick(), RunRequest)


def test_a_table_behind_its_upstream_starts_a_run(tick: Tick, deployed: Deployment) -> None:
    deployed.upload("x.json", framed([event()], "array")[1])
    deployed.process()
    assert "No upload waits" in reason(tick())
    deployed.pipeline.lakehouse.table(SILVER).delete(AlwaysTrue())
    decision = tick()
    assert isinstance(decision, RunRequest)
    assert decision.tags["telemetry/reason"] == "behind upstream: gold.car_current_state and 2 more"


def test_lost_derived_table_starts_a_run_that_rebuilds_it(tick: Tick, deployed: Deployment) -> None:
    deployed.upload("x.json", framed([event()], "array")[1])
    deployed.process()
    deployed.pipeline.lakehouse.catalog.drop_table(FUEL_EFFICIENCY.identifier)
    decision = tick()
    assert isinstance(decision, RunRequest)
    assert "gold.fuel_efficiency_monthly" in decision.tags["telemetry/reason"]
    deployed.process()
    assert "No upload waits" in reason(tick())
    deployed.assert_equals_the_contract()


def test_one_run_at_a_time(tick: Tick, deployed: Deployment, instance: DagsterInstance) -> None:
    deployed.upload("x.json", b"{}")
    run_id = ingest_run(instance, DagsterRunStatus.STARTED)
    assert run_id in reason(tick())


def test_run_without_process_is_failed(tick: Tick, deployed: Deployment, instance: DagsterInstance) -> None:
    deployed.upload("x.json", b"{}")
    run_id = ingest_run(instance, DagsterRunStatus.STARTED)
    running = Path(instance.storage_directory()) / "telemetry_assets_running"
    running.mkdir(parents=True)
    with (running / run_id).open("w") as lock_file:
        fcntl.flock(lock_file, fcntl.LOCK_EX)
        assert run_id in reason(tick())
    tick()
    run = instance.get_run_by_id(run_id)
    assert run is not None
    assert run.status == DagsterRunStatus.FAILURE
    assert not (running / run_id).exists()


def test_run_killed_before_its_first_heartbeat_is_failed_later(
    tick: Tick, deployed: Deployment, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed.upload("x.json", b"{}")
    run_id = ingest_run(instance, DagsterRunStatus.STARTED)
    assert run_id in reason(tick())
    now = time.time()
    monkeypatch.setattr("telemetry_assets.automation.heartbeats.time.time", lambda: now + 121)
    tick()
    run = instance.get_run_by_id(run_id)
    assert run is not None
    assert run.status == DagsterRunStatus.FAILURE


def test_sensor_waits_after_a_cancelled_run_and_says_so(
    tick: Tick, deployed: Deployment, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed.upload("x.json", b"{}")
    cancelled = ingest_run(instance, DagsterRunStatus.CANCELED)
    message, now = reason(tick()), time.time()
    monkeypatch.setattr("telemetry_assets.automation.sensors.time.time", lambda: now + 301)
    assert f"Run {cancelled} was cancelled" in message
    assert isinstance(tick(), RunRequest)


def test_sensor_waits_longer_after_each_failure_and_says_so(
    tick: Tick, deployed: Deployment, instance: DagsterInstance
) -> None:
    deployed.upload("x.json", b"{}")
    ingest_run(instance, DagsterRunStatus.FAILURE)
    first = reason(tick())
    for _ in range(8):
        ingest_run(instance, DagsterRunStatus.FAILURE)
    ninth = reason(tick())
    assert "1 run failed" in first
    assert "Trying again in 5 s" in first or "Trying again in 4 s" in first
    assert "9 runs failed" in ninth
    assert "Trying again in 300 s" in ninth or "Trying again in 299 s" in ninth
