"""``aws-check``: a smoke test of the AWS account."""

from __future__ import annotations

import click

from telemetry_assets.cli.runs import engine_log_on_stderr, interrupt_on_sigterm
from telemetry_assets.cli.terminal import print_errors, say
from telemetry_assets.settings import load_settings


@click.command("aws-check")
@print_errors
def aws_check() -> None:
    """Test that AWS has the resources and permissions that the settings need, and list what is missing.

    It creates the tables, writes and deletes an object, and submits a remote step that changes no rows.
    """
    from telemetry_assets.monitoring.smoke_test import check

    interrupt_on_sigterm()
    with engine_log_on_stderr():
        if not check(load_settings(), say):
            raise click.ClickException("Something is missing; see above.")
