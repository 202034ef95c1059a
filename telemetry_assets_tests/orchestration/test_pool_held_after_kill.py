"""`dagster job execute`, which `make demo` runs, beside dead and live runs, without a daemon."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dagster import DagsterInstance, DagsterRunStatus

from telemetry_assets.assets.metadata import POOL
from telemetry_assets.automation.heartbeats import heartbeat, is_alive, is_dead
from telemetry_assets.settings import project_root
from telemetry_assets_tests.harness.made_documents import event, framed
from telemetry_assets_tests.harness.made_runs import started_run, status, take, users
from telemetry_assets_tests.harness.waiting import until

pytestmark = pytest.mark.alone

Start = Callable[[], "subprocess.Popen[bytes]"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the project's dagster.yaml and many waiting uploads, in which `dagster` runs."""
    shutil.copy(project_root() / "dagster.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("TELEMETRY_LANDING_URI", str(tmp_path / "landing"))
    monkeypatch.setenv("TELEMETRY_LAKEHOUSE_URI", str(tmp_path / "lakehouse"))
    monkeypatch.setenv("TELEMETRY_UPLOAD_MINIMUM_AGE_SECONDS", "0")
    (tmp_path / "landing").mkdir()
    for number in range(400):
        (tmp_path / "landing" / f"{number}.json").write_bytes(framed([event(f"CAR-{number}")], "array")[1])
    return tmp_path


@pytest.fixture
def instance(home: Path) -> Iterator[DagsterInstance]:
    with DagsterInstance.get() as one:
        yield one


@pytest.fixture
def start(home: Path) -> Iterator[Start]:
    """Starts `dagster job execute`, and kills the remaining processes after the test."""
    started: list[subprocess.Popen[bytes]] = []
    command = [str(Path(sys.executable).with_name("dagster")), "job", "execute"]

    def one() -> subprocess.Popen[bytes]:
        log = (home / f"{len(started)}.log").open("wb")
        started.append(
            subprocess.Popen([*command, "-m", "telemetry_assets.definitions", "-j", "ingest"], stdout=log, stderr=log)
        )
        return started[-1]

    yield one
    for process in started:
        process.kill()
        process.wait()


def test_pool_held_after_kill_is_freed_by_the_next_run(home: Path, instance: DagsterInstance, start: Start) -> None:
    first = start()
    until(lambda: any((home / "lakehouse").glob("ingestion/claimed/*")), seconds=120)
    first.kill()
    first.wait()
    [killed] = instance.get_runs()
    assert users(instance, POOL) == {killed.run_id}
    assert start().wait(120) == 0, (home / "1.log").read_text()[-4000:]
    assert sorted(run.status.value for run in instance.get_runs()) == ["FAILURE", "SUCCESS"]
    assert status(instance, killed.run_id) == DagsterRunStatus.FAILURE


def test_run_that_waits_for_a_live_run_logs_it_sends_heartbeats_and_ends_on_sigterm(
    instance: DagsterInstance, start: Start
) -> None:
    living = started_run(instance)
    take(instance, living, POOL)
    with heartbeat(instance, living):
        processes = [start(), start()]
        message = f"Waiting for the pool {POOL}, which run {living.run_id} (ingest, STARTED) occupies."

        def waiting() -> list[str]:
            others = [run.run_id for run in instance.get_runs() if run.run_id != living.run_id]
            return [one for one in others if any(message in event.message for event in instance.all_logs(one))]

        until(lambda: len(waiting()) == 2, seconds=120)
        both = waiting()
        assert all(is_alive(instance, one) for one in both)
        processes[0].send_signal(signal.SIGTERM)
        processes[1].kill()
        assert processes[0].wait(15) != 0
        processes[1].wait()
        [dead] = [one for one in both if is_dead(instance, one)]
        [ended] = set(both) - {dead}
        assert status(instance, ended) == DagsterRunStatus.FAILURE
        assert status(instance, living.run_id) == DagsterRunStatus.STARTED
    assert instance.event_log_storage.get_concurrency_info(POOL).pending_run_ids == {dead}


def test_ps_and_proc_return_the_same_ancestors() -> None:
    from telemetry_assets.automation import servers

    if sys.platform != "linux" or shutil.which("ps") is None:
        pytest.skip("needs Linux, and ps")
    parent, command = servers._parent_and_command_from_ps(os.getpid())
    assert parent == os.getppid()
    linux_parent, linux_command = servers._parent_and_command(os.getpid())
    assert linux_parent == parent
    assert command[0] == linux_command[0]
