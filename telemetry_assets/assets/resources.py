"""What assets and ops are given: the pipeline, open for as long as their run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dagster import ConfigurableResource, InitResourceContext
from pydantic import PrivateAttr

from telemetry_assets.pipeline import Pipeline, open_pipeline
from telemetry_assets.settings import load_settings


class TelemetryResource(ConfigurableResource[Any]):
    """Opens the pipeline that the settings name."""

    _pipeline: Pipeline = PrivateAttr()

    @property
    def pipeline(self) -> Pipeline:
        """The run's pipeline."""
        return self._pipeline

    @contextmanager
    def yield_for_execution(self, context: InitResourceContext) -> Iterator[TelemetryResource]:
        """Open the pipeline around a run."""
        with open_pipeline(load_settings()) as pipeline:
            self._pipeline = pipeline
            yield self
