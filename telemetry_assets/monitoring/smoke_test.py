"""Proves that an account in AWS has all that a deployment's settings need, by using it: ``make aws-check``.

What it makes is what the first run makes (tables from their contracts), an object and a table property that it takes
away again. A remote engine is given a step that takes no event date, which costs what a run of the service costs at
least. Not proved is what could not be undone: that uploads can be taken out of the landing location.
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
from telemetry_assets.ingestion.landing.base import open_landing
from telemetry_assets.lakehouse.catalog import open_lakehouse
from telemetry_assets.lakehouse.commits import until_committed
from telemetry_assets.monitoring.measurements import Metric, send
from telemetry_assets.settings import Settings, require_engine_settings
from telemetry_assets.tables import ALERTS, all_tables
from telemetry_assets.text.formatting import counted

Proof = Callable[[Settings], str]
"""Uses something, and says what it has found; it raises where something is missing."""

_MARKER = ".telemetry-assets-check"
_PROPERTY = "telemetry.account-check"


def proofs(settings: Settings) -> Iterator[tuple[str, Proof]]:
    """What is proved for these settings, in this order, by what each is called."""
    yield "credentials", _credentials
    yield "uploads can be listed and read", _uploads
    yield "the lakehouse can be written, read and cleared", _objects
    yield "tables are there, or are made", _tables
    if settings.metrics_namespace:
        yield "metrics can be told", _metrics
    if settings.is_remote:
        yield "the service and the package are there", _service
        yield "a step can be submitted, followed and heard", _step


def check(settings: Settings, say: Callable[[str], None]) -> bool:
    """Prove all of it and say of each how it went; False where something is missing.

    :raises SettingsError: where the settings name no AWS, or lack what their engine needs.
    """
    if not settings.is_in_s3:
        raise SettingsError(f"TELEMETRY_LAKEHOUSE_URI={settings.lakehouse_uri} is a folder: nothing of it is in AWS.")
    require_engine_settings(settings)
    is_whole = True
    for title, proof in proofs(settings):
        if proof is _step and not is_whole:
            say(f"not tried  {title}: what is missing above comes first")
            continue
        try:
            with translate_aws_errors():
                say(f"ok         {title}: {proof(settings)}")
        except (TelemetryAssetsError, OSError) as error:
            say(f"MISSING    {title}: {error}")
            is_whole = False
    return is_whole


def _credentials(_: Settings) -> str:
    who = sts_client().get_caller_identity()
    return f"{who['Arn']}, region {region() or s3_client().meta.region_name}"


def _uploads(settings: Settings) -> str:
    waiting = sum(1 for _ in open_landing(settings).waiting())
    location = settings.landing_in_s3()
    # Which one of an upload's versions was taken is looked up before that one is deleted.
    s3_client().get_bucket_versioning(Bucket=location.bucket)
    s3_client().list_object_versions(Bucket=location.bucket, Prefix=f"{location.prefix}{_MARKER}")
    try:
        # Of an object that is not there S3 says so only to who may read it. Its name is none of an upload.
        get_object(s3_client(), location.bucket, f"{location.prefix}{_MARKER}")
    except ClientError as error:
        if error_code(error) not in GONE:
            raise
    return f"{counted(waiting, 'upload')} in {settings.landing_uri}"


def _objects(settings: Settings) -> str:
    location, body = settings.lakehouse_in_s3(), uuid.uuid4().hex.encode()
    # One name for all checks: where it cannot be deleted, no more than one is left.
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
    # Not those that alarms watch: one look is not what the sensor tells each minute.
    send([Metric("AccountChecks", 1)], settings)
    return settings.metrics_namespace


def _service(settings: Settings) -> str:
    found = problems(settings)
    if found:
        raise SettingsError(" ".join(found))
    return open_service(settings).name


def _step(settings: Settings) -> str:
    engine = RemoteEngine(open_lakehouse(settings), settings, open_service(settings))
    remote = engine.prove(f"check-{uuid.uuid4().hex}", datetime.now(UTC).date())
    return f"run {remote.run_id} of {remote.service}, {remote.link}"
