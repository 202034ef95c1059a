"""Glue: steps are runs of a job."""

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
    # The state of a run with flexible execution that got no capacity for a day.
    "EXPIRED": Phase.FAILED,
}
_STEP = "--step"
_MOST_RUNS_LISTED = 200
_LINES = 20
# The first version with Spark 3.5.6 and Iceberg 1.10.
_OLDEST_VERSION = [5, 1]
_LOG_GROUP = "/aws-glue/jobs/error"


class Glue:
    """A Glue job. See :class:`telemetry_assets.engines.remote.service.RemoteService`."""

    name = "Glue"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._job = settings.glue_job_name
        self._requested: set[str] = set()

    def problems(self) -> Iterator[str]:
        """See :meth:`telemetry_assets.engines.remote.service.RemoteService.problems`."""
        yield from filter(None, map(_space_problem, self._settings.spark_configurations()))
        try:
            with self._require_job():
                job = glue_client().get_job(JobName=self._job)["Job"]
        except SettingsError as error:
            yield str(error)
            return
        found = job.get("GlueVersion", "0")
        if [int(part) for part in found.split(".")] < _OLDEST_VERSION:
            yield f"The job {self._job} has Glue version {found}; steps need 5.1 or later."
        if (command := job["Command"].get("Name")) != "glueetl":
            yield f"The job {self._job} has type {command}; steps need a Spark job (glueetl)."
        if retries := job.get("MaxRetries", 0):
            yield f"The job {self._job} has MaxRetries {retries}. Set it to 0: the project retries steps itself."

    def start(self, submission: Submission) -> str:
        """See :meth:`telemetry_assets.engines.remote.service.RemoteService.start`.

        Glue has no client token for repeated requests. So if a response is lost, the job's runs are searched.
        """
        size = submission.size
        arguments = self._arguments(submission)
        if submission.folder.uri in self._requested and (found := self._started(submission)):
            return found
        self._requested.add(submission.folder.uri)
        try:
            with self._require_job():
                started = glue_client(retries=False).start_job_run(
                    JobName=self._job,
                    Arguments=arguments,
                    Timeout=submission.timeout_minutes,
                    WorkerType=size.glue_worker_type,  # type: ignore[arg-type]  # AWS adds new types
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
        """The job run that an earlier request has started."""
        return next((run["Id"] for run in self._runs() if _step_uri(run) == submission.folder.uri), None)

    def state(self, run_id: str) -> State:
        """See :meth:`telemetry_assets.engines.remote.service.RemoteService.state`."""
        run = glue_client().get_job_run(JobName=self._job, RunId=run_id)["JobRun"]
        state = str(run["JobRunState"])
        details = run.get("ErrorMessage") or run.get("StateDetail") or ""
        return State(_phase(run), state, details, is_final_failure=state == "TIMEOUT")

    def active_runs(self) -> list[StepRun]:
        """See :meth:`telemetry_assets.engines.remote.service.RemoteService.active_runs`."""
        return [_step_run(run) for run in self._step_runs() if not _phase(run).is_over]

    def failed_since(self, moment: datetime) -> list[StepRun]:
        """See :meth:`telemetry_assets.engines.remote.service.RemoteService.failed_since`."""
        failed = [run for run in self._step_runs() if _phase(run) is Phase.FAILED]
        return [_step_run(run) for run in failed if run.get("CompletedOn", run["StartedOn"]) >= moment]

    def _step_runs(self) -> list[JobRunTypeDef]:
        """The job runs of steps among the newest ones, of any lakehouse, oldest first."""
        return [run for run in reversed(self._runs()) if _step_uri(run)]

    def cancel(self, run_id: str) -> None:
        """See :meth:`telemetry_assets.engines.remote.service.RemoteService.cancel`."""
        answer = glue_client().batch_stop_job_run(JobName=self._job, JobRunIds=[run_id])
        for refused in answer.get("Errors", []):
            # Usually because it has ended. Otherwise the sensor requests it again.
            logger.warning("Glue did not stop run %s: %s", run_id, refused.get("ErrorDetail"))

    def link(self, run_id: str) -> str:
        """The URL of the job run's page in the console."""
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
        """The newest runs of the job, newest first."""
        pages = (
            glue_client()
            .get_paginator("get_job_runs")
            .paginate(JobName=self._job, PaginationConfig={"MaxItems": _MOST_RUNS_LISTED})
        )
        with self._require_job():
            return [run for page in pages for run in page["JobRuns"]]

    @contextmanager
    def _require_job(self) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            if error_code(error) != "EntityNotFoundException":
                raise
            raise SettingsError(
                f"There is no Glue job {self._job}: correct TELEMETRY_GLUE_JOB_NAME or AWS_REGION."
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
            "--conf": _as_one_argument(submission.configuration),
            _STEP: submission.folder.uri,
            "--region": submission.region,
        }


def _as_one_argument(configuration: dict[str, str]) -> str:
    """Spark's configuration in one argument: ``a=b --conf c=d``.

    :raises SettingsError: if a name or a value has a space.
    """
    if spaced := _space_problem(configuration):
        raise SettingsError(spaced)
    return " --conf ".join(f"{name}={value}" for name, value in configuration.items())


def _space_problem(configuration: dict[str, str]) -> str:
    """The problem of configuration with spaces, which Glue cannot pass on; empty if there is none."""
    spaced = sorted(name for name, value in configuration.items() if any(map(str.isspace, name + value)))
    return f"Glue does not support spaces in Spark's configuration, and {', '.join(spaced)} has one." if spaced else ""


def _phase(run: JobRunTypeDef) -> Phase:
    # An unknown state counts as waiting, which has a time limit.
    return _PHASES.get(str(run["JobRunState"]), Phase.WAITING)


def _step_run(run: JobRunTypeDef) -> StepRun:
    return StepRun(run["Id"], _step_uri(run), run["StartedOn"])


def _step_uri(run: JobRunTypeDef) -> str:
    return run.get("Arguments", {}).get(_STEP, "")
