"""`dagster dev` as a user runs it: webserver, daemon and code server, in a separate folder, queried by GraphQL."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from telemetry_assets.settings import project_root

Answer = TypeVar("Answer")

LOCATION = "telemetry_assets.definitions"
ENDED = ("SUCCESS", "FAILURE", "CANCELED")

_RUNS = """query { runsOrError { ... on Runs { results {
    runId status jobName startTime endTime tags { key value } } } } }"""
_TICKS = """query($sensor: SensorSelector!) { sensorOrError(sensorSelector: $sensor) { ... on Sensor {
    sensorState { status ticks(limit: 20) { status skipReason } } } } }"""
_LOADED = """query { workspaceOrError { ... on Workspace { locationEntries { loadStatus
    locationOrLoadError { __typename ... on PythonError { message } } } } } }"""
_BACKFILL = """mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
_CANCEL = """mutation($runId: String!) { terminateRun(runId: $runId) {
    __typename ... on TerminateRunFailure { message } ... on PythonError { message } } }"""
_EVENTS = """query($runId: ID!) { logsForRun(runId: $runId) {
    ... on EventConnection { events { ... on MessageEvent { message } } } } }"""
_MATERIALIZATIONS = """query($key: AssetKeyInput!) { assetOrError(assetKey: $key) { ... on Asset {
    assetMaterializations(limit: 50) { partition runId metadataEntries { label
        ... on IntMetadataEntry { intValue } ... on TextMetadataEntry { text } ... on MarkdownMetadataEntry { mdStr }
        ... on TableMetadataEntry { table { records } }
        ... on JsonMetadataEntry { jsonString } } } } } }"""


@dataclass(frozen=True)
class RunningDagster:
    """A running `dagster dev` with a landing folder and a lakehouse below ``folder``."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def landing(self) -> Path:
        return self.folder / "landing"

    @property
    def lakehouse(self) -> Path:
        return self.folder / "lakehouse"

    @property
    def log(self) -> str:
        return (self.folder / "dagster.log").read_text(errors="replace")

    def upload(self, name: str, content: bytes) -> None:
        unfinished = self.landing / f".{name}.tmp"
        unfinished.write_bytes(content)
        unfinished.rename(self.landing / name)

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/graphql",
            json.dumps({"query": query, "variables": variables}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            answered: dict[str, Any] = json.load(response)
        assert "errors" not in answered, answered
        data: dict[str, Any] = answered["data"]
        return data

    def runs(self, job: str | None = None) -> list[dict[str, Any]]:
        """All runs, or the runs of a job, newest first."""
        results: list[dict[str, Any]] = self.ask(_RUNS)["runsOrError"]["results"]
        return [run for run in results if job in (None, run["jobName"])]

    def cancel(self, run_id: str) -> None:
        """Terminate a run, as the button in the UI does."""
        answered = self.ask(_CANCEL, runId=run_id)["terminateRun"]
        assert answered["__typename"] == "TerminateRunSuccess", answered

    def logged(self, run_id: str) -> list[str]:
        """The messages of a run that its page shows."""
        events = self.ask(_EVENTS, runId=run_id)["logsForRun"]["events"]
        return [event["message"] for event in events if event.get("message")]

    def skip_reasons(self) -> list[str]:
        selector = {
            "repositoryLocationName": LOCATION,
            "repositoryName": "__repository__",
            "sensorName": "uploads",
        }
        ticks = self.ask(_TICKS, sensor=selector)["sensorOrError"]["sensorState"]["ticks"]
        return [tick["skipReason"] for tick in ticks if tick["skipReason"]]

    def materializations(self, *key: str) -> list[dict[str, Any]]:
        """The materializations of an asset, newest first, with partition and metadata by label."""
        found = self.ask(_MATERIALIZATIONS, key={"path": list(key)})["assetOrError"]["assetMaterializations"]
        return [{**one, "metadata": {entry["label"]: entry for entry in one["metadataEntries"]}} for one in found]

    def backfill(self, keys: list[list[str]], partitions: list[str]) -> None:
        """Launch a backfill, as the button in the UI does."""
        params = {"assetSelection": [{"path": key} for key in keys], "partitionNames": partitions}
        answered = self.ask(_BACKFILL, params=params)["launchPartitionBackfill"]
        assert answered["__typename"] == "LaunchBackfillSuccess", answered

    def until(self, what: str, seen: Callable[[], Answer], seconds: float = 90) -> Answer:
        """Wait until ``seen`` returns something true, and return it."""
        end = time.monotonic() + seconds
        while not (answer := seen()):
            assert self.process.poll() is None, f"dagster dev has ended:\n{self.log[-4000:]}"
            assert time.monotonic() < end, f"not within {seconds} s: {what}\n{self.log[-4000:]}"
            time.sleep(0.25)
        return answer

    def kill(self) -> None:
        """Kill all its processes at once, as a power failure does."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)

    def _is_loaded(self) -> bool:
        try:
            entries = self.ask(_LOADED)["workspaceOrError"]["locationEntries"]
        except OSError:
            return False
        loaded = [entry for entry in entries if entry["loadStatus"] == "LOADED"]
        for entry in loaded:
            assert entry["locationOrLoadError"]["__typename"] == "RepositoryLocation", entry
        return bool(loaded)


@contextmanager
def running_dagster(folder: Path, module: str = LOCATION, **settings: str) -> Iterator[RunningDagster]:
    """Start `dagster dev`, wait until it has loaded the definitions, and end all its processes at the end."""
    (folder / "landing").mkdir(exist_ok=True)
    shutil.copy(project_root() / "dagster.yaml", folder / "dagster.yaml")
    workspace = (project_root() / "workspace.yaml").read_text()
    (folder / "workspace.yaml").write_text(workspace.replace(LOCATION, module))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **{name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"},
        # Definitions of tests are not installed.
        "PYTHONPATH": os.pathsep.join(filter(None, [str(project_root()), os.environ.get("PYTHONPATH")])),
        "TELEMETRY_LANDING_URI": str(folder / "landing"),
        "TELEMETRY_LAKEHOUSE_URI": str(folder / "lakehouse"),
        # The lakehouse is empty when the definitions load, and tests materialize event dates of their uploads.
        "TELEMETRY_FIRST_EVENT_DATE": "2025-01-01",
        **settings,
    }
    command = [sys.executable, "-m", "telemetry_assets.webserver", "dev", "--port", str(port)]
    with (folder / "dagster.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    dagster = RunningDagster(folder, port, process)
    try:
        dagster.until("the definitions are loaded", dagster._is_loaded)
        yield dagster
    finally:
        if process.poll() is None:
            dagster.kill()
