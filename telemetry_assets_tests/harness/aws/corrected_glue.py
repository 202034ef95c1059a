"""Corrections of moto's Glue Data Catalog, and Glue jobs that run the submitted programs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from moto.core.exceptions import JsonRESTError
from moto.core.responses import ActionResult
from moto.core.utils import utcnow
from moto.glue.models import FakeJobRun
from moto.glue.responses import GlueResponse

from telemetry_assets_tests.harness.aws.remote_orders import lose_answer_if_ordered, refuse_if_ordered
from telemetry_assets_tests.harness.aws.remote_programs import (
    Program,
    installed_wheels,
    service,
)

_LOG_GROUP = "/aws-glue/jobs/error"
_LIVING = ("STARTING", "WAITING", "RUNNING", "STOPPING")
PROGRAMS: dict[str, Program] = {}


@dataclass
class VersionLock:
    """Whether ``UpdateTable`` honours ``VersionId``; if off, it behaves like unpatched moto."""

    is_on: bool = True


VERSION_LOCK = VersionLock()


class CorrectedGlueResponse(GlueResponse):
    """Glue's responses."""

    def create_table(self) -> ActionResult:
        """Create a table whose versions count from 0, as in Glue; moto counts from 1."""
        answer = super().create_table()
        parameters = self.parameters
        table = self.glue_backend.get_table(parameters["DatabaseName"], parameters["TableInput"]["Name"])
        table.versions = {"0": table.versions["1"]}
        table._current_version = 0
        return answer

    def update_table(self) -> ActionResult:
        """Refuse an update that is not based on the current version, as Glue does; moto accepts every update."""
        expected = self.parameters.get("VersionId")
        if expected is not None and VERSION_LOCK.is_on:
            name = self.parameters["TableInput"]["Name"]
            table = self.glue_backend.get_table(self.parameters["DatabaseName"], name)
            if expected != str(table._current_version):
                raise JsonRESTError(
                    "ConcurrentModificationException", f"Update table failed due to concurrent modifications: {name}"
                )
        return super().update_table()

    def start_job_run(self) -> ActionResult:
        """Start the submitted program."""
        refuse_if_ordered()
        started = super().start_job_run()
        name, run_id = self.parameters["JobName"], _result(started)["JobRunId"]
        run = self.glue_backend.get_job(name).get_job_run(run_id)
        # moto advances a run's state each time that it is read.
        setattr(run, "advance", lambda: None)  # noqa: B010 - of this instance only
        PROGRAMS[run_id] = _program(run)
        PROGRAMS[run_id].start()
        lose_answer_if_ordered()
        return started

    def get_job_run(self) -> ActionResult:
        """Return a run with its state and error message."""
        run = self.glue_backend.get_job_run(self.parameters["JobName"], self.parameters["RunId"])
        return ActionResult({"JobRun": _job_run(run)})

    def get_job_runs(self) -> ActionResult:
        """List runs, newest first."""
        runs = self.glue_backend.get_job(self.parameters["JobName"]).get_job_runs()
        return ActionResult({"JobRuns": [_job_run(run) for run in reversed(runs)]})

    def batch_stop_job_run(self) -> ActionResult:
        """Cancel programs."""
        for run_id in self.parameters["JobRunIds"]:
            PROGRAMS[run_id].cancel()
        stopped = [{"JobName": self.parameters["JobName"], "JobRunId": one} for one in self.parameters["JobRunIds"]]
        return ActionResult({"SuccessfulSubmissions": stopped, "Errors": []})


def _result(answer: ActionResult) -> dict[str, Any]:
    result = answer.result
    assert isinstance(result, dict)
    return result


def _job_run(run: FakeJobRun) -> dict[str, Any]:
    program = PROGRAMS[run.job_run_id]
    return {**run.as_dict(), "JobRunState": program.state, "ErrorMessage": program.details}


def _program(run: FakeJobRun) -> Program:
    arguments = dict(run.arguments or {})
    configuration = dict(one.split("=", 1) for one in arguments["--conf"].split(" --conf "))
    configuration["spark.jars"] = f"glue: --datalake-formats {arguments['--datalake-formats']}"

    def changed(state: str) -> None:
        run.status = state
        if state not in _LIVING:
            run.completed_on = utcnow()

    return Program(
        script=arguments["--scriptLocation"],
        arguments=[word for pair in arguments.items() for word in pair if pair[0] != "--conf"],
        modules=arguments["--extra-py-files"],
        configuration=configuration,
        dependencies=lambda: installed_wheels(arguments["--additional-python-modules"]),
        image=lambda installed: {"PYTHONPATH": str(installed)},
        states=("STARTING", "RUNNING"),
        ends=("SUCCEEDED", "FAILED", "STOPPING", "STOPPED"),
        changed=changed,
        keep_log=lambda log: _keep_log(run.job_run_id, log),
    )


def _keep_log(run_id: str, log: bytes) -> None:
    logs = service("logs")
    groups = logs.describe_log_groups(logGroupNamePrefix=_LOG_GROUP)["logGroups"]
    if not groups:
        logs.create_log_group(logGroupName=_LOG_GROUP)
    logs.create_log_stream(logGroupName=_LOG_GROUP, logStreamName=run_id)
    now = int(time.time() * 1000)
    lines = [{"timestamp": now, "message": line} for line in log.decode(errors="replace").splitlines() if line]
    if lines:
        logs.put_log_events(logGroupName=_LOG_GROUP, logStreamName=run_id, logEvents=lines)
