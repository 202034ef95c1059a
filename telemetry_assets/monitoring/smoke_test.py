"""A smoke test of the resources and permissions that the settings need in AWS: ``make aws-check``.

It creates the tables, as the first run does, and an object and a table property, which it deletes. A remote engine gets
a step without event dates, which costs the service's minimum charge. The test does not remove uploads from the landing
location, because it could not undo that.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError
from pyiceberg.table import Table

from telemetry_assets.aws.clients import region, s3_client, sts_client
from telemetry_assets.aws.errors import GONE, error_code, translate_aws_errors
from telemetry_assets.aws.requests import encryption, get_object
from telemetry_assets.engines.remote.engine import RemoteEngine, open_service, problems
from telemetry_assets.errors import SettingsError, TelemetryAssetsError
from telemetry_assets.ingestion.landing import open_landing
from telemetry_assets.lakehouse.catalog import open_lakehouse
from telemetry_assets.lakehouse.commits import until_committed
from telemetry_assets.monitoring.measurements import Metric, send_metrics
from telemetry_assets.settings import Settings, require_engine_settings
from telemetry_assets.tables import ALERTS, all_tables
from telemetry_assets.text.formatting import counted

Check = Callable[[Settings], str]
"""Uses a resource and returns what it found. Raises an error if the resource or a permission is missing."""

_MARKER = ".telemetry-assets-check"
_PROPERTY = "telemetry.account-check"


def checks(settings: Settings) -> Iterator[tuple[str, Check]]:
    """The checks for these settings, with their titles, in the order in which they run."""
    yield "credentials", _credentials
    yield "uploads can be listed and read", _uploads
    yield "the lakehouse can be written, read and deleted from", _objects
    yield "tables exist or can be created", _tables
    if settings.metrics_namespace:
        yield "metrics can be sent", _metrics
    if settings.is_remote:
        yield "the service and the package exist", _service
        yield "a remote step can be submitted and followed", _step


def check(settings: Settings, say: Callable[[str], None]) -> bool:
    """Run all checks, and report each of them.

    :param say: called with one line per check.
    :returns: whether all resources and permissions exist.
    :raises SettingsError: if the lakehouse is a folder, or a setting is missing that the engine needs.
    """
    if not settings.is_in_s3:
        raise SettingsError(
            f"TELEMETRY_LAKEHOUSE_URI={settings.lakehouse_uri} is a folder, so there is nothing to check in AWS."
        )
    require_engine_settings(settings)
    is_complete = True
    for title, run in checks(settings):
        if run is _step and not is_complete:
            say(f"not tried  {title}: first add what is missing above")
            continue
        try:
            with translate_aws_errors():
                say(f"ok         {title}: {run(settings)}")
        except (TelemetryAssetsError, OSError) as error:
            say(f"MISSING    {title}: {error}")
            is_complete = False
    return is_complete


def _credentials(_: Settings) -> str:
    who = sts_client().get_caller_identity()
    return f"{who['Arn']}, region {region() or s3_client().meta.region_name}"


def _uploads(settings: Settings) -> str:
    waiting = sum(1 for _ in open_landing(settings).waiting())
    location = settings.landing_in_s3()
    # Ingestion looks up which version of an upload it has read before it deletes that version.
    s3_client().get_bucket_versioning(Bucket=location.bucket)
    s3_client().list_object_versions(Bucket=location.bucket, Prefix=f"{location.prefix}{_MARKER}")
    try:
        # S3 reports that an object does not exist only to those who may read it. No upload can have this name.
        get_object(s3_client(), location.bucket, f"{location.prefix}{_MARKER}")
    except ClientError as error:
        if error_code(error) not in GONE:
            raise
    return f"{counted(waiting, 'upload')} in {settings.landing_uri}"


def _objects(settings: Settings) -> str:
    location, body = settings.lakehouse_in_s3(), uuid.uuid4().hex.encode()
    # The name is constant, so at most one object remains if objects cannot be deleted.
    place: dict[str, Any] = {"Bucket": location.bucket, "Key": f"{location.below('ingestion').prefix}{_MARKER}"}
    encrypted: dict[str, Any] = encryption(settings.kms_key_id)
    s3_client().put_object(Body=body, **place, **encrypted)
    try:
        get_object(s3_client(), place["Bucket"], place["Key"])
    except ClientError:
        with suppress(ClientError):
            s3_client().delete_object(**place)
        raise
    s3_client().delete_object(**place)
    return settings.lakehouse_uri


def _tables(settings: Settings) -> str:
    lakehouse = open_lakehouse(settings)
    lakehouse.prepare()
    rows = [lakehouse.table(contract).scan().count() for contract in all_tables()]
    until_committed(ALERTS, lambda: _update(lakehouse.table(ALERTS)))
    return f"{counted(len(rows), 'table')}, {counted(sum(rows), 'row')}"


def _update(table: Table) -> None:
    with table.transaction() as changed:
        changed.set_properties({_PROPERTY: datetime.now(UTC).isoformat()})
    with table.transaction() as changed:
        changed.remove_properties(_PROPERTY)


def _metrics(settings: Settings) -> str:
    # The test sends its own metric, because alarms evaluate the metrics that the sensor sends every minute.
    send_metrics([Metric("AccountChecks", 1)], settings)
    return settings.metrics_namespace


def _service(settings: Settings) -> str:
    found = problems(settings)
    if found:
        raise SettingsError(" ".join(found))
    return open_service(settings).name


def _step(settings: Settings) -> str:
    engine = RemoteEngine(open_lakehouse(settings), settings, open_service(settings))
    remote = engine.smoke_test(f"check-{uuid.uuid4().hex}", datetime.now(UTC).date())
    return f"run {remote.run_id} of {remote.service}, {remote.link}"
