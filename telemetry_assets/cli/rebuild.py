"""``rebuild``: computes event dates of a derived table again, in pieces."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import click

from telemetry_assets.cli.parameters import DATE
from telemetry_assets.cli.runs import engine_log_on_stderr, interrupt_on_sigterm, new_run_id, say_refresh
from telemetry_assets.cli.terminal import print_errors, say
from telemetry_assets.pipeline import open_pipeline
from telemetry_assets.settings import load_settings
from telemetry_assets.tables import derived_table_named
from telemetry_assets.tables.contract import DerivedTable
from telemetry_assets.text.formatting import counted

if TYPE_CHECKING:
    from telemetry_assets.engines.result import RefreshResult


@click.command()
@click.argument("table")
@click.option("--from", "first", type=DATE, required=True, help="The first event date.")
@click.option("--to", "last", type=DATE, required=True, help="The last event date.")
@print_errors
def rebuild(table: str, first: datetime, last: datetime) -> None:
    """Compute the event dates of TABLE again, from all their upstream rows.

    TABLE is silver.car_telemetry or a Gold table. Readers see the old rows of a partition until its piece is done. If
    the command is stopped, the same command continues it; so does the next run of the pipeline.
    """
    if last < first:
        raise click.BadParameter("it must not be before --from.", param_hint="--to")
    days = frozenset(first.date() + timedelta(offset) for offset in range((last - first).days + 1))
    interrupt_on_sigterm()
    with engine_log_on_stderr(), open_pipeline(load_settings()) as pipeline:
        say_refresh(pipeline.refresh(_derived(table), new_run_id(), days, between_steps=_say_piece))


def _derived(name: str) -> DerivedTable:
    try:
        return derived_table_named(name)
    except KeyError as error:
        raise click.BadParameter(str(error.args[0]), param_hint="TABLE") from error


def _say_piece(step: RefreshResult) -> None:
    say(f"{step.contract.full_name}: {counted(len(step.left), 'partition')} left", err=True)
