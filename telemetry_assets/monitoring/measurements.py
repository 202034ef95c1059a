"""What is watched of a lakehouse, as numbers, and the one way in which they reach CloudWatch.

All of it is read where it is: from the landing location, the tables, and the service that runs remote steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from pyiceberg.expressions import GreaterThanOrEqual

from telemetry_assets.errors import SettingsError
from telemetry_assets.lakehouse.changes import behind_since
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
"""All metrics, as CloudWatch takes them; docs/operating.md explains each."""

_LOOKED_BACK = timedelta(hours=1)


@dataclass(frozen=True)
class Metric:
    """One of :data:`UNITS` at a moment."""

    name: str
    value: float


def measured(pipeline: Pipeline, now: datetime | None = None) -> list[Metric]:
    """The metrics of uploads and tables. Nothing is made or changed; a table that is not there yet counts as empty.

    :param now: the moment that ages are told for, UTC; this one if it is not given.
    :raises AwsError: where AWS refuses a look.
    """
    now = now or datetime.now(UTC)
    return [*_of_uploads(pipeline, now), *_of_tables(pipeline, now)]


def measured_remotely(settings: Settings, now: datetime | None = None) -> list[Metric]:
    """The metrics of remote runs; none where the engine is not remote.

    :param now: as of :func:`measured`.
    :raises SettingsError: where a setting is missing that the service needs.
    :raises AwsError: where the service does not answer.
    """
    if not settings.is_remote:
        return []
    require_engine_settings(settings)
    from telemetry_assets.aws.errors import translate_aws_errors
    from telemetry_assets.engines.remote.engine import open_service
    from telemetry_assets.engines.remote.programs import of_lakehouse

    now = now or datetime.now(UTC)
    with translate_aws_errors():
        service = open_service(settings)
        failed = of_lakehouse(service.failed_since(now - _LOOKED_BACK), settings)
        started = [run.started for run, _ in of_lakehouse(service.living(), settings)]
    oldest = _seconds(min(started, default=now), now)
    return [Metric("RemoteRunsFailed", len(failed)), Metric("LongestRemoteRunSeconds", oldest)]


def _of_uploads(pipeline: Pipeline, now: datetime) -> Iterator[Metric]:
    in_progress = pipeline.ingestion.journal.load()
    claimed = [item.upload for item in in_progress.uploads if item.outcome == "claimed"] if in_progress else []
    # In S3 an upload that a batch has claimed is still where it arrived.
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
    recent = GreaterThanOrEqual(term="ingested_at", value=(now - _LOOKED_BACK).isoformat())
    yield Metric("RejectedDocuments", rejected.scan(recent).count() if rejected else 0)


def _seconds(since: datetime, now: datetime) -> float:
    # Clocks of this machine and of S3 may differ.
    return max(0.0, (now - since).total_seconds())


def send(metrics: list[Metric], settings: Settings) -> None:
    """Put metrics to CloudWatch, into the namespace of the settings, with the lakehouse as their one dimension.

    :raises SettingsError: where no namespace is set.
    :raises AwsError: where CloudWatch refuses them.
    """
    if not settings.metrics_namespace:
        raise SettingsError(
            "TELEMETRY_METRICS_NAMESPACE is not set; it says where in CloudWatch the metrics go (docs/operating.md)."
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
