"""A complete run, with or without Dagster: ingest waiting uploads, then refresh Silver and Gold.

This module only calls ingestion and engines in the right order. It does not import Dagster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import cast

from pyiceberg.table import Table

from telemetry_assets.engines import open_engine, parses_batches
from telemetry_assets.engines.base import Engine, ParsingEngine, no_callback
from telemetry_assets.engines.plan import RefreshRequest
from telemetry_assets.engines.result import RefreshResult
from telemetry_assets.errors import MaintenanceError, UnclaimableUploadsError
from telemetry_assets.file_system import translate_storage_errors
from telemetry_assets.ingestion.archive_audit import AuditFinding
from telemetry_assets.ingestion.intake import Ingestion, open_ingestion
from telemetry_assets.ingestion.journal.base import ReplaySelection
from telemetry_assets.ingestion.landing import open_landing
from telemetry_assets.ingestion.landing.base import Landing
from telemetry_assets.ingestion.reconciliation import BatchReport, Reconciliation, reconcile, require_conservation
from telemetry_assets.ingestion.replays import ReplayResult
from telemetry_assets.ingestion.retention import ExpiredUploads, delete_rejected
from telemetry_assets.lakehouse.catalog import Lakehouse, open_lakehouse
from telemetry_assets.lakehouse.maintenance import (
    MaintenancePolicy,
    MaintenanceReport,
    TableCondition,
    condition,
    maintain,
    maintain_briefly,
)
from telemetry_assets.lakehouse.stored_files import delete_files
from telemetry_assets.lakehouse.watermarks import has_changes, is_behind
from telemetry_assets.settings import Settings, require_engine_settings
from telemetry_assets.tables import derived_tables
from telemetry_assets.tables.contract import DerivedTable, TableContract
from telemetry_assets.text.formatting import counted
from telemetry_assets.text.plain import plain_logger
from telemetry_assets.transforms.refresh import RefreshParameters

logger = plain_logger(__name__)

_AUDITED = timedelta(days=2)
"""How far back the archive is audited each day."""


@dataclass(frozen=True)
class ProcessResult:
    """The result of a complete run: the reports of its batches, and its refreshes in their order."""

    batch_reports: tuple[BatchReport, ...]
    refreshes: tuple[RefreshResult, ...]


@dataclass(frozen=True)
class CleanUp:
    """What was cleaned up besides the tables, or would be.

    :param step_files: the number of deleted files of old remote steps.
    :param uploads: the number of archived uploads that were deleted because of their age.
    :param documents: the number of rejected documents that were deleted because of their age.
    :param findings: where archive, ledger and tables disagree.
    :param is_planned: whether nothing was deleted, because this was a dry run.
    """

    step_files: int
    uploads: int
    documents: int
    findings: tuple[AuditFinding, ...]
    is_planned: bool

    def __str__(self) -> str:
        deleted = [
            f"{counted(self.step_files, 'file')} of remote steps",
            f"{counted(self.uploads, 'archived upload')}",
            f"{counted(self.documents, 'rejected document')}",
        ]
        done, findings = "to delete" if self.is_planned else "deleted", counted(len(self.findings), "finding")
        return f"{done}: {', '.join(deleted)}; archive audit of the last days: {findings}"


@dataclass
class Pipeline:
    """Ingests uploads and refreshes tables for one run. Use :func:`open_pipeline`, which also closes it."""

    settings: Settings
    lakehouse: Lakehouse
    landing: Landing

    @cached_property
    def ingestion(self) -> Ingestion:
        """Ingestion of uploads into Bronze. If the engine is Spark, it parses large backlogs."""
        parser = (lambda: cast(ParsingEngine, self.engine)) if parses_batches(self.settings) else None
        return open_ingestion(self.settings, self.landing, self.lakehouse, parser)

    @cached_property
    def engine(self) -> Engine:
        """The engine that the settings name. It is opened when it is first used."""
        return open_engine(self.settings, self.lakehouse)

    def close(self) -> None:
        """Close the engine, if it was opened, and the catalog."""
        if "engine" in self.__dict__:
            self.engine.close()
        self.lakehouse.close()

    def ingest(self, run_id: str, progress: Callable[[BatchReport], None] = lambda _: None) -> list[BatchReport]:
        """Ingest all waiting uploads into Bronze. See :meth:`Ingestion.ingest_waiting`.

        :param progress: called with the report of each committed batch.
        :raises TableMismatchError: if a table differs from its contract. Then nothing is ingested.
        """
        with translate_errors(self.settings):
            listing = self.landing.listing()
            self.lakehouse.prepare()
            return self.ingestion.ingest_waiting(run_id, progress, listing)

    def replay_rejected(self, selection: ReplaySelection, run_id: str) -> ReplayResult:
        """Ingest rejected documents again. See :meth:`Ingestion.replay`.

        :raises SettingsError: if a setting that the engine requires is missing. Then nothing is moved.
        """
        require_engine_settings(self.settings)
        with translate_errors(self.settings):
            self.lakehouse.prepare()
            return self.ingestion.replay(selection, run_id)

    def try_replay(self, selection: ReplaySelection) -> ReplayResult:
        """Return the result that :meth:`replay_rejected` would have, without changing anything."""
        with translate_errors(self.settings):
            return self.ingestion.try_replay(selection)

    def refresh_all(
        self,
        run_id: str,
        insurance_as_of: date | None,
        progress: Callable[[RefreshResult], None],
        between_steps: Callable[[RefreshResult], None] = no_callback,
    ) -> list[RefreshResult]:
        """Refresh all derived tables that are behind their upstream. :meth:`ingest` must prepare the tables first.

        :param progress: called with the result of each table.
        :param between_steps: called between two pieces of a rebuild.
        """
        results: list[RefreshResult] = []
        for contract in derived_tables():
            results.append(self._refresh(contract, run_id, None, insurance_as_of, between_steps=between_steps))
            progress(results[-1])
        return results

    def update(self, contract: DerivedTable, run_id: str, insurance_as_of: date | None = None) -> RefreshResult | None:
        """Update a derived table if its upstream has changed. Parts that have to be rebuilt are left to a refresh."""
        table, upstream = self.lakehouse.existing(contract), self.lakehouse.existing(contract.upstream)
        if table is None or upstream is None or not has_changes(table, contract, upstream):
            return None
        return self._refresh(contract, run_id, None, insurance_as_of, rebuilds=False)

    def refresh(
        self,
        contract: DerivedTable,
        run_id: str,
        event_dates: frozenset[date] | None = None,
        insurance_as_of: date | None = None,
        *,
        between_steps: Callable[[RefreshResult], None] = no_callback,
    ) -> RefreshResult:
        """Refresh a derived table. See :meth:`Engine.refresh`.

        :param event_dates: dates to rebuild; None refreshes the dates on which the table is behind.
        :param insurance_as_of: date for which the insurance status is computed; None is today in UTC.
        :param between_steps: called between two pieces of a rebuild, with the result of the first.
        :raises TableMismatchError: if the table or its upstream differs from its contract. Then nothing is written.
        :raises QualityError: if the upstream or the new rows have duplicate keys. Then nothing is written.
        """
        with translate_errors(self.settings):
            self.lakehouse.prepare((contract.upstream, contract))
        return self._refresh(contract, run_id, event_dates, insurance_as_of, between_steps=between_steps)

    def _refresh(
        self,
        contract: DerivedTable,
        run_id: str,
        event_dates: frozenset[date] | None,
        insurance_as_of: date | None,
        *,
        rebuilds: bool = True,
        between_steps: Callable[[RefreshResult], None] = no_callback,
    ) -> RefreshResult:
        as_of = insurance_as_of or datetime.now(UTC).date()
        parameters = RefreshParameters(as_of, self.settings.alert_rules)
        with translate_errors(self.settings):
            request = RefreshRequest(contract, event_dates, parameters, run_id, rebuilds)
            result = self.engine.refresh(request, between_steps)
        if result.rebuild_reason:
            logger.info("%s was rebuilt, because %s", contract.full_name, result.rebuild_reason)
        logger.info(
            "%s: %d event dates, %d rows read, %d written%s, %.2f s",
            contract.full_name,
            len(result.event_dates),
            sum(result.rows_read.values()),
            result.rows_written,
            "" if result.changed else " (unchanged)",
            result.seconds,
        )
        return result

    def process(
        self,
        run_id: str,
        insurance_as_of: date | None = None,
        progress: Callable[[BatchReport | RefreshResult], None] = lambda _: None,
    ) -> ProcessResult:
        """Ingest all waiting uploads, then refresh Silver and Gold.

        If a table is rebuilt in pieces, uploads that arrive in the meantime are ingested between two pieces, and all
        tables are updated from them.

        :param progress: called with the report of each committed batch and the result of each refresh.
        :raises QualityError: if documents of a batch are missing from the tables, or a table has duplicate keys.
        :raises SettingsError: if a setting that the engine requires is missing. Then nothing is ingested.
        :raises UnclaimableUploadsError: if uploads cannot be moved, and no others waited. Raised after the refreshes.
        """
        require_engine_settings(self.settings)
        batch_reports: list[BatchReport] = []
        unclaimable: UnclaimableUploadsError | None = None
        try:
            batch_reports = self.ingest(run_id, progress)
        except UnclaimableUploadsError as error:
            # Refresh the tables that are behind first.
            unclaimable = error
        for batch_report in batch_reports:
            require_conservation(self.lakehouse, batch_report)

        def ingest() -> None:
            taken = self.ingest(run_id, progress)
            for one in taken:
                require_conservation(self.lakehouse, one)
            batch_reports.extend(taken)

        between = BetweenPieces(self, ingest, lambda contract: self.update(contract, run_id, insurance_as_of))
        refreshes = self.refresh_all(run_id, insurance_as_of, progress, between)
        self.maintain_after_run()
        if unclaimable is not None:
            raise unclaimable
        return ProcessResult(tuple(batch_reports), tuple(refreshes))

    @property
    def maintenance_policy(self) -> MaintenancePolicy:
        """When tables are maintained, and what is kept."""
        return MaintenancePolicy.of(self.settings)

    def condition(self, contract: TableContract) -> TableCondition:
        """How well a table is maintained."""
        with translate_errors(self.settings):
            return condition(self.lakehouse, contract, self.maintenance_policy)

    def maintain(self, contracts: Iterable[TableContract], *, dry_run: bool = False) -> Iterator[MaintenanceReport]:
        """Do all maintenance of tables. Those that do not exist are left out.

        See :func:`telemetry_assets.lakehouse.maintenance.maintain`.

        :param dry_run: only report what would be done.
        :raises MaintenanceError: after the other tables, if one could not be maintained.
        """
        problems: dict[str, str] = {}
        for contract in contracts:
            try:
                report = self._maintain(contract, dry_run=dry_run)
            except Exception as error:
                problems[contract.full_name] = f"{type(error).__name__}: {error}"
                logger.error("%s could not be maintained: %s", contract.full_name, problems[contract.full_name])
            else:
                if report is not None:
                    yield report
        if problems:
            raise MaintenanceError(problems)

    def _maintain(self, contract: TableContract, *, dry_run: bool) -> MaintenanceReport | None:
        with translate_errors(self.settings):
            if self.lakehouse.existing(contract) is None:
                return None
            in_progress = self.ingestion.journal.load()
            began = in_progress.ingested_at if in_progress else None
            return maintain(self.lakehouse, contract, self.maintenance_policy, began, dry_run=dry_run)

    def clean_up(self, run_id: str, *, dry_run: bool = False) -> CleanUp:
        """Delete what is older than its retention, and audit the archive of the last days.

        These are the files of remote steps, and archived uploads and rejected documents if the settings say so. The
        findings of the audit are not repaired: runs repair those of the newest batches, `doctor --repair` all.

        :param run_id: is written to the summaries of the snapshots.
        :param dry_run: only report what would be deleted.
        """
        now = datetime.now(UTC)
        with translate_errors(self.settings):
            old = self._old_step_files(now)
            if not dry_run:
                delete_files(old)
            uploads, documents = self._delete_old_data(now, run_id, dry_run=dry_run)
            findings = tuple(self.ingestion.audit.since(now - _AUDITED))
            return CleanUp(len(old), uploads, documents, findings, dry_run)

    def _delete_old_data(self, now: datetime, run_id: str, *, dry_run: bool) -> tuple[int, int]:
        archive, rejected = (
            now - timedelta(days=days) if days else None
            for days in (self.settings.archive_retention_days, self.settings.rejected_retention_days)
        )
        uploads = ExpiredUploads(self.ingestion, archive).delete(dry_run=dry_run) if archive else 0
        documents = delete_rejected(self.ingestion, rejected, run_id, dry_run=dry_run) if rejected else 0
        return uploads, documents

    def _old_step_files(self, now: datetime) -> list[str]:
        if not self.settings.is_in_s3:
            return []
        from telemetry_assets.engines.remote.step import old_step_files

        # A step that waits or is executed has younger files.
        longest = timedelta(minutes=self.settings.remote_wait_minutes + self.settings.remote_timeout_minutes)
        written_before = now - max(timedelta(hours=self.settings.orphan_age_hours), longest)
        in_progress = self.ingestion.journal.load()
        return old_step_files(
            self.settings, min(written_before, in_progress.ingested_at) if in_progress else written_before
        )

    def maintain_after_run(self) -> list[MaintenanceReport]:
        """Do the maintenance that is due, in a bounded time. An error is logged, because the run has done its work."""
        try:
            with translate_errors(self.settings):
                return maintain_briefly(self.lakehouse, self.maintenance_policy, self.settings.maintenance_seconds)
        except Exception as error:
            logger.error("maintenance after the run failed: %s: %s", type(error).__name__, error)
            return []

    def reconcile(self, since: datetime | None = None, until: datetime | None = None) -> Reconciliation:
        """Compare the ledger with the Bronze rows of a time range. See :func:`reconciliation.reconcile`."""
        in_progress = self.ingestion.journal.load()
        with translate_errors(self.settings):
            return reconcile(self.lakehouse, since, until, in_progress=in_progress.batch_id if in_progress else None)

    def tables_behind(self) -> list[DerivedTable]:
        """The derived tables that do not exist or are behind their upstream. Creates and writes nothing."""
        derived = derived_tables()
        # Each table is loaded once, because the sensor asks every few seconds.
        tables = {one: self.lakehouse.existing(one) for one in {*derived, *(one.upstream for one in derived)}}
        return [one for one in derived if self._is_behind(one, tables[one], tables[one.upstream])]

    def _is_behind(self, contract: DerivedTable, table: Table | None, upstream: Table | None) -> bool:
        if upstream is None:
            return False
        return table is None or is_behind(table, contract, upstream, self.lakehouse.transform_edition(contract))


class BetweenPieces:
    """What a run does between two pieces of a rebuild: it ingests waiting uploads, and updates all tables from them.

    :param ingest: ingests the waiting uploads.
    :param update: updates a table from the changes of its upstream.
    """

    def __init__(
        self, pipeline: Pipeline, ingest: Callable[[], None], update: Callable[[DerivedTable], object]
    ) -> None:
        self._pipeline = pipeline
        self._ingest = ingest
        self._update = update
        # The run may have ingested uploads before the rebuild, or an earlier run may have failed after ingestion.
        self._is_update_due = True

    def __call__(self, _: RefreshResult) -> None:
        """Called after each piece but the last."""
        is_waiting = self._pipeline.ingestion.has_work()
        if is_waiting:
            # Update the tables from the pieces so far. If these changed too many rows, this only registers their event
            # dates. The second update then has only the rows of the uploads, and does not have to register them too.
            self._update_all()
            self._is_update_due = True
            self._ingest()
        if self._is_update_due:
            self._is_update_due = not self._update_all()

    def _update_all(self) -> bool:
        """Update all tables. Returns whether all could be updated. An error of a table does not concern the others."""
        succeeded = True
        for contract in derived_tables():
            try:
                self._update(contract)
            except Exception as error:
                succeeded = False
                logger.error("%s could not be updated between two pieces of a rebuild: %s", contract.full_name, error)
        return succeeded


@contextmanager
def open_pipeline(settings: Settings) -> Iterator[Pipeline]:
    """Open the landing location and the lakehouse of the settings, and close them afterwards.

    :raises SettingsError: if one of them cannot be used.
    """
    with translate_errors(settings):
        pipeline = Pipeline(settings, open_lakehouse(settings), open_landing(settings))
        try:
            yield pipeline
        finally:
            pipeline.close()


@contextmanager
def translate_errors(settings: Settings) -> Iterator[None]:
    """Convert errors of file systems and AWS to this project's exceptions.

    :raises StorageError: if a file operation fails, for example because a file system is full or read-only.
    :raises AwsError: if AWS refuses a request, and the lakehouse is in S3.
    """
    with translate_storage_errors(*_local_folders(settings)), _translate_aws(settings):
        yield


def _local_folders(settings: Settings) -> list[Path]:
    return [] if settings.is_in_s3 else [settings.lakehouse_folder(), settings.landing_folder()]


def _translate_aws(settings: Settings) -> AbstractContextManager[None]:
    if not settings.is_in_s3:
        return nullcontext()
    from telemetry_assets.aws.errors import translate_aws_errors

    return translate_aws_errors()
