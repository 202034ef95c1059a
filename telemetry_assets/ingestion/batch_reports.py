"""The batch report: how many documents of a batch were accepted and rejected, and counts of their fields.

The report is stored in the summaries of the batch's snapshots and in the metadata of the run.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime

from pydantic import BaseModel
from pyiceberg.expressions import EqualTo

from telemetry_assets.ingestion.batch_parser import ParsedBatch
from telemetry_assets.ingestion.journal.base import JournalEntry
from telemetry_assets.ingestion.parsing.arrow_rows import NAMES_LISTED, OTHERS, BoundedCounter
from telemetry_assets.lakehouse.batch_rows import batch_snapshot
from telemetry_assets.lakehouse.catalog import Lakehouse
from telemetry_assets.tables import BRONZE, REJECTED, UPLOADS
from telemetry_assets.text.plain import plain_start

BATCH_REPORT = "telemetry.certificate"
"""The property of a snapshot's summary that has the batch report as JSON."""

_DATES_LISTED = 1000
_LONGEST_SHOWN = 100


class BatchReport(BaseModel, frozen=True):
    """The counts of a batch.

    Each mapping has the most frequent names with their counts, and the count of all other names under ``(others)``.

    :param documents: how many documents were received; the sum of ``accepted`` and ``rejected``.
    :param unknown_fields: by path, how many documents have this unknown field.
    :param wrong_typed_fields: by path, how many documents have a value of the wrong type in this field.
    :param event_dates: by event date, how many documents were accepted.
    :param snapshot_id: the batch's snapshot of Bronze; None if it has expired or no document was accepted.
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


def batch_report_of(entry: JournalEntry, parsed: ParsedBatch) -> BatchReport:
    """The report of a batch that was just parsed."""
    counts = parsed.counts
    return BatchReport(
        batch_id=entry.batch_id,
        ingested_at=entry.ingested_at,
        uploads=len(parsed.reports),
        documents=parsed.accepted + parsed.rejected,
        accepted=parsed.accepted,
        rejected=parsed.rejected,
        rejected_by_reason=counts.rejected_by_reason.listed(NAMES_LISTED),
        unknown_fields=counts.unknown_fields.listed(NAMES_LISTED),
        wrong_typed_fields=counts.wrong_typed_fields.listed(NAMES_LISTED),
        event_dates=dict(sorted(counts.event_dates.listed(_DATES_LISTED).items())),
    )


def batch_report_from_tables(lakehouse: Lakehouse, batch_id: str) -> BatchReport | None:
    """The report of a batch from its rows in the tables; None if the ledger has no row of it."""
    of_batch = EqualTo(term="batch_id", value=batch_id)
    bronze = lakehouse.table(BRONZE)
    ledger, accepted, rejected = (
        table.scan(of_batch, selected_fields=columns).to_arrow()
        for table, columns in (
            (lakehouse.table(UPLOADS), ("ingested_at", "unknown_fields", "wrong_typed_fields")),
            (bronze, ("event_date",)),
            (lakehouse.table(REJECTED), ("reason",)),
        )
    )
    if not ledger.num_rows:
        return None
    snapshot = batch_snapshot(bronze, batch_id)
    dates = BoundedCounter()
    dates.add(day.isoformat() for day in accepted["event_date"].to_pylist())
    return BatchReport(
        batch_id=batch_id,
        ingested_at=ledger["ingested_at"][0].as_py(),
        uploads=ledger.num_rows,
        documents=accepted.num_rows + rejected.num_rows,
        accepted=accepted.num_rows,
        rejected=rejected.num_rows,
        rejected_by_reason=dict(Counter(rejected["reason"].to_pylist()).most_common()),
        unknown_fields=added_up(json.loads(text) for text in ledger["unknown_fields"].to_pylist()),
        wrong_typed_fields=added_up(json.loads(text) for text in ledger["wrong_typed_fields"].to_pylist()),
        event_dates=dict(sorted(dates.listed(_DATES_LISTED).items())),
        snapshot_id=snapshot.snapshot_id if snapshot else None,
    )


def added_up(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The sum of several counts, by name."""
    total: dict[str, int] = {}
    for one in counts:
        for name, count in one.items():
            total[name] = total.get(name, 0) + count
    return total


def shown_counts(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The sum of several counts for display: the most frequent names as short plain text, the rest under `OTHERS`."""
    total = Counter(added_up(counts))
    others = total.pop(OTHERS, 0)
    listed: Counter[str] = Counter()
    for name, count in total.most_common(NAMES_LISTED):
        # Long names are cut, so several names may become one.
        listed[plain_start(name, _LONGEST_SHOWN)] += count
    others += total.total() - listed.total()
    return {**listed, OTHERS: others} if others else dict(listed)
