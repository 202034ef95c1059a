"""``doctor``: examines settings, uploads, storage, tables, archive and engine.

On request, it repairs catalog entries, and ingests archived uploads without rows again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import click

from telemetry_assets.cli.environment import unknown_settings
from telemetry_assets.cli.terminal import print_errors, say, say_first
from telemetry_assets.engines import engine_problems
from telemetry_assets.engines.base import COMMAND_LINE
from telemetry_assets.errors import TelemetryAssetsError
from telemetry_assets.ingestion.landing import open_landing
from telemetry_assets.ingestion.ledger import LEDGER_COMPLETE
from telemetry_assets.ingestion.storage_checks import examine_storage
from telemetry_assets.lakehouse.catalog import has_lakehouse
from telemetry_assets.lakehouse.data_files import earliest_partition
from telemetry_assets.pipeline import open_pipeline, translate_errors
from telemetry_assets.settings import Settings, load_settings
from telemetry_assets.tables import BRONZE, REJECTED, UPLOADS
from telemetry_assets.tables.alert_rules import read_alert_rules
from telemetry_assets.text.formatting import counted
from telemetry_assets.text.masking import masked
from telemetry_assets.text.plain import plain_text

if TYPE_CHECKING:
    from telemetry_assets.lakehouse.doctor import Finding
    from telemetry_assets.pipeline import Pipeline

_NOT_REPAIRED = {
    "incomplete": "its rows may have been deleted on purpose; delete its other rows too, and it is ingested again",
    "unreadable": "make it readable, or remove it from the archive",
}


@click.command()
@click.option("--repair", is_flag=True, help="Repair catalog entries, and ingest archived uploads without rows again.")
@click.option("--full", is_flag=True, help="Also read all keys of Silver and Gold, and report rows with the same key.")
@print_errors
def doctor(repair: bool, full: bool) -> None:
    """Examine settings, uploads, storage, tables, archive and engine, and report problems.

    Without --repair it changes nothing. The exit code is 1 if a problem needs action.
    """
    settings = load_settings()
    problems = _examine_settings(settings)
    # Each examination prints what it finds, and returns the number of problems.
    examinations: dict[str, Callable[[Settings], int]] = {
        "Uploads": _examine_uploads,
        **({} if settings.is_in_s3 else {"Storage": _examine_storage}),
        "Tables": partial(_examine_tables, repair=repair, full=full),
        "Archive": partial(_examine_archive, repair=repair),
    }
    if settings.engine != "embedded":
        examinations["Engine"] = _examine_engine
    for title, examine in examinations.items():
        say(title)
        try:
            problems += examine(settings)
        except (TelemetryAssetsError, OSError) as error:
            say(f"  cannot be examined: {error if isinstance(error, TelemetryAssetsError) else plain_text(error)}")
            problems += 1
    if problems:
        say(f"Found {counted(problems, 'problem')}; see above.")
        raise SystemExit(1)
    say("All is well.")


def _examine_settings(settings: Settings) -> int:
    say("Settings")
    for name, value in settings.model_dump(exclude={"alert_rules"}).items():
        shown = masked(name, value)
        say(f"  TELEMETRY_{name.upper()}={json.dumps(shown) if isinstance(shown, dict) else shown}")
    unknown = list(unknown_settings())
    for name, similar in unknown:
        say(f"  {name} is not a setting and has no effect{f'; did you mean {similar}?' if similar else ''}")
    is_default = settings.alert_rules == read_alert_rules()
    say(f"Alert rules{'' if is_default else ' of the file in TELEMETRY_ALERT_RULES'}")
    for rule in settings.alert_rules.rules:
        say(f"  {rule.described()}")
    return len(unknown)


def _examine_engine(settings: Settings) -> int:
    with translate_errors(settings):
        found = engine_problems(settings)
    say("\n".join(f"  {problem}" for problem in found) or f"  {settings.engine} can run steps")
    return len(found)


def _examine_uploads(settings: Settings) -> int:
    with translate_errors(settings):
        landing = open_landing(settings)
        waiting, obstacles = list(landing.waiting()), list(landing.obstacles())
    say(f"  {len(waiting)} waiting, {sum(one.size for one in waiting):,} bytes")
    say_first([f"  {plain_text(place)} is not ingested: {problem}" for place, problem in obstacles])
    return len(obstacles)


def _examine_storage(settings: Settings) -> int:
    found = list(examine_storage(settings))
    say("\n".join(f"  {finding.text}" for finding in found) or "  meets the pipeline's requirements")
    return sum(finding.needs_action for finding in found)


def _examine_tables(settings: Settings, repair: bool, full: bool) -> int:
    from telemetry_assets.lakehouse.doctor import examine, examine_keys

    if not has_lakehouse(settings) and not repair:
        say(f"  do not exist yet; the first run creates them in {settings.lakehouse_uri}")
        return 0
    with open_pipeline(settings) as pipeline:
        in_progress = pipeline.ingestion.journal.load()
        if in_progress:
            uploads = counted(len(in_progress.uploads), "upload")
            say(f"  batch {in_progress.batch_id} of {uploads} is unfinished; the next run finishes it")
        problems = sum(_say_finding(finding, repair) for finding in examine(pipeline.lakehouse))
        if full and not problems:
            problems = sum(_say_finding(finding, repair) for finding in examine_keys(pipeline.lakehouse))
        if not problems:
            _say_dates_without_partition(pipeline)
        return problems


def _say_dates_without_partition(pipeline: Pipeline) -> None:
    first = pipeline.settings.first_event_date
    bronze = pipeline.lakehouse.existing(BRONZE) if first else None
    earliest = earliest_partition(bronze) if bronze else None
    if earliest and first and earliest < first:
        say(
            f"  the tables have event dates from {earliest} on; Dagster does not show those before "
            f"TELEMETRY_FIRST_EVENT_DATE={first}"
        )


def _say_finding(finding: Finding, repair: bool) -> bool:
    """Print a finding, and repair it if requested and safe. Returns whether it still needs action."""
    say(f"  {finding.table}: {finding.text}")
    if finding.refusal:
        say(f"    this command cannot repair it: {finding.refusal}")
    elif finding.repair is None:
        return finding.needs_action
    elif repair:
        say(f"    repaired: {finding.repair()}")
        return False
    elif finding.needs_action:
        say("    `telemetry-assets doctor --repair` repairs it")
    return finding.needs_action


def _examine_archive(settings: Settings, repair: bool) -> int:
    """Compare every archived upload with the ledger and with its rows in the tables."""
    if not has_lakehouse(settings):
        say("  does not exist yet")
        return 0
    with open_pipeline(settings) as pipeline, translate_errors(settings):
        bronze, rejected, ledger = (pipeline.lakehouse.existing(table) for table in (BRONZE, REJECTED, UPLOADS))
        if ledger is None or bronze is None or rejected is None or LEDGER_COMPLETE not in ledger.properties:
            say("  cannot be compared before the next run has created and filled the tables of Bronze")
            return 0
        findings = list(pipeline.ingestion.audit.everything())
        for finding in findings:
            say(f"  {plain_text(finding.upload.uri)} of batch {plain_text(finding.batch_id)}: {finding.problem}")
            if finding.needs_decision:
                say(f"    not repaired: {_NOT_REPAIRED[finding.kind]}")
            elif repair:
                pipeline.ingestion.audit.repair([finding], f"{COMMAND_LINE}doctor")
                result = "it waits in the landing location again" if finding.is_moved_back else "added to the ledger"
                say(f"    repaired: {result}")
            else:
                say("    `telemetry-assets doctor --repair` repairs it")
    if not findings:
        say("  every archived upload has its rows, and its row in bronze.uploads")
    return sum(not repair or finding.needs_decision for finding in findings)
