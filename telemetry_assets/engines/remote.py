"""The remote engine: steps run as programs of a service, are followed to their end, and cancelled with their run.

It plans with PyIceberg what there is to do, so that nothing is started for nothing. At most one program at a time
works on a table: one that an earlier life of a run has left is followed rather than doubled.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from pyiceberg.table import Table

from telemetry_assets.aws import region, s3_client
from telemetry_assets.engines.emr_serverless import EmrServerless
from telemetry_assets.engines.glue import Glue
from telemetry_assets.engines.package import Package, find_package
from telemetry_assets.engines.refresh import Refresh, begin_refresh
from telemetry_assets.engines.remote_service import Phase, RemoteService, State, Submission, patiently
from telemetry_assets.engines.remote_step import RemoteStep, StepFolder, error_heard, result_heard
from telemetry_assets.engines.results import PartitionResult, RefreshResult, RemoteRun
from telemetry_assets.engines.spark_configuration import iceberg_configuration
from telemetry_assets.errors import RemoteRunError, TelemetryAssetsError
from telemetry_assets.lakehouse.catalog import Lakehouse
from telemetry_assets.lakehouse.changes import partition_date
from telemetry_assets.lakehouse.commits import set_table_properties, until_committed
from telemetry_assets.lakehouse.contracts import CURRENT_STATE, FUEL_EFFICIENCY
from telemetry_assets.lakehouse.table_contract import TableContract
from telemetry_assets.settings import Settings
from telemetry_assets.steps import Partitions, StepParameters, first_of_month

logger = logging.getLogger(__name__)

_ATTEMPTS = 3
_LINES_QUOTED = 20
# The service's own limit comes first, and says more.
_GRACE_MINUTES = 5


@dataclass
class _Ended:
    """How a program ended: with a result, with an error that it told, or with neither."""

    folder: StepFolder
    remote: RemoteRun
    state: State
    told: dict[str, Any] = field(default_factory=dict)
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=_LINES_QUOTED))


class RemoteEngine:
    """Gives steps to EMR Serverless or Glue."""

    def __init__(self, lakehouse: Lakehouse, settings: Settings, service: RemoteService) -> None:
        self._lakehouse = lakehouse
        self._settings = settings
        self._service = service

    def close(self) -> None:
        """Nothing is held here."""

    def refresh(
        self, contract: TableContract, event_dates: frozenset[date] | None, parameters: StepParameters, run_id: str
    ) -> RefreshResult:
        """See :meth:`telemetry_assets.engines.results.Engine.refresh`.

        :raises PackageError: where the package of this code is not in the scripts location.
        :raises RemoteRunError: where the service did not bring the step to its end.
        """
        started = time.monotonic()
        package = find_package(self._settings)
        earlier = self._end_of_earlier(contract, run_id)
        plan = begin_refresh(self._lakehouse, contract, event_dates, run_id)
        step = self._step(plan, event_dates, parameters, package)
        if earlier is not None and "result" in earlier.told and _same_work(earlier, step):
            return result_heard(contract, earlier.told["result"], earlier.remote)
        if event_dates is None and not plan.changes and not self._insurance_is_due(contract, plan.target, parameters):
            return self._up_to_date(plan, time.monotonic() - started)
        return self._done(plan, step, package)

    def _done(self, plan: Refresh, step: RemoteStep, package: Package) -> RefreshResult:
        for attempt in range(1, _ATTEMPTS + 1):
            started = time.monotonic()
            ended = self._run(step, package)
            if "result" in ended.told:
                return result_heard(plan.contract, ended.told["result"], ended.remote)
            if ended.state.phase is Phase.SUCCEEDED:
                logger.warning(
                    "%s: the program's last messages are lost; what it did is read from the table", step.table
                )
                return self._result_in_tables(plan, ended.remote, time.monotonic() - started)
            error = self._error(step, ended)
            # What the program said itself, it would say again; somebody who cancelled it meant it.
            if ended.told or ended.state.phase is Phase.CANCELLED or ended.state.is_final_failure:
                raise error
            if attempt < _ATTEMPTS:
                logger.warning("%s Trying again (%d of %d).", error, attempt + 1, _ATTEMPTS)
        raise error

    def _run(self, step: RemoteStep, package: Package) -> _Ended:
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
        what = f"{step.table}: the start in {self._service.name}"
        run_id = patiently(what, self._settings.remote_wait_minutes, lambda: self._service.start(submission))
        return self._followed(folder, step.table, run_id)

    def _end_of_earlier(self, contract: TableContract, run_id: str) -> _Ended | None:
        """The end of a program that works on the table already, whoever has started it; None where there is none."""
        ended = None
        for remote_id, folder in living_steps(self._service, self._settings):
            if folder.step is None or folder.step.table != contract.full_name:
                continue
            table = contract.full_name
            logger.info("%s: run %s has left a program at work, which is followed", table, folder.step.run_id)
            folder.follow(run_id)
            ended = self._followed(folder, table, remote_id)
        return ended

    def _followed(self, folder: StepFolder, table: str, run_id: str) -> _Ended:
        remote = RemoteRun(self._service.name, run_id, self._service.link(run_id))
        logger.info("%s: run %s of %s, %s", table, run_id, self._service.name, remote.link)
        try:
            return self._watched(folder, table, remote)
        except BaseException as error:
            # Of an interruption nobody would be left to follow the program. Where AWS cannot be reached, nothing can be
            # cancelled either: the next run follows it.
            if not isinstance(error, Exception):
                logger.warning("%s: run %s of %s is cancelled", table, run_id, self._service.name)
                self._service.cancel(run_id)
            raise

    def _watched(self, folder: StepFolder, table: str, remote: RemoteRun) -> _Ended:
        ended = _Ended(folder, remote, State(Phase.WAITING, ""))
        began, ran = time.monotonic(), 0.0
        while True:
            state = patiently(table, self._settings.remote_wait_minutes, lambda: self._service.state(remote.run_id))
            # Before it was looked at, the program had told all that it tells.
            self._listen(ended, table)
            if state.name != ended.state.name:
                logger.info("%s: run %s is %s. %s", table, remote.run_id, state.name, state.details)
                ran = ran or (time.monotonic() if state.phase is Phase.RUNNING else 0.0)
            ended.state = state
            if state.phase.is_over:
                return ended
            self._hold_limit(ended, table, began, ran)
            time.sleep(self._settings.remote_poll_seconds)

    def _hold_limit(self, ended: _Ended, table: str, began: float, ran: float) -> None:
        """Cancel a run that waits, or runs, for longer than it may."""
        settings, remote = self._settings, ended.remote
        limit = settings.remote_timeout_minutes + _GRACE_MINUTES if ran else settings.remote_wait_minutes
        if time.monotonic() - (ran or began) <= limit * 60:
            return
        self._service.cancel(remote.run_id)
        raise RemoteRunError(
            table,
            f"run {remote.run_id} of {remote.service} was {ended.state.name} for {limit:g} minutes, and is cancelled. "
            f"{ended.state.details} {remote.link}",
            list(ended.lines),
        )

    def _listen(self, ended: _Ended, table: str) -> None:
        for message in ended.folder.new_messages():
            params = message.get("params") or {}
            if message["method"] == "report_custom_message":
                ended.told.update(params["payload"])
            elif message["method"] == "log_external_stream":
                for line in params["text"].splitlines():
                    ended.lines.append(line)
                    logger.info("%s: | %s", table, line)
            elif message["method"] == "closed" and params.get("exception"):
                exception = params["exception"]
                ended.told.setdefault("error", {"message": f"{exception['name']}: {exception['message']}"})
                ended.lines.extend("".join(exception.get("stack") or []).splitlines())

    def _error(self, step: RemoteStep, ended: _Ended) -> TelemetryAssetsError:
        lines = list(ended.lines) or self._service.last_lines(ended.remote.run_id)
        if "error" in ended.told:
            return error_heard(step.table, ended.told["error"], lines)
        return RemoteRunError(
            step.table,
            f"run {ended.remote.run_id} of {ended.remote.service} ended {ended.state.name}. {ended.state.details} "
            f"{ended.remote.link}",
            lines,
        )

    def _step(
        self, plan: Refresh, event_dates: frozenset[date] | None, parameters: StepParameters, package: Package
    ) -> RemoteStep:
        upstream = plan.upstream.current_snapshot()
        taken = {"landing_uri", "lakehouse_uri", "catalog", "kms_key_id"}
        return RemoteStep(
            settings=self._settings.model_dump(mode="json", include=taken),
            table=plan.contract.full_name,
            event_dates=None if event_dates is None else tuple(sorted(event_dates)),
            insurance_as_of=parameters.insurance_as_of,
            rebuild=parameters.rebuild,
            run_id=plan.run_id,
            upstream_snapshot_id=upstream.snapshot_id if upstream else None,
            package=package.name,
        )

    def _insurance_is_due(self, contract: TableContract, target: Table, parameters: StepParameters) -> bool:
        if contract is not CURRENT_STATE:
            return False
        told = target.scan(selected_fields=("insurance_as_of",)).to_arrow()["insurance_as_of"].unique().to_pylist()
        return told not in ([], [parameters.insurance_as_of])

    def _up_to_date(self, plan: Refresh, seconds: float) -> RefreshResult:
        """The result of a step that has nothing to do, which is found out here; only its mark may have to move."""

        def mark() -> None:
            now = begin_refresh(self._lakehouse, plan.contract, None, plan.run_id)
            if not now.changes:
                set_table_properties(now.target, now.mark)

        until_committed(plan.contract, mark)
        snapshot = plan.target.current_snapshot()
        return RefreshResult(plan.contract, (), {}, 0, {}, False, snapshot.snapshot_id if snapshot else None, seconds)

    def _result_in_tables(self, plan: Refresh, remote: RemoteRun, seconds: float) -> RefreshResult:
        """What a program did, as far as the tables say it: rows, and no figures."""
        dates = plan.changes.dates
        months = plan.contract is FUEL_EFFICIENCY
        partitions: Partitions = frozenset(map(first_of_month, dates)) if months else dates
        plan.upstream_files(dates)
        before = plan.target.current_snapshot()
        plan.target.refresh()
        now = plan.target.current_snapshot()
        rows: dict[date | None, int] = {}
        for task in plan.target_files(partitions):
            day = partition_date(task.file) if plan.contract.partition else None
            rows[day] = rows.get(day, 0) + task.file.record_count
        changed = now != before
        return RefreshResult(
            contract=plan.contract,
            event_dates=tuple(sorted(dates)),
            rows_read=plan.rows_read,
            rows_written=sum(rows.values()) if changed else 0,
            partitions={day: PartitionResult(count, {}, []) for day, count in rows.items()},
            changed=changed,
            snapshot_id=now.snapshot_id if now else None,
            seconds=seconds,
            remote=remote,
        )


def _same_work(earlier: _Ended, step: RemoteStep) -> bool:
    return earlier.folder.step is not None and earlier.folder.step.is_same_work(step)


def living_steps(service: RemoteService, settings: Settings) -> list[tuple[str, StepFolder]]:
    """The remote runs of a lakehouse's steps that are not over, oldest first, with their folders."""
    living = [(run_id, StepFolder.of(uri, settings)) for run_id, uri in service.living()]
    return [(run_id, folder) for run_id, folder in living if folder is not None]


def open_service(settings: Settings) -> RemoteService:
    """The service that the settings give steps to."""
    return Glue(settings) if settings.engine == "glue" else EmrServerless(settings)
