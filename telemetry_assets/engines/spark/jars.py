"""What a JVM Spark session needs beside pyspark: ``python -m telemetry_assets.engines.spark.jars`` (`make spark-jars`).

They are brought into an ignored folder, once; nothing is downloaded in a run. Spark's own resolver would load what it
has downloaded before anybody has looked at it.
"""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from telemetry_assets.errors import SettingsError
from telemetry_assets.settings import project_root

_REPOSITORY = "https://repo1.maven.org/maven2"
_CHUNK = 1024 * 1024
_TIMEOUT_SECONDS = 60


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
    def url(self) -> str:
        """Where Maven Central has it."""
        folder = "/".join((_REPOSITORY, self.group.replace(".", "/"), self.artifact, self.version))
        return f"{folder}/{self.file_name}"

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
    """The jars of a session, each with the checksum that is written here, before a JVM loads it.

    :raises SettingsError: where one is missing, or is another file than it should be.
    """
    paths = [jars_folder() / jar.file_name for jar in JARS]
    missing = [path.name for path in paths if not path.exists()]
    if missing:
        raise SettingsError(
            f"TELEMETRY_ENGINE=spark needs {', '.join(missing)} in {jars_folder()}. Run `make spark-jars`, which "
            "brings them from Maven Central (about 120 MB), or set TELEMETRY_ENGINE=embedded, which needs none."
        )
    for path, jar in zip(paths, JARS, strict=True):
        found = path.stat()
        if _checksum(path, found.st_size, found.st_mtime_ns) != jar.sha256:
            raise SettingsError(
                f"{path} is another file than {jar.coordinates} of Maven Central (its SHA-256 differs), so no JVM "
                "loads it. Find out who has put it there, remove it, and run `make spark-jars`."
            )
    return paths


@lru_cache
def _checksum(path: Path, size: int, modified: int) -> str:
    """The SHA-256 of a file; size and time are there so that one that changes is read again."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch() -> None:
    """Bring the jars that are missing, each only with the checksum that is written here.

    :raises SettingsError: where a jar cannot be had, or is another than it should be.
    """
    folder = jars_folder()
    for jar in JARS:
        if (folder / jar.file_name).exists():
            continue
        folder.mkdir(exist_ok=True)
        # Two processes may bring it at a time.
        draft = folder / f".{jar.file_name}.{os.getpid()}"
        try:
            _download(jar, draft)
            draft.rename(folder / jar.file_name)
        finally:
            draft.unlink(missing_ok=True)


def _download(jar: Jar, target: Path) -> None:
    digest = hashlib.sha256()
    try:
        with urllib.request.urlopen(jar.url, timeout=_TIMEOUT_SECONDS) as answer, target.open("wb") as file:
            while chunk := answer.read(_CHUNK):
                digest.update(chunk)
                file.write(chunk)
    except urllib.error.URLError as error:
        raise SettingsError(f"{jar.coordinates} cannot be had from {jar.url}: {error.reason}.") from error
    if digest.hexdigest() != jar.sha256:
        raise SettingsError(f"{jar.coordinates} is another file than it should be; it is not kept.")


if __name__ == "__main__":
    fetch()
    print(f"{len(JARS)} jars in {jars_folder()}")
