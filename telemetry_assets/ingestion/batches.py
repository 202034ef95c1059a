"""One batch of uploads into Bronze exactly once, across crashes.

The steps, each skipped when it is found done, so that a kill anywhere is repaired by the next run:
journal entry (one at a time, create-if-absent), claim, read, entry settled, rejected documents, Bronze, the
ledger, archive, journal entry removed. A settled journal entry always gives the same rows, whoever reads it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.expressions import EqualTo
from pyiceberg.manifest import DataFile
from pyiceberg.table.snapshots import Snapshot

from telemetry_assets.errors import ConcurrentWriteError, SettingsError, SparkError
from telemetry_assets.file_system.errors import is_storage_error
from telemetry_assets.ingestion.archive_audit import ArchiveAudit
from telemetry_assets.ingestion.batch_parser import BatchRows, LocalParser, Parser
from telemetry_assets.ingestion.batch_reports import (
    BATCH_REPORT,
    BatchReport,
    batch_report_from_tables,
    batch_report_of,
)
from telemetry_assets.ingestion.journal.attempts import attempt
from telemetry_assets.ingestion.journal.base import BatchUpload, Journal, JournalEntry
from telemetry_assets.ingestion.landing.base import Landing
from telemetry_assets.ingestion.ledger import INGESTED_AT, newest_moment, rows_of_batch
from telemetry_assets.lakehouse.batch_rows import append_batch, holds_batch
from telemetry_assets.lakehouse.catalog import Lakehouse
from telemetry_assets.settings import Settings
from telemetry_assets.tables import BRONZE, REJECTED, UPLOADS
from telemetry_assets.tables.contract import TableContract
from telemetry_assets.text.plain import plain_logger

logger = plain_logger(__name__)

Result = TypeVar("Result")

_ATTEMPTS = 1000
"""How often a run goes on after another one has changed the journal entry of the same batch."""
DEATHS = 2
"""So many runs that have died at an upload, or at a replay, are enough. The run before them has left no note."""


@dataclass(frozen=True)
class Batches:
    """Carries batches of claimed uploads into Bronze.

    :param scaled_parser: what parses batches that are too large for this process, where there is such.
    """

    landing: Landing
    lakehouse: Lakehouse
    journal: Journal
    settings: Settings
    audit: ArchiveAudit
    scaled_parser: Callable[[], Parser] | None = None

    def finish(self, entry: JournalEntry, run_id: str, *, is_taken_up: bool = False) -> BatchReport | None:
        """Carry a batch to its end from wherever it stands; None where nothing was there to take.

        :param is_taken_up: whether another run has begun it, and may have died of one of its uploads.
        """
        batch_report = self._committed(entry, run_id, is_taken_up)
        # What another run has made of the same batch stands in its journal entry.
        current = self.journal.load()
        if current is not None and current.batch_id == entry.batch_id:
            entry.uploads = current.uploads
            if current.settled:
                if not self._clear(current, run_id):
                    # Some of its uploads have just been put back.
                    return batch_report_from_tables(self.lakehouse, entry.batch_id)
            else:
                # A request to create it whose first answer was lost can bring a journal entry back after its batch has
                # ended. It says nothing of what became of its uploads.
                self.journal.remove(current)
        return batch_report

    def _committed(self, entry: JournalEntry, run_id: str, is_taken_up: bool) -> BatchReport | None:
        """The batch's batch_report once its rows are in the tables; None where no upload is in the batch.

        :raises ConcurrentWriteError: where other runs keep changing the journal entry.
        """
        current: JournalEntry | None = entry
        for _ in range(_ATTEMPTS):
            if self._is_committed(entry):
                return batch_report_from_tables(self.lakehouse, entry.batch_id)
            if current is None or current.batch_id != entry.batch_id:
                return None
            tag = current.tag
            try:
                taken = self._settled(current, run_id, is_taken_up)
            except (OSError, SparkError):
                current = self.journal.load()
                if current is not None and current.tag == tag and not self._is_committed(entry):
                    raise
                continue
            if taken is not None:
                return self._appended(current, taken, run_id) if taken.uploads else None
            # Another run has settled the same batch first, or has ended it.
            current = self.journal.load()
        raise ConcurrentWriteError(f"The journal entry of batch {entry.batch_id}", _ATTEMPTS)

    def _is_committed(self, entry: JournalEntry) -> bool:
        """Whether all rows of the batch are committed: those of the ledger, which are the last, and those it counts."""
        ledger = self.lakehouse.table(UPLOADS)
        if not holds_batch(ledger, entry.batch_id, entry.positions.get(UPLOADS.full_name)):
            return False
        of_batch = EqualTo(term="batch_id", value=entry.batch_id)
        counts = ledger.scan(of_batch, selected_fields=("accepted", "rejected")).to_arrow()
        # Somebody may have rolled a table back since.
        return all(
            holds_batch(self.lakehouse.table(contract), entry.batch_id, entry.positions.get(contract.full_name))
            for contract, column in ((BRONZE, "accepted"), (REJECTED, "rejected"))
            if pc.sum(counts[column]).as_py()
        )

    def _settled(self, entry: JournalEntry, run_id: str, is_taken_up: bool) -> BatchRows | None:
        """The rows of every upload of the batch; None where the journal entry is another one by now.

        The journal entry says what becomes of each upload before any row is written, so that all runs write the same.
        """
        unsettled = deepcopy(entry)
        if not entry.settled:
            self._hold_newest(entry)
            self._claim(entry)
        if is_taken_up and not entry.settled:
            attempts = self.journal.attempts(entry.batch_id)
            _set_aside_what_runs_died_of(entry, attempts.deaths())
            with attempt(attempts) as current:
                taken = self._parser(entry, current.note).parse(entry, run_id)
        else:
            taken = self._parser(entry).parse(entry, run_id)
        entry.settled = True
        return taken if entry == unsettled or self.journal.replace(entry) else None

    def _hold_newest(self, entry: JournalEntry) -> None:
        """A batch is newer than all batches before it, whatever the clock says and however long its run has paused.

        While its journal entry is the one in progress no other batch can come before it.
        """
        latest = newest_moment(self.lakehouse.table(UPLOADS))
        if latest is not None and entry.ingested_at <= latest:
            entry.ingested_at = latest + timedelta(microseconds=1)

    def _claim(self, entry: JournalEntry) -> None:
        def claim(item: BatchUpload) -> None:
            if item.outcome != "claimed":
                return
            try:
                claimed = self.landing.claim(entry.batch_id, item.upload)
            except OSError as error:
                if is_storage_error(error):
                    raise
                claimed, item.problem = False, error.strerror or str(error)
            if not claimed:
                logger.info("%s is left out: %s", item.upload.uri, item.problem or "it was replaced or removed")
                item.outcome = "gone"

        self._each(claim, entry.uploads)

    def _clear(self, entry: JournalEntry, run_id: str) -> bool:
        """Archive or release the uploads of a batch whose rows are committed, and end the batch.

        :returns: whether all uploads are in the archive as they were read; others wait again.
        """

        def clear(item: BatchUpload) -> bool:
            step = self.landing.archive if item.is_in_batch else self.landing.release
            step(entry.batch_id, item.upload)
            return not item.is_in_batch or self.landing.is_as_claimed(entry.batch_id, item.upload)

        as_claimed = all(self._each(clear, entry.uploads))
        self.landing.finish(entry.batch_id)
        self.journal.attempts(entry.batch_id).forget()
        self.journal.remove(entry)
        if not as_claimed:
            self.audit.mend(self.audit.examine(entry.batch_id), run_id)
        return as_claimed

    def _each(self, step: Callable[[BatchUpload], Result], items: Iterable[BatchUpload]) -> list[Result]:
        """What a step of the landing location gives for each upload, several at a time."""
        with ThreadPoolExecutor(self.settings.read_threads) as threads:
            return list(threads.map(step, items))

    def _parser(self, entry: JournalEntry, before_each: Callable[[int], None] | None = None) -> Parser:
        if entry.is_scaled:
            if self.scaled_parser is not None:
                return self.scaled_parser()
            if entry.settled:
                raise SettingsError(
                    f"Batch {entry.batch_id} was begun in Spark and is too large for TELEMETRY_ENGINE="
                    f"{self.settings.engine}. Set TELEMETRY_ENGINE to spark, emr_serverless or glue until it is done."
                )
        # What is too much for this process waits for the next batch.
        return LocalParser(self.landing, self.lakehouse, self.settings, before_each)

    def _appended(self, entry: JournalEntry, taken: BatchRows, run_id: str) -> BatchReport:
        batch_report = batch_report_of(entry, taken)
        summary = {
            "telemetry.run-id": run_id,
            "telemetry.step": "ingest",
            INGESTED_AT: entry.ingested_at.isoformat(),
            BATCH_REPORT: batch_report.model_dump_json(exclude={"snapshot_id"}),
        }
        rows = {REJECTED: taken.rejections, BRONZE: taken.bronze}
        snapshot = None
        for contract, count in ((REJECTED, batch_report.rejected), (BRONZE, batch_report.accepted)):
            if count:
                snapshot = self._append(entry, contract, rows[contract], summary)
        ledger = rows_of_batch(entry, taken.uploads, self.landing)
        of_ledger = {name: value for name, value in summary.items() if name != BATCH_REPORT}
        self._append(entry, UPLOADS, ledger, of_ledger)
        of_bronze = snapshot if batch_report.accepted else None
        return batch_report.model_copy(update={"snapshot_id": of_bronze.snapshot_id if of_bronze else None})

    def _append(
        self,
        entry: JournalEntry,
        contract: TableContract,
        rows: pa.Table | Sequence[DataFile],
        summary: Mapping[str, str],
    ) -> Snapshot | None:
        since = entry.positions.get(contract.full_name)
        return append_batch(self.lakehouse, contract, entry.batch_id, rows, summary, since)


def _set_aside_what_runs_died_of(entry: JournalEntry, deaths: Sequence[int]) -> None:
    """Note which uploads are rejected, as runs have died while they parsed them.

    :param deaths: the number of an upload for each run that has died.
    """
    for number, count in Counter(deaths).items():
        item = entry.uploads[number]
        if count >= DEATHS and item.is_in_batch:
            logger.error("%s is rejected: run after run was killed, or ran out of memory, over it", item.upload.uri)
            item.outcome = "fatal"
        else:
            logger.warning(
                "a run was killed, or ran out of memory, while it parsed %s; it is tried again", item.upload.uri
            )
