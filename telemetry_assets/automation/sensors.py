"""The sensor `uploads`. It starts `ingest` if an upload waits, a batch is unfinished, or a table is behind."""

import time
from collections.abc import Sequence

from dagster import (
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    DefaultSensorStatus,
    RunRecord,
    RunRequest,
    RunsFilter,
    SensorDefinition,
    SensorEvaluationContext,
    SkipReason,
    sensor,
)
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from telemetry_assets.automation.dead_runs import end_dead_runs
from telemetry_assets.errors import CatalogBusyError
from telemetry_assets.pipeline import Pipeline, open_pipeline
from telemetry_assets.settings import Settings, load_settings
from telemetry_assets.text.formatting import counted
from telemetry_assets.text.plain import plain_text

_ACTIVE_STATUSES = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]
_MIN_WAIT_SECONDS = 5
_MAX_WAIT_SECONDS = 300
_MAX_RUNS_READ = 10
_MAX_OBSTACLES_SHOWN = 5


def upload_sensor(ingest: UnresolvedAssetJobDefinition, settings: Settings) -> SensorDefinition:
    """The sensor that starts ``ingest``.

    It has no cursor. It reads the remaining work from the landing location and the tables.
    """

    @sensor(
        name="uploads",
        job=ingest,
        minimum_interval_seconds=settings.sensor_interval_seconds,
        default_status=DefaultSensorStatus.RUNNING,
        description="Starts `ingest` when an upload waits, a batch is unfinished, or a table is behind its upstream.",
    )
    def uploads(context: SensorEvaluationContext) -> RunRequest | SkipReason:
        current = load_settings()
        end_dead_runs(context.instance)
        reason_to_wait = _reason_to_wait(context.instance, ingest.name)
        if reason_to_wait is not None:
            return SkipReason(reason_to_wait)
        try:
            with open_pipeline(current) as pipeline:
                reason = reason_to_run(pipeline)
                obstacles = list(pipeline.ingestion.landing.obstacles()) if reason is None else []
        except CatalogBusyError as error:
            # The next evaluation tries again in a few seconds.
            return SkipReason(str(error))
        if reason is None:
            shown = "".join(_obstacle_text(*one) for one in obstacles[:_MAX_OBSTACLES_SHOWN])
            return SkipReason(f"No upload waits in {current.landing_uri}, and all tables are up to date.{shown}")
        context.log.info(reason)
        return RunRequest(tags={"telemetry/reason": reason})

    return uploads


def _obstacle_text(place: str, problem: str) -> str:
    return f" {plain_text(place)} is not ingested: {problem}."


def reason_to_run(pipeline: Pipeline) -> str | None:
    """The reason to start a run, or None if nothing is left to do."""
    if pipeline.ingestion.has_work():
        return "an upload waits, or a batch is unfinished"
    behind = pipeline.tables_behind()
    if not behind:
        return None
    # The reason is also a tag of the run, so it names only one table.
    others = f" and {len(behind) - 1} more" if len(behind) > 1 else ""
    return f"behind upstream: {behind[0].full_name}{others}"


def active_run(instance: DagsterInstance, job_name: str) -> DagsterRun | None:
    """The newest run of a job that is queued or executing, or None."""
    return next(iter(instance.get_runs(RunsFilter(job_name=job_name, statuses=_ACTIVE_STATUSES), limit=1)), None)


def _reason_to_wait(instance: DagsterInstance, job_name: str) -> str | None:
    """The reason to wait: an active run, or a pause after failed or cancelled runs. None if there is no reason."""
    active = active_run(instance, job_name)
    if active is not None:
        return f"Run {active.run_id} is active. The next run ingests everything that arrives in the meantime."
    return _reason_to_pause(instance, job_name)


def _reason_to_pause(instance: DagsterInstance, job_name: str) -> str | None:
    records = instance.get_run_records(RunsFilter(job_name=job_name), limit=_MAX_RUNS_READ)
    if records and records[0].dagster_run.status == DagsterRunStatus.CANCELED:
        left = _seconds_left(records[0], _MAX_WAIT_SECONDS)
        if left is None:
            return None
        # The wait leaves time to stop this sensor after cancelling a run.
        return (
            f"Run {records[0].dagster_run.run_id} was cancelled. A new run continues its work in {left:.0f} s. To "
            "prevent this, stop this sensor."
        )
    failures = _leading_failures(records)
    if not failures:
        return None
    left = _seconds_left(failures[0], min(_MIN_WAIT_SECONDS * 2 ** (len(failures) - 1), _MAX_WAIT_SECONDS))
    if left is None:
        return None
    return (
        f"{counted(len(failures), 'run')} failed. The newest is {failures[0].dagster_run.run_id}. Trying again in "
        f"{left:.0f} s. The wait grows with each failure, up to {_MAX_WAIT_SECONDS} s."
    )


def _seconds_left(record: RunRecord, wait: float) -> float | None:
    """The remaining seconds of a wait that began when a run ended, or None if the wait is over."""
    left = (record.end_time or record.update_timestamp.timestamp()) + wait - time.time()
    return left if left > 0 else None


def _leading_failures(records: Sequence[RunRecord]) -> list[RunRecord]:
    failures: list[RunRecord] = []
    for record in records:
        if record.dagster_run.status != DagsterRunStatus.FAILURE:
            break
        failures.append(record)
    return failures
