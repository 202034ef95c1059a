"""The remote engine: EMR Serverless or Glue refreshes tables and parses batches in job runs.

The refresh is planned in this process, with PyIceberg, so that no job run is started if a table is up to date. At most
one job run is active for a table: if an earlier run has left one, this run follows it first.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from typing import Any

from telemetry_assets.engines.base import no_callback
from telemetry_assets.engines.package.build import find_package
from telemetry_assets.engines.package.modules import package_name
from telemetry_assets.engines.plan import RefreshPlan, RefreshRequest, plan_refresh, spark_limits
from telemetry_assets.engines.remote.emr_serverless import EmrServerless
from telemetry_assets.engines.remote.glue import Glue
from telemetry_assets.engines.remote.job_runs import FollowedRun, JobRuns
from telemetry_assets.engines.remote.parsed_batch import load_parsed
from telemetry_assets.engines.remote.service import RemoteService
from telemetry_assets.engines.remote.step import RemoteStep
from telemetry_assets.engines.result import Outcome, RefreshResult, RemoteRun, refresh_result
from telemetry_assets.engines.spark.configuration import readable_secrets, without_effect
from telemetry_assets.errors import PackageError, RemoteRunError
from telemetry_assets.ingestion.batch_parser import ParsedBatch
from telemetry_assets.ingestion.journal.base import JournalEntry
from telemetry_assets.lakehouse.catalog import Lakehouse
from telemetry_assets.lakehouse.commits import set_table_properties, until_committed
from telemetry_assets.lakehouse.data_files import files_by_partition
from telemetry_assets.settings import Settings, require_engine_settings
from telemetry_assets.tables import BRONZE, derived_tables
from telemetry_assets.tables.contract import DerivedTable
from telemetry_assets.text.plain import plain_logger
from telemetry_assets.transforms.refresh import RefreshParameters

logger = plain_logger(__name__)

_PROGRAM_SETTINGS = frozenset(
    {
        "landing_uri",
        "lakehouse_uri",
        "catalog",
        "kms_key_id",
        "upload_max_bytes",
        "upload_max_documents",
        "alert_rules",
        "update_max_rows",
        "spark_rebuild_max_rows",
    }
)


class RemoteEngine:
    """Refreshes tables and parses batches in job runs of a service."""

    def __init__(self, lakehouse: Lakehouse, settings: Settings, service: RemoteService) -> None:
        self._lakehouse = lakehouse
        self._settings = settings
        self._job_runs = JobRuns(settings, service)
        self._limits = spark_limits(settings)

    def close(self) -> None:
        """Do nothing. The engine has no resources."""

    def parse(self, entry: JournalEntry, run_id: str) -> ParsedBatch:
        """See :meth:`telemetry_assets.ingestion.batch_parser.Parser.parse`.

        :raises PackageError: if the scripts location does not have the package of this code.
        :raises RemoteRunError: if no job run succeeded.
        """
        run = self._job_runs.follow_active(BRONZE.full_name, run_id)
        step = RemoteStep(
            settings=self._program_settings(),
            table=BRONZE.full_name,
            event_dates=None,
            insurance_as_of=entry.ingested_at.date(),
            rebuild=False,
            rebuilds=False,
            run_id=run_id,
            upstream_snapshot_id=None,
            package=package_name(),
            journal_entry=entry.to_json().decode(),
        )
        if run is None or not run.has_done(step):
            run = self._job_runs.run(step)
        return load_parsed(self._lakehouse, run.folder.location.uri(), entry)

    def refresh(
        self, request: RefreshRequest, between_steps: Callable[[RefreshResult], None] = no_callback
    ) -> RefreshResult:
        """See :meth:`telemetry_assets.engines.base.Engine.refresh`. One job run executes all steps.

        :raises PackageError: if the scripts location does not have the package of this code.
        :raises RemoteRunError: if no job run succeeded.
        """
        started = time.monotonic()
        earlier = self._job_runs.follow_active(request.contract.full_name, request.run_id)
        plan = plan_refresh(self._lakehouse, request, self._limits)
        step = self._step(plan, request)
        if earlier is not None and "result" in earlier.report and earlier.has_done(step):
            return _reported_result(request.contract, earlier, time.monotonic() - started)
        if plan.action == "register":
            self._set_watermark(request)
            unchanged = Outcome(plan.target, changed=False)
            return refresh_result(plan, unchanged, rows_read={}, seconds=time.monotonic() - started)
        return self._refresh_in_job_run(plan, step)

    def smoke_test(self, run_id: str, today: date) -> RemoteRun:
        """Start a job run that refreshes no event date of a table.

        It uses all resources of a refresh, and changes no row.

        :raises PackageError: if the scripts location does not have the package of this code.
        :raises RemoteRunError: if no job run succeeded or reported a result, or if no table is suitable, because each
            has an active job run or has to be rebuilt.
        """
        in_progress = self._job_runs.tables_in_progress()
        parameters = RefreshParameters(today, self._settings.alert_rules)
        for contract in derived_tables():
            # A refresh of a table without partitions includes all changes.
            if contract.partition is None or contract.full_name in in_progress:
                continue
            request = RefreshRequest(contract, None, parameters, run_id)
            plan = plan_refresh(self._lakehouse, request, self._limits)
            if not plan.changes and not plan.pending:
                break
        else:
            raise RemoteRunError(
                "Every table is being refreshed or has to be rebuilt. Repeat this after the job `ingest` has ended."
            )
        run = self._job_runs.run(self._step(plan, replace(request, event_dates=frozenset())))
        if "result" not in run.report:
            raise RemoteRunError(f"Run {run.remote.run_id} of {run.remote.service} succeeded, but reported no result.")
        return run.remote

    def _refresh_in_job_run(self, plan: RefreshPlan, step: RemoteStep) -> RefreshResult:
        started = time.monotonic()
        run = self._job_runs.run(step)
        if "result" in run.report:
            return _reported_result(plan.contract, run, time.monotonic() - started)
        logger.warning("%s: the job run's last messages are missing; its result is read from the table", step.table)
        return _result_in_table(plan, run.remote, time.monotonic() - started)

    def _step(self, plan: RefreshPlan, request: RefreshRequest) -> RemoteStep:
        upstream, event_dates = plan.upstream.current_snapshot(), request.event_dates
        return RemoteStep(
            settings=self._program_settings(),
            table=plan.contract.full_name,
            event_dates=None if event_dates is None else tuple(sorted(event_dates)),
            insurance_as_of=request.parameters.insurance_as_of,
            rebuild=event_dates is not None or plan.action == "rebuild",
            rebuilds=request.rebuilds,
            run_id=request.run_id,
            upstream_snapshot_id=upstream.snapshot_id if upstream else None,
            package=package_name(),
        )

    def _program_settings(self) -> dict[str, Any]:
        return self._settings.model_dump(mode="json", include=set(_PROGRAM_SETTINGS))

    def _set_watermark(self, request: RefreshRequest) -> None:
        """Set the watermark of a table for which nothing has changed."""

        def attempt() -> None:
            now = plan_refresh(self._lakehouse, replace(request, rebuilds=False), self._limits)
            if now.action == "register":
                set_table_properties(now.target, now.properties)

        until_committed(request.contract, attempt)


def _reported_result(contract: DerivedTable, run: FollowedRun, seconds: float) -> RefreshResult:
    return RefreshResult.from_json(contract, run.report["result"], run.remote, seconds)


def _result_in_table(plan: RefreshPlan, remote: RemoteRun, seconds: float) -> RefreshResult:
    """The result, read from the table: the numbers of its rows are those of whole partitions."""
    contract, dates = plan.contract, plan.event_dates
    rows_read = plan.upstream_rows(dates).rows_by_date()
    before = plan.target.current_snapshot()
    plan.target.refresh()
    files = files_by_partition(plan.target, contract, contract.own_partitions_of(dates))
    rows = {day: sum(task.file.record_count for task in tasks) for day, tasks in files.items()}
    changed = plan.target.current_snapshot() != before
    outcome = Outcome(plan.target, changed, rows, rows if changed else {})
    return refresh_result(plan, outcome, rows_read=rows_read, seconds=seconds, remote=remote)


def problems(settings: Settings) -> list[str]:
    """Problems that would prevent the service from running steps and can be found without a job run.

    :raises SettingsError: if a setting is missing that the service needs.
    """
    require_engine_settings(settings)
    found = [*open_service(settings).problems(), *without_effect(settings), *readable_secrets(settings)]
    known = {contract.full_name for contract in (BRONZE, *derived_tables())} | {"default"}
    unknown = sorted(name for name in settings.remote_sizes if name.removesuffix("/rebuild") not in known | {"rebuild"})
    if unknown:
        found.append(f"TELEMETRY_REMOTE_SIZES: no table has the name {' or '.join(unknown)}, so it has no effect.")
    try:
        find_package(settings)
    except PackageError as error:
        found.append(str(error))
    return found


def open_service(settings: Settings) -> RemoteService:
    """The remote service that the settings name."""
    return Glue(settings) if settings.engine == "glue" else EmrServerless(settings)
