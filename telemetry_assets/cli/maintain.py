"""``maintain``: compacts tables, expires their snapshots, and removes files that no table needs."""

from __future__ import annotations

import click

from telemetry_assets.cli.terminal import print_errors, say, say_first
from telemetry_assets.lakehouse.maintenance import MaintenanceReport
from telemetry_assets.pipeline import open_pipeline
from telemetry_assets.settings import load_settings
from telemetry_assets.tables import all_tables
from telemetry_assets.tables.contract import TableContract
from telemetry_assets.text.formatting import counted


@click.command()
@click.option("--table", "names", multiple=True, help="Only this table, e.g. silver.car_telemetry. May be repeated.")
@click.option("--dry-run", is_flag=True, help="Change nothing, and print what would be done.")
@print_errors
def maintain(names: tuple[str, ...], *, dry_run: bool) -> None:
    """Compact the tables, expire old snapshots, and remove files that no table needs.

    The command can run beside runs of the pipeline, and can be stopped at any time. If a run commits to a table first,
    the work on this table is left for the next time.
    """
    with open_pipeline(load_settings()) as pipeline:
        for report in pipeline.maintain(_chosen(names), dry_run=dry_run):
            say(_planned(report) if dry_run else str(report))
        if not names:
            result = pipeline.clean_up("maintain", dry_run=dry_run)
            say(str(result))
            say_first([str(finding) for finding in result.findings])


def _chosen(names: tuple[str, ...]) -> list[TableContract]:
    by_name = {contract.full_name: contract for contract in all_tables()}
    for name in names:
        if name not in by_name:
            raise click.BadParameter(
                f"{name} is not a table. The tables are {', '.join(by_name)}.", param_hint="--table"
            )
    return [by_name[name] for name in names] if names else list(by_name.values())


def _planned(report: MaintenanceReport) -> str:
    return (
        f"{report.contract.full_name}: {report.before}; to do: {counted(report.compacted.removed, 'data file')} to "
        f"compact, {counted(report.expired, 'snapshot')} to expire, {counted(report.deleted, 'orphan')} to delete"
    )
