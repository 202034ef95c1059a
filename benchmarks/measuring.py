"""Runs a process to its end and says how long it took and how much memory it held."""

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
    """A finished process: wall-clock seconds, and the resident memory that it held at most, in megabytes."""

    seconds: float
    megabytes: float


class Environment(Protocol):
    """Where a process that is measured works."""

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a process that works here."""
        ...


@dataclass(frozen=True)
class Place:
    """A landing folder and a lakehouse that are gone after the measurement."""

    folder: Path

    @property
    def landing(self) -> Path:
        """Where uploads are put."""
        return self.folder / "landing"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a process that works here."""
        return {
            **os.environ,
            "TELEMETRY_LANDING_URI": str(self.landing),
            "TELEMETRY_LAKEHOUSE_URI": str(self.folder / "lakehouse"),
        }

    def fill(self, *, documents: int, uploads: int, cars: int, days: int, seed: int = 1) -> None:
        """Put a fleet's uploads into the landing folder, old enough to be taken."""
        fleet = Fleet(LAST_DAY, cars=cars, days=days, uploads=uploads, documents=documents, seed=seed)
        write_uploads(simulate(fleet), self.landing)
        time.sleep(0.6)


@contextmanager
def place() -> Iterator[Place]:
    """A new place."""
    # Processes that were measured may still be writing when it is removed.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        yield Place(Path(folder))


def measure(arguments: Sequence[str], at: Environment) -> Measured:
    """Run ``python <arguments>`` to its end.

    :raises CalledProcessError: where it fails.
    """
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, *arguments], env=at.environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, list(arguments))
    return Measured(time.monotonic() - started, usage.ru_maxrss / 1024)


def measure_with_descendants(arguments: Sequence[str], at: Environment) -> Measured:
    """Run ``python <arguments>`` to its end; the memory is that of all its processes together, such as a JVM's.

    :raises CalledProcessError: where it fails.
    """
    started, most = time.monotonic(), 0.0
    process = subprocess.Popen([sys.executable, *arguments], env=at.environment, stdout=sys.stderr)
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
            # A thread that has ended meanwhile.
            continue
        for child in found:
            yield from _with_descendants(int(child))


def _resident_megabytes(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() / 1024 / 1024
    except OSError:
        return 0.0


def tell(what: str, runs: Sequence[Measured]) -> None:
    """Print one line: the runs' fastest, median and slowest, and the most memory of any."""
    seconds = sorted(run.seconds for run in runs)
    memory = max(run.megabytes for run in runs)
    print(
        f"| {what} | {seconds[0]:.1f} | {seconds[len(seconds) // 2]:.1f} | {seconds[-1]:.1f} | {memory:.0f} |",
        flush=True,
    )
