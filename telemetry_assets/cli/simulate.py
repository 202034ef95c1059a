"""``simulate``: writes uploads of a simulated fleet."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from telemetry_assets.cli.parameters import DATE
from telemetry_assets.cli.terminal import print_errors, say
from telemetry_assets.settings import load_settings
from telemetry_assets.text.formatting import counted


@click.command()
@click.option("--cars", default=20, show_default=True, type=click.IntRange(1), help="Number of cars.")
@click.option("--days", default=7, show_default=True, type=click.IntRange(1), help="Number of days that they drive.")
@click.option("--uploads", default=40, show_default=True, type=click.IntRange(1), help="Number of uploads to write.")
@click.option("--documents", type=click.IntRange(1), help="Number of documents. Default: four per car and day.")
@click.option("--seed", default=1, show_default=True, help="The same seed writes the same uploads.")
@click.option("--last-day", type=DATE, help="The last day on which they drive. Default: yesterday (UTC).")
@click.option("--mess", is_flag=True, help="Add late, repeated, corrected, broken and drifting documents.")
@click.option(
    "--into", type=click.Path(file_okay=False, path_type=Path), help="The folder. Default: the landing location."
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
