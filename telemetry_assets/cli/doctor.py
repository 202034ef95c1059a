"""The commands of whoever operates the pipeline: look after it, put rejected documents through it, reconcile it."""

from __future__ import annotations

import json
import logging
import signal
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial, wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar, get_args

import click

from telemetry_assets.cli.environment import unknown_settings
from telemetry_assets.cli.terminal import say
from telemetry_assets.engines.base import COMMAND_LINE
from telemetry_assets.errors import TelemetryAssetsError
from telemetry_assets.ingestion.journal.base import ReplaySelection
from telemetry_assets.ingestion.landing.base import open_landing
from telemetry_assets.ingestion.landing.storage_checks import examine_storage
from telemetry_assets.ingestion.ledger import LEDGER_COMPLETE
from telemetry_assets.ingestion.parsing.documents import Reason
from telemetry_assets.lakehouse.catalog import has_lakehouse
from telemetry_assets.pipeline import open_pipeline, translate_errors
from telemetry_assets.settings import Settings, load_settings
from telemetry_assets.tables import BRONZE, REJECTED, UPLOADS
from telemetry_assets.text.formatting import counted
from telemetry_assets.text.masking import masked
from telemetry_assets.text.plain import plain_lines, plain_text

if TYPE_CHECKING:
    from telemetry_assets.engines.base import RefreshResult
    from telemetry_assets.ingestion.reconciliation import Reconciliation
    from telemetry_assets.ingestion.replays import ReplayResult
    from telemetry_assets.lakehouse.doctor import Finding

Parameters = ParamSpec("Parameters")
Answer = TypeVar("Answer")

_MOMENT = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"])
_LISTED = 20
_LEFT = {
    "incomplete": "somebody may have deleted rows; delete its other rows too, and it is taken again",
    "unreadable": "make it readable, or remove it from the archive",
}
_ENGINES = "telemetry_assets.engines"


@contextmanager
def engine_log_on_stderr() -> Iterator[None]:
    """Show on standard error what the engine tells of its steps: which remote run does one, and how that is."""
    logger = logging.getLogger(_ENGINES)  # noqa: TID251  # listens, and logs nothing
    handler = logging.StreamHandler(sys.stderr)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def print_errors(command: Callable[Parameters, Answer]) -> Callable[Parameters, Answer]:
    """Let a command end with what a person can do, and exit code 1, where something is wrong."""

    @wraps(command)
    def told(*arguments: Parameters.args, **options: Parameters.kwargs) -> Answer:
        try:
            return command(*arguments, **options)
        except TelemetryAssetsError as error:
            raise click.ClickException(plain_lines(str(error))) from error
        except KeyboardInterrupt as error:
            raise click.ClickException("Stopped. The next run goes on where this one was.") from error
        except BrokenPipeError:
            # Whoever read the output has seen enough.
            raise
        except OSError as error:
            text = f"{plain_text(error)}. `telemetry-assets doctor` looks at every place and table."
            raise click.ClickException(text) from error

    return told


@click.command()
@click.option(
    "--repair", is_flag=True, help="Mend what is safe: what the catalog says, and archived uploads whose rows are lost."
)
@print_errors
def doctor(repair: bool) -> None:
    """Look at settings, uploads and tables, and say what is wrong. Without --repair it changes nothing.

    Exit code 1 where something has to be done.
    """
    settings = load_settings()
    to_do = _tell_settings(settings)
    looks: dict[str, Callable[[Settings], int]] = {
        "Uploads": _tell_uploads,
        **({} if settings.is_in_s3 else {"Storage": _tell_storage}),
        "Tables": partial(_tell_tables, repair=repair),
        "Archive": partial(_show_archive, repair=repair),
    }
    if settings.engine != "embedded":
        looks["Engine"] = _tell_engine
    for title, tell in looks.items():
        say(title)
        try:
            to_do += tell(settings)
        except (TelemetryAssetsError, OSError) as error:
            say(f"  cannot be looked at: {error if isinstance(error, TelemetryAssetsError) else plain_text(error)}")
            to_do += 1
    if to_do:
        say(f"{counted(to_do, 'finding')} above to be mended.")
        raise SystemExit(1)
    say("All is well.")


def _tell_settings(settings: Settings) -> int:
    say("Settings")
    for name, value in settings.model_dump().items():
        shown = masked(name, value)
        say(f"  TELEMETRY_{name.upper()}={json.dumps(shown) if isinstance(shown, dict) else shown}")
    unknown = list(unknown_settings())
    for name, meant in unknown:
        say(f"  {name} is no setting and changes nothing{f'; is it meant to be {meant}?' if meant else ''}")
    return len(unknown)


def _tell_engine(settings: Settings) -> int:
    with translate_errors(settings):
        found = _engine_problems(settings)
    say("\n".join(f"  {problem}" for problem in found) or f"  {settings.engine} can be given steps")
    return len(found)


def _engine_problems(settings: Settings) -> list[str]:
    if settings.is_remote:
        from telemetry_assets.engines.remote import engine

        return engine.problems(settings)
    from telemetry_assets.engines.spark import session

    return session.problems(settings)


def _tell_uploads(settings: Settings) -> int:
    with translate_errors(settings):
        landing = open_landing(settings)
        waiting, obstacles = list(landing.waiting()), list(landing.obstacles())
    say(f"  {len(waiting)} wait, {sum(one.size for one in waiting):,} bytes")
    for place, problem in obstacles[:_LISTED]:
        say(f"  {plain_text(place)} is not taken: {problem}")
    if len(obstacles) > _LISTED:
        say(f"  and {len(obstacles) - _LISTED} more")
    return len(obstacles)


def _tell_storage(settings: Settings) -> int:
    found = list(examine_storage(settings))
    say("\n".join(f"  {finding.text}" for finding in found) or "  as the pipeline needs it")
    return sum(finding.needs_action for finding in found)


def _tell_tables(settings: Settings, repair: bool) -> int:
    from telemetry_assets.lakehouse.doctor import examine

    if not has_lakehouse(settings) and not repair:
        say(f"  not there yet; the first run makes them in {settings.lakehouse_uri}")
        return 0
    with open_pipeline(settings) as pipeline:
        in_progress = pipeline.ingestion.journal.load()
        if in_progress:
            uploads = counted(len(in_progress.uploads), "upload")
            say(f"  batch {in_progress.batch_id} of {uploads} is unfinished; the next run ends it")
        return sum(_tell_finding(finding, repair) for finding in examine(pipeline.lakehouse))


def _tell_finding(finding: Finding, repair: bool) -> bool:
    say(f"  {finding.table}: {finding.text}")
    if finding.refusal:
        say(f"    not to be mended by this command: {finding.refusal}")
    elif finding.repair is None:
        return finding.needs_action
    elif repair:
        say(f"    mended: {finding.repair()}")
        return False
    elif finding.needs_action:
        say("    `telemetry-assets doctor --repair` mends it")
    return finding.needs_action


def _show_archive(settings: Settings, repair: bool) -> int:
    """Compare every archived upload with the ledger and the rows that the tables have of it."""
    if not has_lakehouse(settings):
        say("  not there yet")
        return 0
    with open_pipeline(settings) as pipeline, translate_errors(settings):
        bronze, rejected, ledger = (pipeline.lakehouse.existing(table) for table in (BRONZE, REJECTED, UPLOADS))
        if ledger is None or bronze is None or rejected is None or LEDGER_COMPLETE not in ledger.properties:
            say("  is compared once the next run has made and filled the tables of Bronze")
            return 0
        findings = list(pipeline.ingestion.audit.everything())
        for finding in findings:
            say(f"  {plain_text(finding.upload.uri)} of batch {plain_text(finding.batch_id)}: {finding.problem}")
            if finding.is_left:
                say(f"    left as it is: {_LEFT[finding.kind]}")
            elif repair:
                pipeline.ingestion.audit.mend([finding], f"{COMMAND_LINE}doctor")
                say(f"    mended: {'it waits again' if finding.is_taken_again else 'the ledger has it now'}")
            else:
                say("    `telemetry-assets doctor --repair` puts that right")
    if not findings:
        say("  every archived upload has its rows, and its row in bronze.uploads")
    return sum(not repair or finding.is_left for finding in findings)


@click.command()
@click.option("--send", "sent", is_flag=True, help="Also put them to CloudWatch, into TELEMETRY_METRICS_NAMESPACE.")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
@print_errors
def metrics(sent: bool, as_json: bool) -> None:
    """Measure uploads that wait, tables that are behind, rejects, and remote runs. Changes nothing.

    The sensor `metrics` does it each minute where TELEMETRY_METRICS_NAMESPACE is set.
    """
    from telemetry_assets.monitoring.measurements import UNITS, measured, measured_remotely, send

    settings = load_settings()
    with open_pipeline(settings) as pipeline:
        told = measured(pipeline)
    if sent:
        send(told, settings)
    if remote := measured_remotely(settings):
        if sent:
            send(remote, settings)
        told += remote
    if as_json:
        say(json.dumps({one.name: one.value for one in told}, indent=2))
        return
    for one in told:
        say(f"{one.name:24} {one.value:,.0f}{' s' if UNITS[one.name] == 'Seconds' else ''}")


@click.command("aws-check")
@print_errors
def aws_check() -> None:
    """Prove by use that AWS has and grants what the settings need; says what is missing.

    It makes the tables, writes and deletes an object, and lets a remote engine do a step that changes no row.
    """
    from telemetry_assets.monitoring.smoke_test import check

    # Asked to end, it cancels the step that it has started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with engine_log_on_stderr():
        if not check(load_settings(), say):
            raise click.ClickException("Something is missing, see above.")


@click.command("replay-rejected")
@click.option("--reason", "reasons", multiple=True, type=click.Choice(get_args(Reason)), help="Only of this reason.")
@click.option("--upload", "uploads", multiple=True, help="Only of this upload: its URI, or what that ends in.")
@click.option("--since", type=_MOMENT, help="Only what was rejected at this date or moment (UTC), or later.")
@click.option("--dry-run", is_flag=True, help="Say what would become of them, and change nothing.")
@print_errors
def replay_rejected(reasons: tuple[str, ...], uploads: tuple[str, ...], since: datetime | None, dry_run: bool) -> None:
    """Put rejected documents through ingestion once more, after a fix.

    What is accepted now leaves bronze.rejected_documents for bronze.car_telemetry, with its own batch and moment, and
    goes on to Silver and Gold. Without options all rejected documents are tried. Options of one kind add up.
    """
    selection = ReplaySelection(reasons, uploads, since.replace(tzinfo=UTC) if since else None)
    with engine_log_on_stderr(), open_pipeline(load_settings()) as pipeline:
        if dry_run:
            _tell_replay(pipeline.try_replay(selection), "would be accepted")
            return
        run_id = f"{COMMAND_LINE}{uuid.uuid4().hex}"
        _tell_replay(pipeline.replay_rejected(selection, run_id), "accepted")
        pipeline.refresh_all(run_id, None, _say)


def _tell_replay(result: ReplayResult, accepted: str) -> None:
    still = ", ".join(f"{reason} {count}" for reason, count in result.still_rejected.most_common())
    say(
        f"{result.chosen} rejected documents and uploads chosen: {counted(result.accepted, 'document')} {accepted}, "
        f"{result.still_rejected.total()} stay rejected{f' ({still})' if still else ''}"
    )
    for uri, problem in result.unavailable[:_LISTED]:
        say(f"  {plain_text(uri)} stays as it is: {plain_text(problem)}")


def _say(done: RefreshResult) -> None:
    text = counted(done.rows_written, "row") if done.changed else "up to date"
    say(f"{done.contract.full_name}: {text}", err=True)


@click.command()
@click.option("--since", type=_MOMENT, help="Uploads that were ingested from this date or moment (UTC) on.")
@click.option("--until", type=_MOMENT, help="Uploads that were ingested before this date or moment (UTC).")
@click.option("--by-upload", is_flag=True, help="List uploads rather than batches.")
@click.option("--json", "as_json", is_flag=True, help="Print the batches, or uploads, as JSON.")
@print_errors
def reconcile(since: datetime | None, until: datetime | None, by_upload: bool, as_json: bool) -> None:
    """Compare the ledger bronze.uploads with the rows of every upload of a time range, from the tables alone.

    Exit code 1 where the documents received are not those accepted and rejected.
    """
    with open_pipeline(load_settings()) as pipeline:
        moments = (moment.replace(tzinfo=UTC) if moment else None for moment in (since, until))
        reconciled = pipeline.reconcile(*moments)
    batches = reconciled.batches
    if as_json:
        rows = (
            reconciled.uploads.to_pylist()
            if by_upload
            else [asdict(one) | {"conserved": one.conserved} for one in batches]
        )
        say(json.dumps(rows, indent=2, default=str))
    else:
        for line in _reconciliation_lines(reconciled, by_upload=by_upload):
            say(line)
    if any(not batch.conserved for batch in batches):
        raise SystemExit(1)


def _reconciliation_lines(reconciled: Reconciliation, *, by_upload: bool) -> Iterator[str]:
    batches = reconciled.batches
    conserved = [one for one in batches if one.conserved]
    documents = sum(one.documents or 0 for one in conserved)
    accepted, rejected = sum(one.accepted for one in conserved), sum(one.rejected for one in conserved)
    yield (
        f"Batches: {len(conserved)} of {len(batches)} add up. {counted(documents, 'document')} received = "
        f"{accepted:,} accepted + {rejected:,} rejected"
    )
    if by_upload:
        for row in reconciled.uploads.to_pylist():
            yield f"  {plain_text(row['source_uri'])}: {_counts(row['documents'], row['accepted'], row['rejected'])}"
    differing = [one for one in batches if not one.conserved]
    for batch in differing[:_LISTED]:
        counts = _counts(batch.documents, batch.accepted, batch.rejected)
        yield f"  batch {plain_text(batch.batch_id)} of {batch.ingested_at:%Y-%m-%d %H:%M:%S} does not add up: {counts}"
        for uri in batch.differing[:_LISTED]:
            yield f"    {plain_text(uri)}"
    if len(differing) > _LISTED:
        yield f"  and {len(differing) - _LISTED} more"
    if differing and not reconciled.ledger_complete:
        yield "  An earlier edition took some of these; the next run records them in the ledger."


def _counts(documents: int | None, accepted: int, rejected: int) -> str:
    received = "not in the ledger" if documents is None else f"{documents:,} received"
    return f"{received}, {accepted:,} accepted, {rejected:,} rejected"
