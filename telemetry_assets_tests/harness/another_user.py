"""Runs programs as another user of the machine, who may write to the landing folder only."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_NOBODY = 65534
# The program changes its user itself, because the other user may not read this project's interpreter.
_BECOME = f"import os\nos.setgroups([])\nos.setgid({_NOBODY})\nos.setuid({_NOBODY})\n"


def require_root() -> None:
    """Skip the test, or fail it in CI, unless the process runs as root."""
    if os.geteuid() == 0:
        return
    if "CI" in os.environ:
        pytest.fail("CI does not run as root, so nobody attacks as another user")
    pytest.skip("only root can act as another user of the machine")


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that every user of the machine may read; a test's own folder is readable by its user only."""
    with tempfile.TemporaryDirectory(prefix="telemetry-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@contextmanager
def acting(program: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A Python program that runs as the other user until the context ends."""
    command = [sys.executable, "-c", _BECOME + program, *map(str, arguments)]
    started = subprocess.Popen(command, cwd="/", text=True, stdout=subprocess.PIPE)
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


def act(program: str, *arguments: object) -> None:
    """Run a Python program as the other user and wait until it ends."""
    with acting(program, *arguments) as started:
        assert started.wait(60) == 0
