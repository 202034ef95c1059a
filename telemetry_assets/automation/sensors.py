"""The upload sensor: run when an upload waits, a batch is unfinished, or a table is behind its upstream."""

import time
from collections.abc import Sequence

from dagster import (
    DagsterInstance,
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

_ACTIVE = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]
_FIRST_WAIT_SECONDS = 5
_LONGEST_WAIT_SECONDS = 300
_RUNS_LOOKED_AT = 10
_OBSTACLES_TOLD = 5


def upload_sensor(ingest: UnresolvedAssetJobDefinition, settings: Settings) -> SensorDefinition:
    """The sensor that starts ``ingest``. It keeps no cursor: what there is to do is read where it is."""

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
        reason_to_wait = active_run(context.instance, ingest.name) or _after_ends(context.instance, ingest.name)
        if reason_to_wait:
            return SkipReason(reason_to_wait)
        try:
            with open_pipeline(current) as pipeline:
                work = what_is_to_do(pipeline)
                obstacles = list(pipeline.ingestion.landing.obstacles()) if work is None else []
        except CatalogBusyError as error:
            # Nothing is wrong: the next look comes in some seconds.
            return SkipReason(str(error))
        if work is None:
            told = "".join(
                f" {plain_text(place)} is not taken: {problem}." for place, problem in obstacles[:_OBSTACLES_TOLD]
            )
            return SkipReason(f"Nothing waits in {current.landing_uri}, and every table is up to date.{told}")
        context.log.info(work)
        return RunRequest(tags={"telemetry/reason": work})

    return uploads


def what_is_to_do(pipeline: Pipeline) -> str | None:
    """Why a run is needed, in words; None where it is not."""
    if pipeline.ingestion.has_work():
        return "an upload waits, or a batch is unfinished"
    behind = pipeline.tables_behind()
    if not behind:
        return None
    # It is a tag of the run too, which is no place for five names.
    others = f" and {len(behind) - 1} more" if len(behind) > 1 else ""
    return f"behind upstream: {behind[0].full_name}{others}"


def active_run(instance: DagsterInstance, job_name: str) -> str | None:
    """What is said of a job's run that is at work or will be; None where there is none."""
    runs = instance.get_runs(RunsFilter(job_name=job_name, statuses=_ACTIVE), limit=1)
    return f"Run {runs[0].run_id} is at work; the next run takes all that gathers meanwhile." if runs else None


def _after_ends(instance: DagsterInstance, job_name: str) -> str | None:
    """Why there is a moment to wait after how the last runs ended; None where there is none."""
    records = instance.get_run_records(RunsFilter(job_name=job_name), limit=_RUNS_LOOKED_AT)
    if records and records[0].dagster_run.status == DagsterRunStatus.CANCELED:
        left = _left(records[0], _LONGEST_WAIT_SECONDS)
        if left is None:
            return None
        # Somebody meant it: there is time to turn this sensor off, or to launch the job.
        return (
            f"Run {records[0].dagster_run.run_id} was cancelled. What it left is taken up in {left:.0f} s; turn this "
            "sensor off where it is not to be."
        )
    failures = _leading_failures(records)
    if not failures:
        return None
    left = _left(failures[0], min(_FIRST_WAIT_SECONDS * 2 ** (len(failures) - 1), _LONGEST_WAIT_SECONDS))
    if left is None:
        return None
    return (
        f"{counted(len(failures), 'run')} failed, the newest being {failures[0].dagster_run.run_id}. "
        f"Trying again in {left:.0f} s; waits grow to {_LONGEST_WAIT_SECONDS} s."
    )


def _left(record: RunRecord, wait: float) -> float | None:
    """The seconds that are left of a wait since a run's end; None where it is over."""
    left = (record.end_time or record.update_timestamp.timestamp()) + wait - time.time()
    return left if left > 0 else None


def _leading_failures(records: Sequence[RunRecord]) -> list[RunRecord]:
    failures: list[RunRecord] = []
    for record in records:
        if record.dagster_run.status != DagsterRunStatus.FAILURE:
            break
        failures.append(record)
    return failures
