"""How a run shows that its process lives, and how anybody else reads that.

A run shows it in two ways, from before it waits for its first pool until its end:

- a locked file in the instance's storage folder. The kernel releases the lock with the process, so on the same machine
  a dead run is known at once;
- a line in its event log every 30 s, which Dagster's storage keeps. It is what counts where that folder is not the
  run's own: a replaced task of Fargate begins with an empty one, and another machine has one of its own.
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

from telemetry_assets.automation.servers import servers_above
from telemetry_assets.text.plain import plain_logger

_LINE = "The run is at work. This line, every 30 s, shows other processes that it lives."
_LINE_SECONDS = 30.0
# Three lines that did not come. Clocks of machines that share an instance may differ by less than this.
SILENCE_SECONDS = 90.0
_LOOK_SECONDS = 1.0

_log = plain_logger(__name__)


@contextmanager
def life_sign(instance: DagsterInstance, run: DagsterRun) -> Iterator[None]:
    """Show that a run lives for as long as the context is open, and end the run when its server is gone."""
    ended = threading.Event()
    companion = threading.Thread(target=_accompany, args=(instance, run, ended), name="life-sign", daemon=True)
    with _locked_file(instance, run.run_id):
        companion.start()
        try:
            yield
        finally:
            ended.set()
            companion.join()


def is_dead(instance: DagsterInstance, run_id: str) -> bool:
    """Whether the process of a run of this machine ended without the run's end: its file is there, without a lock.

    A run that has shown no life sign yet, or is on another machine, counts as alive.
    """
    path = _path(instance, run_id)
    try:
        with path.open("r") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A run that ends removes its file before it releases the lock: it may have done so since the opening.
            return path.exists()
    except (FileNotFoundError, BlockingIOError):
        return False


def is_alive(instance: DagsterInstance, run_id: str) -> bool:
    """Whether the process of a run of this machine has its life sign."""
    return _path(instance, run_id).exists() and not is_dead(instance, run_id)


def is_silent(instance: DagsterInstance, record: RunRecord) -> bool:
    """Whether a run has written nothing to its event log for as long as three of its lines take."""
    started = record.start_time or record.create_timestamp.timestamp()
    events = instance.get_records_for_run(record.dagster_run.run_id, limit=1, ascending=False).records
    newest = max(started, events[0].timestamp) if events else started
    return time.time() - newest > SILENCE_SECONDS


def forget(instance: DagsterInstance, run_id: str) -> None:
    """Remove the life sign of a dead run."""
    _path(instance, run_id).unlink(missing_ok=True)


def _path(instance: DagsterInstance, run_id: str) -> Path:
    # Where this instance keeps its own files: other instances' runs are none of its business.
    return Path(instance.storage_directory()) / "telemetry_assets_running" / run_id


@contextmanager
def _locked_file(instance: DagsterInstance, run_id: str) -> Iterator[None]:
    path = _path(instance, run_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    drafted = path.with_name(f".{run_id}")
    with drafted.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        # It appears with its lock: without one it would be the sign of a dead run.
        drafted.rename(path)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _accompany(instance: DagsterInstance, run: DagsterRun, ended: threading.Event) -> None:
    """Write the run's lines, and interrupt the run once when a Dagster server above its process is gone."""
    servers = _servers_above(())
    next_line = time.monotonic() + _LINE_SECONDS
    while not ended.wait(_LOOK_SECONDS):
        if servers and _servers_above(servers)[: len(servers)] != servers:
            servers = ()
            _write(instance, run, "The Dagster server that started this run is gone, so the run ends.")
            # As a cancelled run: the main thread raises it in the step, which cancels what is remote.
            os.kill(os.getpid(), signal.SIGTERM)
        if time.monotonic() >= next_line:
            _write(instance, run, _LINE)
            next_line = time.monotonic() + _LINE_SECONDS


def _servers_above(otherwise: tuple[int, ...]) -> tuple[int, ...]:
    """The Dagster servers above this process; ``otherwise`` where they cannot be read."""
    try:
        return servers_above()
    except OSError as error:
        _log.debug("The servers above this process cannot be read: %s", error)
        return otherwise


def _write(instance: DagsterInstance, run: DagsterRun, line: str) -> None:
    try:
        instance.report_engine_event(line, run)
    except Exception:
        # The storage may be away for a moment. The run itself finds out where that matters.
        _log.warning("The event log did not take a line of run %s.", run.run_id, exc_info=True)
