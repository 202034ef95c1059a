"""One batch of uploads into Bronze exactly once, across crashes.

The steps, each skipped when it is found done, so that a kill anywhere is repaired by the next run:
manifest in progress (one at a time, create-if-absent), claim, read, rejected documents, Bronze,
archive, manifest away. The same manifest always gives the same rows.
"""

from __future__ import annotations

import logging
import uuid
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pyarrow as pa
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from telemetry_assets.errors import UnclaimableUploadsError
from telemetry_assets.ingestion.certificates import Certificate, certificate_of
from telemetry_assets.ingestion.landing import Landing, WaitingUpload
from telemetry_assets.ingestion.manifests import BatchUpload, Manifest, ManifestFile
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


@dataclass(frozen=True)
class Ingestion:
    """Takes uploads from a landing location into Bronze, batch by batch."""

    landing: Landing
    lakehouse: Lakehouse
    manifest_file: ManifestFile
    settings: Settings

    def has_work(self) -> bool:
        """Whether an upload waits or a batch is unfinished. Reads no upload."""
        return (
            self.manifest_file.load() is not None
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
            if self.manifest_file.create(manifest):
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
        manifest = self.manifest_file.load()
        if manifest is None:
            return []
        logger.info("finishing batch %s, which another run has begun", manifest.batch_id)
        return finish(manifest)

    def _take_up_lost_claims(self) -> None:
        """Archive uploads that are claimed for a batch whose manifest is lost; those that it never took wait again."""
        lost = list(self.landing.claimed())
        if not lost or self.manifest_file.load() is not None:
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

    def _hold_newest(self, manifest: Manifest, bronze: Table) -> None:
        """A batch is newer than all batches before it, whatever the clock says and however long its run has paused.

        While its manifest is the one in progress no other batch can come before it; once it has rows its moment stays.
        """
        moments = (summary_of(snapshot).get(_INGESTED_AT) for snapshot in bronze.snapshots())
        latest = max((datetime.fromisoformat(moment) for moment in moments if moment), default=None)
        if latest is None or manifest.ingested_at > latest:
            return
        if batch_snapshot(self.lakehouse.table(REJECTED), manifest.batch_id) is None:
            manifest.ingested_at = latest + timedelta(microseconds=1)
            self.manifest_file.replace(manifest)

    def finish(self, manifest: Manifest, run_id: str) -> Certificate | None:
        """Carry a batch to its end from wherever it stands; None where nothing was there to take."""
        bronze = self.lakehouse.table(BRONZE)
        committed = batch_snapshot(bronze, manifest.batch_id)
        if committed is None:
            self._hold_newest(manifest, bronze)
            self._claim(manifest)
            if any(item.is_in_batch for item in manifest.uploads):
                committed = self._committed(manifest, run_id)
        # What another run, with another view, has made of the same batch stands in its manifest.
        current = self.manifest_file.load()
        if current is not None and current.batch_id == manifest.batch_id:
            self._clear(current)
        if committed is None:
            return None
        return Certificate.model_validate_json(summary_of(committed)[_CERTIFICATE]).model_copy(
            update={"snapshot_id": committed.snapshot_id}
        )

    def _clear(self, manifest: Manifest) -> None:
        for item in manifest.uploads:
            if item.is_in_batch:
                self.landing.archive(manifest.batch_id, item.upload)
            elif item.outcome == "postponed":
                self.landing.release(manifest.batch_id, item.upload)
        self.landing.finish(manifest.batch_id)
        self.manifest_file.remove(manifest)

    def _committed(self, manifest: Manifest, run_id: str) -> Snapshot:
        taken = self._taken(manifest)
        if any(item.outcome != "claimed" for item in manifest.uploads):
            # Another run may have carried the same batch to its end, and its uploads away, since this one looked.
            committed = batch_snapshot(self.lakehouse.table(BRONZE), manifest.batch_id)
            if committed is not None:
                return committed
            self.manifest_file.replace(manifest)
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

    def _claim(self, manifest: Manifest) -> None:
        for item in manifest.uploads:
            if item.outcome != "claimed":
                continue
            try:
                claimed = self.landing.claim(manifest.batch_id, item.upload)
            except OSError as error:
                claimed, item.problem = False, error.strerror or str(error)
            if not claimed:
                logger.info("%s is left out: %s", item.upload.uri, item.problem or "it was replaced or removed")
                item.outcome = "gone"
        if any(item.outcome == "gone" for item in manifest.uploads):
            self.manifest_file.replace(manifest)

    def _taken(self, manifest: Manifest) -> list[UploadRows]:
        """The rows of every upload of the batch. What cannot be read, or is too much for one batch, is noted."""
        taken: list[UploadRows] = []
        size = 0
        items = [item for item in manifest.uploads if item.is_in_batch]
        with ThreadPoolExecutor(self.settings.read_threads) as threads:
            contents = threads.map(lambda item: self._content(manifest, item), items)
            for item, content in zip(items, contents, strict=True):
                rows = self._rows(manifest, item, content) if size <= self.settings.batch_max_bytes else None
                size += rows.size if rows else 0
                if rows is None or (taken and size > self.settings.batch_max_bytes):
                    # All that come after it wait too, as the newest ingestion of an event wins.
                    item.outcome, size = "postponed", self.settings.batch_max_bytes + 1
                else:
                    taken.append(rows)
        return taken

    def _content(self, manifest: Manifest, item: BatchUpload) -> bytes | None:
        if item.outcome == "unreadable" or _too_large_to_read(item.upload, self.settings.upload_max_bytes):
            return None
        try:
            return self.landing.read(manifest.batch_id, item.upload)
        except OSError as error:
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
    state = settings.lakehouse_folder() / "ingestion"
    return Ingestion(landing, lakehouse, ManifestFile(state / "in_progress.json"), settings)
