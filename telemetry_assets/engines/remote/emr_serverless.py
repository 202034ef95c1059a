"""EMR Serverless: steps are job runs of an application."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from telemetry_assets.aws.clients import emr_serverless_client, s3_client
from telemetry_assets.aws.errors import GONE, error_code
from telemetry_assets.aws.locations import S3Location
from telemetry_assets.aws.requests import get_object
from telemetry_assets.engines.package.build import ARM64, X86_64, packages_location
from telemetry_assets.engines.remote.service import Phase, State, StepRun, Submission
from telemetry_assets.errors import PackageError, SettingsError
from telemetry_assets.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_emr_serverless.client import EMRServerlessClient
    from mypy_boto3_emr_serverless.literals import JobRunStateType
    from mypy_boto3_emr_serverless.type_defs import JobRunSummaryTypeDef

_PHASES: dict[str, Phase] = {
    "SUBMITTED": Phase.WAITING,
    "QUEUED": Phase.WAITING,
    "PENDING": Phase.WAITING,
    "SCHEDULED": Phase.WAITING,
    "RUNNING": Phase.RUNNING,
    "CANCELLING": Phase.STOPPING,
    "CANCELLED": Phase.CANCELLED,
    "SUCCESS": Phase.SUCCEEDED,
    "FAILED": Phase.FAILED,
}
_ACTIVE: list[JobRunStateType] = ["SUBMITTED", "QUEUED", "PENDING", "SCHEDULED", "RUNNING", "CANCELLING"]
_NAME = "telemetry-assets "
# The Iceberg runtime that EMR provides.
_ICEBERG = "/usr/share/aws/iceberg/lib/iceberg-spark3-runtime.jar"
_DEPENDENCIES = "dependencies"
# The first release with Spark 3.5.6 and Iceberg 1.10.
_OLDEST_RELEASE = [7, 13]
_LINES = 20


class EmrServerless:
    """An application of EMR Serverless. See :class:`telemetry_assets.engines.remote.service.RemoteService`."""

    name = "EMR Serverless"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._application = settings.emr_application_id

    def problems(self) -> Iterator[str]:
        """See :meth:`telemetry_assets.engines.remote.service.RemoteService.problems`."""
        try:
            with self._require_application():
                application = self._client.get_application(applicationId=self._application)["application"]
        except SettingsError as error:
            yield str(error)
            return
        release = application["releaseLabel"]
        if application["state"] == "TERMINATED" or application["type"].lower() != "spark":
            yield (
                f"The application {self._application} has type {application['type']} and is {application['state']}. "
                "Set TELEMETRY_EMR_APPLICATION_ID to a Spark application that is not terminated."
            )
        numbers = re.match(r"emr-([0-9]+)\.([0-9]+)\.", release)
        if numbers and [int(one) for one in numbers.groups()] < _OLDEST_RELEASE:
            yield f"The application {self._application} has release {release}; steps need emr-7.13.0 or later."

    def start(self, submission: Submission) -> str:
        """See :meth:`telemetry_assets.engines.remote.service.RemoteService.start`."""
        with self._require_application():
            started = self._client.start_job_run(
                applicationId=self._application,
                # If a request is repeated with the same token, EMR returns the job run of the first request.
                clientToken=submission.folder.name[-64:],
                executionRoleArn=self._settings.emr_job_role_arn,
                name=f"{_NAME}{submission.folder.name}",
                executionTimeoutMinutes=submission.timeout_minutes,
                jobDriver={
                    "sparkSubmit": {
                        "entryPoint": packages_location(self._settings).uri(submission.package.entry_point.name),
                        "entryPointArguments": ["--step", submission.folder.uri, "--region", submission.region],
                    }
                },
                configurationOverrides={
                    "applicationConfiguration": [
                        {"classification": "spark-defaults", "properties": self._configuration(submission)}
                    ],
                    # The default encryption of the bucket applies. With a key here, EMR would need grants on the key.
                    "monitoringConfiguration": {"s3MonitoringConfiguration": {"logUri": self._logs_uri}},
                },
                tags=self._tags(submission),
            )
        return started["jobRunId"]

    def state(self, run_id: str) -> State:
        """See :meth:`telemetry_assets.engines.remote.service.RemoteService.state`."""
        run = self._client.get_job_run(applicationId=self._application, jobRunId=run_id)["jobRun"]
        # An unknown state counts as waiting, which has a time limit.
        return State(_PHASES.get(run["state"], Phase.WAITING), run["state"], run.get("stateDetails") or "")

    def active_runs(self) -> list[StepRun]:
        """See :meth:`telemetry_assets.engines.remote.service.RemoteService.active_runs`."""
        return [self._step_run(run) for run in self._listed(states=_ACTIVE)]

    def failed_since(self, moment: datetime) -> list[StepRun]:
        """See :meth:`telemetry_assets.engines.remote.service.RemoteService.failed_since`."""
        # Job runs are filtered by their creation, which may be long before their failure.
        longest = timedelta(minutes=self._settings.remote_wait_minutes + self._settings.remote_timeout_minutes)
        failed = self._listed(states=["FAILED"], createdAtAfter=moment - longest)
        return [self._step_run(run) for run in failed if run["updatedAt"] >= moment]

    def _listed(self, **filters: Any) -> list[JobRunSummaryTypeDef]:
        """The summaries of job runs of steps, of any lakehouse, oldest first.

        :param filters: arguments of the request ``ListJobRuns``.
        """
        pages = self._client.get_paginator("list_job_runs").paginate(applicationId=self._application, **filters)
        with self._require_application():
            ours = [run for page in pages for run in page["jobRuns"] if run.get("name", "").startswith(_NAME)]
        # EMR lists the newest first.
        return ours[::-1]

    def _step_run(self, listed: JobRunSummaryTypeDef) -> StepRun:
        run = self._client.get_job_run(applicationId=self._application, jobRunId=listed["id"])["jobRun"]
        _, uri, *_ = run["jobDriver"]["sparkSubmit"]["entryPointArguments"]
        return StepRun(listed["id"], uri, listed["createdAt"])

    def cancel(self, run_id: str) -> None:
        """See :meth:`telemetry_assets.engines.remote.service.RemoteService.cancel`."""
        try:
            self._client.cancel_job_run(applicationId=self._application, jobRunId=run_id)
        except ClientError as error:
            # The job run has ended.
            if error_code(error) != "ValidationException":
                raise

    def link(self, run_id: str) -> str:
        """The URL of the job run's logs in the console.

        It is not the URL of the Spark UI, which grants access and must not be in logs or metadata.
        """
        logs = self._logs(run_id)
        where = s3_client().meta.region_name
        return f"https://{where}.console.aws.amazon.com/s3/buckets/{logs.bucket}?prefix={logs.prefix}"

    def last_lines(self, run_id: str) -> list[str]:
        """See :meth:`telemetry_assets.engines.remote.service.RemoteService.last_lines`."""
        logs = self._logs(run_id).below("SPARK_DRIVER")
        try:
            content, _ = get_object(s3_client(), logs.bucket, f"{logs.prefix}stderr.gz")
        except ClientError as error:
            if error_code(error) not in GONE:
                raise
            return []
        return gzip.decompress(content).decode(errors="replace").splitlines()[-_LINES:]

    def _logs(self, run_id: str) -> S3Location:
        return self._settings.scripts_in_s3().below("logs", "applications", self._application, "jobs", run_id)

    @contextmanager
    def _require_application(self) -> Iterator[None]:
        try:
            yield
        except ClientError as error:
            if error_code(error) != "ResourceNotFoundException":
                raise
            raise SettingsError(
                f"There is no application {self._application}: correct TELEMETRY_EMR_APPLICATION_ID or AWS_REGION."
            ) from error

    @property
    def _client(self) -> EMRServerlessClient:
        return emr_serverless_client()

    @cached_property
    def _architecture(self) -> str:
        application = self._client.get_application(applicationId=self._application)["application"]
        return ARM64 if application.get("architecture") == "ARM64" else X86_64

    def _configuration(self, submission: Submission) -> dict[str, str]:
        packages = packages_location(self._settings)
        archive = submission.package.archives.get(self._architecture)
        if archive is None:
            raise PackageError(
                f"The application {self._application} runs on {self._architecture}, and the package "
                f"{submission.package.name} has no dependencies for that architecture. Run `make package "
                f"ARCHITECTURES={self._architecture}`."
            )
        python, path = self._settings.emr_python, f"./{_DEPENDENCIES}"
        given, modules = submission.configuration, packages.uri(submission.package.modules.name)
        return {
            "spark.dynamicAllocation.enabled": "true",
            # The default is three, which may be more than the maximum.
            "spark.dynamicAllocation.initialExecutors": "1",
            "spark.executor.instances": "1",
            "spark.dynamicAllocation.maxExecutors": str(submission.size.executors),
            # The Hive catalog would access other databases, which the job role may not.
            "spark.sql.catalogImplementation": "in-memory",
            **given,
            "spark.jars": _comma_separated(_ICEBERG, given.get("spark.jars")),
            "spark.submit.pyFiles": _comma_separated(modules, given.get("spark.submit.pyFiles")),
            "spark.archives": _comma_separated(
                f"{packages.uri(archive.name)}#{_DEPENDENCIES}", given.get("spark.archives")
            ),
            "spark.emr-serverless.driverEnv.PYTHONPATH": path,
            "spark.emr-serverless.driverEnv.PYSPARK_DRIVER_PYTHON": python,
            "spark.emr-serverless.driverEnv.PYSPARK_PYTHON": python,
            "spark.executorEnv.PYTHONPATH": path,
            "spark.executorEnv.PYSPARK_PYTHON": python,
        }

    @property
    def _logs_uri(self) -> str:
        return self._settings.scripts_in_s3().below("logs").uri()

    def _tags(self, submission: Submission) -> dict[str, str]:
        step = submission.folder.step
        return {"telemetry:run-id": step.run_id, "telemetry:table": step.table} if step else {}


def _comma_separated(value: str, configured: str | None) -> str:
    return f"{value},{configured}" if configured else value
