"""The Dagster processes that a run's process descends from: `dagster dev`, the code server, and its server of code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_NAMES = {
    "dagster",
    "dagster-daemon",
    "dagster-webserver",
    "dagster._daemon",
    "dagster_webserver",
    "telemetry_assets.webserver",
}


def servers_above() -> tuple[int, ...]:
    """The process ids of the Dagster processes above this one, the nearest first.

    One of them is gone where the answer becomes shorter: what it leaves goes to another parent. A shell, `make` or
    `nohup` above them is not among them, so its end means nothing. A run of `dagster job execute` has none.

    :raises OSError: where nobody can say, as with too many open files.
    """
    found: list[int] = []
    pid = os.getppid()
    while pid > 0:
        parent, command = _parent_and_command(pid)
        if not _is_dagsters(command):
            break
        found.append(pid)
        pid = parent
    return tuple(found)


def _is_dagsters(command: list[str]) -> bool:
    """Whether a command line is `dagster …`, `python …/dagster …` or `python -m dagster …`."""
    return any(Path(word).name in _NAMES for word in command[:3])


def _parent_and_command(pid: int) -> tuple[int, list[str]]:
    """A process's parent and command line; without words where it is gone."""
    if sys.platform != "linux":
        return _as_ps_has_it(pid)
    try:
        # After the name, which is in brackets and may have any characters: the state, and the parent.
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        return parent, Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError, IndexError):
        return 0, []


def _as_ps_has_it(pid: int) -> tuple[int, list[str]]:
    asked = subprocess.run(["ps", "-o", "ppid=,command=", "-p", str(pid)], capture_output=True, text=True, check=False)
    parent, *command = asked.stdout.split() or ["0"]
    return int(parent), command
