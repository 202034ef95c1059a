"""Measures the time and memory of processes, in temporary deployments."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Protocol

from telemetry_assets.simulator.fleet import Fleet, simulate
from telemetry_assets.simulator.uploads import write_uploads

LAST_DAY = date(2025, 11, 30)


@dataclass(frozen=True)
class Measured:
    """A finished process.

    :param seconds: the wall-clock time.
    :param megabytes: the maximum resident memory.
    :param cpu_seconds: the CPU time of the process and its descendants; 0 if it was not measured.
    """

    seconds: float
    megabytes: float
    cpu_seconds: float = 0


class Environment(Protocol):
    """Has the environment variables of a process to measure."""

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables of a process to measure."""
        ...


@dataclass(frozen=True)
class TemporaryDeployment:
    """A landing folder and a lakehouse in a temporary folder."""

    folder: Path

    @property
    def landing(self) -> Path:
        """The landing folder."""
        return self.folder / "landing"

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables of a process to measure."""
        return {
            **os.environ,
            "TELEMETRY_LANDING_URI": str(self.landing),
            "TELEMETRY_LAKEHOUSE_URI": str(self.folder / "lakehouse"),
        }

    def fill(self, *, documents: int, uploads: int, cars: int, days: int, seed: int = 1) -> None:
        """Write a fleet's uploads to the landing folder, and wait until they are old enough to be ingested."""
        fleet = Fleet(LAST_DAY, cars=cars, days=days, uploads=uploads, documents=documents, seed=seed)
        write_uploads(simulate(fleet), self.landing)
        time.sleep(0.6)


@contextmanager
def temporary_deployment() -> Iterator[TemporaryDeployment]:
    """Create a deployment, and remove it afterwards."""
    # Measured processes may still write files while the folder is removed.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        yield TemporaryDeployment(Path(folder))


def measure(arguments: Sequence[str], deployment: Environment) -> Measured:
    """Measure ``python <arguments>``.

    :raises CalledProcessError: if it fails.
    """
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, *arguments], env=deployment.environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, list(arguments))
    return Measured(time.monotonic() - started, usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime)


def measure_with_descendants(arguments: Sequence[str], deployment: Environment) -> Measured:
    """Measure ``python <arguments>`` together with its descendants, such as a JVM.

    :raises CalledProcessError: if it fails.
    """
    started, most = time.monotonic(), 0.0
    process = subprocess.Popen([sys.executable, *arguments], env=deployment.environment, stdout=sys.stderr)
    while process.poll() is None:
        most = max(most, sum(map(_resident_megabytes, _with_descendants(process.pid))))
        time.sleep(0.2)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, list(arguments))
    return Measured(time.monotonic() - started, most)


def _with_descendants(pid: int) -> Iterator[int]:
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found = children.read_text().split()
        except OSError:
            # The thread has ended in the meantime.
            continue
        for child in found:
            yield from _with_descendants(int(child))


def _resident_megabytes(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() / 1024 / 1024
    except OSError:
        return 0.0


def print_row(what: str, runs: Sequence[Measured]) -> None:
    """Print a row of a Markdown table: the fastest, median and slowest run, and the maximum memory."""
    seconds = sorted(run.seconds for run in runs)
    memory = max(run.megabytes for run in runs)
    print(
        f"| {what} | {seconds[0]:.1f} | {seconds[len(seconds) // 2]:.1f} | {seconds[-1]:.1f} | {memory:.0f} |",
        flush=True,
    )
