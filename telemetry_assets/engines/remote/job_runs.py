"""Starts job runs of a remote service and follows them to their end: retries, time limits, cancellation."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from telemetry_assets.aws.clients import region, s3_client
from telemetry_assets.engines.base import COMMAND_LINE
from telemetry_assets.engines.package.build import Package, find_package
from telemetry_assets.engines.remote.service import Phase, RemoteService, State, StepRun, Submission, retry_while_busy
from telemetry_assets.engines.remote.step import RemoteStep, StepFolder, error_from_json
from telemetry_assets.engines.result import RemoteRun
from telemetry_assets.engines.spark.configuration import iceberg_configuration
from telemetry_assets.errors import RemoteRunError, TelemetryAssetsError
from telemetry_assets.settings import Settings
from telemetry_assets.text.plain import TrustedText, plain_logger, plain_text

logger = plain_logger(__name__)

_ATTEMPTS = 3
_POLLS_BETWEEN_ATTEMPTS = 6
_LINES_QUOTED = 20
# The service cancels the job run at its own time limit, and its message is more detailed.
_GRACE_MINUTES = 5


@dataclass
class FollowedRun:
    """A job run, with the state and the messages that have been read so far.

    :param folder: the folder of the step that it executes.
    :param state: its state when it was last read.
    :param report: what it has reported: a ``result``, a ``parsed`` batch, or an ``error``.
    :param lines: the last lines of its output.
    """

    folder: StepFolder
    remote: RemoteRun
    state: State
    report: dict[str, Any] = field(default_factory=dict)
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=_LINES_QUOTED))

    @property
    def has_succeeded(self) -> bool:
        """Whether the step is done. A program reports its result last, so a failure after that is irrelevant."""
        return self.state.phase is Phase.SUCCEEDED or bool(self.report.keys() & {"result", "parsed"})

    @property
    def is_final_failure(self) -> bool:
        """Whether a retry would fail too: the program reported the cause, or the job run was cancelled."""
        is_reported = "error" in self.report and not self.report["error"].get("unforeseen")
        return is_reported or self.state.phase is Phase.CANCELLED or self.state.is_final_failure

    def has_done(self, step: RemoteStep) -> bool:
        """Whether it has succeeded, and its step has the same effect as ``step``."""
        return self.has_succeeded and self.folder.step is not None and self.folder.step.is_same_work(step)

    def receive(self, message: dict[str, Any], table: str) -> None:
        """Process a message of Dagster Pipes. Lines of output are logged.

        :param table: the table whose name begins each log line.
        """
        params = message.get("params") or {}
        if message["method"] == "report_custom_message":
            self.report.update(params["payload"])
        elif message["method"] == "log_external_stream":
            for line in params["text"].splitlines():
                self.lines.append(line)
                logger.info("%s: | %s", table, line)
        elif message["method"] == "closed" and params.get("exception"):
            exception = params["exception"]
            text = plain_text(f"{exception['name']}: {exception['message']}")
            self.report.setdefault("error", {"message": text, "unforeseen": True})
            self.lines.extend("".join(exception.get("stack") or []).splitlines())


class JobRuns:
    """The job runs of a service that execute steps of a lakehouse."""

    def __init__(self, settings: Settings, service: RemoteService) -> None:
        self._settings = settings
        self._service = service

    def run(self, step: RemoteStep) -> FollowedRun:
        """Run a step until a job run succeeds.

        :raises PackageError: if the scripts location does not have the package of this code.
        :raises RemoteRunError: if no job run succeeded.
        """
        package = find_package(self._settings)
        for attempt in range(1, _ATTEMPTS + 1):
            run = self._start_and_follow(step, package)
            if run.has_succeeded:
                return run
            error = self._error(step, run)
            if run.is_final_failure:
                raise error
            if attempt < _ATTEMPTS:
                logger.warning("%s Trying again (%d of %d).", error, attempt + 1, _ATTEMPTS)
                # If the service had no capacity, it will have none immediately afterwards.
                time.sleep(self._settings.remote_poll_seconds * _POLLS_BETWEEN_ATTEMPTS * attempt)
        raise error

    def tables_in_progress(self) -> set[str]:
        """The tables of this lakehouse for which a job run is active."""
        active = of_lakehouse(self._service.active_runs(), self._settings)
        return {folder.step.table for _, folder in active if folder.step is not None}

    def follow_active(self, table: str, run_id: str) -> FollowedRun | None:
        """Follow the active job run of a table to its end, even if another run started it; None if there is none.

        :param run_id: the run that follows.
        """
        followed = None
        for run, folder in of_lakehouse(self._service.active_runs(), self._settings):
            if folder.step is None or folder.step.table != table:
                continue
            logger.info("%s: following the active job run that run %s has started", table, folder.step.run_id)
            folder.follow(run_id)
            try:
                followed = self._follow(folder, table, self._remote_run(table, run.run_id))
            except BaseException as error:
                # Other runs may still follow the job run, so it is not cancelled here. The sensor cancels it when all
                # Dagster runs that follow it have ended. The sensor cannot know whether a run of the command line has
                # ended, so such a run is removed from the followers.
                if not isinstance(error, Exception) and run_id.startswith(COMMAND_LINE):
                    folder.leave(run_id)
                raise
        return followed

    def _start_and_follow(self, step: RemoteStep, package: Package) -> FollowedRun:
        folder = StepFolder.new(step, self._settings)
        size = self._settings.remote_size(step.table, rebuild=step.rebuild)
        submission = Submission(
            folder,
            package,
            {**size.spark, **iceberg_configuration(self._settings)},
            size,
            self._settings.remote_timeout_minutes,
            region() or s3_client().meta.region_name,
        )
        what, run_id = f"{step.table}: the start in {self._service.name}", None
        try:
            run_id = retry_while_busy(what, self._settings.remote_wait_minutes, lambda: self._service.start(submission))
            return self._follow(folder, step.table, self._remote_run(step.table, run_id))
        except BaseException as error:
            # If this process is interrupted, cancel the job run, because no run follows it any more. After an error of
            # AWS, a cancellation would fail too, and the next run follows the job run.
            if not isinstance(error, Exception):
                for one in [run_id] if run_id else self._started(folder, step.table):
                    logger.warning("%s: cancelling job run %s of %s", step.table, one, self._service.name)
                    self._try_to_cancel(one)
            raise

    def _started(self, folder: StepFolder, table: str) -> list[str]:
        """The job run of a step whose start was interrupted, if there is one."""
        try:
            return [run.run_id for run in self._service.active_runs() if run.step_uri == folder.uri]
        except (ClientError, BotoCoreError, TelemetryAssetsError) as error:
            logger.warning("%s: the active job runs of %s cannot be listed: %s", table, self._service.name, error)
            return []

    def _remote_run(self, table: str, run_id: str) -> RemoteRun:
        remote = RemoteRun(self._service.name, run_id, self._service.link(run_id))
        logger.info("%s: run %s of %s, %s", table, run_id, self._service.name, TrustedText(remote.link))
        return remote

    def _try_to_cancel(self, run_id: str) -> None:
        """Cancel a job run while another error is raised. An error of this request must not hide that error."""
        try:
            self._service.cancel(run_id)
        except (ClientError, BotoCoreError) as error:
            logger.warning("run %s of %s could not be cancelled: %s", run_id, self._service.name, error)

    def _follow(self, folder: StepFolder, table: str, remote: RemoteRun) -> FollowedRun:
        followed = FollowedRun(folder, remote, State(Phase.WAITING, ""))
        began, ran = time.monotonic(), 0.0
        while True:
            state = retry_while_busy(
                table, self._settings.remote_wait_minutes, lambda: self._service.state(remote.run_id)
            )
            # Read after the state: if the state is final, all messages have been written.
            for message in retry_while_busy(table, self._settings.remote_wait_minutes, folder.new_messages):
                followed.receive(message, table)
            if state.name != followed.state.name:
                details = state.details and f": {state.details}"
                logger.info("%s: run %s is %s%s", table, remote.run_id, state.name, details)
                ran = ran or (time.monotonic() if state.phase is Phase.RUNNING else 0.0)
            followed.state = state
            if state.phase.is_over:
                return followed
            self._require_in_time(followed, table, began, ran)
            time.sleep(self._settings.remote_poll_seconds)

    def _require_in_time(self, run: FollowedRun, table: str, began: float, ran: float) -> None:
        """Cancel a job run that waits or runs for too long.

        :raises RemoteRunError: if it does.
        """
        settings = self._settings
        limit = settings.remote_timeout_minutes + _GRACE_MINUTES if ran else settings.remote_wait_minutes
        if time.monotonic() - (ran or began) <= limit * 60:
            return
        self._try_to_cancel(run.remote.run_id)
        raise _failed(table, run, f"was {run.state.name} for {limit:g} minutes, and is being cancelled", run.lines)

    def _error(self, step: RemoteStep, run: FollowedRun) -> TelemetryAssetsError:
        lines = list(run.lines)
        # If the program did not report the cause, the driver's log may have it, e.g. an error of the JVM.
        if not lines or not run.is_final_failure:
            lines += self._last_lines(run.remote.run_id)
        if "error" in run.report:
            return error_from_json(run.report["error"], lines)
        return _failed(step.table, run, f"ended {run.state.name}", lines)

    def _last_lines(self, run_id: str) -> list[str]:
        """The last lines of the driver's log. If it cannot be read, the message says why."""
        try:
            return self._service.last_lines(run_id)
        except (ClientError, BotoCoreError, OSError, EOFError) as error:
            return [f"(its log cannot be read: {error})"]


def _failed(table: str, run: FollowedRun, how: str, lines: Iterable[str]) -> RemoteRunError:
    remote, details = run.remote, f" {plain_text(run.state.details)}" if run.state.details else ""
    return RemoteRunError(
        f"{table} could not be brought up to date: run {remote.run_id} of {remote.service} {how}.{details} "
        f"{remote.link} docs/spark.md explains every state and what to do.",
        list(lines),
    )


def of_lakehouse(runs: Iterable[StepRun], settings: Settings) -> list[tuple[StepRun, StepFolder]]:
    """The job runs that execute steps of the settings' lakehouse, with the folders of the steps."""
    found = [(run, StepFolder.of(run.step_uri, settings)) for run in runs]
    return [(run, folder) for run, folder in found if folder is not None]
