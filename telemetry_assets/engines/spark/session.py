"""Starts the Spark session of the Spark engine, in a JVM that this process starts."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from telemetry_assets.engines.spark.configuration import iceberg_configuration, without_effect
from telemetry_assets.engines.spark.jars import jars
from telemetry_assets.errors import SettingsError
from telemetry_assets.settings import Settings
from telemetry_assets.text.masking import is_secret, masked_text

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_NO_JAVA = "TELEMETRY_ENGINE=spark needs Java 17 at JAVA_HOME, or a `java` on the path"
_INSTEAD = "Install it, or set TELEMETRY_ENGINE=embedded, which does not need Java."
_CONNECT_MODE = "SPARK_CONNECT_MODE_ENABLED"
_SUBMIT_ARGUMENTS = "PYSPARK_SUBMIT_ARGS"


def problems(settings: Settings) -> list[str]:
    """Problems that would prevent a session from starting and can be found without starting one."""
    found = list(without_effect(settings))
    for require in (_require_java, jars):
        try:
            require()
        except SettingsError as error:
            found.append(str(error))
    return found


def _require_java() -> None:
    home = os.environ.get("JAVA_HOME")
    if shutil.which("java", path=os.path.join(home, "bin") if home else None) is None:
        raise SettingsError(f"{_NO_JAVA} (JAVA_HOME={home or ''}). {_INSTEAD}")


def open_session(settings: Settings) -> SparkSession:
    """Start a session with its own catalogs and configuration. The JVM ends with this process.

    :raises SettingsError: if Java or a jar is missing, or Spark does not accept its configuration.
    """
    _require_java()
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkRuntimeError
    from pyspark.sql import SparkSession

    from telemetry_assets.engines.spark.parser import java_cause

    # If the embedded engine has run in this process, `pyspark.sql` would use the functions of Spark Connect.
    os.environ.pop(_CONNECT_MODE, None)
    # Otherwise Spark runs Python functions with the first `python3` on the path.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder
    options = _options(settings)
    secrets = {name: value for name, value in options.items() if is_secret(name, value)}
    for name in options.keys() - secrets.keys():
        builder = builder.config(name, options[name])
    try:
        with _properties_file(secrets):
            session: SparkSession = builder.getOrCreate().newSession()
    except PySparkRuntimeError as error:
        raise SettingsError(f"The JVM of Spark did not start: {error}. {_NO_JAVA}. {_INSTEAD}") from error
    except Py4JJavaError as error:
        cause = masked_text(java_cause(error)).rstrip(".")
        raise SettingsError(
            f"Spark did not start in its JVM: {cause}. Correct TELEMETRY_SPARK_CONFIGURATION, or use Java 17 if "
            "JAVA_HOME names a version that Spark does not support."
        ) from error
    for name, value in iceberg_configuration(settings).items():
        session.conf.set(name, value)
    return session


@contextmanager
def _properties_file(secrets: Mapping[str, str]) -> Iterator[None]:
    """Pass options to the JVM in a file that only this user can read, because every user can see its arguments.

    Spark reads one properties file only, so the file includes `spark-defaults.conf`.
    """
    if not secrets:
        yield
        return
    folder = os.environ.get("SPARK_CONF_DIR") or os.path.join(os.environ.get("SPARK_HOME", ""), "conf")
    defaults = Path(folder) / "spark-defaults.conf"
    submit = os.environ.get(_SUBMIT_ARGUMENTS)
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
        if defaults.is_file():
            file.write(f"{defaults.read_text()}\n")
        file.writelines(f"{name} {_property(value)}\n" for name, value in secrets.items())
        file.flush()
        os.environ[_SUBMIT_ARGUMENTS] = f"--properties-file {shlex.quote(file.name)} {submit or 'pyspark-shell'}"
        try:
            yield
        finally:
            if submit is None:
                os.environ.pop(_SUBMIT_ARGUMENTS)
            else:
                os.environ[_SUBMIT_ARGUMENTS] = submit


def _property(value: str) -> str:
    """A value, escaped for `java.util.Properties`."""
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")


def _options(settings: Settings) -> dict[str, str]:
    """The configuration with which the JVM starts. Only the first session of a process can set it."""
    given = settings.spark_configuration
    return {
        "spark.master": "local[*]",
        "spark.app.name": "telemetry-assets",
        "spark.driver.memory": "2g",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.shuffle.partitions": "8",
        **given,
        "spark.jars": ",".join(filter(None, [*map(str, jars()), given.get("spark.jars")])),
    }
