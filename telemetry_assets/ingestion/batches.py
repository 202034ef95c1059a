"""One batch of uploads into Bronze exactly once, across crashes.

The steps, each skipped when it is found done, so that a kill anywhere is repaired by the next run:
manifest in progress (one at a time, create-if-absent), claim, read, rejected documents, Bronze,
archive, manifest away. The same manifest always gives the same rows.
"""

from __future__ import annotations

import logging
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pyarrow as pa
from pydantic import BaseModel
from pyiceberg.table.snapshots import Snapshot

from telemetry_assets.ingestion.documents import Rejection
from telemetry_assets.ingestion.landing import Landing, WaitingUpload
from telemetry_assets.ingestion.manifests import BatchUpload, Manifest, ManifestFile
from telemetry_assets.ingestion.uploads import Parsed, parse_upload, whole_upload
from telemetry_assets.lakehouse.catalog import Lakehouse
from telemetry_assets.lakehouse.commits import append_batch, batch_snapshot, summary_of
from telemetry_assets.lakehouse.contracts import BRONZE, REJECTED
from telemetry_assets.settings import Settings

logger = logging.getLogger(__name__)

_CERTIFICATE = "telemetry.certificate"
_INGESTED_AT = "telemetry.ingested-at"
_NAMES_IN_CERTIFICATE = 100
_DATES_IN_CERTIFICATE = 1000


class Certificate(BaseModel, frozen=True):
    """What became of a batch: documents received = accepted + rejected.

    Of the names of fields the most frequent are counted one by one, the rest together under ``(others)``.
    """

    batch_id: str
    ingested_at: datetime
    uploads: int
    documents: int
    accepted: int
    rejected: int
    rejected_by_reason: dict[str, int]
    unknown_fields: dict[str, int]
    wrong_typed_fields: dict[str, int]
    event_dates: dict[str, int]
    snapshot_id: int | None = None


@dataclass(frozen=True)
class Ingestion:
    """Takes uploads from a landing location into Bronze, batch by batch."""

    landing: Landing
    lakehouse: Lakehouse
    manifest_file: ManifestFile
    settings: Settings

    def has_work(self) -> bool:
        """Whether an upload waits or a batch is unfinished. Reads no upload."""
        return self.manifest_file.load() is not None or next(iter(self.landing.waiting()), None) is not None

    def ingest_waiting(self, run_id: str, progress: Callable[[Certificate], None]) -> list[Certificate]:
        """Take everything that waits now, oldest first, after finishing the batch that is in progress, if any.

        :param run_id: goes into the snapshots' summaries.
        :param progress: is told of each finished batch.
        """
        certificates: list[Certificate] = []

        def finish(manifest: Manifest) -> None:
            certificates.append(self.finish(manifest, run_id))
            progress(certificates[-1])

        self._finish_batch_in_progress(finish)
        waiting = sorted(self.landing.waiting(), key=lambda upload: (upload.modified, upload.name))
        for uploads in _bounded(waiting, self.settings):
            manifest = self._new_manifest(uploads)
            while not self.manifest_file.create(manifest):
                self._finish_batch_in_progress(finish)
                manifest = self._new_manifest(uploads)
            finish(manifest)
        return certificates

    def _finish_batch_in_progress(self, finish: Callable[[Manifest], None]) -> None:
        manifest = self.manifest_file.load()
        if manifest is not None:
            logger.info("finishing batch %s, which another run has begun", manifest.batch_id)
            finish(manifest)

    def _new_manifest(self, uploads: list[WaitingUpload]) -> Manifest:
        now = datetime.now(UTC)
        latest = self._latest_ingestion()
        # A batch is newer than all batches before it, whatever the machine's clock says.
        ingested_at = now if latest is None or now > latest else latest + timedelta(microseconds=1)
        return Manifest(
            batch_id=uuid.uuid4().hex,
            ingested_at=ingested_at,
            uploads=[BatchUpload(upload=upload) for upload in uploads],
        )

    def _latest_ingestion(self) -> datetime | None:
        moments = (summary_of(snapshot).get(_INGESTED_AT) for snapshot in self.lakehouse.table(BRONZE).snapshots())
        return max((datetime.fromisoformat(moment) for moment in moments if moment), default=None)

    def finish(self, manifest: Manifest, run_id: str) -> Certificate:
        """Carry a batch to its end from wherever it stands."""
        committed = batch_snapshot(self.lakehouse.table(BRONZE), manifest.batch_id)
        if committed is None:
            committed = self._committed(manifest, run_id)
        for item in manifest.uploads:
            if item.outcome != "gone":
                self.landing.archive(manifest.batch_id, item.upload)
        self.landing.finish(manifest.batch_id)
        self.manifest_file.remove(manifest)
        return Certificate.model_validate_json(summary_of(committed)[_CERTIFICATE]).model_copy(
            update={"snapshot_id": committed.snapshot_id}
        )

    def _committed(self, manifest: Manifest, run_id: str) -> Snapshot:
        self._claim(manifest)
        parsed = self._read(manifest)
        if any(item.problem for item in manifest.uploads):
            # Another run may have carried the same batch to its end, and its uploads away, since this one looked.
            committed = batch_snapshot(self.lakehouse.table(BRONZE), manifest.batch_id)
            if committed is not None:
                return committed
            self.manifest_file.replace(manifest)
        certificate = _certificate(manifest, parsed)
        summary = {
            "telemetry.run-id": run_id,
            "telemetry.step": "ingest",
            _INGESTED_AT: manifest.ingested_at.isoformat(),
            _CERTIFICATE: certificate.model_dump_json(exclude={"snapshot_id"}),
        }
        if certificate.rejected:
            append_batch(self.lakehouse, REJECTED, manifest.batch_id, _rejected_rows(manifest, parsed), summary)
        return append_batch(self.lakehouse, BRONZE, manifest.batch_id, _bronze_rows(manifest, parsed), summary)

    def _claim(self, manifest: Manifest) -> None:
        gone = [
            item
            for item in manifest.uploads
            if item.outcome == "claimed" and not self.landing.claim(manifest.batch_id, item.upload)
        ]
        for item in gone:
            logger.info("%s was replaced or removed before it could be claimed", item.upload.uri)
            item.outcome = "gone"
        if gone:
            self.manifest_file.replace(manifest)

    def _read(self, manifest: Manifest) -> list[Parsed]:
        """Every upload's documents. What cannot be read is noted in the manifest."""
        with ThreadPoolExecutor(self.settings.read_threads) as threads:
            return list(threads.map(lambda item: self._parsed(manifest, item), manifest.uploads))

    def _parsed(self, manifest: Manifest, item: BatchUpload) -> Parsed:
        if item.outcome == "gone":
            return Parsed([], [])
        limit = self.settings.upload_max_bytes
        if item.outcome == "claimed" and not _too_large_to_read(item.upload, limit):
            try:
                content = self.landing.read(manifest.batch_id, item.upload)
                return parse_upload(item.upload.name, content, manifest.ingested_at, limit)
            except OSError as error:
                item.outcome, item.problem = "unreadable", error.strerror or str(error)
        if item.outcome == "unreadable":
            message = f"The upload cannot be read: {item.problem}. Grant access, then move it back from the archive."
            return Parsed([], [whole_upload("unreadable_upload", message, None, limit)])
        message = f"The upload is larger than {limit:,} bytes. Send it in parts, or raise TELEMETRY_UPLOAD_MAX_BYTES."
        return Parsed([], [whole_upload("too_large", f"{message} The archive keeps it.", None, limit)])


def _too_large_to_read(upload: WaitingUpload, limit: int) -> bool:
    # A compressed upload is never larger than what is in it by more than gzip's own overhead.
    return upload.size > limit + limit // 100 + 1024


def _bounded(waiting: Iterable[WaitingUpload], settings: Settings) -> Iterator[list[WaitingUpload]]:
    batch: list[WaitingUpload] = []
    size = 0
    for upload in waiting:
        if batch and (len(batch) >= settings.batch_max_uploads or size + upload.size > settings.batch_max_bytes):
            yield batch
            batch, size = [], 0
        batch.append(upload)
        size += upload.size
    if batch:
        yield batch


def _certificate(manifest: Manifest, parsed: list[Parsed]) -> Certificate:
    rows = [row for one in parsed for row in one.rows]
    rejections = [rejection for one in parsed for rejection in one.rejections]
    return Certificate(
        batch_id=manifest.batch_id,
        ingested_at=manifest.ingested_at,
        uploads=sum(item.outcome != "gone" for item in manifest.uploads),
        documents=len(rows) + len(rejections),
        accepted=len(rows),
        rejected=len(rejections),
        rejected_by_reason=_counted(rejection.reason for rejection in rejections),
        unknown_fields=_counted(name for row in rows for name in row.unknown_fields),
        wrong_typed_fields=_counted(name for row in rows for name in row.wrong_typed_fields),
        event_dates=dict(sorted(_counted((row.event_date.isoformat() for row in rows), _DATES_IN_CERTIFICATE).items())),
    )


def _counted(names: Iterable[str], listed_at_most: int = _NAMES_IN_CERTIFICATE) -> dict[str, int]:
    counts = Counter(names)
    listed = {_utf8(name)[:100]: count for name, count in counts.most_common(listed_at_most)}
    others = sum(counts.values()) - sum(listed.values())
    return {**listed, "(others)": others} if others else listed


def _utf8(text: str) -> str:
    """The text with lone surrogates, which no file can hold, written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _bronze_rows(manifest: Manifest, parsed: list[Parsed]) -> pa.Table:
    rows = [(row, item.upload.uri) for item, one in zip(manifest.uploads, parsed, strict=True) for row in one.rows]
    columns = {
        **{
            name: [getattr(row, name) for row, _ in rows]
            for name in BRONZE.column_names
            if name not in ("source_uri", "source_position", "ingested_at", "batch_id")
        },
        "source_uri": [uri for _, uri in rows],
        "source_position": [row.position for row, _ in rows],
        "ingested_at": [manifest.ingested_at] * len(rows),
        "batch_id": [manifest.batch_id] * len(rows),
    }
    return pa.Table.from_pydict(columns, schema=BRONZE.arrow_schema)


def _rejected_rows(manifest: Manifest, parsed: list[Parsed]) -> pa.Table:
    rejections: list[tuple[Rejection, str]] = [
        (rejection, item.upload.uri)
        for item, one in zip(manifest.uploads, parsed, strict=True)
        for rejection in one.rejections
    ]
    columns = {
        "source_uri": [uri for _, uri in rejections],
        "source_position": [rejection.position for rejection, _ in rejections],
        "reason": [rejection.reason for rejection, _ in rejections],
        "message": [_utf8(rejection.message) for rejection, _ in rejections],
        "payload": [rejection.payload for rejection, _ in rejections],
        "ingested_at": [manifest.ingested_at] * len(rejections),
        "batch_id": [manifest.batch_id] * len(rejections),
    }
    return pa.Table.from_pydict(columns, schema=REJECTED.arrow_schema)


def open_ingestion(settings: Settings, landing: Landing, lakehouse: Lakehouse) -> Ingestion:
    """Ingestion into a lakehouse; its state is kept beside the tables, in ``ingestion/``."""
    state = settings.lakehouse_folder() / "ingestion"
    return Ingestion(landing, lakehouse, ManifestFile(state / "in_progress.json"), settings)
