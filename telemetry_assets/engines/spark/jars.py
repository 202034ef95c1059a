"""The jars of a local Spark session: ``python -m telemetry_assets.engines.spark.jars`` (`make spark-jars`).

They are downloaded once, into a folder that git ignores; a run downloads nothing. Spark's own resolver is not used,
because it does not compare a jar with the project's checksum before the JVM loads it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import urllib.error
import urllib.request
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from telemetry_assets.errors import SettingsError
from telemetry_assets.settings import project_root

_REPOSITORY = "https://repo1.maven.org/maven2"
_TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class Jar:
    """A jar of Maven Central.

    :param sha256: the checksum of the file, in hexadecimal.
    """

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def coordinates(self) -> str:
        """Its Maven coordinates."""
        return f"{self.group}:{self.artifact}:{self.version}"

    @property
    def url(self) -> str:
        """Its URL in Maven Central."""
        return f"{_REPOSITORY}/{self.group.replace('.', '/')}/{self.artifact}/{self.version}/{self.file_name}"

    @property
    def file_name(self) -> str:
        """Its file name, in Maven Central and in the folder of jars."""
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
    """The folder of jars."""
    return project_root() / "jars"


def jars() -> list[Path]:
    """The paths of the jars. Their checksums are verified.

    :raises SettingsError: if a jar is missing, or its checksum differs.
    """
    paths = [jars_folder() / jar.file_name for jar in JARS]
    missing = [path.name for path in paths if not path.exists()]
    if missing:
        raise SettingsError(
            f"TELEMETRY_ENGINE=spark needs {', '.join(missing)} in {jars_folder()}. Run `make spark-jars`, which "
            "downloads about 120 MB from Maven Central, or set TELEMETRY_ENGINE=embedded, which needs no jars."
        )
    for path, jar in zip(paths, JARS, strict=True):
        found = path.stat()
        if _checksum(path, found.st_size, found.st_mtime_ns) != jar.sha256:
            raise SettingsError(
                f"The SHA-256 of {path} differs from that of {jar.coordinates} in Maven Central, so no JVM loads it. "
                "Find out where the file comes from, remove it, and run `make spark-jars`."
            )
    return paths


@lru_cache
def _checksum(path: Path, size: int, modified: int) -> str:
    """The SHA-256 of a file. Its size and time are part of the cache's key, so a changed file is read again."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch() -> None:
    """Download the missing jars. A file whose checksum differs is not kept.

    :raises SettingsError: if a jar cannot be downloaded, or its checksum differs.
    """
    for jar in JARS:
        path = jars_folder() / jar.file_name
        if path.exists():
            continue
        path.parent.mkdir(exist_ok=True)
        # Two processes may download it at the same time.
        draft = path.with_name(f".{jar.file_name}.{os.getpid()}")
        try:
            _download(jar, draft)
            draft.rename(path)
        finally:
            draft.unlink(missing_ok=True)


def _download(jar: Jar, target: Path) -> None:
    try:
        with urllib.request.urlopen(jar.url, timeout=_TIMEOUT_SECONDS) as response, target.open("wb+") as file:
            shutil.copyfileobj(response, file)
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except urllib.error.URLError as error:
        raise SettingsError(f"{jar.coordinates} cannot be downloaded from {jar.url}: {error.reason}.") from error
    if digest != jar.sha256:
        raise SettingsError(
            f"The SHA-256 of the downloaded {jar.coordinates} is not the expected one, so the file was not kept. Check "
            "the proxies and mirrors between this machine and Maven Central."
        )


if __name__ == "__main__":
    fetch()
    print(f"{len(JARS)} jars in {jars_folder()}")
