"""``process``: ingests all waiting uploads and refreshes all tables."""

from __future__ import annotations

import json
from datetime import datetime

import click

from telemetry_assets.cli.parameters import DATE
from telemetry_assets.cli.runs import engine_log_on_stderr, interrupt_on_sigterm, new_run_id, say_refresh
from telemetry_assets.cli.terminal import print_errors, say
from telemetry_assets.engines.result import RefreshResult
from telemetry_assets.ingestion.reconciliation import BatchReport, shown_counts, sum_counts
from telemetry_assets.pipeline import ProcessResult, open_pipeline
from telemetry_assets.settings import load_settings
from telemetry_assets.text.formatting import counted

_COUNTED = ("rejected_by_reason", "wrong_typed_fields", "out_of_range_fields", "unknown_fields")


@click.command()
@click.option(
    "--insurance-as-of", type=DATE, help="The date to calculate the insurance status for. Default: today (UTC)."
)
@click.option("--json", "as_json", is_flag=True, help="Print the run's report as JSON.")
@print_errors
def process(insurance_as_of: datetime | None, as_json: bool) -> None:
    """Ingest every waiting upload and refresh all tables.

    Rejected documents are counted and stored in bronze.rejected_documents. They do not make the command fail: the exit
    code is 0.
    """
    interrupt_on_sigterm()
    with engine_log_on_stderr(), open_pipeline(load_settings()) as pipeline:
        as_of = insurance_as_of.date() if insurance_as_of else None
        processed = pipeline.process(new_run_id(), as_of, _say_progress)
    say(json.dumps(_report(processed), indent=2) if as_json else _summary(processed))


def _say_progress(done: BatchReport | RefreshResult) -> None:
    if isinstance(done, RefreshResult):
        say_refresh(done)
        return
    uploads = counted(done.uploads, "upload")
    say(f"batch {done.batch_id}: {uploads}, {done.accepted:,} accepted, {done.rejected:,} rejected", err=True)


def _summary(processed: ProcessResult) -> str:
    if not processed.batch_reports:
        changed = sum(one.changed for one in processed.refreshes)
        return f"No uploads were waiting; {counted(changed, 'table')} changed."
    report = _report(processed)
    documents = counted(sum(one.documents for one in processed.batch_reports), "document")
    lines = [
        f"{counted(sum(one.uploads for one in processed.batch_reports), 'upload')}, {documents} = "
        f"{report['accepted']} accepted + {report['rejected']} rejected"
    ]
    for title in _COUNTED:
        counts = shown_counts(getattr(one, title) for one in processed.batch_reports)
        if counts:
            listed = ", ".join(f"{name} {count}" for name, count in counts.items())
            lines.append(f"  {title.replace('_', ' ')}: {listed}")
    if ahead := sum(sum(one.ahead_of_clock.values()) for one in processed.batch_reports):
        lines.append(f"  ahead of the clock: {counted(ahead, 'event')}")
    return "\n".join(lines)


def _report(processed: ProcessResult) -> dict[str, object]:
    counts = {
        name: sum(getattr(one, name) for one in processed.batch_reports)
        for name in ("uploads", "documents", "accepted", "rejected")
    }
    names = {
        name: sum_counts(getattr(one, name) for one in processed.batch_reports)
        for name in (*_COUNTED, "event_dates", "ahead_of_clock")
    }
    tables = {
        one.contract.full_name: {
            "event_dates": len(one.event_dates),
            "rows_written": one.rows_written,
            "changed": one.changed,
            "snapshot_id": one.snapshot_id,
        }
        for one in processed.refreshes
    }
    batches = [json.loads(one.model_dump_json()) for one in processed.batch_reports]
    return {**counts, **names, "tables": tables, "batches": batches}
