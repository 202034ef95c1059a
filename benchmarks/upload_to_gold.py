"""How long an upload takes to Gold under `dagster dev`, nothing clicked: ``python -m benchmarks.upload_to_gold``."""

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

from benchmarks.measuring import Measured, Place, place, tell
from telemetry_assets.settings import project_root

UPLOADS = 15


@contextmanager
def dagster_dev(at: Place) -> Iterator[int]:
    """`dagster dev` with the project's own configuration; gives its process group."""
    for name in ("workspace.yaml", "dagster.yaml"):
        shutil.copy(project_root() / name, at.folder / name)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("dagster")), "dev", "--port", str(port)]
    environment = {name: value for name, value in at.environment.items() if name != "DAGSTER_HOME"}
    with (at.folder / "dagster.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=at.folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            yield process.pid
        finally:
            os.killpg(process.pid, signal.SIGINT)
            process.wait(60)


def memory_of_group(group: int) -> dict[str, float]:
    """The resident megabytes of each process of a group, by its command."""
    told = subprocess.run(["ps", "-e", "-o", "pgid=,pid=,rss=,args="], capture_output=True, text=True, check=True)
    rows = (line.split(None, 3) for line in told.stdout.splitlines())
    return {f"{row[1]} {row[3][:60]}": int(row[2]) / 1024 for row in rows if int(row[0]) == group}


def wait_for_gold(at: Place, since: set[str], group: int, most: dict[str, float]) -> None:
    """Until the table of alerts has taken something newer than before."""
    metadata = at.folder / "lakehouse" / "gold" / "performance_alerts" / "metadata"
    until = time.monotonic() + 120
    while {path.name for path in metadata.glob("*.metadata.json")} <= since:
        if time.monotonic() > until:
            raise TimeoutError((at.folder / "dagster.log").read_text()[-3000:])
        for name, megabytes in memory_of_group(group).items():
            most[name] = max(most.get(name, 0), megabytes)
        time.sleep(0.1)


def main() -> None:
    """Measure and print a Markdown table."""
    measured: list[Measured] = []
    most: dict[str, float] = {}
    with place() as at:
        at.fill(documents=20, uploads=1, cars=5, days=1)
        metadata = at.folder / "lakehouse" / "gold" / "performance_alerts" / "metadata"
        with dagster_dev(at) as group:
            wait_for_gold(at, {path.name for path in metadata.glob("00000-*")}, group, most)
            for seed in range(UPLOADS):
                time.sleep(random.Random(seed).uniform(6, 11))
                before = {path.name for path in metadata.glob("*.metadata.json")}
                at.fill(documents=5, uploads=1, cars=5, days=1, seed=seed + 2)
                started = time.monotonic() - 0.6
                wait_for_gold(at, before, group, most)
                measured.append(Measured(time.monotonic() - started, max(most.values())))
    print("| upload to Gold, `dagster dev` | fastest s | median s | slowest s | most memory of a process MB |")
    print("|---|---|---|---|---|")
    tell(f"{UPLOADS} small uploads, 6 to 11 s apart", measured)


if __name__ == "__main__":
    main()
