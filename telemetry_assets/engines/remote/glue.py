"""Steps as runs of a Glue job."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from telemetry_assets.aws.clients import glue_client, logs_client, region
from telemetry_assets.aws.errors import error_code, is_unknown_outcome
from telemetry_assets.engines.package.build import packages_location
from telemetry_assets.engines.remote.service import Phase, State, StepRun, Submission
from telemetry_assets.errors import PackageError, SettingsError
from telemetry_assets.settings import Settings
from telemetry_assets.text.plain import plain_logger

if TYPE_CHECKING:
    from mypy_boto3_glue.type_defs import JobRunTypeDef

logger = plain_logger(__name__)

_PHASES: dict[str, Phase] = {
    "STARTING": Phase.WAITING,
    "WAITING": Phase.WAITING,
    "RUNNING": Phase.RUNNING,
    "STOPPING": Phase.STOPPING,
    "STOPPED": Phase.CANCELLED,
    "SUCCEEDED": Phase.SUCCEEDED,
    "FAILED": Phase.FAILED,
    "ERROR": Phase.FAILED,
    "TIMEOUT": Phase.FAILED,
    # Flexible execution that found no room for a day.
    "EXPIRED": Phase.FAILED,
}
_STEP = "--step"
_RUNS_LOOKED_AT = 200
_LINES = 20
# The first one with Spark 3.5.6 and Iceberg 1.10.
_OLDEST_VERSION = [5, 1]
_LOG_GROUP = "/aws-glue/jobs/error"


class Glue:
    """A Glue job."""

    name = "Glue"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._job = settings.glue_job_name
        self._asked: set[str] = set()

    def problems(self) -> Iterator[str]:
        """See :meth:`telemetry_assets.engines.remote.service.RemoteService.problems`."""
        yield from filter(None, map(_with_space, self._settings.spark_configurations()))
        try:
            with self._job_there():
                job = glue_client().get_job(JobName=self._job)["Job"]
        except SettingsError as error:
            yield str(error)
            return
        found = job.get("GlueVersion", "0")
        if [int(part) for part in found.split(".")] < _OLDEST_VERSION:
            yield f"The job {self._job} is of Glue {found}; steps need 5.1 or a newer one."
        if (command := job["Command"].get("Name")) != "glueetl":
            yield f"The job {self._job} is of the kind {command}; steps need a Spark job (glueetl)."
        if retries := job.get("MaxRetries", 0):
            yield f"The job {self._job} has MaxRetries {retries}: set it to 0, as the project tries again by itself."

    def start(self, submission: Submission) -> str:
        """See :meth:`telemetry_assets.engines.remote.service.RemoteService.start`.

        Glue takes no token that would tell two requests for one run: of an answer that was lost its runs are asked.
        """
        size = submission.size
        arguments = self._arguments(submission)
        if submission.folder.uri in self._asked and (found := self._started(submission)):
            return found
        self._asked.add(submission.folder.uri)
        try:
            with self._job_there():
                started = glue_client(retries=False).start_job_run(
                    JobName=self._job,
                    Arguments=arguments,
                    Timeout=submission.timeout_minutes,
                    WorkerType=size.glue_worker_type,  # type: ignore[arg-type]  # new ones come
                    NumberOfWorkers=size.executors + 1,
                )
        except (ClientError, BotoCoreError) as error:
            if not is_unknown_outcome(error):
                raise
            if found := self._started(submission):
                return found
            raise
        return started["JobRunId"]

    def _started(self, submission: Submission) -> str | None:
        """The run that an earlier request to start it has made."""
        return next((run["Id"] for run in self._runs() if _step_uri(run) == submission.folder.uri), None)

    def state(self, run_id: str) -> State:
        """See :meth:`telemetry_assets.engines.remote.service.RemoteService.state`."""
        run = glue_client().get_job_run(JobName=self._job, RunId=run_id)["JobRun"]
        state = str(run["JobRunState"])
        details = run.get("ErrorMessage") or run.get("StateDetail") or ""
        return State(_phase(run), state, details, is_final_failure=state == "TIMEOUT")

    def living(self) -> list[StepRun]:
        """See :meth:`telemetry_assets.engines.remote.service.RemoteService.living`."""
        return [_step_run(run) for run in self._step_runs() if not _phase(run).is_over]

    def failed_since(self, moment: datetime) -> list[StepRun]:
        """See :meth:`telemetry_assets.engines.remote.service.RemoteService.failed_since`."""
        failed = [run for run in self._step_runs() if _phase(run) is Phase.FAILED]
        return [_step_run(run) for run in failed if run.get("CompletedOn", run["StartedOn"]) >= moment]

    def _step_runs(self) -> list[JobRunTypeDef]:
        """The runs of steps among the newest, of any lakehouse, oldest first."""
        return [run for run in reversed(self._runs()) if _step_uri(run)]

    def cancel(self, run_id: str) -> None:
        """See :meth:`telemetry_assets.engines.remote.service.RemoteService.cancel`."""
        answer = glue_client().batch_stop_job_run(JobName=self._job, JobRunIds=[run_id])
        for refused in answer.get("Errors", []):
            # Mostly that it is over. Where it is not, the state says so, and the sensor asks again.
            logger.warning("Glue does not stop run %s: %s", run_id, refused.get("ErrorDetail"))

    def link(self, run_id: str) -> str:
        """The run's page in the console."""
        where = region() or glue_client().meta.region_name
        return f"https://{where}.console.aws.amazon.com/gluestudio/home?region={where}#/job/{self._job}/run/{run_id}"

    def last_lines(self, run_id: str) -> list[str]:
        """See :meth:`telemetry_assets.engines.remote.service.RemoteService.last_lines`."""
        try:
            events = logs_client().get_log_events(
                logGroupName=_LOG_GROUP, logStreamName=run_id, limit=_LINES, startFromHead=False
            )["events"]
        except ClientError as error:
            if error_code(error) != "ResourceNotFoundException":
                raise
            return []
        return [line for event in events for line in event["message"].splitlines()][-_LINES:]

    def _runs(self) -> list[JobRunTypeDef]:
        """The newest runs of the job, the newest first."""
        pages = (
            glue_client()
            .get_paginator("get_job_runs")
            .paginate(JobName=self._job, PaginationConfig={"MaxItems": _RUNS_LOOKED_AT})
        )
        with self._job_there():
            return [run for page in pages for run in page["JobRuns"]]

    @contextmanager
    def _job_there(self) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            if error_code(error) != "EntityNotFoundException":
                raise
            raise SettingsError(
                f"There is no Glue job {self._job}: correct TELEMETRY_GLUE_JOB_NAME, or the region."
            ) from error

    def _arguments(self, submission: Submission) -> dict[str, str]:
        packages, package = packages_location(self._settings), submission.package
        if package.wheels is None:
            raise PackageError(
                f"The package {package.name} has no wheels for Glue. Run `make package ARCHITECTURES=x86_64`."
            )
        return {
            "--scriptLocation": packages.uri(package.entry_point.name),
            "--extra-py-files": packages.uri(package.modules.name),
            "--additional-python-modules": packages.uri(package.wheels.name),
            "--python-modules-installer-option": "--no-index",
            "--datalake-formats": "iceberg",
            "--enable-auto-scaling": "true",
            "--conf": _in_one_argument(submission.configuration),
            _STEP: submission.folder.uri,
            "--region": submission.region,
        }


def _in_one_argument(configuration: dict[str, str]) -> str:
    """Spark's configuration as Glue takes it: ``a=b --conf c=d``."""
    if spaced := _with_space(configuration):
        raise SettingsError(spaced)
    return " --conf ".join(f"{name}={value}" for name, value in configuration.items())


def _with_space(configuration: dict[str, str]) -> str:
    """What is said of settings that Glue cannot be given; nothing where there are none."""
    spaced = sorted(name for name, value in configuration.items() if any(map(str.isspace, name + value)))
    return f"Glue takes no space in Spark's configuration, and {', '.join(spaced)} has one." if spaced else ""


def _phase(run: JobRunTypeDef) -> Phase:
    # A state that is not known yet is waited for: every wait has its limit.
    return _PHASES.get(str(run["JobRunState"]), Phase.WAITING)


def _step_run(run: JobRunTypeDef) -> StepRun:
    return StepRun(run["Id"], _step_uri(run), run["StartedOn"])


def _step_uri(run: JobRunTypeDef) -> str:
    return run.get("Arguments", {}).get(_STEP, "")
