"""The remote engine: steps run as programs of a service, are followed to their end, and cancelled with their run.

It plans with PyIceberg what there is to do, so that nothing is started for nothing. At most one program at a time
works on a table: one that an earlier life of a run has left is followed rather than doubled.
"""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import date
from typing import Any

from pyiceberg.table import Table

from telemetry_assets.engines.base import PartitionResult, RefreshResult, RemoteRun
from telemetry_assets.engines.package.build import find_package, package_name
from telemetry_assets.engines.plan import Refresh, begin_refresh
from telemetry_assets.engines.remote.emr_serverless import EmrServerless
from telemetry_assets.engines.remote.glue import Glue
from telemetry_assets.engines.remote.job_runs import Ended, RemotePrograms
from telemetry_assets.engines.remote.parsed_batch import load_parsed
from telemetry_assets.engines.remote.service import RemoteService
from telemetry_assets.engines.remote.step import RemoteStep, result_from_json
from telemetry_assets.engines.spark.configuration import readable_secrets, without_effect
from telemetry_assets.errors import PackageError, RemoteRunError
from telemetry_assets.ingestion.batch_parser import ParsedBatch
from telemetry_assets.ingestion.journal.base import JournalEntry
from telemetry_assets.lakehouse.catalog import Lakehouse
from telemetry_assets.lakehouse.changes import partition_date
from telemetry_assets.lakehouse.commits import set_table_properties, until_committed
from telemetry_assets.lakehouse.quality import repeated_among
from telemetry_assets.settings import Settings, require_engine_settings
from telemetry_assets.tables import BRONZE, derived_tables
from telemetry_assets.tables.derived import DerivedTable
from telemetry_assets.text.plain import plain_logger
from telemetry_assets.transforms.refresh import RefreshParameters

logger = plain_logger(__name__)


class RemoteEngine:
    """Gives steps to EMR Serverless or Glue."""

    def __init__(self, lakehouse: Lakehouse, settings: Settings, service: RemoteService) -> None:
        self._lakehouse = lakehouse
        self._settings = settings
        self._programs = RemotePrograms(settings, service)

    def close(self) -> None:
        """Nothing is held here."""

    def parse(self, entry: JournalEntry, run_id: str) -> ParsedBatch:
        """See :meth:`telemetry_assets.ingestion.batch_parser.Parser.parse`.

        :raises PackageError: where the package of this code is not in the scripts location.
        :raises RemoteRunError: where the service did not bring the step to its end.
        """
        ended = self._programs.end_of_earlier(BRONZE.full_name, run_id)
        step = RemoteStep(
            settings=self._settings_of_program(),
            table=BRONZE.full_name,
            event_dates=None,
            insurance_as_of=entry.ingested_at.date(),
            rebuild=False,
            run_id=run_id,
            upstream_snapshot_id=None,
            package=package_name(),
            journal_entry=entry.to_json().decode(),
        )
        if ended is None or not ended.is_of(step):
            ended = self._programs.completed(step)
        return load_parsed(self._lakehouse, ended.folder.location.uri(), entry)

    def refresh(
        self, contract: DerivedTable, event_dates: frozenset[date] | None, parameters: RefreshParameters, run_id: str
    ) -> RefreshResult:
        """See :meth:`telemetry_assets.engines.base.Engine.refresh`.

        :raises PackageError: where the package of this code is not in the scripts location.
        :raises RemoteRunError: where the service did not bring the step to its end.
        """
        started = time.monotonic()
        earlier = self._programs.end_of_earlier(contract.full_name, run_id)
        plan = begin_refresh(self._lakehouse, contract, event_dates, run_id)
        step = self._step(plan, event_dates, parameters)
        if earlier is not None and "result" in earlier.told and earlier.is_of(step):
            return self._heard(contract, earlier, started)
        if event_dates is None and not plan.changes and not _is_stale_by_itself(plan.target, contract, parameters):
            return self._up_to_date(plan, time.monotonic() - started)
        return self._done(plan, step)

    def prove(self, run_id: str, today: date) -> RemoteRun:
        """Have a program do the step of a table for no event date, so that it uses what a step uses and changes no row.

        :raises PackageError: where the package of this code is not in the scripts location.
        :raises RemoteRunError: where the service did not bring the step to its end, nothing was heard of it, or every
            table is worked on, or would be made anew as a whole.
        """
        at_work = self._programs.tables_at_work()
        for contract in derived_tables():
            # One that is not partitioned takes with it whatever has changed.
            if contract.partition is None or contract.full_name in at_work:
                continue
            plan = begin_refresh(self._lakehouse, contract, frozenset(), run_id)
            if not plan.changes:
                break
        else:
            raise RemoteRunError(
                "Every table is worked on, or to be made anew. Run this again when `ingest` has ended."
            )
        ended = self._programs.completed(self._step(plan, frozenset(), RefreshParameters(today)))
        if "result" not in ended.told:
            raise RemoteRunError(f"Run {ended.remote.run_id} of {ended.remote.service} ended well, and told nothing.")
        return ended.remote

    def _done(self, plan: Refresh, step: RemoteStep) -> RefreshResult:
        started = time.monotonic()
        ended = self._programs.completed(step)
        if "result" in ended.told:
            return self._heard(plan.contract, ended, started)
        logger.warning("%s: the program's last messages are lost; what it did is read from the table", step.table)
        return self._result_in_tables(plan, ended.remote, time.monotonic() - started)

    @staticmethod
    def _heard(contract: DerivedTable, ended: Ended, started: float) -> RefreshResult:
        # Who waited, waited for the service to start too.
        result = result_from_json(contract, ended.told["result"], ended.remote)
        return replace(result, seconds=time.monotonic() - started)

    def _step(self, plan: Refresh, event_dates: frozenset[date] | None, parameters: RefreshParameters) -> RemoteStep:
        upstream = plan.upstream.current_snapshot()
        return RemoteStep(
            settings=self._settings_of_program(),
            table=plan.contract.full_name,
            event_dates=None if event_dates is None else tuple(sorted(event_dates)),
            insurance_as_of=parameters.insurance_as_of,
            rebuild=parameters.rebuild,
            run_id=plan.run_id,
            upstream_snapshot_id=upstream.snapshot_id if upstream else None,
            package=package_name(),
        )

    def _settings_of_program(self) -> dict[str, Any]:
        names = {"landing_uri", "lakehouse_uri", "catalog", "kms_key_id", "upload_max_bytes", "upload_max_documents"}
        return self._settings.model_dump(mode="json", include=names)

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
        partitions = frozenset(filter(None, map(plan.contract.partition_of, dates)))
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


def _is_stale_by_itself(target: Table, contract: DerivedTable, parameters: RefreshParameters) -> bool:
    """Whether a table has to be made anew though its upstream is as it was: insurances of another day, doubled rows."""
    if contract.as_of is None:
        return False
    rows = target.scan(selected_fields=(*contract.key, contract.as_of)).to_arrow()
    return (
        rows[contract.as_of].unique().to_pylist() not in ([], [parameters.insurance_as_of])
        or repeated_among(rows, contract) > 0
    )


def problems(settings: Settings) -> list[str]:
    """What keeps steps from being given to the service, each in words; nothing is started.

    :raises SettingsError: where a setting is missing that the service needs.
    """
    require_engine_settings(settings)
    found = [*open_service(settings).problems(), *without_effect(settings), *readable_secrets(settings)]
    known = {contract.full_name for contract in (BRONZE, *derived_tables())} | {"default"}
    unknown = sorted(name for name in settings.remote_sizes if name.removesuffix("/rebuild") not in known | {"rebuild"})
    if unknown:
        found.append(f"TELEMETRY_REMOTE_SIZES: no table is named {' or '.join(unknown)}, so that changes nothing.")
    try:
        find_package(settings)
    except PackageError as error:
        found.append(str(error))
    return found


def open_service(settings: Settings) -> RemoteService:
    """The service that the settings give steps to."""
    return Glue(settings) if settings.engine == "glue" else EmrServerless(settings)
