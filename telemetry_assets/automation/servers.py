"""The Dagster server processes among the ancestors of a run's process, such as `dagster dev` and the code server."""

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


def ancestor_servers() -> tuple[int, ...]:
    """The process ids of the Dagster servers that this process descends from, the nearest first.

    If one of them ends, its children get another parent, and the result becomes shorter. The result does not include
    ancestors that are not Dagster servers, such as a shell, `make` or `nohup`. It is empty for a run of
    `dagster job execute`.

    :raises OSError: if the ancestors cannot be read, for example because too many files are open.
    """
    servers: list[int] = []
    pid = os.getppid()
    while pid > 0:
        parent, command = _parent_and_command(pid)
        if not _is_dagster(command):
            break
        servers.append(pid)
        pid = parent
    return tuple(servers)


def _is_dagster(command: list[str]) -> bool:
    """Whether a command line is `dagster …`, `python …/dagster …` or `python -m dagster …`."""
    return any(Path(word).name in _NAMES for word in command[:3])


def _parent_and_command(pid: int) -> tuple[int, list[str]]:
    """A process's parent and command line; 0 and an empty list if the process is gone."""
    if sys.platform != "linux":
        return _parent_and_command_from_ps(pid)
    try:
        # The state and the parent follow the name, which is in parentheses and may contain any character.
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        return parent, Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError, IndexError):
        return 0, []


def _parent_and_command_from_ps(pid: int) -> tuple[int, list[str]]:
    completed = subprocess.run(
        ["ps", "-o", "ppid=,command=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    parent, *command = completed.stdout.split() or ["0"]
    return int(parent), command
