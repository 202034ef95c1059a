"""What is to be taken in: what waits, oldest first, in bounded batches; and rejected documents, once more."""

from __future__ import annotations

import unicodedata
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate

from telemetry_assets.errors import ConcurrentWriteError, UnclaimableUploadsError
from telemetry_assets.ingestion.archive_audit import ArchiveAudit
from telemetry_assets.ingestion.batch_parser import Parser, limits_of
from telemetry_assets.ingestion.batch_reports import BatchReport
from telemetry_assets.ingestion.batches import DEATHS, Batches
from telemetry_assets.ingestion.journal.attempts import attempt
from telemetry_assets.ingestion.journal.base import (
    BatchUpload,
    Journal,
    JournalEntry,
    ReplaySelection,
    open_journal,
)
from telemetry_assets.ingestion.landing.base import FirstLook, Landing, WaitingUpload, new_batch_id
from telemetry_assets.ingestion.ledger import newest_moment
from telemetry_assets.ingestion.parsing.framing import Limits
from telemetry_assets.ingestion.replays import Replay, ReplayResult
from telemetry_assets.lakehouse.batch_rows import TablePosition
from telemetry_assets.lakehouse.catalog import Lakehouse
from telemetry_assets.lakehouse.quality import uploads_with_rows
from telemetry_assets.settings import Settings
from telemetry_assets.tables import BRONZE, REJECTED, UPLOADS
from telemetry_assets.text.plain import plain_logger

logger = plain_logger(__name__)

_OBSTACLES_LOGGED = 20
_ATTEMPTS = 1000
"""How often a run waits for others to end what is in progress before it can begin."""

_Finish = Callable[[JournalEntry, bool], list[WaitingUpload]]
"""Carries a batch to its end, which another run may have begun; gives the uploads back that were too much for it."""


@dataclass(frozen=True)
class Ingestion:
    """Takes uploads from a landing location into Bronze, batch by batch.

    :param scaled_parser: what parses backlogs above :attr:`Settings.spark_ingestion_min_bytes`, where there is such.
    """

    landing: Landing
    lakehouse: Lakehouse
    journal: Journal
    settings: Settings
    scaled_parser: Callable[[], Parser] | None = None

    def has_work(self) -> bool:
        """Whether an upload waits or a batch is unfinished. Reads no upload."""
        return (
            self.journal.load() is not None
            or next(iter(self.landing.waiting()), None) is not None
            or next(iter(self.landing.claimed()), None) is not None
        )

    def ingest_waiting(
        self, run_id: str, progress: Callable[[BatchReport], None], look: FirstLook | None = None
    ) -> list[BatchReport]:
        """Take everything that waits now, oldest first, after finishing the batch that is in progress, if any.

        :param run_id: goes into the snapshots' summaries.
        :param progress: is called with each finished batch.
        :param look: what the landing location held a moment ago, so that this waits no longer than it has to.
        """
        batch_reports: list[BatchReport] = []
        unclaimable: dict[str, str] = {}

        def finish(entry: JournalEntry, is_taken_up: bool) -> list[WaitingUpload]:
            batch_report = self._finish(entry, run_id, is_taken_up=is_taken_up)
            if batch_report is not None:
                batch_reports.append(batch_report)
                progress(batch_report)
            unclaimable.update((item.upload.uri, item.problem) for item in entry.uploads if item.is_unclaimable)
            return [item.upload for item in entry.uploads if item.outcome == "postponed"]

        queue = deque(self._to_be_taken(look or self.landing.first_look(), run_id, finish))
        attempts = 0
        while queue:
            is_scaled = self._is_for_spark(queue)
            batch = _next_batch(queue, *self._batch_bounds(is_scaled))
            entry = self._begun(batch, is_scaled)
            if self.journal.create(entry):
                postponed = finish(entry, False)
                attempts = 0
            else:
                attempts = _counted_attempt(attempts)
                self.landing.finish(entry.batch_id)
                postponed = [*self._finish_batch_in_progress(finish), *batch]
            queue.extendleft(reversed(postponed))
        if unclaimable and not batch_reports:
            # With other uploads taken, tables come first: the next run tells it.
            raise UnclaimableUploadsError(sorted(unclaimable.items()))
        return batch_reports

    def replay(self, selection: ReplaySelection, run_id: str) -> ReplayResult:
        """Put rejected documents through ingestion once more, after finishing what is in progress."""
        self.audit.complete_ledger(run_id)
        now = datetime.now(UTC)
        entry = JournalEntry(new_batch_id(now), now, [], limits=self._limits, replay=selection)
        attempts = 0
        while not self.journal.create(entry):
            attempts = _counted_attempt(attempts)
            in_progress = self.journal.load()
            if in_progress is not None:
                self._finish(in_progress, run_id, is_taken_up=True)
        result = self._replay(entry.limits).run(selection, run_id, dry=False)
        self.journal.remove(entry)
        return result

    def try_replay(self, selection: ReplaySelection) -> ReplayResult:
        """What :meth:`replay` would do. Changes nothing."""
        return self._replay(None).run(selection, "", dry=True)

    @property
    def audit(self) -> ArchiveAudit:
        """The audit of the archive."""
        return ArchiveAudit(self.landing, self.lakehouse, self.journal, self._limits)

    @property
    def _limits(self) -> Limits:
        return limits_of(self.settings)

    def _replay(self, limits: Limits | None) -> Replay:
        return Replay(self.landing, self.lakehouse, limits or self._limits)

    def _finish(self, entry: JournalEntry, run_id: str, *, is_taken_up: bool) -> BatchReport | None:
        if entry.replay is not None:
            self._finish_replay(entry, entry.replay, run_id)
            return None
        batches = Batches(self.landing, self.lakehouse, self.journal, self.settings, self.audit, self.scaled_parser)
        return batches.finish(entry, run_id, is_taken_up=is_taken_up)

    def _finish_replay(self, entry: JournalEntry, selection: ReplaySelection, run_id: str) -> None:
        """Carry a replay to its end that another run has begun, and may have died of."""
        attempts = self.journal.attempts(entry.batch_id)
        is_given_up = len(attempts.deaths()) >= DEATHS
        if is_given_up:
            logger.error("a replay is given up, as run after run died of it; what it has not accepted stays rejected")
        with attempt(attempts) as current:
            current.note(0)
            self._replay(entry.limits).run(selection, run_id, dry=False, only_begun=is_given_up)
        attempts.forget()
        self.journal.remove(entry)

    def _is_for_spark(self, queue: Iterable[WaitingUpload]) -> bool:
        waiting = sum(upload.size for upload in queue)
        return self.scaled_parser is not None and waiting > self.settings.spark_ingestion_min_bytes

    def _batch_bounds(self, is_scaled: bool) -> tuple[int, int]:
        """How many uploads, and how many bytes, the next batch may have."""
        settings = self.settings
        if is_scaled:
            return settings.spark_batch_max_uploads, settings.spark_batch_max_bytes
        return settings.batch_max_uploads, settings.batch_max_bytes

    def _finish_batch_in_progress(self, finish: _Finish) -> list[WaitingUpload]:
        entry = self.journal.load()
        if entry is None:
            return []
        logger.info("finishing batch %s, which another run has begun", entry.batch_id)
        return finish(entry, True)

    def _to_be_taken(self, look: FirstLook, run_id: str, finish: _Finish) -> list[WaitingUpload]:
        """What is to be taken, oldest first, after what earlier runs have left is finished."""
        unfinished = self.journal.load() is not None
        self._finish_batch_in_progress(finish)
        put_back = (
            self.audit.complete_ledger(run_id),
            self._take_up_lost_claims(run_id),
            self.audit.mend(self.audit.newest(), run_id),
        )
        self._log_obstacles()
        # After any of these, uploads wait that did not wait before.
        whole = self.landing.whole(self.landing.first_look() if unfinished or any(put_back) else look)
        return sorted(whole, key=lambda upload: (upload.modified, upload.name))

    def _log_obstacles(self) -> None:
        """Log what is not taken; of very many, which an uploader may make, the first ones and how many there are."""
        more = 0
        for number, (place, problem) in enumerate(self.landing.obstacles()):
            if number < _OBSTACLES_LOGGED:
                logger.warning("%s is not taken: %s", place, problem)
            else:
                more += 1
        if more:
            logger.warning("%d more are not taken", more)

    def _take_up_lost_claims(self, run_id: str) -> bool:
        """Archive the claimed uploads of a batch whose journal entry is lost; those that it never took wait again.

        :returns: whether there were any.
        """
        lost = list(self.landing.claimed())
        if not lost or self.journal.load() is not None:
            return False
        batches = {batch_id for batch_id, _ in lost}
        taken = uploads_with_rows(self.lakehouse, batches)
        for batch_id, upload in lost:
            if (batch_id, upload.uri) in taken:
                self.landing.archive(batch_id, upload)
            else:
                logger.warning("%s was claimed for batch %s, which is lost; it waits again", upload.uri, batch_id)
                self.landing.release(batch_id, upload)
        for batch_id in batches:
            self.landing.finish(batch_id)
            # A batch that was cut off between two tables has some of its rows only.
            self.audit.mend(self.audit.examine(batch_id), run_id)
        return True

    def _begun(self, uploads: list[WaitingUpload], is_scaled: bool) -> JournalEntry:
        entry = self._new_entry(uploads, is_scaled)
        self.landing.begin(entry.batch_id)
        return entry

    def _new_entry(self, uploads: list[WaitingUpload], is_scaled: bool) -> JournalEntry:
        ledger = self.lakehouse.table(UPLOADS)
        newest = newest_moment(ledger)
        now = datetime.now(UTC)
        # Ids sort by their moments too, also where the clock was ahead and was set back.
        moment = now if newest is None else max(now, newest + timedelta(microseconds=1))
        return JournalEntry(
            batch_id=new_batch_id(moment),
            ingested_at=moment,
            uploads=[BatchUpload(upload=upload) for upload in uploads],
            limits=self._limits,
            is_scaled=is_scaled,
            positions={
                contract.full_name: TablePosition.of(self.lakehouse.table(contract))
                for contract in (BRONZE, REJECTED, UPLOADS)
            },
        )


def _counted_attempt(attempts: int) -> int:
    if attempts >= _ATTEMPTS:
        raise ConcurrentWriteError("The batch in progress", attempts)
    return attempts + 1


def _next_batch(queue: deque[WaitingUpload], max_uploads: int, max_bytes: int) -> list[WaitingUpload]:
    """Take the oldest uploads off the queue, as many as a batch may hold; one always fits.

    Two of one name are two batches, as the newer one's rows win over the older one's. Spellings of a name that only
    differ in case or in Unicode's normal form are one name, as they are on the file systems of some archives.
    """
    batch: list[WaitingUpload] = []
    names: set[str] = set()
    folders_of_batch: set[str] = set()
    size = 0
    while queue and len(batch) < max_uploads:
        *folders, name = accumulate(_spelled(queue[0].name).split("/"), "{}/{}".format)
        # In S3 there may be an object `a` and an object `a/b`; in the archive's folder only one of them has its place.
        if name in names or name in folders_of_batch or not names.isdisjoint(folders):
            break
        size += queue[0].size
        if batch and size > max_bytes:
            break
        names.add(name)
        folders_of_batch.update(folders)
        batch.append(queue.popleft())
    return batch


def _spelled(name: str) -> str:
    # Case folding can undo the normal form.
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def open_ingestion(
    settings: Settings,
    landing: Landing,
    lakehouse: Lakehouse,
    scaled_parser: Callable[[], Parser] | None = None,
) -> Ingestion:
    """Ingestion into a lakehouse; its state is kept beside the tables, in ``ingestion/``."""
    return Ingestion(landing, lakehouse, open_journal(settings), settings, scaled_parser)
