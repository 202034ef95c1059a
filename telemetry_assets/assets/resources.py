"""What assets and ops are given: the pipeline, open for as long as their run."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dagster import ConfigurableResource, InitResourceContext
from pydantic import PrivateAttr

from telemetry_assets.pipeline import Pipeline, open_pipeline
from telemetry_assets.settings import Settings, load_settings


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
        settings = load_settings()
        with _alive(settings, context.run.run_id if context.run else "no-run"), open_pipeline(settings) as pipeline:
            self._pipeline = pipeline
            yield self


def _life_sign(settings: Settings, run_id: str) -> Path:
    return settings.lakehouse_folder() / "ingestion" / "running" / run_id


@contextmanager
def _alive(settings: Settings, run_id: str) -> Iterator[None]:
    path = _life_sign(settings, run_id)
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


def is_dead(settings: Settings, run_id: str) -> bool:
    """Whether the process of a run ended without the run's end: it left its life sign, and no lock on it.

    The kernel releases the lock with the process, however that ends. A run that has shown no life sign yet
    counts as alive.
    """
    try:
        with _life_sign(settings, run_id).open("r") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (FileNotFoundError, BlockingIOError):
        return False
    return True


def is_alive(settings: Settings, run_id: str) -> bool:
    """Whether the process of a run holds its life sign."""
    return _life_sign(settings, run_id).exists() and not is_dead(settings, run_id)


def forget(settings: Settings, run_id: str) -> None:
    """Remove the life sign of a dead run."""
    _life_sign(settings, run_id).unlink(missing_ok=True)
