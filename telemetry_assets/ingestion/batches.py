"""Writes one batch of uploads to the Bronze tables exactly once, even if processes are killed in between.

The steps: store the journal entry, claim the uploads, parse them, settle the entry (its ingestion time and outcomes
become final), append the rejected documents, append to Bronze, append to the ledger, archive the uploads, remove the
entry. A run that resumes a batch skips the steps that are done. Every run that parses a settled entry produces the same
rows. If another edition of the parser has settled the entry of a batch, a run first removes the batch's rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.expressions import EqualTo
from pyiceberg.manifest import DataFile
from pyiceberg.table.snapshots import Snapshot

from telemetry_assets.errors import ConcurrentWriteError, SettingsError, SparkError
from telemetry_assets.file_system import is_storage_error
from telemetry_assets.ingestion.archive_audit import ArchiveAudit
from telemetry_assets.ingestion.batch_parser import LocalParser, ParsedBatch, Parser
from telemetry_assets.ingestion.context import IngestionContext
from telemetry_assets.ingestion.journal.base import BatchUpload, JournalEntry, attempt
from telemetry_assets.ingestion.landing.base import WaitingUpload
from telemetry_assets.ingestion.ledger import INGESTED_AT, latest_ingested_at, rows_of_batch
from telemetry_assets.ingestion.parsing.framing import PARSER_EDITION
from telemetry_assets.ingestion.reconciliation import (
    BATCH_REPORT,
    BatchReport,
    batch_report_from_tables,
    batch_report_of,
)
from telemetry_assets.lakehouse.batch_rows import append_batch, contains_batch, remove_batch
from telemetry_assets.lakehouse.commits import until_committed
from telemetry_assets.lakehouse.snapshots import RUN_ID
from telemetry_assets.tables import BRONZE, REJECTED, UPLOADS
from telemetry_assets.tables.contract import TableContract
from telemetry_assets.text.plain import plain_logger

logger = plain_logger(__name__)

Result = TypeVar("Result")

_ATTEMPTS = 1000
"""How often a run starts again because another run has changed the journal entry of the same batch."""
MAX_DEATHS = 2
"""An upload is rejected, and a replay is given up, after this many resuming runs died during it. The run that began the
batch is not counted, because it writes no note."""


@dataclass(frozen=True)
class FinishedBatch:
    """The result of a batch that a run has finished.

    :param report: None if no upload was in the batch, or the entry was for a replay.
    :param uploads: the uploads of the batch with their outcomes.
    """

    report: BatchReport | None
    uploads: tuple[BatchUpload, ...] = ()

    @property
    def postponed(self) -> list[WaitingUpload]:
        """The uploads that did not fit into the batch."""
        return [item.upload for item in self.uploads if item.outcome == "postponed"]

    @property
    def unclaimable(self) -> dict[str, str]:
        """The URIs of the uploads that this process may not move, each with the error."""
        return {item.upload.uri: item.problem for item in self.uploads if item.is_unclaimable}


@dataclass(frozen=True)
class BatchWriter:
    """Writes the batches of one run to the Bronze tables.

    :param run_id: is written to the summaries of the snapshots.
    """

    context: IngestionContext
    run_id: str

    def finish(self, entry: JournalEntry, *, is_resumed: bool = False) -> FinishedBatch:
        """Complete a batch from its current step.

        :param entry: the stored journal entry.
        :param is_resumed: whether another run began the batch. That run may have died while it parsed an upload.
        """
        report, uploads = self._commit(entry, is_resumed)
        # Another run of the same batch may have stored other outcomes.
        current = self.context.journal.load()
        if current is None or current.batch_id != entry.batch_id:
            return FinishedBatch(report, uploads)
        if not current.settled:
            # If boto3 repeats a request whose response was lost, S3 may create the entry again after the batch has
            # ended. This new entry does not have the outcomes.
            self.context.journal.remove(current)
        elif not self._clear(current):
            # The audit has just put some uploads back and deleted their rows.
            report = batch_report_from_tables(self.context.lakehouse, entry.batch_id)
        return FinishedBatch(report, current.uploads)

    def _commit(self, entry: JournalEntry, is_resumed: bool) -> tuple[BatchReport | None, tuple[BatchUpload, ...]]:
        """Write the batch's rows to the tables, unless another run has done so.

        :returns: the report, None if no upload is in the batch; and the uploads with the outcomes that this run found.
        :raises ConcurrentWriteError: if other runs keep changing the journal entry.
        """
        journal, uploads = self.context.journal, entry.uploads
        current: JournalEntry | None = entry
        for _ in range(_ATTEMPTS):
            if self._is_committed(entry):
                return batch_report_from_tables(self.context.lakehouse, entry.batch_id), uploads
            if current is None or current.batch_id != entry.batch_id:
                return None, uploads
            if current.settled and current.parser_edition != PARSER_EDITION:
                current = self._without_rows_of_another_parser(current)
                continue
            try:
                settled, parsed = self._settle(current, is_resumed)
            except (OSError, SparkError):
                newest = journal.load()
                if newest is not None and newest.tag == current.tag and not self._is_committed(entry):
                    raise
                # Another run has changed or finished the batch, which may be why this one failed.
                current = newest
                continue
            uploads = settled.uploads
            stored = settled if settled == current else journal.replace(settled)
            if stored is not None:
                return self._append(stored, parsed) if parsed.reports else None, uploads
            # Another run has settled or finished the batch first.
            current = journal.load()
        raise ConcurrentWriteError(f"The journal entry of batch {entry.batch_id}", _ATTEMPTS)

    def _is_committed(self, entry: JournalEntry) -> bool:
        """Whether all rows of the batch are in the tables."""
        table = self.context.lakehouse.table
        ledger = table(UPLOADS)
        # The rows of the ledger are the last that a batch commits.
        if not contains_batch(ledger, entry.batch_id, entry.positions.get(UPLOADS.full_name)):
            return False
        of_batch = EqualTo(term="batch_id", value=entry.batch_id)
        counts = ledger.scan(of_batch, selected_fields=("accepted", "rejected")).to_arrow()
        # The other tables may have been rolled back since.
        return all(
            contains_batch(table(contract), entry.batch_id, entry.positions.get(contract.full_name))
            for contract, column in ((BRONZE, "accepted"), (REJECTED, "rejected"))
            if pc.sum(counts[column]).as_py()
        )

    def _without_rows_of_another_parser(self, entry: JournalEntry) -> JournalEntry | None:
        """Remove the rows that a run of another version has written, because this version may parse other documents.

        :returns: the entry that is stored then; None if there is none.
        """
        # Without the engine that the batch needs, its rows could not be written again.
        self._parser(entry, None)
        logger.warning(
            "batch %s was begun by edition %s of the parser; edition %s writes its rows again",
            entry.batch_id,
            entry.parser_edition,
            PARSER_EDITION,
        )
        journal = self.context.journal

        def remove(contract: TableContract) -> None:
            table, stored = self.context.lakehouse.table(contract), journal.load()
            # Runs of this version write rows only after the stored entry has this version's edition. If one does so
            # after this check, the table has changed since it was loaded, and the deletion fails.
            if stored is not None and stored.tag == entry.tag:
                remove_batch(table, entry.batch_id, {RUN_ID: self.run_id, "telemetry.step": "ingest"})

        for contract in (REJECTED, BRONZE):
            until_committed(contract, partial(remove, contract))
        return journal.replace(replace(entry, parser_edition=PARSER_EDITION)) or journal.load()

    def _settle(self, entry: JournalEntry, is_resumed: bool) -> tuple[JournalEntry, ParsedBatch]:
        """Claim and parse the uploads.

        :returns: the settled entry, which is not stored yet, and the rows.
        """
        if entry.settled:
            parsed = self._parse(entry)
        elif not is_resumed:
            entry = self._claim(self._with_later_ingested_at(entry))
            parsed = self._parse(entry)
        else:
            attempts = self.context.journal.attempts(entry.batch_id)
            entry = _reject_deadly(self._claim(self._with_later_ingested_at(entry)), attempts.deaths())
            with attempt(attempts) as current:
                parsed = self._parse(entry, current.note)
        return replace(entry, uploads=parsed.uploads, settled=True, parser_edition=PARSER_EDITION), parsed

    def _with_later_ingested_at(self, entry: JournalEntry) -> JournalEntry:
        """The entry with an ingestion time later than that of every earlier batch, even if the clock was set back.

        No other batch can begin while this entry is in the journal, so its ingestion time stays the latest.
        """
        latest = latest_ingested_at(self.context.lakehouse.table(UPLOADS))
        if latest is None or entry.ingested_at > latest:
            return entry
        return replace(entry, ingested_at=latest + timedelta(microseconds=1))

    def _claim(self, entry: JournalEntry) -> JournalEntry:
        """Claim the uploads; those that cannot be claimed are ``gone``."""

        def claim(item: BatchUpload) -> BatchUpload:
            if item.outcome != "claimed":
                return item
            problem = item.problem
            try:
                if self.context.landing.claim(entry.batch_id, item.upload):
                    return item
            except OSError as error:
                if is_storage_error(error):
                    raise
                problem = error.strerror or str(error)
            logger.info("%s is left out: %s", item.upload.uri, problem or "it was replaced or removed")
            return replace(item, outcome="gone", problem=problem)

        return replace(entry, uploads=tuple(self._each(claim, entry.uploads)))

    def _parse(self, entry: JournalEntry, before_each: Callable[[int], None] | None = None) -> ParsedBatch:
        return self._parser(entry, before_each).parse(entry, self.run_id)

    def _parser(self, entry: JournalEntry, before_each: Callable[[int], None] | None) -> Parser:
        context = self.context
        if entry.is_scaled:
            if context.scaled_parser is not None:
                return context.scaled_parser()
            if entry.settled:
                raise SettingsError(
                    f"Batch {entry.batch_id} was begun in Spark and is too large for TELEMETRY_ENGINE="
                    f"{context.settings.engine}. Set TELEMETRY_ENGINE to spark, emr_serverless or glue until it is "
                    "done."
                )
        # If a large batch is not settled, this process parses a part of it and postpones the rest.
        return LocalParser(context.landing, context.lakehouse, context.settings, before_each)

    def _append(self, entry: JournalEntry, parsed: ParsedBatch) -> BatchReport:
        """Append the batch's rows to the three tables, the ledger last."""
        report = batch_report_of(entry, parsed)
        summary = {
            RUN_ID: self.run_id,
            "telemetry.step": "ingest",
            INGESTED_AT: entry.ingested_at.isoformat(),
        }
        with_report = {**summary, BATCH_REPORT: report.model_dump_json(exclude={"snapshot_id"})}
        if report.rejected:
            self._append_rows(entry, REJECTED, parsed.rejections, with_report)
        snapshot = self._append_rows(entry, BRONZE, parsed.bronze, with_report) if report.accepted else None
        self._append_rows(entry, UPLOADS, rows_of_batch(entry, parsed.reports, self.context.landing), summary)
        return report.model_copy(update={"snapshot_id": snapshot.snapshot_id if snapshot else None})

    def _append_rows(
        self,
        entry: JournalEntry,
        contract: TableContract,
        rows: pa.Table | Sequence[DataFile],
        summary: Mapping[str, str],
    ) -> Snapshot | None:
        since = entry.positions.get(contract.full_name)
        return append_batch(self.context.lakehouse, contract, entry.batch_id, rows, summary, since)

    def _clear(self, entry: JournalEntry) -> bool:
        """Archive the uploads of a committed batch, release those that are not in it, and remove the journal entry.

        :returns: whether every archived upload is unchanged since its claim. If its writer has changed an upload, the
            upload is moved back to the landing location.
        """
        context = self.context

        def clear(item: BatchUpload) -> bool:
            step = context.landing.archive if item.is_in_batch else context.landing.release
            step(entry.batch_id, item.upload)
            return not item.is_in_batch or context.landing.is_as_claimed(entry.batch_id, item.upload)

        are_as_claimed = all(self._each(clear, entry.uploads))
        context.landing.finish(entry.batch_id)
        context.journal.attempts(entry.batch_id).forget()
        context.journal.remove(entry)
        if not are_as_claimed:
            audit = ArchiveAudit(context)
            audit.repair(audit.examine(entry.batch_id), self.run_id)
        return are_as_claimed

    def _each(self, step: Callable[[BatchUpload], Result], items: Iterable[BatchUpload]) -> list[Result]:
        """Call a step of the landing location for each upload, several at a time."""
        with ThreadPoolExecutor(self.context.settings.read_threads) as threads:
            return list(threads.map(step, items))


def _reject_deadly(entry: JournalEntry, deaths: Sequence[int]) -> JournalEntry:
    """The entry with the outcome ``fatal`` for uploads that keep killing runs.

    :param deaths: for each run that has died, the number of the upload that it was parsing.
    """
    uploads = list(entry.uploads)
    for number, count in Counter(deaths).items():
        item = uploads[number]
        if count >= MAX_DEATHS and item.is_in_batch:
            logger.error("%s is rejected: several runs were killed or ran out of memory parsing it", item.upload.uri)
            uploads[number] = replace(item, outcome="fatal")
        else:
            logger.warning("a run was killed or ran out of memory parsing %s; it is parsed again", item.upload.uri)
    return replace(entry, uploads=tuple(uploads))
