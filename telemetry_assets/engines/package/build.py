"""Builds packages for remote Spark, and uploads them to S3.

A package has the entry point, the project's modules as a zip file, and the dependencies in the formats that the
services support: an archive of installed packages for EMR Serverless, and a zip file of wheels for Glue. Its name
contains a digest of the modules, so an engine only finds the package of its own code.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import uuid
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError
from pydantic import BaseModel, ConfigDict

from telemetry_assets.aws.clients import s3_client
from telemetry_assets.aws.errors import GONE, error_code
from telemetry_assets.aws.locations import S3Location
from telemetry_assets.aws.requests import encryption, get_object
from telemetry_assets.engines.package.modules import ENTRY_POINT, ROOT, module_files, package_name
from telemetry_assets.errors import PackageError
from telemetry_assets.settings import Settings, project_root

X86_64, ARM64 = "x86_64", "aarch64"
PYTHON = "3.11"
REQUIREMENTS = (
    "aiohttp",
    "boto3",
    "dagster-pipes",
    "numpy",
    "pandas",
    "pyarrow",
    "pydantic",
    "pydantic-settings",
    "pyiceberg",
    "pyiceberg-core",
    "python-dotenv",
    "s3fs",
    "sqlalchemy",
    "tenacity",
)
"""What the modules import, without pyspark, which the services provide."""

_VERSION = re.compile(r"^[\w.-]+==[^ \\\n]+", re.MULTILINE)
_CHECKSUM = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_GLIBC = ("manylinux2014", "manylinux_2_17", "manylinux_2_28")
"""Platforms whose wheels run on Amazon Linux 2023, the operating system of both services."""


class PackagedFile(BaseModel):
    """A file of a package.

    :param name: its key below ``packages/`` in the scripts location. It has a digest of the content, so an upload never
        replaces another file.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    sha256: str
    size: int


class Package(BaseModel):
    """The files of a package.

    :param archives: the installed dependencies, for EMR Serverless, by architecture.
    :param wheels: the dependencies' wheels, for Glue.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    entry_point: PackagedFile
    modules: PackagedFile
    archives: dict[str, PackagedFile]
    wheels: PackagedFile | None

    @property
    def files(self) -> list[PackagedFile]:
        """All files of the package."""
        return [self.entry_point, self.modules, *self.archives.values(), *filter(None, [self.wheels])]


def packages_location(settings: Settings) -> S3Location:
    """The location of packages in S3."""
    return settings.scripts_in_s3().below("packages")


def find_package(settings: Settings) -> Package:
    """Find the package of the code that this process runs.

    :raises PackageError: if the scripts location does not have it, or lacks one of its files.
    """
    name, location = package_name(), packages_location(settings)
    try:
        content, _ = get_object(s3_client(), location.bucket, location.prefix + _manifest_name(name))
    except ClientError as error:
        if error_code(error) not in GONE:
            raise
        raise PackageError(
            f"There is no package of this code ({name}) in {location.uri()}, and packages of other code are not used. "
            "Run `make package` with these settings."
        ) from error
    package = Package.model_validate_json(content)
    for file in package.files:
        if not _is_there(location, file):
            raise PackageError(f"{location.uri(file.name)} was deleted or changed. Run `make package` again.")
    return package


def build_package(folder: Path, architectures: Sequence[str] = (X86_64,)) -> Package:
    """Build the package of the code that this process runs. Dependencies that are in the folder are not built again.

    :raises PackageError: if pip cannot download a dependency, or its checksum is not in ``constraints.txt``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = package_name()
    entry_point, modules = _own_files(folder)
    archives: dict[str, PackagedFile] = {}
    wheels: PackagedFile | None = None
    for architecture in architectures:
        archive_file, wheels_file = _dependencies(folder, architecture)
        archives[architecture] = _named_by_digest(archive_file, folder)
        # Glue runs on x86_64 only.
        wheels = _named_by_digest(wheels_file, folder) if architecture == X86_64 else wheels
    package = Package(name=name, entry_point=entry_point, modules=modules, archives=archives, wheels=wheels)
    draft = folder / f".{uuid.uuid4().hex}"
    draft.write_text(package.model_dump_json(indent=2))
    draft.replace(folder / _manifest_name(name))
    return package


def upload_package(folder: Path, package: Package, settings: Settings) -> None:
    """Upload a package to the scripts location. Files that are already there are not uploaded again."""
    location = packages_location(settings)
    for file in package.files:
        if not _is_there(location, file):
            _put(location, file.name, (folder / file.name).read_bytes(), settings, {"sha256": file.sha256})
    # Uploaded last: if it exists, all other files exist.
    manifest = _manifest_name(package.name)
    _put(location, manifest, (folder / manifest).read_bytes(), settings, {})


def _put(location: S3Location, name: str, body: bytes, settings: Settings, metadata: dict[str, str]) -> None:
    arguments: dict[str, Any] = encryption(settings.kms_key_id)
    s3_client().put_object(
        Bucket=location.bucket, Key=location.prefix + name, Body=body, Metadata=metadata, **arguments
    )


def _is_there(location: S3Location, file: PackagedFile) -> bool:
    try:
        head = s3_client().head_object(Bucket=location.bucket, Key=location.prefix + file.name)
    except ClientError as error:
        if error_code(error) not in GONE:
            raise
        return False
    return head["ContentLength"] == file.size and head["Metadata"].get("sha256") == file.sha256


def _manifest_name(name: str) -> str:
    return f"telemetry_assets-{name}.json"


def _own_files(folder: Path) -> tuple[PackagedFile, PackagedFile]:
    """The entry point and the modules of this project."""
    # Another process may build into the same folder, so a file appears there once it is complete.
    with tempfile.TemporaryDirectory(dir=folder) as drafts:
        entry_point = Path(drafts) / "entrypoint.py"
        entry_point.write_bytes(ENTRY_POINT.read_bytes())
        modules = Path(drafts) / "telemetry_assets.zip"
        with zipfile.ZipFile(modules, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in module_files():
                # Without file times, so that the same code gives the same zip file.
                entry = zipfile.ZipInfo(path.relative_to(ROOT).as_posix())
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, path.read_bytes())
        return _named_by_digest(entry_point, folder), _named_by_digest(modules, folder)


def _named_by_digest(path: Path, folder: Path) -> PackagedFile:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    stem, suffix = path.name.split(".", 1)
    named = folder / f"{stem}-{digest[:12]}.{suffix}"
    with suppress(FileExistsError):
        named.hardlink_to(path)
    return PackagedFile(name=named.name, sha256=digest, size=path.stat().st_size)


def _dependencies(folder: Path, architecture: str) -> tuple[Path, Path]:
    """Download the dependencies with the versions of ``constraints.txt``.

    Returns the archive of installed packages and the zip file of wheels.
    """
    constraints = project_root() / "constraints.txt"
    if not constraints.exists():
        raise PackageError(f"{constraints} does not exist. Build packages in a clone of the project.")
    pins = hashlib.sha256(json.dumps([REQUIREMENTS, PYTHON, architecture]).encode() + constraints.read_bytes())
    name = f"dependencies-{pins.hexdigest()[:12]}-{architecture}"
    archive, wheels = folder / f"{name}.tar.gz", folder / f"{name}.gluewheels.zip"
    if archive.exists() and wheels.exists():
        return archive, wheels
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        downloaded, installed = Path(temporary) / "wheels", Path(temporary) / "installed"
        # The constraints are passed without checksums. With them, pip would also require a checksum for each
        # requirement.
        versions = Path(temporary) / "versions.txt"
        versions.write_text("\n".join(_VERSION.findall(constraints.read_text())) + "\n")
        _pip("download", architecture, "--dest", str(downloaded), "--constraint", str(versions), *REQUIREMENTS)
        _require_pinned(downloaded, constraints)
        pinned = sorted("==".join(path.name.split("-")[:2]) for path in downloaded.iterdir())
        (downloaded / "requirements.txt").write_text("\n".join(pinned) + "\n")
        offline = ("--no-index", "--find-links", str(downloaded), "--constraint", str(versions))
        _pip("install", architecture, "--target", str(installed), "--no-compile", *offline, *REQUIREMENTS)
        _archive(installed, Path(temporary) / "archive", archive)
        draft = Path(temporary) / "zip"
        with zipfile.ZipFile(draft, "w", zipfile.ZIP_STORED) as zipped:
            for path in sorted(downloaded.iterdir()):
                zipped.write(path, Path("wheels") / path.name)
        draft.rename(wheels)
    return archive, wheels


def _require_pinned(downloaded: Path, constraints: Path) -> None:
    """Compare the checksums of wheels with those in ``constraints.txt``.

    :raises PackageError: for the first wheel whose checksum is not in the constraints.
    """
    known = set(_CHECKSUM.findall(constraints.read_text()))
    for path in sorted(downloaded.iterdir()):
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() not in known:
                raise PackageError(
                    f"The checksum of {path.name} is not in {constraints.name}, so no package was built."
                )


def _archive(installed: Path, draft: Path, archive: Path) -> None:
    with tarfile.open(draft, "w:gz", compresslevel=1) as packed:
        for path in sorted(installed.iterdir()):
            packed.add(path, path.name)
    draft.rename(archive)


def _pip(command: str, architecture: str, *arguments: str) -> None:
    platforms = [f"--platform={glibc}_{architecture}" for glibc in _GLIBC]
    target = ["--only-binary=:all:", f"--python-version={PYTHON}", "--implementation=cp", *platforms]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    done = subprocess.run([*pip, command, *target, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise PackageError(f"pip cannot download the dependencies for {architecture}:\n{done.stderr.strip()}")
