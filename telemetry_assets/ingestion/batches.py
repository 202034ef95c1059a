"""One batch of uploads into Bronze exactly once, across crashes.

The steps, each skipped when it is found done, so that a kill anywhere is repaired by the next run:
manifest in progress (one at a time, create-if-absent), claim, read, manifest settled, rejected documents, Bronze,
archive, manifest away. A settled manifest always gives the same rows, whoever reads it.
"""

from __future__ import annotations

import logging
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import pyarrow as pa
from pyiceberg.table.snapshots import Snapshot

from telemetry_assets.errors import UnclaimableUploadsError
from telemetry_assets.ingestion.certificates import Certificate, certificate_of
from telemetry_assets.ingestion.landing import Landing, WaitingUpload
from telemetry_assets.ingestion.manifests import BatchUpload, Manifest, ManifestStore, open_manifests
from telemetry_assets.ingestion.rows import Origin, UploadRows, gathered, upload_rows
from telemetry_assets.ingestion.uploads import Limits, whole_upload
from telemetry_assets.lakehouse.catalog import Lakehouse
from telemetry_assets.lakehouse.commits import append_batch, batch_snapshot, summary_of
from telemetry_assets.lakehouse.contracts import BRONZE, REJECTED
from telemetry_assets.lakehouse.quality import uploads_of_batch
from telemetry_assets.settings import Settings

logger = logging.getLogger(__name__)

_CERTIFICATE = "telemetry.certificate"
_INGESTED_AT = "telemetry.ingested-at"

Result = TypeVar("Result")


@dataclass(frozen=True)
class Ingestion:
    """Takes uploads from a landing location into Bronze, batch by batch."""

    landing: Landing
    lakehouse: Lakehouse
    manifests: ManifestStore
    settings: Settings

    def has_work(self) -> bool:
        """Whether an upload waits or a batch is unfinished. Reads no upload."""
        return (
            self.manifests.load() is not None
            or next(iter(self.landing.waiting()), None) is not None
            or next(iter(self.landing.claimed()), None) is not None
        )

    def ingest_waiting(self, run_id: str, progress: Callable[[Certificate], None]) -> list[Certificate]:
        """Take everything that waits now, oldest first, after finishing the batch that is in progress, if any.

        :param run_id: goes into the snapshots' summaries.
        :param progress: is told of each finished batch.
        """
        certificates: list[Certificate] = []
        unclaimable: dict[str, str] = {}

        def finish(manifest: Manifest) -> list[WaitingUpload]:
            certificate = self.finish(manifest, run_id)
            if certificate is not None:
                certificates.append(certificate)
                progress(certificate)
            unclaimable.update((item.upload.uri, item.problem) for item in manifest.uploads if item.is_unclaimable)
            return [item.upload for item in manifest.uploads if item.outcome == "postponed"]

        self._finish_batch_in_progress(finish)
        self._take_up_lost_claims()
        for place, problem in self.landing.obstacles():
            logger.warning("%s is not taken: %s", place, problem)
        queue = deque(sorted(self.landing.waiting(), key=lambda upload: (upload.modified, upload.name)))
        while queue:
            batch = _next_batch(queue, self.settings)
            manifest = self._begun(batch)
            if self.manifests.create(manifest):
                postponed = finish(manifest)
            else:
                self.landing.finish(manifest.batch_id)
                postponed = [*self._finish_batch_in_progress(finish), *batch]
            queue.extendleft(reversed(postponed))
        if unclaimable and not certificates:
            # With other uploads taken, tables come first: the next run tells it.
            raise UnclaimableUploadsError(sorted(unclaimable.items()))
        return certificates

    def _finish_batch_in_progress(self, finish: Callable[[Manifest], list[WaitingUpload]]) -> list[WaitingUpload]:
        manifest = self.manifests.load()
        if manifest is None:
            return []
        logger.info("finishing batch %s, which another run has begun", manifest.batch_id)
        return finish(manifest)

    def _take_up_lost_claims(self) -> None:
        """Archive uploads that are claimed for a batch whose manifest is lost; those that it never took wait again."""
        lost = list(self.landing.claimed())
        if not lost or self.manifests.load() is not None:
            return
        taken: dict[str, set[str]] = {}
        for batch_id, upload in lost:
            if batch_id not in taken:
                taken[batch_id] = uploads_of_batch(self.lakehouse, batch_id)
            if upload.uri in taken[batch_id]:
                self.landing.archive(batch_id, upload)
            else:
                logger.warning("%s was claimed for batch %s, which is lost; it waits again", upload.uri, batch_id)
                self.landing.release(batch_id, upload)
        for batch_id in taken:
            self.landing.finish(batch_id)

    def _begun(self, uploads: list[WaitingUpload]) -> Manifest:
        manifest = self._new_manifest(uploads)
        self.landing.begin(manifest.batch_id)
        return manifest

    def _new_manifest(self, uploads: list[WaitingUpload]) -> Manifest:
        return Manifest(
            batch_id=uuid.uuid4().hex,
            ingested_at=datetime.now(UTC),
            uploads=[BatchUpload(upload=upload) for upload in uploads],
        )

    def finish(self, manifest: Manifest, run_id: str) -> Certificate | None:
        """Carry a batch to its end from wherever it stands; None where nothing was there to take."""
        committed = self._committed(manifest, run_id)
        # What another run has made of the same batch stands in its manifest.
        current = self.manifests.load()
        if current is not None and current.batch_id == manifest.batch_id:
            manifest.uploads = current.uploads
            self._clear(current)
        if committed is None:
            return None
        return Certificate.model_validate_json(summary_of(committed)[_CERTIFICATE]).model_copy(
            update={"snapshot_id": committed.snapshot_id}
        )

    def _committed(self, manifest: Manifest, run_id: str) -> Snapshot | None:
        """The batch's snapshot of Bronze, made where it is not there yet; None where no upload is in the batch."""
        current: Manifest | None = manifest
        while True:
            committed = batch_snapshot(self.lakehouse.table(BRONZE), manifest.batch_id)
            if committed is not None or current is None or current.batch_id != manifest.batch_id:
                return committed
            taken = self._settled(current)
            if taken is not None:
                return self._appended(current, taken, run_id) if taken else None
            # Another run has settled the same batch first, or has ended it.
            current = self.manifests.load()

    def _settled(self, manifest: Manifest) -> list[UploadRows] | None:
        """The rows of every upload of the batch; None where the manifest is another one by now.

        The manifest says what becomes of each upload before any row is written, so that all runs write the same.
        """
        unsettled = deepcopy(manifest)
        if not manifest.settled:
            self._hold_newest(manifest)
            self._claim(manifest)
        taken = self._taken(manifest)
        manifest.settled = True
        return taken if manifest == unsettled or self.manifests.replace(manifest) else None

    def _hold_newest(self, manifest: Manifest) -> None:
        """A batch is newer than all batches before it, whatever the clock says and however long its run has paused.

        While its manifest is the one in progress no other batch can come before it.
        """
        moments = (summary_of(snapshot).get(_INGESTED_AT) for snapshot in self.lakehouse.table(BRONZE).snapshots())
        latest = max((datetime.fromisoformat(moment) for moment in moments if moment), default=None)
        if latest is not None and manifest.ingested_at <= latest:
            manifest.ingested_at = latest + timedelta(microseconds=1)

    def _claim(self, manifest: Manifest) -> None:
        def claim(item: BatchUpload) -> None:
            if item.outcome != "claimed":
                return
            try:
                claimed = self.landing.claim(manifest.batch_id, item.upload)
            except OSError as error:
                claimed, item.problem = False, error.strerror or str(error)
            if not claimed:
                logger.info("%s is left out: %s", item.upload.uri, item.problem or "it was replaced or removed")
                item.outcome = "gone"

        self._each(claim, manifest.uploads)

    def _clear(self, manifest: Manifest) -> None:
        def clear(item: BatchUpload) -> None:
            step = self.landing.archive if item.is_in_batch else self.landing.release
            step(manifest.batch_id, item.upload)

        self._each(clear, manifest.uploads)
        self.landing.finish(manifest.batch_id)
        self.manifests.remove(manifest)

    def _each(self, step: Callable[[BatchUpload], Result], items: Iterable[BatchUpload]) -> list[Result]:
        """What a step of the landing location gives for each upload, several at a time."""
        with ThreadPoolExecutor(self.settings.read_threads) as threads:
            return list(threads.map(step, items))

    def _appended(self, manifest: Manifest, taken: list[UploadRows], run_id: str) -> Snapshot:
        certificate = certificate_of(manifest, taken)
        summary = {
            "telemetry.run-id": run_id,
            "telemetry.step": "ingest",
            _INGESTED_AT: manifest.ingested_at.isoformat(),
            _CERTIFICATE: certificate.model_dump_json(exclude={"snapshot_id"}),
        }
        if certificate.rejected:
            rejected = pa.concat_tables(one.rejected for one in taken)
            append_batch(self.lakehouse, REJECTED, manifest.batch_id, rejected, summary)
        bronze = pa.concat_tables(one.bronze for one in taken)
        return append_batch(self.lakehouse, BRONZE, manifest.batch_id, bronze, summary)

    def _taken(self, manifest: Manifest) -> list[UploadRows]:
        """The rows of every upload of the batch. What cannot be read, or is too much for one batch, is noted."""
        taken: list[UploadRows] = []
        size, limit = 0, self.settings.batch_max_bytes
        items = [item for item in manifest.uploads if item.is_in_batch]
        with ThreadPoolExecutor(self.settings.read_threads) as threads:
            contents = threads.map(lambda item: self._content(manifest, item), items)
            for item, content in zip(items, contents, strict=True):
                # A settled batch has said already what is too much for it.
                is_open = manifest.settled or size <= limit
                rows = self._rows(manifest, item, content) if is_open else None
                size += rows.size if rows else 0
                if rows is None or (taken and size > limit and not manifest.settled):
                    # All that come after it wait too, as the newest ingestion of an event wins.
                    item.outcome, size = "postponed", limit + 1
                else:
                    taken.append(rows)
        return taken

    def _content(self, manifest: Manifest, item: BatchUpload) -> bytes | None:
        if item.outcome == "unreadable" or _too_large_to_read(item.upload, self.settings.upload_max_bytes):
            return None
        try:
            return self.landing.read(manifest.batch_id, item.upload)
        except OSError as error:
            if manifest.settled and batch_snapshot(self.lakehouse.table(REJECTED), manifest.batch_id):
                # What was rejected stands already, so this can no longer be.
                raise
            item.outcome, item.problem = "unreadable", error.strerror or str(error)
            return None

    def _rows(self, manifest: Manifest, item: BatchUpload, content: bytes | None) -> UploadRows:
        limit = self.settings.upload_max_bytes
        origin = Origin(item.upload.uri, manifest.ingested_at, manifest.batch_id)
        if content is not None:
            return upload_rows(item.upload.name, content, origin, Limits(limit, self.settings.upload_max_documents))
        if item.outcome == "unreadable":
            message = f"The upload cannot be read: {item.problem}. Grant access, then move it back from the archive."
            return gathered([whole_upload("unreadable_upload", message, None, limit)], origin)
        message = f"The upload is larger than {limit:,} bytes. Send it in parts, or raise TELEMETRY_UPLOAD_MAX_BYTES."
        return gathered([whole_upload("too_large", f"{message} The archive keeps it.", None, limit)], origin)


def _too_large_to_read(upload: WaitingUpload, limit: int) -> bool:
    # A compressed upload is never larger than what is in it by more than gzip's own overhead.
    return upload.size > limit + limit // 100 + 1024


def _next_batch(queue: deque[WaitingUpload], settings: Settings) -> list[WaitingUpload]:
    """Take the oldest uploads off the queue, as many as a batch may hold; one always fits.

    Two of one name are two batches, as the newer one's rows win over the older one's.
    """
    batch: list[WaitingUpload] = []
    names: set[str] = set()
    size = 0
    while queue and len(batch) < settings.batch_max_uploads and queue[0].name not in names:
        size += queue[0].size
        if batch and size > settings.batch_max_bytes:
            break
        names.add(queue[0].name)
        batch.append(queue.popleft())
    return batch


def open_ingestion(settings: Settings, landing: Landing, lakehouse: Lakehouse) -> Ingestion:
    """Ingestion into a lakehouse; its state is kept beside the tables, in ``ingestion/``."""
    return Ingestion(landing, lakehouse, open_manifests(settings), settings)
