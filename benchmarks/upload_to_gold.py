"""Benchmark of an upload's time to Gold with `dagster dev`. Run it with ``python -m benchmarks.upload_to_gold``."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.measuring import Measured, TemporaryDeployment, print_row, temporary_deployment
from telemetry_assets.settings import project_root

UPLOADS = 15


@contextmanager
def dagster_dev(deployment: TemporaryDeployment) -> Iterator[int]:
    """Run `dagster dev` with the project's configuration, and yield its process group."""
    for name in ("workspace.yaml", "dagster.yaml"):
        shutil.copy(project_root() / name, deployment.folder / name)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    command = [str(Path(sys.executable).with_name("dagster")), "dev", "--port", str(port)]
    environment = {name: value for name, value in deployment.environment.items() if name != "DAGSTER_HOME"}
    with (deployment.folder / "dagster.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=deployment.folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            yield process.pid
        finally:
            os.killpg(process.pid, signal.SIGINT)
            process.wait(60)


def memory_of_group(group: int) -> dict[str, float]:
    """The resident megabytes of each process of a group, by process id and command."""
    listed = subprocess.run(["ps", "-e", "-o", "pgid=,pid=,rss=,args="], capture_output=True, text=True, check=True)
    rows = (line.split(None, 3) for line in listed.stdout.splitlines())
    return {f"{row[1]} {row[3][:60]}": int(row[2]) / 1024 for row in rows if int(row[0]) == group}


def wait_for_gold(deployment: TemporaryDeployment, known: set[str], group: int, most: dict[str, float]) -> None:
    """Wait until the table of alerts has a new metadata file, and record the maximum memory of each process."""
    metadata = deployment.folder / "lakehouse" / "gold" / "performance_alerts" / "metadata"
    deadline = time.monotonic() + 120
    while {path.name for path in metadata.glob("*.metadata.json")} <= known:
        if time.monotonic() > deadline:
            raise TimeoutError((deployment.folder / "dagster.log").read_text()[-3000:])
        for name, megabytes in memory_of_group(group).items():
            most[name] = max(most.get(name, 0), megabytes)
        time.sleep(0.1)


def main() -> None:
    """Run the benchmark and print a Markdown table."""
    measured: list[Measured] = []
    most: dict[str, float] = {}
    with temporary_deployment() as deployment:
        deployment.fill(documents=20, uploads=1, cars=5, days=1)
        metadata = deployment.folder / "lakehouse" / "gold" / "performance_alerts" / "metadata"
        with dagster_dev(deployment) as group:
            wait_for_gold(deployment, {path.name for path in metadata.glob("00000-*")}, group, most)
            for seed in range(UPLOADS):
                time.sleep(random.Random(seed).uniform(6, 11))
                before = {path.name for path in metadata.glob("*.metadata.json")}
                deployment.fill(documents=5, uploads=1, cars=5, days=1, seed=seed + 2)
                started = time.monotonic() - 0.6
                wait_for_gold(deployment, before, group, most)
                measured.append(Measured(time.monotonic() - started, max(most.values())))
    print("| upload to Gold, `dagster dev` | fastest s | median s | slowest s | most memory of a process MB |")
    print("|---|---|---|---|---|")
    print_row(f"{UPLOADS} small uploads, 6 to 11 s apart", measured)


if __name__ == "__main__":
    main()
