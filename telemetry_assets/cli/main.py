"""The command line: the same work as the Dagster jobs do, without a daemon.

Results go to standard output, progress to standard error. Exit codes: 0 done, 1 something is wrong and
the message says what to do, 2 the command was not understood.
"""

from __future__ import annotations

import json
import signal
import sys
import uuid
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import click

from telemetry_assets.cli.doctor import (
    aws_check,
    doctor,
    engine_log_on_stderr,
    metrics,
    print_errors,
    reconcile,
    replay_rejected,
)
from telemetry_assets.cli.terminal import say
from telemetry_assets.engines.base import COMMAND_LINE, RefreshResult
from telemetry_assets.ingestion.batch_reports import BatchReport, added_up, shown_counts
from telemetry_assets.pipeline import Processed, open_pipeline
from telemetry_assets.settings import load_settings
from telemetry_assets.text.formatting import counted
from telemetry_assets.text.plain import plain_start, plain_text

_DATE = click.DateTime(["%Y-%m-%d"])
_LONG_COLUMNS = {"payload", "alert_id"}
_SHOWN_OF_LONG_COLUMNS = 40
_SHOWN_CHARACTERS = 200


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="telemetry-assets")
def main() -> None:
    """Car telemetry from uploads to Gold, as Apache Iceberg tables.

    Settings come from TELEMETRY_* variables and a .env file; `doctor` shows those in force.
    """


@main.command()
@click.option(
    "--insurance-as-of", type=_DATE, help="The date to tell the insurance status for; today (UTC) if not given."
)
@click.option("--json", "as_json", is_flag=True, help="Print the run's report as JSON.")
@print_errors
def process(insurance_as_of: datetime | None, as_json: bool) -> None:
    """Take every upload that waits to Bronze, Silver and Gold.

    Rejected documents are counted, kept in bronze.rejected_documents, and no failure: the exit code is 0.
    """
    # Asked to end, it cancels what it has started elsewhere.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with engine_log_on_stderr(), open_pipeline(load_settings()) as pipeline:
        as_of = insurance_as_of.date() if insurance_as_of else None
        processed = pipeline.process(f"{COMMAND_LINE}{uuid.uuid4().hex}", as_of, _say)
    say(json.dumps(_batch_report(processed), indent=2) if as_json else _summary(processed))


def _say(done: BatchReport | RefreshResult) -> None:
    if isinstance(done, BatchReport):
        uploads = counted(done.uploads, "upload")
        text = f"batch {done.batch_id}: {uploads}, {done.accepted:,} accepted, {done.rejected:,} rejected"
    else:
        written = f"{counted(len(done.event_dates), 'event date')}, {counted(done.rows_written, 'row')}"
        dates = written if done.changed else "up to date"
        text = f"{done.contract.full_name}: {dates} ({done.seconds:.1f} s)"
    say(text, err=True)


def _summary(processed: Processed) -> str:
    if not processed.batch_reports:
        changed = sum(one.changed for one in processed.refreshes)
        return f"No upload waited; {counted(changed, 'table')} changed."
    batch_report = _batch_report(processed)
    documents = counted(sum(one.documents for one in processed.batch_reports), "document")
    lines = [
        f"{counted(sum(one.uploads for one in processed.batch_reports), 'upload')}, {documents} = "
        f"{batch_report['accepted']} accepted + {batch_report['rejected']} rejected"
    ]
    for title in ("rejected_by_reason", "wrong_typed_fields", "unknown_fields"):
        counts = shown_counts(getattr(one, title) for one in processed.batch_reports)
        if counts:
            listed = ", ".join(f"{name} {count}" for name, count in counts.items())
            lines.append(f"  {title.replace('_', ' ')}: {listed}")
    return "\n".join(lines)


def _batch_report(processed: Processed) -> dict[str, object]:
    counts = {
        name: sum(getattr(one, name) for one in processed.batch_reports)
        for name in ("uploads", "documents", "accepted", "rejected")
    }
    names = {
        name: added_up(getattr(one, name) for one in processed.batch_reports)
        for name in ("rejected_by_reason", "wrong_typed_fields", "unknown_fields", "event_dates")
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


@main.command()
@click.option("--cars", default=20, show_default=True, type=click.IntRange(1), help="Cars of the fleet.")
@click.option("--days", default=7, show_default=True, type=click.IntRange(1), help="Days that they drive.")
@click.option("--uploads", default=40, show_default=True, type=click.IntRange(1), help="Uploads to write.")
@click.option("--documents", type=click.IntRange(1), help="Documents in all; four per car and day if not given.")
@click.option("--seed", default=1, show_default=True, help="The same seed writes the same uploads.")
@click.option("--last-day", type=_DATE, help="The last day that they drive; yesterday (UTC) if not given.")
@click.option("--mess", is_flag=True, help="Add late, repeated, corrected, broken and drifting documents.")
@click.option(
    "--into", type=click.Path(file_okay=False, path_type=Path), help="The folder; the landing location if not given."
)
@print_errors
def simulate(
    cars: int,
    days: int,
    uploads: int,
    documents: int | None,
    seed: int,
    last_day: datetime | None,
    mess: bool,
    into: Path | None,
) -> None:
    """Write realistic uploads of a fleet into the landing location, in both document shapes."""
    from telemetry_assets.simulator.fleet import Fleet, simulate
    from telemetry_assets.simulator.uploads import send_uploads

    fleet = Fleet(
        cars=cars,
        days=days,
        uploads=uploads,
        documents=documents,
        seed=seed,
        mess=mess,
        last_day=last_day.date() if last_day else datetime.now(UTC).date() - timedelta(days=1),
    )
    place = str(into) if into else load_settings().landing_uri
    with click.progressbar(simulate(fleet), length=uploads, label="Writing uploads", file=sys.stderr) as written:
        count = send_uploads(written, place)
    say(f"{counted(count, 'upload')} in {place}")


@main.command()
@click.argument("table")
@click.option("--car", help="Only rows of this chassis.")
@click.option("--limit", default=10, show_default=True, type=click.IntRange(1), help="Rows to print at most.")
@click.option("--all-columns", is_flag=True, help="Also the columns that keep a table incremental, and whole cells.")
@print_errors
def show(table: str, car: str | None, limit: int, all_columns: bool) -> None:
    """Print rows of TABLE, e.g. gold.car_current_state."""
    from telemetry_assets.lakehouse.quality import first_rows
    from telemetry_assets.tables import table_named

    try:
        contract = table_named(table)
    except KeyError as error:
        raise click.BadParameter(str(error.args[0]), param_hint="TABLE") from error
    if car is not None and "car_chassis" not in contract.column_names:
        raise click.BadParameter(f"{contract.full_name} has no column for the car", param_hint="--car")
    with open_pipeline(load_settings()) as pipeline:
        rows, total = first_rows(pipeline.lakehouse, contract, car, limit, internal=all_columns)
    say(f"{contract.full_name}: {counted(total, 'row')}{f' of {car}' if car else ''}")
    if rows.num_rows:
        frame = rows.to_pandas(integer_object_nulls=True).astype(object)
        frame = frame.where(frame.notna(), "")
        for column in frame.columns:
            longest = _SHOWN_OF_LONG_COLUMNS if column in _LONG_COLUMNS else _SHOWN_CHARACTERS
            frame[column] = frame[column].map(partial(_cell, longest=None if all_columns else longest))
        say(frame.to_string(index=False, max_colwidth=None))


def _cell(value: object, *, longest: int | None) -> object:
    if not isinstance(value, str):
        return value
    return plain_text(value) if longest is None else plain_start(value, longest)


for command in (doctor, replay_rejected, reconcile, metrics, aws_check):
    main.add_command(command)
# What the first edition called it, for scripts that still do.
main.add_command(click.Command("certificate", params=reconcile.params, callback=reconcile.callback, hidden=True))
