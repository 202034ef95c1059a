"""``reconcile``: compares the ledger with the rows of every upload."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING

import click

from telemetry_assets.cli.parameters import MOMENT, as_utc
from telemetry_assets.cli.terminal import LISTED, print_errors, say
from telemetry_assets.pipeline import open_pipeline
from telemetry_assets.settings import load_settings
from telemetry_assets.text.formatting import counted
from telemetry_assets.text.plain import plain_text

if TYPE_CHECKING:
    from telemetry_assets.ingestion.reconciliation import Reconciliation


@click.command()
@click.option("--since", type=MOMENT, help="Uploads ingested at or after this date or time (UTC).")
@click.option("--until", type=MOMENT, help="Uploads ingested before this date or time (UTC).")
@click.option("--by-upload", is_flag=True, help="List uploads instead of batches.")
@click.option("--json", "as_json", is_flag=True, help="Print the batches, or uploads, as JSON.")
@print_errors
def reconcile(since: datetime | None, until: datetime | None, by_upload: bool, as_json: bool) -> None:
    """Compare the ledger bronze.uploads with the rows of the other Bronze tables, for the uploads of a time range.

    Changes nothing. The exit code is 1 if the counts of a batch differ.
    """
    with open_pipeline(load_settings()) as pipeline:
        reconciled = pipeline.reconcile(as_utc(since), as_utc(until))
    batches = reconciled.batches
    if as_json:
        rows = (
            reconciled.uploads.to_pylist()
            if by_upload
            else [asdict(one) | {"conserved": one.conserved} for one in batches]
        )
        say(json.dumps(rows, indent=2, default=str))
    else:
        _say_reconciliation(reconciled, by_upload=by_upload)
    if any(not batch.conserved for batch in batches):
        raise SystemExit(1)


def _say_reconciliation(reconciled: Reconciliation, *, by_upload: bool) -> None:
    batches = reconciled.batches
    conserved = [one for one in batches if one.conserved]
    documents = sum(one.documents or 0 for one in conserved)
    accepted, rejected = sum(one.accepted for one in conserved), sum(one.rejected for one in conserved)
    say(
        f"{len(conserved)} of {len(batches)} batches agree with the ledger. "
        f"{counted(documents, 'document')} received = {accepted:,} accepted + {rejected:,} rejected"
    )
    if by_upload:
        for row in reconciled.uploads.to_pylist():
            say(f"  {plain_text(row['source_uri'])}: {_counts(row['documents'], row['accepted'], row['rejected'])}")
    for line in _difference_lines(reconciled):
        say(line)


def _difference_lines(reconciled: Reconciliation) -> Iterator[str]:
    differing = [one for one in reconciled.batches if not one.conserved]
    for batch in differing[:LISTED]:
        counts = _counts(batch.documents, batch.accepted, batch.rejected)
        yield f"  batch {plain_text(batch.batch_id)} of {batch.ingested_at:%Y-%m-%d %H:%M:%S} differs: {counts}"
        for uri in batch.differing[:LISTED]:
            yield f"    {plain_text(uri)}"
    if len(differing) > LISTED:
        yield f"  and {len(differing) - LISTED} more"
    if differing and not reconciled.ledger_complete:
        yield "  Earlier versions ingested some of these without a ledger. The next run adds them to the ledger."


def _counts(documents: int | None, accepted: int, rejected: int) -> str:
    received = "not in the ledger" if documents is None else f"{documents:,} received"
    return f"{received}, {accepted:,} accepted, {rejected:,} rejected"
