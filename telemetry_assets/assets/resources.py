"""What assets and ops are given: the pipeline, open for as long as their run."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dagster import ConfigurableResource, DagsterInstance, InitResourceContext
from pydantic import PrivateAttr

from telemetry_assets.pipeline import Pipeline, open_pipeline
from telemetry_assets.settings import load_settings


class TelemetryResource(ConfigurableResource[Any]):
    """Opens the pipeline that the settings name, and shows for as long as it is open that its run is alive."""

    _pipeline: Pipeline = PrivateAttr()

    @property
    def pipeline(self) -> Pipeline:
        """The run's pipeline."""
        return self._pipeline

    @contextmanager
    def yield_for_execution(self, context: InitResourceContext) -> Iterator[TelemetryResource]:
        """Open the pipeline around a run."""
        run_id = context.run.run_id if context.run else "no-run"
        with _alive(context.instance or DagsterInstance.get(), run_id), open_pipeline(load_settings()) as pipeline:
            self._pipeline = pipeline
            yield self


def _life_sign(instance: DagsterInstance, run_id: str) -> Path:
    # Where this instance keeps its own files: other instances' runs are none of its business.
    return Path(instance.storage_directory()) / "telemetry_assets_running" / run_id


@contextmanager
def _alive(instance: DagsterInstance, run_id: str) -> Iterator[None]:
    path = _life_sign(instance, run_id)
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


def is_dead(instance: DagsterInstance, run_id: str) -> bool:
    """Whether the process of a run ended without the run's end: it left its life sign, and no lock on it.

    The kernel releases the lock with the process, however that ends. A run that has shown no life sign yet
    counts as alive.
    """
    try:
        with _life_sign(instance, run_id).open("r") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (FileNotFoundError, BlockingIOError):
        return False
    return True


def is_alive(instance: DagsterInstance, run_id: str) -> bool:
    """Whether the process of a run holds its life sign."""
    return _life_sign(instance, run_id).exists() and not is_dead(instance, run_id)


def forget(instance: DagsterInstance, run_id: str) -> None:
    """Remove the life sign of a dead run."""
    _life_sign(instance, run_id).unlink(missing_ok=True)
