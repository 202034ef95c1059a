"""The sensor that tells CloudWatch how the lakehouse is."""

from __future__ import annotations

from dagster import DefaultSensorStatus, SensorDefinition, SensorEvaluationContext, SkipReason, sensor

from telemetry_assets.monitoring.measurements import measured, measured_remotely, send
from telemetry_assets.pipeline import open_pipeline, translate_errors
from telemetry_assets.settings import load_settings

_INTERVAL_SECONDS = 60


def metrics_sensor() -> SensorDefinition:
    """Measures, and puts the metrics to CloudWatch, each minute. It starts nothing."""

    @sensor(
        name="metrics",
        minimum_interval_seconds=_INTERVAL_SECONDS,
        default_status=DefaultSensorStatus.RUNNING,
        description="Puts metrics of uploads, tables and remote runs to CloudWatch; docs/operating.md has each.",
    )
    def metrics(_: SensorEvaluationContext) -> SkipReason:
        settings = load_settings()
        with translate_errors(settings), open_pipeline(settings) as pipeline:
            told = measured(pipeline)
        send(told, settings)
        # A service that does not answer keeps nothing else from being told.
        if remote := measured_remotely(settings):
            send(remote, settings)
            told += remote
        return SkipReason(", ".join(f"{one.name} {one.value:,.0f}" for one in told))

    return metrics
