"""What remote Spark runs, built and uploaded to S3 by `make package`.

The project's modules as one zip, the entry point, and the dependencies in the two forms that the services take: an
archive of installed packages for EMR Serverless, a zip of wheels for Glue. A package is named after the version and a
digest of the code, so that an engine finds the package of its own code or none.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError
from pydantic import BaseModel, ConfigDict

from telemetry_assets.aws.clients import s3_client
from telemetry_assets.aws.errors import GONE, error_code, translate_aws_errors
from telemetry_assets.aws.locations import S3Location
from telemetry_assets.aws.requests import encryption, get_object
from telemetry_assets.errors import PackageError, TelemetryAssetsError
from telemetry_assets.settings import Settings, load_settings, project_root

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
"""What a step imports, but for pyspark, which the services bring."""

_SOURCE = Path(__file__).resolve().parent.parent.parent
_VERSION = re.compile(r"^[\w.-]+==[^ \\\n]+", re.MULTILINE)
_CHECKSUM = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_ENTRY_POINT = _SOURCE / "engines" / "remote" / "entrypoint.py"
_GLIBC = ("manylinux2014", "manylinux_2_17", "manylinux_2_28")
"""What runs on Amazon Linux 2023, which both services are."""


class PackagedFile(BaseModel):
    """A file of a package.

    :param name: below ``packages/`` in the scripts location; it holds a digest of the content, so that no file is ever
        replaced by another.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    sha256: str
    size: int


class Package(BaseModel):
    """The files of a package: what a remote run is started with.

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
        """All of them."""
        return [self.entry_point, self.modules, *self.archives.values(), *filter(None, [self.wheels])]


@cache
def package_name() -> str:
    """The name of the package of the code that runs here: its version, and a digest of its modules."""
    digest = hashlib.sha256()
    for path in _modules():
        digest.update(f"{path.relative_to(_SOURCE).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return f"{version('telemetry-assets')}-{digest.hexdigest()[:12]}"


def packages_location(settings: Settings) -> S3Location:
    """Where packages are in S3."""
    return settings.scripts_in_s3().below("packages")


def find_package(settings: Settings) -> Package:
    """The package of the code that runs here.

    :raises PackageError: where it is not in the scripts location, or not whole.
    """
    name, location = package_name(), packages_location(settings)
    try:
        content, _ = get_object(s3_client(), location.bucket, location.prefix + _manifest_name(name))
    except ClientError as error:
        if error_code(error) not in GONE:
            raise
        raise PackageError(
            f"There is no package of this code ({name}) in {location.uri()}, and a package of other code is not run. "
            "Run `make package` with these settings."
        ) from error
    package = Package.model_validate_json(content)
    for file in package.files:
        if not _is_there(location, file):
            raise PackageError(f"{location.uri(file.name)} is gone, or not as it was made. Run `make package` again.")
    return package


def build_package(folder: Path, architectures: Sequence[str] = (X86_64,)) -> Package:
    """Make a package's files in a folder; dependencies that are there already are taken as they are.

    :raises PackageError: where pip cannot bring a dependency.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = package_name()
    entry_point = folder / "entrypoint.py"
    entry_point.write_bytes(_ENTRY_POINT.read_bytes())
    modules = folder / "telemetry_assets.zip"
    with zipfile.ZipFile(modules, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in _modules():
            # Without the file's time: the same code is the same zip.
            entry = zipfile.ZipInfo(f"telemetry_assets/{path.relative_to(_SOURCE).as_posix()}")
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, path.read_bytes())
    archives: dict[str, PackagedFile] = {}
    wheels: PackagedFile | None = None
    for architecture in architectures:
        archive_file, wheels_file = _dependencies(folder, architecture)
        archives[architecture] = _packaged(archive_file)
        # Glue has no other processors.
        wheels = _packaged(wheels_file) if architecture == X86_64 else wheels
    package = Package(
        name=name, entry_point=_packaged(entry_point), modules=_packaged(modules), archives=archives, wheels=wheels
    )
    (folder / _manifest_name(name)).write_text(package.model_dump_json(indent=2))
    return package


def upload_package(folder: Path, package: Package, settings: Settings) -> None:
    """Put a package's files into the scripts location, its manifest last. What is there already stays."""
    location = packages_location(settings)
    for file in package.files:
        if not _is_there(location, file):
            _put(location, file.name, (folder / file.name).read_bytes(), settings, {"sha256": file.sha256})
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


def _modules() -> list[Path]:
    return sorted(_SOURCE.rglob("*.py"))


def _packaged(path: Path) -> PackagedFile:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    stem, suffix = path.name.split(".", 1)
    named = path.with_name(f"{stem}-{digest[:12]}.{suffix}")
    if not named.exists():
        named.hardlink_to(path)
    return PackagedFile(name=named.name, sha256=digest, size=path.stat().st_size)


def _dependencies(folder: Path, architecture: str) -> tuple[Path, Path]:
    """The dependencies for an architecture, as the versions in ``constraints.txt``: installed, and as wheels."""
    constraints = project_root() / "constraints.txt"
    if not constraints.exists():
        raise PackageError(f"{constraints} is not there: a package is made in a clone of the project.")
    pins = hashlib.sha256(json.dumps([REQUIREMENTS, PYTHON, architecture]).encode() + constraints.read_bytes())
    name = f"dependencies-{pins.hexdigest()[:12]}-{architecture}"
    archive, wheels = folder / f"{name}.tar.gz", folder / f"{name}.gluewheels.zip"
    if archive.exists() and wheels.exists():
        return archive, wheels
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        brought, installed = Path(temporary) / "wheels", Path(temporary) / "installed"
        # With checksums in it, pip would take a file of constraints only where every requirement has one by itself.
        versions = Path(temporary) / "versions.txt"
        versions.write_text("\n".join(_VERSION.findall(constraints.read_text())) + "\n")
        _pip("download", architecture, "--dest", str(brought), "--constraint", str(versions), *REQUIREMENTS)
        _require_known(brought, constraints)
        pinned = sorted("==".join(path.name.split("-")[:2]) for path in brought.iterdir())
        (brought / "requirements.txt").write_text("\n".join(pinned) + "\n")
        offline = ("--no-index", "--find-links", str(brought), "--constraint", str(versions))
        _pip("install", architecture, "--target", str(installed), "--no-compile", *offline, *REQUIREMENTS)
        _archive(installed, Path(temporary) / "archive", archive)
        drafted = Path(temporary) / "zip"
        with zipfile.ZipFile(drafted, "w", zipfile.ZIP_STORED) as zipped:
            for path in sorted(brought.iterdir()):
                zipped.write(path, Path("wheels") / path.name)
        drafted.rename(wheels)
    return archive, wheels


def _require_known(brought: Path, constraints: Path) -> None:
    """Refuse wheels that are other files than those of the pinned versions."""
    known = set(_CHECKSUM.findall(constraints.read_text()))
    for path in sorted(brought.iterdir()):
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() not in known:
                raise PackageError(f"{path.name} is another file than {constraints.name} has, so nothing is packaged.")


def _archive(installed: Path, drafted: Path, archive: Path) -> None:
    with tarfile.open(drafted, "w:gz", compresslevel=1) as packed:
        for path in sorted(installed.iterdir()):
            packed.add(path, path.name)
    drafted.rename(archive)


def _pip(command: str, architecture: str, *arguments: str) -> None:
    platforms = [f"--platform={glibc}_{architecture}" for glibc in _GLIBC]
    target = ["--only-binary=:all:", f"--python-version={PYTHON}", "--implementation=cp", *platforms]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    done = subprocess.run([*pip, command, *target, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise PackageError(f"pip cannot bring the dependencies for {architecture}:\n{done.stderr.strip()}")


def main() -> None:
    """Build and upload the package of this code."""
    try:
        _main()
    except TelemetryAssetsError as error:
        sys.exit(f"Error: {error}")


def _main() -> None:
    parser = argparse.ArgumentParser(description="Builds what remote Spark runs, and puts it to TELEMETRY_SCRIPTS_URI.")
    parser.add_argument("--architecture", nargs="+", choices=[X86_64, ARM64], default=[X86_64])
    parser.add_argument("--into", type=Path, default=project_root() / "dist")
    arguments = parser.parse_args()
    settings = load_settings()
    if not settings.scripts_uri:
        sys.exit("Error: TELEMETRY_SCRIPTS_URI is not set; it says where the package goes (docs/spark.md).")
    print("Building the package; its dependencies take about a minute where their versions are new")
    package = build_package(arguments.into, arguments.architecture)
    with translate_aws_errors():
        upload_package(arguments.into, package, settings)
    print(f"Package {package.name} is in {packages_location(settings).uri()}")


if __name__ == "__main__":
    main()
