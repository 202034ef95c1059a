"""The Dagster resource of assets, checks and ops: the pipeline of a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dagster import ConfigurableResource, InitResourceContext
from pydantic import PrivateAttr

from telemetry_assets.pipeline import Pipeline, open_pipeline
from telemetry_assets.settings import load_settings


class TelemetryResource(ConfigurableResource[Any]):
    """Opens the pipeline of the settings for the duration of a run."""

    _pipeline: Pipeline = PrivateAttr()

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline of the run."""
        return self._pipeline

    @contextmanager
    def yield_for_execution(self, context: InitResourceContext) -> Iterator[TelemetryResource]:
        """Open the pipeline before a run, and close it afterwards."""
        with open_pipeline(load_settings()) as pipeline:
            self._pipeline = pipeline
            yield self
