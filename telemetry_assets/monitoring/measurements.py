"""Metrics of uploads, tables and remote runs, and sending them to CloudWatch.

The metrics are measured at their source: the landing location, the tables, and the service that runs remote steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from pyiceberg.expressions import GreaterThanOrEqual

from telemetry_assets.errors import SettingsError
from telemetry_assets.lakehouse.watermarks import behind_since
from telemetry_assets.pipeline import Pipeline
from telemetry_assets.settings import Settings, require_engine_settings
from telemetry_assets.tables import REJECTED, derived_tables

UNITS: dict[str, Literal["Seconds", "Count"]] = {
    "WaitingUploads": "Count",
    "OldestUploadSeconds": "Seconds",
    "UploadsNotTaken": "Count",
    "GoldBehindSeconds": "Seconds",
    "RejectedDocuments": "Count",
    "RemoteRunsFailed": "Count",
    "LongestRemoteRunSeconds": "Seconds",
    "AccountChecks": "Count",
}
"""The unit of each metric in CloudWatch. docs/operating.md explains the metrics."""

_PERIOD = timedelta(hours=1)


@dataclass(frozen=True)
class Metric:
    """A measured value.

    :param name: a key of :data:`UNITS`, which has the unit of the value.
    """

    name: str
    value: float


def lakehouse_metrics(pipeline: Pipeline, now: datetime | None = None) -> list[Metric]:
    """Measure uploads and tables. Nothing is created or changed; a table that does not exist counts as empty.

    :param now: the time (UTC) to which ages are measured; the current time if not given.
    :raises AwsError: if AWS refuses a request.
    """
    now = now or datetime.now(UTC)
    return [*_of_uploads(pipeline, now), *_of_tables(pipeline, now)]


def remote_run_metrics(settings: Settings, now: datetime | None = None) -> list[Metric]:
    """Measure remote runs. There are no metrics if the engine is not remote.

    :param now: as in :func:`lakehouse_metrics`.
    :raises SettingsError: if a setting is missing that the service needs.
    :raises AwsError: if the service does not answer.
    """
    if not settings.is_remote:
        return []
    require_engine_settings(settings)
    from telemetry_assets.aws.errors import translate_aws_errors
    from telemetry_assets.engines.remote.engine import open_service
    from telemetry_assets.engines.remote.job_runs import of_lakehouse

    now = now or datetime.now(UTC)
    with translate_aws_errors():
        service = open_service(settings)
        failed = of_lakehouse(service.failed_since(now - _PERIOD), settings)
        started = [run.started for run, _ in of_lakehouse(service.active_runs(), settings)]
    oldest = _seconds(min(started, default=now), now)
    return [Metric("RemoteRunsFailed", len(failed)), Metric("LongestRemoteRunSeconds", oldest)]


def _of_uploads(pipeline: Pipeline, now: datetime) -> Iterator[Metric]:
    in_progress = pipeline.ingestion.journal.load()
    claimed = [item.upload for item in in_progress.uploads if item.outcome == "claimed"] if in_progress else []
    # In S3, an upload that a batch has claimed is still in the landing location.
    waiting = {(one.uri, one.version): one.modified for one in [*pipeline.landing.waiting(), *claimed]}
    yield Metric("WaitingUploads", len(waiting))
    yield Metric("OldestUploadSeconds", _seconds(min(waiting.values(), default=now), now))
    yield Metric("UploadsNotTaken", sum(1 for _ in pipeline.landing.obstacles()))


def _of_tables(pipeline: Pipeline, now: datetime) -> Iterator[Metric]:
    lakehouse = pipeline.lakehouse
    since = [now]
    for contract in derived_tables():
        upstream = lakehouse.existing(contract.upstream)
        if upstream is not None:
            since.append(behind_since(lakehouse.existing(contract), contract.upstream, upstream) or now)
    yield Metric("GoldBehindSeconds", _seconds(min(since), now))
    rejected = lakehouse.existing(REJECTED)
    recent = GreaterThanOrEqual(term="ingested_at", value=(now - _PERIOD).isoformat())
    yield Metric("RejectedDocuments", rejected.scan(recent).count() if rejected else 0)


def _seconds(since: datetime, now: datetime) -> float:
    # The clocks of this machine and of S3 may differ.
    return max(0.0, (now - since).total_seconds())


def send_metrics(metrics: list[Metric], settings: Settings) -> None:
    """Send metrics to the CloudWatch namespace of the settings. Their only dimension is the lakehouse.

    :raises SettingsError: if no namespace is set.
    :raises AwsError: if CloudWatch refuses the request.
    """
    if not settings.metrics_namespace:
        raise SettingsError(
            "TELEMETRY_METRICS_NAMESPACE is not set. Set it to the CloudWatch namespace for the metrics "
            "(docs/operating.md)."
        )
    from telemetry_assets.aws.clients import cloudwatch_client
    from telemetry_assets.aws.errors import translate_aws_errors

    with translate_aws_errors():
        cloudwatch_client().put_metric_data(
            Namespace=settings.metrics_namespace,
            MetricData=[
                {
                    "MetricName": one.name,
                    "Dimensions": [{"Name": "Lakehouse", "Value": settings.lakehouse_uri}],
                    "Value": one.value,
                    "Unit": UNITS[one.name],
                }
                for one in metrics
            ],
        )
