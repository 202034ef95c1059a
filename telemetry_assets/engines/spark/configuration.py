"""How Spark is told about the tables: all configuration of Iceberg, the catalog and S3, for every kind of Spark."""

from __future__ import annotations

import os
from collections.abc import Iterator

from telemetry_assets.lakehouse.catalog import CATALOG_FILE, CATALOG_NAME
from telemetry_assets.settings import Settings
from telemetry_assets.tables.contract import TableContract
from telemetry_assets.text.masking import is_secret

SESSION = {"spark.sql.session.timeZone": "UTC", "spark.sql.ansi.enabled": "true"}
"""What the transforms rely on, in every engine's session."""

_CATALOG = f"spark.sql.catalog.{CATALOG_NAME}"
_ICEBERG_AWS = "org.apache.iceberg.aws"


def table_name(contract: TableContract) -> str:
    """The table as Spark names it."""
    return f"{CATALOG_NAME}.{contract.full_name}"


def iceberg_configuration(settings: Settings) -> dict[str, str]:
    """What lets a Spark session read and write the tables of a lakehouse; it can be set while the session runs."""
    options = _glue(settings) if settings.catalog == "glue" else _sqlite(settings)
    return {
        **SESSION,
        _CATALOG: "org.apache.iceberg.spark.SparkCatalog",
        # A step reads the tables as they are, whoever has written them since the last one.
        f"{_CATALOG}.cache-enabled": "false",
        **{f"{_CATALOG}.{name}": value for name, value in options.items()},
    }


def without_effect(settings: Settings) -> Iterator[str]:
    """What is said of Spark's own configuration that a deployment sets, and that the project sets otherwise."""
    ours = iceberg_configuration(settings)
    given = [(name, value) for one in settings.spark_configurations() for name, value in one.items()]
    for name in sorted({name for name, value in given if ours.get(name, value) != value}):
        yield f"{name} is the project's to set ({ours[name]}), so what is set of it changes nothing."


def readable_secrets(settings: Settings) -> Iterator[str]:
    """What of Spark's configuration looks like a secret, and would be readable with the runs of a remote service."""
    if not settings.is_remote:
        return
    for name in sorted({name for one in settings.spark_configurations() for name in one if is_secret(name, one[name])}):
        yield (
            f"{name} looks like a secret, and everybody who may look at runs of {settings.engine} can read it. Keep it "
            "in Secrets Manager, and name it as docs/security.md says."
        )


def _sqlite(settings: Settings) -> dict[str, str]:
    folder = settings.lakehouse_folder()
    return {
        "type": "jdbc",
        "uri": f"jdbc:sqlite:{folder / CATALOG_FILE}",
        "warehouse": f"file://{folder}",
        # sqlite-jdbc's own name, in milliseconds.
        "jdbc.busy_timeout": str(round(settings.catalog_busy_seconds * 1000)),
        # They are there; and looking for them leaves a result open, which keeps every other writer out.
        "jdbc.init-catalog-tables": "false",
    }


def _glue(settings: Settings) -> dict[str, str]:
    from telemetry_assets.aws.clients import region

    options = {
        "catalog-impl": f"{_ICEBERG_AWS}.glue.GlueCatalog",
        "io-impl": f"{_ICEBERG_AWS}.s3.S3FileIO",
        "warehouse": settings.lakehouse_uri,
        # A bucket may be in another region than the catalog.
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
