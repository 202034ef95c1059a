"""One batch of uploads into Bronze exactly once, across crashes.

The steps, each skipped when it is found done, so that a kill anywhere is repaired by the next run:
manifest in progress (one at a time, create-if-absent), claim, read, manifest settled, rejected documents, Bronze,
archive, manifest away. A settled manifest always gives the same rows, whoever reads it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from pyiceberg.table.snapshots import Snapshot

from telemetry_assets.errors import SettingsError, SparkError
from telemetry_assets.ingestion.certificates import CERTIFICATE, Certificate, certificate_of
from telemetry_assets.ingestion.landing import Landing
from telemetry_assets.ingestion.manifests import BatchUpload, Manifest, ManifestStore
from telemetry_assets.ingestion.parsing import BatchRows, LocalParser, Parser
from telemetry_assets.lakehouse.catalog import Lakehouse
from telemetry_assets.lakehouse.commits import append_batch, batch_snapshot, summary_of
from telemetry_assets.lakehouse.contracts import BRONZE, REJECTED
from telemetry_assets.settings import Settings
from telemetry_assets.storage import is_storage_error

logger = logging.getLogger(__name__)

_INGESTED_AT = "telemetry.ingested-at"

Result = TypeVar("Result")


@dataclass(frozen=True)
class Batches:
    """Carries batches of claimed uploads into Bronze.

    :param scaled_parser: what parses batches that are too large for this process, where there is such.
    """

    landing: Landing
    lakehouse: Lakehouse
    manifests: ManifestStore
    settings: Settings
    scaled_parser: Callable[[], Parser] | None = None

    def finish(self, manifest: Manifest, run_id: str) -> Certificate | None:
        """Carry a batch to its end from wherever it stands; None where nothing was there to take."""
        committed = self._committed(manifest, run_id)
        # What another run has made of the same batch stands in its manifest.
        current = self.manifests.load()
        if current is not None and current.batch_id == manifest.batch_id:
            manifest.uploads = current.uploads
            if current.settled:
                self._clear(current)
            else:
                # A request to create it whose first answer was lost can bring a manifest back after its batch has
                # ended. It says nothing of what became of its uploads.
                self.manifests.remove(current)
        if committed is None:
            return None
        return Certificate.model_validate_json(summary_of(committed)[CERTIFICATE]).model_copy(
            update={"snapshot_id": committed.snapshot_id}
        )

    def _committed(self, manifest: Manifest, run_id: str) -> Snapshot | None:
        """The batch's snapshot of Bronze, made where it is not there yet; None where no upload is in the batch."""
        current: Manifest | None = manifest
        while True:
            committed = batch_snapshot(self.lakehouse.table(BRONZE), manifest.batch_id)
            if committed is not None or current is None or current.batch_id != manifest.batch_id:
                return committed
            tag = current.tag
            try:
                taken = self._settled(current, run_id)
            except (OSError, SparkError):
                current = self.manifests.load()
                if current is not None and current.tag == tag and not self._is_committed(manifest):
                    raise
                continue
            if taken is not None:
                return self._appended(current, taken, run_id) if taken.uploads else None
            # Another run has settled the same batch first, or has ended it.
            current = self.manifests.load()

    def _is_committed(self, manifest: Manifest) -> bool:
        return batch_snapshot(self.lakehouse.table(BRONZE), manifest.batch_id) is not None

    def _settled(self, manifest: Manifest, run_id: str) -> BatchRows | None:
        """The rows of every upload of the batch; None where the manifest is another one by now.

        The manifest says what becomes of each upload before any row is written, so that all runs write the same.
        """
        unsettled = deepcopy(manifest)
        if not manifest.settled:
            self._hold_newest(manifest)
            self._claim(manifest)
        taken = self._parser(manifest).parse(manifest, run_id)
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
                if is_storage_error(error):
                    raise
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

    def _parser(self, manifest: Manifest) -> Parser:
        if manifest.is_scaled:
            if self.scaled_parser is not None:
                return self.scaled_parser()
            if manifest.settled:
                raise SettingsError(
                    f"Batch {manifest.batch_id} was begun in Spark and is too large for TELEMETRY_ENGINE="
                    f"{self.settings.engine}. Set TELEMETRY_ENGINE to spark, emr_serverless or glue until it is done."
                )
        # What is too much for this process waits for the next batch.
        return LocalParser(self.landing, self.lakehouse, self.settings)

    def _appended(self, manifest: Manifest, taken: BatchRows, run_id: str) -> Snapshot:
        certificate = certificate_of(manifest, taken)
        summary = {
            "telemetry.run-id": run_id,
            "telemetry.step": "ingest",
            _INGESTED_AT: manifest.ingested_at.isoformat(),
            CERTIFICATE: certificate.model_dump_json(exclude={"snapshot_id"}),
        }
        if certificate.rejected:
            append_batch(self.lakehouse, REJECTED, manifest.batch_id, taken.rejections, summary)
        return append_batch(self.lakehouse, BRONZE, manifest.batch_id, taken.bronze, summary)
