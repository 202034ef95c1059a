"""Spark configuration for Iceberg, the catalog and S3, the same for local and remote sessions."""

from __future__ import annotations

import os
from collections.abc import Iterator

from telemetry_assets.lakehouse.catalog import CATALOG_FILE, CATALOG_NAME
from telemetry_assets.settings import Settings
from telemetry_assets.tables.contract import TableContract
from telemetry_assets.text.masking import is_secret

SESSION = {"spark.sql.session.timeZone": "UTC", "spark.sql.ansi.enabled": "true"}
"""The configuration that the transforms rely on, in the sessions of all engines."""

_CATALOG = f"spark.sql.catalog.{CATALOG_NAME}"
_ICEBERG_AWS = "org.apache.iceberg.aws"


def table_name(contract: TableContract) -> str:
    """The name of a table in Spark."""
    return f"{CATALOG_NAME}.{contract.full_name}"


def iceberg_configuration(settings: Settings) -> dict[str, str]:
    """The configuration with which a session reads and writes the tables of a lakehouse.

    All of it can be set in a running session.
    """
    options = _glue(settings) if settings.catalog == "glue" else _sqlite(settings)
    return {
        **SESSION,
        _CATALOG: "org.apache.iceberg.spark.SparkCatalog",
        # Every refresh has to read the current table, which other writers may have changed.
        f"{_CATALOG}.cache-enabled": "false",
        **{f"{_CATALOG}.{name}": value for name, value in options.items()},
    }


def without_effect(settings: Settings) -> Iterator[str]:
    """A message for each name in the settings' Spark configuration that the project sets to another value."""
    ours = iceberg_configuration(settings)
    given = [(name, value) for one in settings.spark_configurations() for name, value in one.items()]
    for name in sorted({name for name, value in given if ours.get(name, value) != value}):
        yield f"{name} has no effect, because the project sets it to {ours[name]}."


def readable_secrets(settings: Settings) -> Iterator[str]:
    """A message for each name in the settings' Spark configuration that looks like a secret, if the engine is remote.

    Everyone who may describe job runs can read the configuration.
    """
    if not settings.is_remote:
        return
    for name in sorted({name for one in settings.spark_configurations() for name in one if is_secret(name, one[name])}):
        yield (
            f"{name} looks like a secret, and everyone who may describe job runs of {settings.engine} can read it. "
            "Store it in Secrets Manager, and refer to it as docs/security.md explains."
        )


def _sqlite(settings: Settings) -> dict[str, str]:
    folder = settings.lakehouse_folder()
    return {
        "type": "jdbc",
        "uri": f"jdbc:sqlite:{folder / CATALOG_FILE}",
        "warehouse": f"file://{folder}",
        # A property of sqlite-jdbc, in milliseconds.
        "jdbc.busy_timeout": str(round(settings.catalog_busy_seconds * 1000)),
        # Skip the creation of the catalog's tables: they exist, and the check for them leaves a result set open, which
        # blocks every other writer.
        "jdbc.init-catalog-tables": "false",
    }


def _glue(settings: Settings) -> dict[str, str]:
    from telemetry_assets.aws.clients import region

    options = {
        "catalog-impl": f"{_ICEBERG_AWS}.glue.GlueCatalog",
        "io-impl": f"{_ICEBERG_AWS}.s3.S3FileIO",
        "warehouse": settings.lakehouse_uri,
        # The bucket may be in another region than the catalog.
        "s3.cross-region-access-enabled": "true",
    }
    if settings.kms_key_id:
        options |= {"s3.sse.type": "kms", "s3.sse.key": settings.kms_key_id}
    if where := region() or os.environ.get("AWS_DEFAULT_REGION"):
        options["client.region"] = where
    for service in ("s3", "glue"):
        endpoint = os.environ.get(f"AWS_ENDPOINT_URL_{service.upper()}") or os.environ.get("AWS_ENDPOINT_URL")
        if endpoint:
            options[f"{service}.endpoint"] = endpoint
    if "s3.endpoint" in options:
        options["s3.path-style-access"] = "true"
    return options
