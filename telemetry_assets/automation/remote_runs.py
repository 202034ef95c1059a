"""The sensor `remote_runs`. It cancels runs in EMR Serverless or Glue whose Dagster runs have ended."""

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
# After a run fails, the upload sensor starts another one within five minutes, which may follow the same remote run.
_GRACE_SECONDS = 330


def remote_runs_sensor() -> SensorDefinition:
    """The sensor that cancels remote runs whose Dagster runs have ended. It starts no runs."""

    @sensor(
        name="remote_runs",
        minimum_interval_seconds=_INTERVAL_SECONDS,
        default_status=DefaultSensorStatus.RUNNING,
        description="Cancels runs in EMR Serverless or Glue whose Dagster runs have ended. Starts no runs.",
    )
    def remote_runs(context: SensorEvaluationContext) -> SkipReason:
        from telemetry_assets.engines.remote.engine import open_service
        from telemetry_assets.engines.remote.job_runs import of_lakehouse

        settings = load_settings()
        with translate_errors(settings):
            service = open_service(settings)
            active = of_lakehouse(service.active_runs(), settings)
            orphans = [run.run_id for run, folder in active if _is_orphan(context.instance, folder.followers())]
            for remote_id in orphans:
                context.log.warning(f"Cancelling run {remote_id} in {service.name}, because its Dagster run has ended.")
                service.cancel(remote_id)
        cancelled = f" Cancelled, because their Dagster runs have ended: {', '.join(orphans)}." if orphans else ""
        return SkipReason(f"Active runs in {service.name}: {len(active)}.{cancelled}")

    return remote_runs


def _is_orphan(instance: DagsterInstance, followers: list[str]) -> bool:
    """Whether no run follows a remote run any more, and no run will.

    It is False if a follower is unknown to this instance, such as the command line.
    """
    records = [record for run_id in followers if (record := instance.get_run_record_by_id(run_id)) is not None]
    if not records or len(records) < len(followers) or any(not record.dagster_run.is_finished for record in records):
        return False
    newest = records[-1]
    if newest.dagster_run.status != DagsterRunStatus.FAILURE:
        return True
    # The active run may follow the remote run when it refreshes the same table.
    if active_run(instance, "ingest") is not None:
        return False
    ended = newest.end_time or newest.update_timestamp.timestamp()
    return time.time() - ended > _GRACE_SECONDS
