"""The certificate of a batch: what became of its documents. It stands in the batch's snapshots and run metadata."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from pydantic import BaseModel

from telemetry_assets.ingestion.manifests import Manifest
from telemetry_assets.ingestion.parsing import BatchRows

CERTIFICATE = "telemetry.certificate"
"""The property of a snapshot's summary that holds the certificate of its batch."""

_NAMES_LISTED = 100
_DATES_LISTED = 1000


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


def certificate_of(manifest: Manifest, taken: BatchRows) -> Certificate:
    """The certificate of a batch, from the rows that its uploads gave."""
    counts = taken.counts
    return Certificate(
        batch_id=manifest.batch_id,
        ingested_at=manifest.ingested_at,
        uploads=taken.uploads,
        documents=taken.accepted + taken.rejected,
        accepted=taken.accepted,
        rejected=taken.rejected,
        rejected_by_reason=counts.rejected_by_reason.listed(_NAMES_LISTED),
        unknown_fields=counts.unknown_fields.listed(_NAMES_LISTED),
        wrong_typed_fields=counts.wrong_typed_fields.listed(_NAMES_LISTED),
        event_dates=dict(sorted(counts.event_dates.listed(_DATES_LISTED).items())),
    )


def added_up(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Counts by name, over several batches."""
    total: dict[str, int] = {}
    for one in counts:
        for name, count in one.items():
            total[name] = total.get(name, 0) + count
    return total
