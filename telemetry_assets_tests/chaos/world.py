"""Disturbances around runs: locks of the catalog and failing disks. They end with the run at the latest."""

from __future__ import annotations

import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread, Timer

from telemetry_assets.settings import Settings
from telemetry_assets_tests.chaos.disks import Disk
from telemetry_assets_tests.chaos.machine import BUSY_SECONDS
from telemetry_assets_tests.chaos.steps import DiskTrouble, HoldLock

BUSY_FIELD = "catalog_busy_seconds"
_OWN_BUSY_SECONDS = 1
_LOCKING_SECONDS = 0.5
_BEGIN = {"shared": "BEGIN", "reserved": "BEGIN IMMEDIATE", "exclusive": "BEGIN EXCLUSIVE"}
# A run must wait for a lock shorter than this share of its timeout; between it and 1, both outcomes are possible.
_CERTAINLY_SHORT = 0.7


def busy_settings() -> dict[str, float]:
    """A short lock timeout of the catalog, if the product has such a setting."""
    return {BUSY_FIELD: _OWN_BUSY_SECONDS} if BUSY_FIELD in Settings.model_fields else {}


def busy_seconds() -> float:
    """The product's lock timeout in schedules, in seconds."""
    return _OWN_BUSY_SECONDS if BUSY_FIELD in Settings.model_fields else BUSY_SECONDS


class _Lock:
    """Another program's transaction on the catalog."""

    def __init__(self, file: Path, step: HoldLock) -> None:
        self._end = Event()
        self._begun: float | None = None
        self.seconds = 0.0
        self._connection = sqlite3.connect(
            f"file:{file}?mode=rw", uri=True, timeout=_LOCKING_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            self._connection.execute(_BEGIN[step.state])
            self._connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
        except sqlite3.Error:
            self._connection.close()
            raise
        self._begun = time.monotonic()
        self._thread = Thread(target=self._hold, args=(step.busy_shares * busy_seconds(),), daemon=True)
        self._thread.start()

    def _hold(self, seconds: float) -> None:
        self._end.wait(seconds)
        with suppress(sqlite3.Error):
            self._connection.execute("ROLLBACK")
        self._connection.close()
        assert self._begun is not None
        self.seconds = time.monotonic() - self._begun

    def end(self) -> float:
        """Release the lock; return how long it was held, in seconds."""
        self._end.set()
        self._thread.join()
        return self.seconds


class World:
    """The disturbances around the runs of one schedule."""

    def __init__(self, catalog_file: Path | None, disk: Disk | None) -> None:
        self._catalog_file = catalog_file
        self._disk = disk
        self._locks: list[_Lock] = []
        self._timers: list[Timer] = []
        self.is_disk_in_trouble = False

    @property
    def is_troubled(self) -> bool:
        """Whether there was any disturbance since the last :meth:`calm`."""
        return bool(self._locks) or self.is_disk_in_trouble

    def hold(self, step: HoldLock) -> str:
        """Lock the catalog; return the outcome."""
        if self._catalog_file is None or not self._catalog_file.exists():
            return "there is no such catalog"
        try:
            self._locks.append(_Lock(self._catalog_file, step))
        except sqlite3.Error as error:
            return f"could not: {error}"
        return "done"

    def trouble(self, step: DiskTrouble) -> str:
        """Let the disk fail; return the outcome."""
        if self._disk is None:
            return "there is no such disk"
        if self.is_disk_in_trouble:
            return "it is in trouble already"
        self.is_disk_in_trouble = True
        self._disk.turn(step.what, step.pages)
        if step.seconds is not None:
            self._timers.append(Timer(step.seconds, self._disk.heal))
            self._timers[-1].start()
        return "done"

    def calm(self) -> bool:
        """End all disturbances; return whether they could make a run fail and not only wait."""
        longest = max((one.end() for one in self._locks), default=0.0)
        for timer in self._timers:
            timer.cancel()
            timer.join()
        excuses = self.is_disk_in_trouble or longest >= _CERTAINLY_SHORT * busy_seconds() or len(self._locks) > 1
        self._locks, self._timers = [], []
        if self._disk is not None and self.is_disk_in_trouble:
            self._disk.heal()
        self.is_disk_in_trouble = False
        return excuses
