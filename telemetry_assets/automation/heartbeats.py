"""Run liveness: how a run shows that its process is alive, and how other processes check this.

A run shows this in two ways. Both begin before it first waits for a pool, and end with the run:

- It locks a file in the instance's storage folder. The kernel releases the lock when the process ends, so processes on
  the same machine detect a dead run immediately.
- It writes a heartbeat to its event log every 30 s. Processes that do not share the storage folder use this: another
  machine has its own folder, and a replaced Fargate task starts with an empty one.
"""

from __future__ import annotations

import fcntl
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dagster import DagsterInstance, DagsterRun, RunRecord

from telemetry_assets.automation.servers import ancestor_servers
from telemetry_assets.text.plain import plain_logger

_HEARTBEAT = "Heartbeat: the run is active. It writes this line every 30 s."
_HEARTBEAT_SECONDS = 30.0
# The time of three heartbeats. The clocks of machines that share an instance must differ by less than this.
_TIMEOUT_SECONDS = 90.0
_POLL_SECONDS = 1.0

_log = plain_logger(__name__)


@contextmanager
def heartbeat(instance: DagsterInstance, run: DagsterRun) -> Iterator[None]:
    """Send a run's heartbeats while the context is open, and interrupt the run if its Dagster server ends."""
    ended = threading.Event()
    thread = threading.Thread(target=_send_heartbeats, args=(instance, run, ended), name="heartbeat", daemon=True)
    with _locked_file(instance, run.run_id):
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def is_dead(instance: DagsterInstance, run_id: str) -> bool:
    """Whether the process of a run on this machine is gone: the run's lock file exists and is not locked.

    :returns: False for a run without a lock file: it has not started its heartbeats, has ended, or is on another
        machine.
    """
    path = _path(instance, run_id)
    try:
        with path.open("r") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A run removes its file before it releases the lock. It may have ended since this file was opened.
            return path.exists()
    except (FileNotFoundError, BlockingIOError):
        return False


def is_alive(instance: DagsterInstance, run_id: str) -> bool:
    """Whether a run on this machine holds the lock of its file."""
    return _path(instance, run_id).exists() and not is_dead(instance, run_id)


def has_missed_heartbeats(instance: DagsterInstance, record: RunRecord) -> bool:
    """Whether a run has written nothing to its event log for 90 s, which is three heartbeats."""
    started = record.start_time or record.create_timestamp.timestamp()
    events = instance.get_records_for_run(record.dagster_run.run_id, limit=1, ascending=False).records
    newest = max(started, events[0].timestamp) if events else started
    return time.time() - newest > _TIMEOUT_SECONDS


def remove_lock_file(instance: DagsterInstance, run_id: str) -> None:
    """Remove the lock file of a dead run."""
    _path(instance, run_id).unlink(missing_ok=True)


def _path(instance: DagsterInstance, run_id: str) -> Path:
    # The storage directory separates the runs of this instance from those of other instances.
    return Path(instance.storage_directory()) / "telemetry_assets_running" / run_id


@contextmanager
def _locked_file(instance: DagsterInstance, run_id: str) -> Iterator[None]:
    path = _path(instance, run_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{run_id}")
    with draft.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        # Lock the file before it gets its name, because an unlocked file means a dead run.
        draft.rename(path)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _send_heartbeats(instance: DagsterInstance, run: DagsterRun, ended: threading.Event) -> None:
    """Write heartbeats until the run ends. If a Dagster server that started the run ends, interrupt the run once."""
    servers = _ancestor_servers(())
    next_heartbeat = time.monotonic() + _HEARTBEAT_SECONDS
    while not ended.wait(_POLL_SECONDS):
        if servers and _ancestor_servers(servers)[: len(servers)] != servers:
            servers = ()
            _write(instance, run, "The Dagster server that started this run has ended, so the run ends too.")
            # The same signal as for a cancelled run. It interrupts the step, which then cancels its remote run.
            os.kill(os.getpid(), signal.SIGTERM)
        if time.monotonic() >= next_heartbeat:
            _write(instance, run, _HEARTBEAT)
            next_heartbeat = time.monotonic() + _HEARTBEAT_SECONDS


def _ancestor_servers(default: tuple[int, ...]) -> tuple[int, ...]:
    """The Dagster servers among this process's ancestors, or ``default`` if the ancestors cannot be read."""
    try:
        return ancestor_servers()
    except OSError as error:
        _log.debug("The ancestors of this process cannot be read: %s", error)
        return default


def _write(instance: DagsterInstance, run: DagsterRun, line: str) -> None:
    try:
        instance.report_engine_event(line, run)
    except Exception:
        # The storage may be unavailable for a short time. If it stays unavailable, the run's own events fail too.
        _log.warning("Could not write to the event log of run %s.", run.run_id, exc_info=True)
