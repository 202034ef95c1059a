"""``replay-rejected``: ingests rejected documents again."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, get_args

import click

from telemetry_assets.cli.parameters import MOMENT, as_utc
from telemetry_assets.cli.runs import engine_log_on_stderr, new_run_id, say_refresh
from telemetry_assets.cli.terminal import print_errors, say, say_first
from telemetry_assets.ingestion.journal.base import ReplaySelection
from telemetry_assets.ingestion.parsing.documents import Reason
from telemetry_assets.pipeline import open_pipeline
from telemetry_assets.settings import load_settings
from telemetry_assets.text.formatting import counted
from telemetry_assets.text.plain import plain_text

if TYPE_CHECKING:
    from telemetry_assets.ingestion.replays import ReplayResult


@click.command("replay-rejected")
@click.option("--reason", "reasons", multiple=True, type=click.Choice(get_args(Reason)), help="Only this reason.")
@click.option("--upload", "uploads", multiple=True, help="Only this upload: its URI, or the end of its URI.")
@click.option("--since", type=MOMENT, help="Only what was rejected at or after this date or time (UTC).")
@click.option("--dry-run", is_flag=True, help="Print what would be accepted, and change nothing.")
@print_errors
def replay_rejected(reasons: tuple[str, ...], uploads: tuple[str, ...], since: datetime | None, dry_run: bool) -> None:
    """Ingest rejected documents again, after a fix.

    Documents that are now accepted move from bronze.rejected_documents to bronze.car_telemetry and keep their original
    batch and ingestion time. Then Silver and Gold are refreshed. Without options, all rejected documents are replayed.
    --reason and --upload may be repeated.
    """
    selection = ReplaySelection(reasons, uploads, as_utc(since))
    with engine_log_on_stderr(), open_pipeline(load_settings()) as pipeline:
        if dry_run:
            _say_result(pipeline.try_replay(selection), "would be accepted")
            return
        run_id = new_run_id()
        _say_result(pipeline.replay_rejected(selection, run_id), "accepted")
        pipeline.refresh_all(run_id, None, say_refresh)


def _say_result(result: ReplayResult, accepted: str) -> None:
    still = ", ".join(f"{reason} {count}" for reason, count in result.still_rejected.most_common())
    say(
        f"{result.chosen} rejected documents and uploads selected: {counted(result.accepted, 'document')} {accepted}, "
        f"{result.still_rejected.total()} still rejected{f' ({still})' if still else ''}"
    )
    say_first([f"  {plain_text(uri)} was not replayed: {plain_text(problem)}" for uri, problem in result.unavailable])
