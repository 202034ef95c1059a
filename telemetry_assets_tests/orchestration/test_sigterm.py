"""SIGTERM to a code server's process only. The server does not signal its runs; they detect that it has ended."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from dagster import DagsterRunStatus

from telemetry_assets.assets.metadata import POOL
from telemetry_assets.automation.heartbeats import heartbeat
from telemetry_assets_tests.harness.made_documents import event, framed
from telemetry_assets_tests.harness.made_runs import started_run, status, take
from telemetry_assets_tests.harness.running_code_server import running_code_server
from telemetry_assets_tests.harness.waiting import until

pytestmark = pytest.mark.alone


# The server waits up to 30 s for its runs.
@pytest.mark.exhaustive
def test_a_run_ends_when_only_its_code_server_gets_sigterm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "landing").mkdir()
    (tmp_path / "landing" / "x.json").write_bytes(framed([event()], "array")[1])
    monkeypatch.setenv("TELEMETRY_LANDING_URI", str(tmp_path / "landing"))
    monkeypatch.setenv("TELEMETRY_LAKEHOUSE_URI", str(tmp_path / "lakehouse"))
    monkeypatch.setenv("TELEMETRY_UPLOAD_MINIMUM_AGE_SECONDS", "0")
    with running_code_server(tmp_path) as server:
        # The run waits for a live run after its first step, so that it does not end by itself.
        living = started_run(server.instance, "replay_rejected")
        take(server.instance, living, POOL)
        with heartbeat(server.instance, living):
            run = server.launch("ingest")
            waits = f"Waiting for the pool {POOL}"
            until(lambda: any(waits in one.message for one in server.instance.all_logs(run.run_id)), seconds=120)
            server.process.send_signal(signal.SIGTERM)
            until(lambda: not server.processes(), seconds=60)
            assert status(server.instance, run.run_id) == DagsterRunStatus.FAILURE
