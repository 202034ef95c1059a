"""Ingests all waiting uploads: selects the uploads of each batch, oldest first, and completes the batch."""

from __future__ import annotations

import unicodedata
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate

from telemetry_assets.errors import ConcurrentWriteError, UnclaimableUploadsError
from telemetry_assets.ingestion.archive_audit import ArchiveAudit
from telemetry_assets.ingestion.batch_parser import Parser
from telemetry_assets.ingestion.batches import MAX_DEATHS, BatchWriter, FinishedBatch
from telemetry_assets.ingestion.context import IngestionContext
from telemetry_assets.ingestion.journal import open_journal
from telemetry_assets.ingestion.journal.base import BatchUpload, JournalEntry, ReplaySelection, attempt
from telemetry_assets.ingestion.landing.base import Landing, Listing, WaitingUpload, new_batch_id
from telemetry_assets.ingestion.ledger import latest_ingested_at
from telemetry_assets.ingestion.reconciliation import BatchReport
from telemetry_assets.ingestion.replays import Replay, ReplayResult
from telemetry_assets.lakehouse.batch_rows import TablePosition, uploads_with_rows
from telemetry_assets.lakehouse.catalog import Lakehouse
from telemetry_assets.settings import Settings
from telemetry_assets.tables import BRONZE, REJECTED, UPLOADS
from telemetry_assets.text.plain import plain_logger

logger = plain_logger(__name__)

_OBSTACLES_LOGGED = 20
_ATTEMPTS = 1000
"""How often a run finishes the batch of another run before it stops trying to begin its own."""

_Finish = Callable[[JournalEntry, bool], list[WaitingUpload]]
"""Finishes a batch; the flag is true if another run began the batch. Returns the uploads that did not fit into it."""


@dataclass(frozen=True)
class Ingestion(IngestionContext):
    """Ingests uploads and replays rejected documents. Open it with :func:`open_ingestion`."""

    def has_work(self) -> bool:
        """Whether an upload waits or a batch is in progress. Reads no upload."""
        return (
            self.journal.load() is not None
            or next(iter(self.landing.waiting()), None) is not None
            or next(iter(self.landing.claimed()), None) is not None
        )

    def ingest_waiting(
        self, run_id: str, progress: Callable[[BatchReport], None], listing: Listing | None = None
    ) -> list[BatchReport]:
        """Finish the batch in progress, if there is one, then ingest every upload that waits, oldest first.

        :param run_id: is written to the summaries of the snapshots.
        :param progress: called with the report of each finished batch.
        :param listing: an earlier listing of the landing location. It shortens the wait for the minimum age of the
            uploads.
        :raises UnclaimableUploadsError: if uploads cannot be moved and nothing else was ingested.
        """
        finished: list[FinishedBatch] = []

        def finish(entry: JournalEntry, is_resumed: bool) -> list[WaitingUpload]:
            batch = self._finish(entry, run_id, is_resumed=is_resumed)
            finished.append(batch)
            if batch.report is not None:
                progress(batch.report)
            return batch.postponed

        queue = deque(self._complete_uploads(listing or self.landing.listing(), run_id, finish))
        attempts = 0
        while queue:
            is_scaled = self._is_for_spark(queue)
            batch = _next_batch(queue, *self._batch_bounds(is_scaled))
            begun = self._new_entry(batch, is_scaled)
            self.landing.begin(begun.batch_id)
            entry = self.journal.create(begun)
            if entry is not None:
                postponed = finish(entry, False)
                attempts = 0
            else:
                attempts = _count_attempt(attempts)
                self.landing.finish(begun.batch_id)
                postponed = [*self._finish_batch_in_progress(finish), *batch]
            queue.extendleft(reversed(postponed))
        return _reports(finished)

    def replay(self, selection: ReplaySelection, run_id: str) -> ReplayResult:
        """Finish the batch in progress, if there is one, then ingest the selected rejected documents again."""
        self.audit.complete_ledger(run_id)
        now = datetime.now(UTC)
        begun = JournalEntry(new_batch_id(now), now, limits=self.limits, replay=selection)
        attempts = 0
        while (entry := self.journal.create(begun)) is None:
            attempts = _count_attempt(attempts)
            in_progress = self.journal.load()
            if in_progress is not None:
                self._finish(in_progress, run_id, is_resumed=True)
        result = Replay(self, entry.limits).run(selection, run_id, dry=False)
        self.journal.remove(entry)
        return result

    def try_replay(self, selection: ReplaySelection) -> ReplayResult:
        """The result that :meth:`replay` would have. Changes nothing."""
        return Replay(self).run(selection, "", dry=True)

    @property
    def audit(self) -> ArchiveAudit:
        """The audit of the archive."""
        return ArchiveAudit(self)

    def _finish(self, entry: JournalEntry, run_id: str, *, is_resumed: bool) -> FinishedBatch:
        if entry.replay is None:
            return BatchWriter(self, run_id).finish(entry, is_resumed=is_resumed)
        self._finish_replay(entry, entry.replay, run_id)
        return FinishedBatch(None)

    def _finish_replay(self, entry: JournalEntry, selection: ReplaySelection, run_id: str) -> None:
        """Finish a replay that another run began. That run may have died because of it."""
        attempts = self.journal.attempts(entry.batch_id)
        is_given_up = len(attempts.deaths()) >= MAX_DEATHS
        if is_given_up:
            logger.error("a replay is given up, as several runs died of it; documents not accepted yet stay rejected")
        with attempt(attempts) as current:
            current.note(0)
            Replay(self, entry.limits).run(selection, run_id, dry=False, only_begun=is_given_up)
        attempts.forget()
        self.journal.remove(entry)

    def _is_for_spark(self, queue: Iterable[WaitingUpload]) -> bool:
        waiting = sum(upload.size for upload in queue)
        return self.scaled_parser is not None and waiting > self.settings.spark_ingestion_min_bytes

    def _batch_bounds(self, is_scaled: bool) -> tuple[int, int]:
        """The maximum number of uploads and of bytes in the next batch."""
        settings = self.settings
        if is_scaled:
            return settings.spark_batch_max_uploads, settings.spark_batch_max_bytes
        return settings.batch_max_uploads, settings.batch_max_bytes

    def _finish_batch_in_progress(self, finish: _Finish) -> list[WaitingUpload]:
        entry = self.journal.load()
        if entry is None:
            return []
        logger.info("finishing batch %s, which another run began", entry.batch_id)
        return finish(entry, True)

    def _complete_uploads(self, listing: Listing, run_id: str, finish: _Finish) -> list[WaitingUpload]:
        """Finish the batches that earlier runs have left, then list the uploads that are complete, oldest first."""
        was_unfinished = self.journal.load() is not None
        self._finish_batch_in_progress(finish)
        moved_back = (
            self.audit.complete_ledger(run_id),
            self._finish_lost_claims(run_id),
            self.audit.repair(self.audit.newest(), run_id),
        )
        self._log_obstacles()
        # After each of these steps, uploads may wait that `listing` does not contain.
        stable = self.landing.stable(self.landing.listing() if was_unfinished or any(moved_back) else listing)
        return sorted(stable, key=lambda upload: (upload.modified, upload.name))

    def _log_obstacles(self) -> None:
        """Log which uploads cannot be ingested: the first ones, and the number of all others."""
        more = 0
        for number, (place, problem) in enumerate(self.landing.obstacles()):
            if number < _OBSTACLES_LOGGED:
                logger.warning("%s is not ingested: %s", place, problem)
            else:
                more += 1
        if more:
            logger.warning("%d more are not ingested", more)

    def _finish_lost_claims(self, run_id: str) -> bool:
        """Archive or release claimed uploads whose journal entry is lost. Uploads with rows in the tables are archived.

        :returns: whether there were such uploads.
        """
        lost = list(self.landing.claimed())
        if not lost or self.journal.load() is not None:
            return False
        batches = {batch_id for batch_id, _ in lost}
        ingested = uploads_with_rows(self.lakehouse, batches)
        for batch_id, upload in lost:
            if (batch_id, upload.uri) in ingested:
                self.landing.archive(batch_id, upload)
            else:
                logger.warning("%s was claimed for batch %s, which is lost; it waits again", upload.uri, batch_id)
                self.landing.release(batch_id, upload)
        for batch_id in batches:
            self.landing.finish(batch_id)
            # If the run was killed between two commits, only one of the tables has the batch's rows.
            self.audit.repair(self.audit.examine(batch_id), run_id)
        return True

    def _new_entry(self, uploads: Iterable[WaitingUpload], is_scaled: bool) -> JournalEntry:
        ledger = self.lakehouse.table(UPLOADS)
        newest = latest_ingested_at(ledger)
        now = datetime.now(UTC)
        # Batch ids must sort by time, even if the clock was ahead and has been set back.
        moment = now if newest is None else max(now, newest + timedelta(microseconds=1))
        return JournalEntry(
            batch_id=new_batch_id(moment),
            ingested_at=moment,
            uploads=tuple(map(BatchUpload, uploads)),
            limits=self.limits,
            is_scaled=is_scaled,
            positions={
                contract.full_name: TablePosition.of(self.lakehouse.table(contract))
                for contract in (BRONZE, REJECTED, UPLOADS)
            },
        )


def _reports(finished: Sequence[FinishedBatch]) -> list[BatchReport]:
    """The reports of the batches that have uploads.

    :raises UnclaimableUploadsError: if uploads cannot be moved and no batch has uploads.
    """
    reports = [one.report for one in finished if one.report is not None]
    unclaimable = {uri: problem for one in finished for uri, problem in one.unclaimable.items()}
    if unclaimable and not reports:
        # If other uploads were ingested, the tables are refreshed first. The next run raises the error.
        raise UnclaimableUploadsError(sorted(unclaimable.items()))
    return reports


def _count_attempt(attempts: int) -> int:
    if attempts >= _ATTEMPTS:
        raise ConcurrentWriteError("The batch in progress", attempts)
    return attempts + 1


def _next_batch(queue: deque[WaitingUpload], max_uploads: int, max_bytes: int) -> list[WaitingUpload]:
    """Remove the oldest uploads from the queue, as many as fit into a batch but at least one.

    Two uploads with the same name go into different batches, because the rows of the newer one win. Names that differ
    only in case or in Unicode normalization count as one, because some file systems of archives do not distinguish
    them.
    """
    batch: list[WaitingUpload] = []
    names: set[str] = set()
    folders_of_batch: set[str] = set()
    size = 0
    while queue and len(batch) < max_uploads:
        *folders, name = accumulate(_folded(queue[0].name).split("/"), "{}/{}".format)
        # S3 can have the objects `a` and `a/b`. The archive folder cannot have both in one batch.
        if name in names or name in folders_of_batch or not names.isdisjoint(folders):
            break
        size += queue[0].size
        if batch and size > max_bytes:
            break
        names.add(name)
        folders_of_batch.update(folders)
        batch.append(queue.popleft())
    return batch


def _folded(name: str) -> str:
    # Case folding can undo the normal form.
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def open_ingestion(
    settings: Settings,
    landing: Landing,
    lakehouse: Lakehouse,
    scaled_parser: Callable[[], Parser] | None = None,
) -> Ingestion:
    """Open the ingestion into a lakehouse. Its journal is in ``ingestion/`` beside the tables."""
    return Ingestion(landing, lakehouse, open_journal(settings), settings, scaled_parser)
