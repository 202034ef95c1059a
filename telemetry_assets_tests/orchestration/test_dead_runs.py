"""Runs whose process has died, and the runs after them."""

from __future__ import annotations

import errno
import fcntl
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, execute_job, instance_for_test

from telemetry_assets.assets.metadata import POOL, asset_key
from telemetry_assets.automation import heartbeats
from telemetry_assets.automation.dead_runs import end_dead_runs
from telemetry_assets.automation.heartbeats import heartbeat, is_alive, is_dead
from telemetry_assets.tables import BRONZE
from telemetry_assets_tests.harness.made_runs import ASSETS, job_of, started_run, status, take, users
from telemetry_assets_tests.harness.waiting import until


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[DagsterInstance]:
    """An instance with this project's pools and an empty deployment."""
    home = tmp_path / "dagster_home"
    home.mkdir()
    pools = {"concurrency": {"pools": {"default_limit": 1, "granularity": "op"}}}
    with instance_for_test(temp_dir=str(home), overrides=pools) as one:
        yield one


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "landing").mkdir()
    monkeypatch.setenv("TELEMETRY_LANDING_URI", str(tmp_path / "landing"))
    monkeypatch.setenv("TELEMETRY_LAKEHOUSE_URI", str(tmp_path / "lakehouse"))
    monkeypatch.setenv("TELEMETRY_UPLOAD_MINIMUM_AGE_SECONDS", "0")


def folder_of_lock_files(instance: DagsterInstance) -> Path:
    return Path(instance.storage_directory()) / "telemetry_assets_running"


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + seconds)


def lose_process(instance: DagsterInstance, run: DagsterRun) -> None:
    """Leave a lock file without a lock, as a killed run does."""
    folder_of_lock_files(instance).mkdir(parents=True, exist_ok=True)
    (folder_of_lock_files(instance) / run.run_id).touch()


@pytest.mark.parametrize("job", ["ingest", "refresh_insurance", "replay_rejected", ASSETS])
def test_dead_run_of_any_job_is_failed_and_frees_its_pool(instance: DagsterInstance, job: str) -> None:
    run = started_run(instance, job)
    take(instance, run, POOL)
    lose_process(instance, run)
    end_dead_runs(instance)
    assert status(instance, run.run_id) == DagsterRunStatus.FAILURE
    assert users(instance, POOL) == set()
    assert not is_dead(instance, run.run_id)


@pytest.mark.parametrize("job", ["ingest", ASSETS])
def test_run_without_lock_file_is_failed_within_two_minutes(
    instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch, job: str
) -> None:
    run = started_run(instance, job)
    take(instance, run, POOL)
    with heartbeat(instance, run):
        # The new task has an empty storage folder.
        shutil.rmtree(folder_of_lock_files(instance))
        end_dead_runs(instance)
        assert status(instance, run.run_id) == DagsterRunStatus.STARTED
    later(monkeypatch, 100)
    end_dead_runs(instance)
    assert status(instance, run.run_id) == DagsterRunStatus.FAILURE
    assert users(instance, POOL) == set()


def test_run_on_another_machine_continues_while_it_sends_heartbeats(
    instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeats, "_HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr(heartbeats, "_POLL_SECONDS", 0.1)
    run = started_run(instance)
    now = time.time()
    with heartbeat(instance, run):
        shutil.rmtree(folder_of_lock_files(instance))
        # The other machine's clock, which its heartbeats follow.
        later(monkeypatch, 1000)
        until(lambda: any(one.timestamp > now + 900 for one in instance.all_logs(run.run_id)))
        end_dead_runs(instance)
        assert status(instance, run.run_id) == DagsterRunStatus.STARTED
    later(monkeypatch, 2000)
    end_dead_runs(instance)
    assert status(instance, run.run_id) == DagsterRunStatus.FAILURE


def test_live_run_on_this_machine_continues_without_heartbeats(
    instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = started_run(instance)
    with heartbeat(instance, run):
        later(monkeypatch, 10_000)
        end_dead_runs(instance)
        assert status(instance, run.run_id) == DagsterRunStatus.STARTED


@pytest.mark.parametrize("module", ["somebody_elses.definitions", None])
def test_run_of_another_code_location_is_ignored(
    instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch, module: str | None
) -> None:
    run = started_run(instance, module=module)
    later(monkeypatch, 10_000)
    end_dead_runs(instance)
    assert status(instance, run.run_id) == DagsterRunStatus.STARTED


def test_starting_run_is_never_considered_dead(instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    run = started_run(instance)
    lock = fcntl.flock

    def lock_after_a_look(file: object, how: int) -> None:
        monkeypatch.undo()
        assert not is_dead(instance, run.run_id)
        lock(file, how)  # type: ignore[arg-type]

    monkeypatch.setattr(fcntl, "flock", lock_after_a_look)
    with heartbeat(instance, run):
        assert is_alive(instance, run.run_id)


def test_ending_run_is_never_considered_dead(instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    run = started_run(instance)
    lock = fcntl.flock

    def lock_after_the_end(file: object, how: int) -> None:
        (folder_of_lock_files(instance) / run.run_id).unlink()
        lock(file, how)  # type: ignore[arg-type]

    lose_process(instance, run)
    monkeypatch.setattr(fcntl, "flock", lock_after_the_end)
    assert not is_dead(instance, run.run_id)


@pytest.mark.parametrize("job", ["ingest", "refresh_insurance", "replay_rejected", ASSETS])
def test_run_frees_pools_of_dead_runs_before_it_waits(instance: DagsterInstance, job: str) -> None:
    dead = started_run(instance, ASSETS)
    take(instance, dead, POOL)
    lose_process(instance, dead)
    day = datetime.now(UTC).date().isoformat()
    of_assets: dict[str, Any] = {}
    if job == ASSETS:
        tags = {"dagster/asset_partition_range_start": day, "dagster/asset_partition_range_end": day}
        of_assets = {"tags": tags, "asset_selection": [asset_key(BRONZE)]}
    elif job == "refresh_insurance":
        of_assets = {"tags": {"dagster/partition": day}}
    with execute_job(job_of(job), instance=instance, **of_assets) as result:
        assert result.success
    assert status(instance, dead.run_id) == DagsterRunStatus.FAILURE


@pytest.mark.parametrize("deleted", [False, True])
def test_run_frees_pool_slots_of_finished_and_deleted_runs(instance: DagsterInstance, deleted: bool) -> None:
    finished = started_run(instance)
    take(instance, finished, POOL)
    instance.report_run_failed(finished)
    if deleted:
        instance.delete_run(finished.run_id)
    with execute_job(job_of("replay_rejected"), instance=instance) as result:
        assert result.success


def test_run_that_cannot_check_its_server_assumes_that_it_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing() -> tuple[int, ...]:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(heartbeats, "ancestor_servers", failing)
    assert heartbeats._ancestor_servers((12, 3)) == (12, 3)
