"""`dagster code-server start` as infra/modules/dagster starts it, and runs in it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._grpc.client import DagsterGrpcClient
from dagster._grpc.types import ExecuteExternalJobArgs

from telemetry_assets.definitions import definitions
from telemetry_assets.settings import load_settings, project_root
from telemetry_assets_tests.harness.made_runs import MODULE, job_of
from telemetry_assets_tests.harness.waiting import until

_HOST = "127.0.0.1"


@dataclass(frozen=True)
class RunningCodeServer:
    """A code server with the settings of this process's environment and an instance in its folder."""

    instance: DagsterInstance
    port: int
    process: subprocess.Popen[bytes]

    def launch(self, job: str) -> DagsterRun:
        """Start a run, as Dagster's daemon does."""
        location = GrpcServerCodeLocationOrigin(host=_HOST, port=self.port, location_name=MODULE)
        origin = RemoteRepositoryOrigin(location, "__repository__").get_job_origin(job)
        run = self.instance.create_run_for_job(
            definitions(load_settings()).resolve_job_def(job),
            status=DagsterRunStatus.STARTING,
            job_code_origin=job_of(job).get_python_origin(),
            remote_job_origin=origin,
        )
        self._client().start_run(
            ExecuteExternalJobArgs(job_origin=origin, run_id=run.run_id, instance_ref=self.instance.get_ref())
        )
        return run

    def is_up(self) -> bool:
        assert self.process.poll() is None
        try:
            self._client().ping("")
        except Exception:
            return False
        return True

    def processes(self) -> list[int]:
        """The processes of the server and its runs, which are in one process group."""
        listed = subprocess.run(
            ["pgrep", "-g", str(self.process.pid), "-r", "R,S,D"], capture_output=True, text=True, check=False
        )
        return [int(pid) for pid in listed.stdout.split()]

    def _client(self) -> DagsterGrpcClient:
        return DagsterGrpcClient(port=self.port, host=_HOST)


@contextmanager
def running_code_server(folder: Path) -> Iterator[RunningCodeServer]:
    """Start a code server, wait until it responds, and end all its processes at the end."""
    shutil.copy(project_root() / "dagster.yaml", folder)
    with socket.socket() as free:
        free.bind((_HOST, 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("dagster")), "code-server", "start"]
    command += ["--host", _HOST, "--port", str(port), "--module-name", MODULE]
    environment = {**os.environ, "DAGSTER_HOME": str(folder)}
    # Dagster creates the tables of its storage twice if two processes open a new storage at the same time.
    with instance_in(folder) as instance, (folder / "code_server.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
        server = RunningCodeServer(instance, port, process)
        try:
            until(server.is_up, seconds=120)
            yield server
        finally:
            if server.processes():
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)


@contextmanager
def instance_in(folder: Path) -> Iterator[DagsterInstance]:
    """The instance of a Dagster that runs in a folder with the project's dagster.yaml."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        with DagsterInstance.from_config(str(folder)) as instance:
            yield instance
    finally:
        os.chdir(before)
