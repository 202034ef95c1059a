"""An AWS account whose EMR Serverless and Glue can run this project's package."""

from __future__ import annotations

import fcntl
import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from telemetry_assets.engines.package.build import Package, build_package, upload_package
from telemetry_assets.settings import Settings, project_root
from telemetry_assets_tests.harness.aws.api_requests import Request
from telemetry_assets_tests.harness.aws.permissions import LAKEHOUSE, LANDING, SCRIPTS
from telemetry_assets_tests.harness.aws.permissions import ROLE as KNOWN_ROLE
from telemetry_assets_tests.harness.aws.services import AwsServices
from telemetry_assets_tests.harness.deployment import BUCKET
from telemetry_assets_tests.harness.java import need_java

SERVICES = ("emr_serverless", "glue")
ROLE = "arn:aws:iam::123456789012:role/telemetry-job"
_SCRIPTS = "s3://scripts/telemetry"
_PLACE = re.compile(r"[0-9a-f]{32}/(landing|lakehouse)/(.*)", re.DOTALL)
_SMALL = {"default": {"spark": {"spark.sql.shuffle.partitions": "2"}}}


@dataclass
class RemoteAccount:
    """Buckets, an EMR Serverless application and a Glue job for remote steps."""

    aws: AwsServices
    package: Package
    application: str
    job: str = "telemetry"

    def settings(self, engine: str, **more: Any) -> dict[str, Any]:
        """The settings of a new, empty deployment."""
        for database in self.aws.client("glue").get_databases()["DatabaseList"]:
            self.aws.client("glue").delete_database(Name=database["Name"])
        place = uuid.uuid4().hex
        return {
            "landing_uri": f"s3://{BUCKET}/{place}/landing",
            "lakehouse_uri": f"s3://{BUCKET}/{place}/lakehouse",
            "catalog": "glue",
            "engine": engine,
            "scripts_uri": _SCRIPTS,
            "emr_application_id": self.application,
            "emr_job_role_arn": ROLE,
            "glue_job_name": self.job,
            "remote_poll_seconds": 0.2,
            "remote_sizes": _SMALL,
            **more,
        }

    def runs(self, settings: Settings) -> list[tuple[str, str]]:
        """The ids and states of all remote runs of a deployment, oldest first."""
        if settings.engine == "glue":
            answered = self.aws.client("glue").get_job_runs(JobName=self.job)["JobRuns"]
            listed = [(run["Id"], run["JobRunState"], run["Arguments"]["--step"]) for run in answered]
        else:
            emr = self.aws.client("emr-serverless")
            ids = [run["id"] for run in emr.list_job_runs(applicationId=self.application)["jobRuns"]]
            answered = [emr.get_job_run(applicationId=self.application, jobRunId=one)["jobRun"] for one in ids]
            listed = [
                (run["jobRunId"], run["state"], run["jobDriver"]["sparkSubmit"]["entryPointArguments"][1])
                for run in answered
            ]
        return [(run_id, state) for run_id, state, step in reversed(listed) if step.startswith(settings.lakehouse_uri)]

    def take_policy_requests(self) -> Iterator[tuple[str, Request]]:
        """The requests since the last call, in the policies' names, each with its access key.

        Requests for other applications and jobs, which tests also make, are left out, as no policy names them.
        """
        for key, request in self.aws.take_requests():
            place = _PLACE.fullmatch(request.key)
            if request.service == "s3" and request.bucket == BUCKET and place:
                bucket, prefix = (LANDING, "") if place[1] == "landing" else (LAKEHOUSE, "telemetry/")
                yield key, replace(request, bucket=bucket, key=f"{prefix}{place[2]}")
            elif request.service == "s3" and request.bucket == "scripts":
                yield key, replace(request, bucket=SCRIPTS)
            elif request.service == "emr-serverless" and request.bucket == self.application:
                yield key, replace(request, names=request.names.replace(ROLE, KNOWN_ROLE))
            elif request.service == "s3" and request.operation == "GetBucketVersioning":
                yield key, replace(request, bucket=LANDING)
            elif request.service not in ("emr-serverless", "s3") and (
                "Job" not in request.operation or request.key == self.job
            ):
                yield key, request

    def cancel(self, settings: Settings, run_id: str) -> None:
        """Cancel a run as a user does in the console."""
        if settings.engine == "glue":
            self.aws.client("glue").batch_stop_job_run(JobName=self.job, JobRunIds=[run_id])
        else:
            self.aws.client("emr-serverless").cancel_job_run(applicationId=self.application, jobRunId=run_id)


def open_account(aws: AwsServices) -> RemoteAccount:
    """Prepare an account in the AWS of the environment. Needs Java; downloads everything else."""
    folder = project_root() / "dist"
    folder.mkdir(exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        # Tests can run in two processes.
        fcntl.flock(lock, fcntl.LOCK_EX)
        need_java()
        package = build_package(folder)
    aws.reset()
    for bucket in (BUCKET, "scripts"):
        aws.make_bucket(bucket)
    upload_package(folder, package, Settings(scripts_uri=_SCRIPTS))
    application = aws.client("emr-serverless").create_application(
        name="telemetry", releaseLabel="emr-7.13.0", type="SPARK"
    )["applicationId"]
    account = RemoteAccount(aws, package, application)
    aws.client("glue").create_job(
        Name=account.job,
        Role=ROLE,
        Command={"Name": "glueetl", "ScriptLocation": f"{_SCRIPTS}/packages/entrypoint.py"},
        GlueVersion="5.1",
    )
    return account


def environment_of(settings: Settings) -> dict[str, str]:
    """Settings as environment variables, without the alert rules, whose variable names a file."""
    return {
        f"TELEMETRY_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in settings.model_dump(mode="json", exclude={"alert_rules"}, exclude_none=True).items()
    }
