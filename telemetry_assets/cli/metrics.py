"""``metrics``: prints the metrics of the deployment, and sends them to CloudWatch on request."""

from __future__ import annotations

import json

import click

from telemetry_assets.cli.terminal import print_errors, say
from telemetry_assets.pipeline import open_pipeline
from telemetry_assets.settings import load_settings


@click.command()
@click.option("--send", "sent", is_flag=True, help="Also send them to CloudWatch, to TELEMETRY_METRICS_NAMESPACE.")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
@print_errors
def metrics(sent: bool, as_json: bool) -> None:
    """Measure waiting uploads, tables that are behind, rejected documents, and remote runs. Changes nothing.

    If TELEMETRY_METRICS_NAMESPACE is set, the sensor `metrics` does the same every minute.
    """
    from telemetry_assets.monitoring.measurements import UNITS, lakehouse_metrics, remote_run_metrics, send_metrics

    settings = load_settings()
    with open_pipeline(settings) as pipeline:
        measured = lakehouse_metrics(pipeline)
    if sent:
        send_metrics(measured, settings)
    if remote := remote_run_metrics(settings):
        if sent:
            send_metrics(remote, settings)
        measured += remote
    if as_json:
        say(json.dumps({one.name: one.value for one in measured}, indent=2))
        return
    for one in measured:
        say(f"{one.name:24} {one.value:,.0f}{' s' if UNITS[one.name] == 'Seconds' else ''}")
