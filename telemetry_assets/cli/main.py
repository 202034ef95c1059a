"""The command line does the same work as the Dagster jobs, without a daemon.

Results go to standard output, and progress to standard error. Exit codes: 0 success, 1 a problem, with a message that
says what to do, 2 wrong usage.
"""

from __future__ import annotations

import click

from telemetry_assets.cli.aws_check import aws_check
from telemetry_assets.cli.doctor import doctor
from telemetry_assets.cli.maintain import maintain
from telemetry_assets.cli.metrics import metrics
from telemetry_assets.cli.process import process
from telemetry_assets.cli.rebuild import rebuild
from telemetry_assets.cli.reconcile import reconcile
from telemetry_assets.cli.replay_rejected import replay_rejected
from telemetry_assets.cli.show import show
from telemetry_assets.cli.simulate import simulate


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="telemetry-assets")
def main() -> None:
    """Car telemetry from uploads to Gold, as Apache Iceberg tables.

    Settings are TELEMETRY_* environment variables, or lines of a .env file. `doctor` prints the values in effect.
    """


for command in (process, simulate, show, doctor, maintain, rebuild, replay_rejected, reconcile, metrics, aws_check):
    main.add_command(command)
# `certificate` was the name of `reconcile` in the first version. It remains for scripts that use it.
main.add_command(click.Command("certificate", params=reconcile.params, callback=reconcile.callback, hidden=True))
