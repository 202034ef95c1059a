"""The sensor that leaves no remote run without a Dagster run that follows it."""

from __future__ import annotations

import time

from dagster import (
    DagsterInstance,
    DagsterRunStatus,
    DefaultSensorStatus,
    SensorDefinition,
    SensorEvaluationContext,
    SkipReason,
    sensor,
)

from telemetry_assets.automation.sensors import active_run
from telemetry_assets.pipeline import translate_errors
from telemetry_assets.settings import load_settings

_INTERVAL_SECONDS = 10
# A run that died is followed by another one, which goes on with what it has left; after failures the upload sensor
# waits for up to five minutes before it starts that.
_GRACE_SECONDS = 330


def remote_runs_sensor() -> SensorDefinition:
    """Cancels remote runs whose Dagster run is over. It starts nothing."""

    @sensor(
        name="remote_runs",
        minimum_interval_seconds=_INTERVAL_SECONDS,
        default_status=DefaultSensorStatus.RUNNING,
        description="Cancels runs in EMR Serverless or Glue that no Dagster run follows any more, and nobody else.",
    )
    def remote_runs(context: SensorEvaluationContext) -> SkipReason:
        from telemetry_assets.engines.remote.engine import open_service
        from telemetry_assets.engines.remote.job_runs import of_lakehouse

        settings = load_settings()
        with translate_errors(settings):
            service = open_service(settings)
            living = of_lakehouse(service.active_runs(), settings)
            orphans = [run.run_id for run, folder in living if _is_orphan(context.instance, folder.followers())]
            for remote_id in orphans:
                context.log.warning(f"Run {remote_id} of {service.name} is to end: its Dagster run is over.")
                service.cancel(remote_id)
        cancelled = f" To end, as their Dagster runs are over: {', '.join(orphans)}." if orphans else ""
        return SkipReason(f"Runs of {service.name} that are at work: {len(living)}.{cancelled}")

    return remote_runs


def _is_orphan(instance: DagsterInstance, followers: list[str]) -> bool:
    """Whether nobody follows a remote run, or will.

    What somebody follows of whom this Dagster knows nothing, such as the command line, is not judged.
    """
    records = [record for run_id in followers if (record := instance.get_run_record_by_id(run_id)) is not None]
    if not records or len(records) < len(followers) or any(not record.dagster_run.is_finished for record in records):
        return False
    newest = records[-1]
    if newest.dagster_run.status != DagsterRunStatus.FAILURE:
        return True
    # Another run of this Dagster may come to the same table later.
    if active_run(instance, "ingest") is not None:
        return False
    ended = newest.end_time or newest.update_timestamp.timestamp()
    return time.time() - ended > _GRACE_SECONDS
