"""The Spark session of the JVM engine, in a JVM of this process's own."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

from telemetry_assets.engines.spark_configuration import iceberg_configuration
from telemetry_assets.engines.spark_jars import jars
from telemetry_assets.errors import SettingsError
from telemetry_assets.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_CONNECT_MODE = "SPARK_CONNECT_MODE_ENABLED"


def open_session(settings: Settings) -> SparkSession:
    """A session with catalogs and settings of its own, in a JVM that lasts as long as this process.

    :raises SettingsError: where there is no Java, or a jar is missing.
    """
    if not (os.environ.get("JAVA_HOME") or shutil.which("java")):
        raise SettingsError(
            "TELEMETRY_ENGINE=spark needs Java 17, and there is none: neither JAVA_HOME nor a `java` on the path. "
            "Install it, or set TELEMETRY_ENGINE=embedded, which needs none."
        )
    from pyspark.sql import SparkSession

    # Where the embedded engine has run in this process, `pyspark.sql` would hand out Spark Connect's functions.
    os.environ.pop(_CONNECT_MODE, None)
    # Otherwise Spark takes whatever `python3` is on the path for its Python functions.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    options = {
        "spark.master": "local[*]",
        "spark.app.name": "telemetry-assets",
        "spark.driver.memory": "2g",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.shuffle.partitions": "8",
        "spark.jars": ",".join(map(str, jars())),
        **settings.spark_configuration,
    }
    builder = SparkSession.builder
    for name, value in options.items():
        builder = builder.config(name, value)
    session: SparkSession = builder.getOrCreate().newSession()
    for name, value in iceberg_configuration(settings).items():
        session.conf.set(name, value)
    return session
