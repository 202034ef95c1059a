"""EMR Serverless that runs the submitted programs; moto only reports that every run succeeded."""

from __future__ import annotations

import gzip
from datetime import datetime
from typing import Any
from urllib.parse import urlparse

from moto.core.responses import ActionResult
from moto.core.utils import utcnow
from moto.emrserverless.exceptions import ValidationException
from moto.emrserverless.models import JobRun
from moto.emrserverless.responses import EMRServerlessResponse

from telemetry_assets_tests.harness.aws.remote_orders import lose_answer_if_ordered, refuse_if_ordered
from telemetry_assets_tests.harness.aws.remote_programs import (
    Program,
    service,
    unpacked_archive,
)

_OVER = ("SUCCESS", "FAILED", "CANCELLED")
PROGRAMS: dict[str, Program] = {}
_STARTED_WITH: dict[str, JobRun] = {}


class CorrectedEmrServerlessResponse(EMRServerlessResponse):
    """EMR Serverless's responses."""

    def create_application(self) -> ActionResult:
        """Create an application that starts with a run and stops by itself; the type is case-insensitive."""
        self.params["type"] = self.params["type"].upper()
        created = super().create_application()
        assert isinstance(created.result, dict)
        application = self.emrserverless_backend.applications[created.result["applicationId"]]
        application.state = "CREATED"
        application.__dict__["architecture"] = self._get_param("architecture", "X86_64")
        return created

    def start_job_run(self) -> ActionResult:
        """Start the submitted program; a second request with the same token returns the first one's run."""
        refuse_if_ordered()
        token = self._get_param("clientToken")
        if token not in _STARTED_WITH:
            started = super().start_job_run().result
            assert isinstance(started, dict)
            run = self.emrserverless_backend.get_job_run(started["applicationId"], started["jobRunId"])
            # moto returns dates without times.
            run.created_at = run.updated_at = utcnow()
            _STARTED_WITH[token] = run
            PROGRAMS[run.id] = _program(run)
            PROGRAMS[run.id].start()
        run = _STARTED_WITH[token]
        lose_answer_if_ordered()
        return ActionResult({"applicationId": run.application_id, "jobRunId": run.id, "arn": run.arn})

    def get_job_run(self) -> ActionResult:
        """Return a run with its state and state details."""
        run_id = self._get_param("jobRunId")
        if run_id in PROGRAMS:
            run = self.emrserverless_backend.get_job_run(self._get_param("applicationId"), run_id)
            run.state_details = PROGRAMS[run_id].details
        return super().get_job_run()

    def list_job_runs(self) -> Any:
        """List runs, newest first; an application without runs is not an error."""
        backend = self.emrserverless_backend
        backend.job_runs.setdefault(backend.get_application(self._get_param("applicationId")).id, [])
        # A query parameter that occurs several times.
        states = self.querystring.get("states", [])
        created_after = next(iter(self.querystring.get("createdAtAfter", [])), None)
        earliest = datetime.fromisoformat(created_after).replace(tzinfo=None) if created_after else None
        runs = backend.list_job_runs(self._get_param("applicationId"), earliest, None, list(states))
        fields = ("id", "name", "arn", "state", "created_at", "updated_at")
        names = {"created_at": "createdAt", "updated_at": "updatedAt"}
        listed = [
            {
                "applicationId": run.application_id,
                "executionRole": run.execution_role_arn,
                "createdBy": "",
                "stateDetails": "",
                "releaseLabel": run.release_label,
                **{names.get(name, name): getattr(run, name) for name in fields},
            }
            for run in reversed(runs)
        ]
        return ActionResult({"jobRuns": listed})

    def cancel_job_run(self) -> ActionResult:
        """Cancel the program; a run that has ended cannot be cancelled."""
        run_id = self._get_param("jobRunId")
        run = self.emrserverless_backend.get_job_run(self._get_param("applicationId"), run_id)
        if run.state in _OVER:
            raise ValidationException(f"Job run {run_id} is {run.state}.")
        PROGRAMS[run_id].cancel()
        return ActionResult({"applicationId": run.application_id, "jobRunId": run_id})


def _program(run: JobRun) -> Program:
    submitted: Any = run.job_driver["sparkSubmit"]  # type: ignore[index]
    overrides: Any = run.configuration_overrides
    [defaults] = overrides["applicationConfiguration"]
    configuration = dict(defaults["properties"])
    # Dynamic allocation rejects this in the run, which then fails; EMR's own default is 3.
    first = int(configuration.get("spark.dynamicAllocation.initialExecutors", 3))
    assert first <= int(configuration["spark.dynamicAllocation.maxExecutors"])
    # The job's role has no access to the databases that Hive's catalog reads first.
    assert configuration["spark.sql.catalogImplementation"] == "in-memory"
    logs = urlparse(overrides["monitoringConfiguration"]["s3MonitoringConfiguration"]["logUri"])
    log_key = f"{logs.path.lstrip('/')}applications/{run.application_id}/jobs/{run.id}/SPARK_DRIVER/stderr.gz"

    def changed(state: str) -> None:
        run.state, run.updated_at = state, utcnow()

    return Program(
        script=submitted["entryPoint"],
        arguments=submitted["entryPointArguments"],
        modules=configuration["spark.submit.pyFiles"],
        configuration=configuration,
        dependencies=lambda: unpacked_archive(configuration["spark.archives"].split("#")[0]),
        image=lambda _: {},
        states=("SUBMITTED", "PENDING", "SCHEDULED", "RUNNING"),
        ends=("SUCCESS", "FAILED", "CANCELLING", "CANCELLED"),
        changed=changed,
        keep_log=lambda log: service("s3").put_object(Bucket=logs.netloc, Key=log_key, Body=gzip.compress(log)),
    )
