"""What a JVM Spark session needs beside pyspark: ``python -m telemetry_assets.engines.spark_jars`` (`make spark-jars`).

Spark's own resolver brings the jars into an ignored folder, once; nothing is downloaded in a run.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from telemetry_assets.errors import SettingsError
from telemetry_assets.settings import project_root

_RESOLVING = """
from pyspark.sql import SparkSession
builder = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
builder.config("spark.jars.packages", {packages!r}).config("spark.jars.ivy", {folder!r}).getOrCreate().stop()
"""


@dataclass(frozen=True)
class Jar:
    """A jar of Maven Central.

    :param sha256: of the file, in hexadecimal.
    """

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def coordinates(self) -> str:
        """As Maven names it."""
        return f"{self.group}:{self.artifact}:{self.version}"

    @property
    def file_name(self) -> str:
        """As it is named in the folder."""
        return f"{self.artifact}-{self.version}.jar"


JARS = (
    Jar(
        "org.apache.iceberg",
        "iceberg-spark-runtime-3.5_2.12",
        "1.10.0",
        "70f9471870b2d456167d703c829f098a446b86bb1379eee338c0efa03a341026",
    ),
    Jar(
        "org.apache.iceberg",
        "iceberg-aws-bundle",
        "1.10.0",
        "172370cfc32a5f1ae5399b210e86fc04a366dc29a112d97ac8ffc74df7525596",
    ),
    Jar("org.xerial", "sqlite-jdbc", "3.50.3.0", "a3f53a2aa15ae9425a9e793bbe9c8e5288febeb4b65ef5c1a4e80d4c2045cf08"),
)


def jars_folder() -> Path:
    """Where the jars are kept."""
    return project_root() / "jars"


def jars() -> list[Path]:
    """The jars of a session.

    :raises SettingsError: where one is missing.
    """
    paths = [jars_folder() / jar.file_name for jar in JARS]
    missing = [path.name for path in paths if not path.exists()]
    if missing:
        raise SettingsError(
            f"TELEMETRY_ENGINE=spark needs {', '.join(missing)} in {jars_folder()}. Run `make spark-jars`, which "
            "brings them from Maven Central (about 120 MB), or set TELEMETRY_ENGINE=embedded, which needs none."
        )
    return paths


def fetch() -> None:
    """Bring the jars that are missing, each only with the checksum that is written here.

    :raises SettingsError: where a jar cannot be had, or is another than it should be.
    """
    folder = jars_folder()
    missing = [jar for jar in JARS if not (folder / jar.file_name).exists()]
    if not missing:
        return
    with tempfile.TemporaryDirectory() as cache:
        program = _RESOLVING.format(packages=",".join(jar.coordinates for jar in missing), folder=cache)
        # Where the embedded engine has run in this process, a session would not start a JVM.
        environment = {name: value for name, value in os.environ.items() if name != "SPARK_CONNECT_MODE_ENABLED"}
        resolved = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
        )
        folder.mkdir(exist_ok=True)
        for jar in missing:
            found = Path(cache) / "jars" / f"{jar.group}_{jar.file_name}"
            if not found.exists():
                raise SettingsError(f"{jar.coordinates} cannot be had. Spark's resolver says:\n{resolved.stderr}")
            if hashlib.sha256(found.read_bytes()).hexdigest() != jar.sha256:
                raise SettingsError(f"{jar.coordinates} is another file than it should be; it is not kept.")
            # Two processes may bring it at a time.
            draft = folder / f".{jar.file_name}.{os.getpid()}"
            shutil.copyfile(found, draft)
            draft.rename(folder / jar.file_name)


if __name__ == "__main__":
    fetch()
    print(f"{len(JARS)} jars in {jars_folder()}")
