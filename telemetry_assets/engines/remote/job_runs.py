"""One remote program at a time, from its start to its end, whatever the service does meanwhile."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from telemetry_assets.aws.clients import region, s3_client
from telemetry_assets.engines.base import COMMAND_LINE, RemoteRun
from telemetry_assets.engines.package.build import Package, find_package
from telemetry_assets.engines.remote.service import Phase, RemoteService, State, StepRun, Submission, retry_while_busy
from telemetry_assets.engines.remote.step import RemoteStep, StepFolder, error_from_json
from telemetry_assets.engines.spark.configuration import iceberg_configuration
from telemetry_assets.errors import RemoteRunError, TelemetryAssetsError
from telemetry_assets.settings import Settings
from telemetry_assets.text.plain import TrustedText, plain_logger, plain_text

logger = plain_logger(__name__)

_ATTEMPTS = 3
_LOOKS_BETWEEN_ATTEMPTS = 6
_LINES_QUOTED = 20
# The service's own limit comes first, and says more.
_GRACE_MINUTES = 5


@dataclass
class Ended:
    """How a program ended: with a result, with an error that it told, or with neither."""

    folder: StepFolder
    remote: RemoteRun
    state: State
    told: dict[str, Any] = field(default_factory=dict)
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=_LINES_QUOTED))

    @property
    def has_succeeded(self) -> bool:
        """Whether the step is done. A program tells that last, so what the service says of its end changes nothing."""
        return self.state.phase is Phase.SUCCEEDED or bool(self.told.keys() & {"result", "parsed"})

    @property
    def would_end_so_again(self) -> bool:
        """Whether another attempt is in vain: the program has found something wrong, or somebody meant it to end."""
        found = "error" in self.told and not self.told["error"].get("unforeseen")
        return found or self.state.phase is Phase.CANCELLED or self.state.is_final_failure

    def is_of(self, step: RemoteStep) -> bool:
        """Whether it has succeeded in what a step wants."""
        return self.has_succeeded and self.folder.step is not None and self.folder.step.is_same_work(step)


class RemotePrograms:
    """Starts programs in a service, and follows them."""

    def __init__(self, settings: Settings, service: RemoteService) -> None:
        self._settings = settings
        self._service = service

    def completed(self, step: RemoteStep) -> Ended:
        """The end of a program that has succeeded.

        :raises PackageError: where the package of this code is not in the scripts location.
        :raises RemoteRunError: where no program succeeded.
        """
        package = find_package(self._settings)
        for attempt in range(1, _ATTEMPTS + 1):
            ended = self._run(step, package)
            if ended.has_succeeded:
                return ended
            error = self._error(step, ended)
            if ended.would_end_so_again:
                raise error
            if attempt < _ATTEMPTS:
                logger.warning("%s Trying again (%d of %d).", error, attempt + 1, _ATTEMPTS)
                # Room that was lacking a moment ago will not be there in this one.
                time.sleep(self._settings.remote_poll_seconds * _LOOKS_BETWEEN_ATTEMPTS * attempt)
        raise error

    def tables_at_work(self) -> set[str]:
        """The tables of this lakehouse that a program works on now."""
        living = of_lakehouse(self._service.living(), self._settings)
        return {folder.step.table for _, folder in living if folder.step is not None}

    def end_of_earlier(self, table: str, run_id: str) -> Ended | None:
        """The end of a program that works on the table already, whoever has started it; None where there is none."""
        ended = None
        for run, folder in of_lakehouse(self._service.living(), self._settings):
            if folder.step is None or folder.step.table != table:
                continue
            logger.info("%s: run %s has left a program at work, which is followed", table, folder.step.run_id)
            folder.follow(run_id)
            try:
                ended = self._watched(folder, table, self._remote(table, run.run_id))
            except BaseException as error:
                # Whether the others still follow is not known here, so the program is left to them, and to the sensor,
                # which sees of Dagster's runs by itself that they are over.
                if not isinstance(error, Exception) and run_id.startswith(COMMAND_LINE):
                    folder.leave(run_id)
                raise
        return ended

    def _run(self, step: RemoteStep, package: Package) -> Ended:
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
            return self._watched(folder, step.table, self._remote(step.table, run_id))
        except BaseException as error:
            # After an interruption nobody is left to follow the program. Where AWS cannot be reached, nothing can be
            # cancelled either: the next run follows it.
            if not isinstance(error, Exception):
                for one in [run_id] if run_id else self._started(folder, step.table):
                    logger.warning("%s: run %s of %s is asked to end", step.table, one, self._service.name)
                    self._try_to_cancel(one)
            raise

    def _started(self, folder: StepFolder, table: str) -> list[str]:
        """The run of a step whose start was interrupted, if there is one."""
        try:
            return [run.run_id for run in self._service.living() if run.step_uri == folder.uri]
        except (ClientError, BotoCoreError, TelemetryAssetsError) as error:
            logger.warning("%s: what is at work in %s is not known: %s", table, self._service.name, error)
            return []

    def _remote(self, table: str, run_id: str) -> RemoteRun:
        remote = RemoteRun(self._service.name, run_id, self._service.link(run_id))
        logger.info("%s: run %s of %s, %s", table, run_id, self._service.name, TrustedText(remote.link))
        return remote

    def _try_to_cancel(self, run_id: str) -> None:
        """Ask for a run's end where something else is being told, which a refusal must not hide."""
        try:
            self._service.cancel(run_id)
        except (ClientError, BotoCoreError) as error:
            logger.warning("run %s of %s could not be cancelled: %s", run_id, self._service.name, error)

    def _watched(self, folder: StepFolder, table: str, remote: RemoteRun) -> Ended:
        ended = Ended(folder, remote, State(Phase.WAITING, ""))
        began, ran = time.monotonic(), 0.0
        while True:
            state = retry_while_busy(
                table, self._settings.remote_wait_minutes, lambda: self._service.state(remote.run_id)
            )
            # Before it was looked at, the program had told all that it tells.
            self._listen(ended, table)
            if state.name != ended.state.name:
                logger.info(
                    "%s: run %s is %s%s", table, remote.run_id, state.name, state.details and f": {state.details}"
                )
                ran = ran or (time.monotonic() if state.phase is Phase.RUNNING else 0.0)
            ended.state = state
            if state.phase.is_over:
                return ended
            self._hold_limit(ended, table, began, ran)
            time.sleep(self._settings.remote_poll_seconds)

    def _hold_limit(self, ended: Ended, table: str, began: float, ran: float) -> None:
        """Cancel a run that waits, or runs, for longer than it may."""
        settings, remote = self._settings, ended.remote
        limit = settings.remote_timeout_minutes + _GRACE_MINUTES if ran else settings.remote_wait_minutes
        if time.monotonic() - (ran or began) <= limit * 60:
            return
        self._try_to_cancel(remote.run_id)
        raise _failed(table, ended, f"was {ended.state.name} for {limit:g} minutes, and is asked to end", ended.lines)

    def _listen(self, ended: Ended, table: str) -> None:
        for message in retry_while_busy(table, self._settings.remote_wait_minutes, ended.folder.new_messages):
            params = message.get("params") or {}
            if message["method"] == "report_custom_message":
                ended.told.update(params["payload"])
            elif message["method"] == "log_external_stream":
                for line in params["text"].splitlines():
                    ended.lines.append(line)
                    logger.info("%s: | %s", table, line)
            elif message["method"] == "closed" and params.get("exception"):
                exception = params["exception"]
                said = plain_text(f"{exception['name']}: {exception['message']}")
                ended.told.setdefault("error", {"message": said, "unforeseen": True})
                ended.lines.extend("".join(exception.get("stack") or []).splitlines())

    def _error(self, step: RemoteStep, ended: Ended) -> TelemetryAssetsError:
        lines = list(ended.lines)
        # Of a death that it did not see coming, what the program has told says nothing: Java's own words may.
        if not lines or not ended.would_end_so_again:
            lines += self._last_lines(ended.remote.run_id)
        if "error" in ended.told:
            return error_from_json(ended.told["error"], lines)
        return _failed(step.table, ended, f"ended {ended.state.name}", lines)

    def _last_lines(self, run_id: str) -> list[str]:
        """The end of the driver's own log; that it cannot be had must not hide how the run ended."""
        try:
            return self._service.last_lines(run_id)
        except (ClientError, BotoCoreError, OSError, EOFError) as error:
            return [f"(its log cannot be read: {error})"]


def _failed(table: str, ended: Ended, how: str, lines: Iterable[str]) -> RemoteRunError:
    remote, details = ended.remote, f" {plain_text(ended.state.details)}" if ended.state.details else ""
    return RemoteRunError(
        f"{table} could not be brought up to date: run {remote.run_id} of {remote.service} {how}.{details} "
        f"{remote.link} docs/spark.md has every state and what to do.",
        list(lines),
    )


def of_lakehouse(runs: Iterable[StepRun], settings: Settings) -> list[tuple[StepRun, StepFolder]]:
    """Those of a service's runs that are of a lakehouse's steps, with the steps' folders."""
    found = [(run, StepFolder.of(run.step_uri, settings)) for run in runs]
    return [(run, folder) for run, folder in found if folder is not None]
