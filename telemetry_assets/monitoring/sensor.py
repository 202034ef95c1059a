"""The sensor that sends metrics to CloudWatch."""

from __future__ import annotations

from dagster import DefaultSensorStatus, SensorDefinition, SensorEvaluationContext, SkipReason, sensor

from telemetry_assets.monitoring.measurements import lakehouse_metrics, remote_run_metrics, send_metrics
from telemetry_assets.pipeline import open_pipeline, translate_errors
from telemetry_assets.settings import load_settings

_INTERVAL_SECONDS = 60


def metrics_sensor() -> SensorDefinition:
    """A sensor that measures the deployment and sends the metrics to CloudWatch every minute. It starts no runs."""

    @sensor(
        name="metrics",
        minimum_interval_seconds=_INTERVAL_SECONDS,
        default_status=DefaultSensorStatus.RUNNING,
        description="Sends metrics of uploads, tables and remote runs to CloudWatch; docs/operating.md describes them.",
    )
    def metrics(_: SensorEvaluationContext) -> SkipReason:
        settings = load_settings()
        with translate_errors(settings), open_pipeline(settings) as pipeline:
            measured = lakehouse_metrics(pipeline)
        # Send these metrics first, because the request to the service may fail.
        send_metrics(measured, settings)
        if remote := remote_run_metrics(settings):
            send_metrics(remote, settings)
            measured += remote
        return SkipReason(", ".join(f"{one.name} {one.value:,.0f}" for one in measured))

    return metrics
