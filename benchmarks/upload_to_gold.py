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


def memory_of_group(group: int) -> list[float]:
    """The resident memory of each process of a group, in megabytes."""
    listed = subprocess.run(["ps", "-e", "-o", "pgid=,rss="], capture_output=True, text=True, check=True)
    rows = (line.split() for line in listed.stdout.splitlines())
    return [int(memory) / 1024 for process_group, memory in rows if int(process_group) == group]


def wait_for_gold(deployment: TemporaryDeployment, known: set[str], group: int) -> float:
    """Wait until the table of alerts has a new metadata file.

    :returns: the maximum memory of a process during the wait, in megabytes.
    """
    metadata = deployment.folder / "lakehouse" / "gold" / "performance_alerts" / "metadata"
    most, deadline = 0.0, time.monotonic() + 120
    while {path.name for path in metadata.glob("*.metadata.json")} <= known:
        if time.monotonic() > deadline:
            raise TimeoutError((deployment.folder / "dagster.log").read_text()[-3000:])
        most = max([most, *memory_of_group(group)])
        time.sleep(0.1)
    return most


def main() -> None:
    """Run the benchmark and print a Markdown table."""
    measured: list[Measured] = []
    with temporary_deployment() as deployment:
        deployment.fill(documents=20, uploads=1, cars=5, days=1)
        metadata = deployment.folder / "lakehouse" / "gold" / "performance_alerts" / "metadata"
        with dagster_dev(deployment) as group:
            most = wait_for_gold(deployment, {path.name for path in metadata.glob("00000-*")}, group)
            for seed in range(UPLOADS):
                time.sleep(random.Random(seed).uniform(6, 11))
                before = {path.name for path in metadata.glob("*.metadata.json")}
                deployment.fill(documents=5, uploads=1, cars=5, days=1, seed=seed + 2)
                started = time.monotonic() - 0.6
                most = max(most, wait_for_gold(deployment, before, group))
                measured.append(Measured(time.monotonic() - started, most))
    print("| upload to Gold, `dagster dev` | fastest s | median s | slowest s | most memory of a process MB |")
    print("|---|---|---|---|---|")
    print_row(f"{UPLOADS} small uploads, 6 to 11 s apart", measured)


if __name__ == "__main__":
    main()
