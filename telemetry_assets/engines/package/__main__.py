"""Builds and uploads the package of this code: ``make package``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from telemetry_assets.aws.errors import translate_aws_errors
from telemetry_assets.engines.package.build import ARM64, X86_64, build_package, packages_location, upload_package
from telemetry_assets.errors import TelemetryAssetsError
from telemetry_assets.settings import load_settings, project_root


def main() -> None:
    """Build and upload the package for the architectures in the arguments."""
    parser = argparse.ArgumentParser(description="Builds the package for remote Spark, and uploads it.")
    parser.add_argument("--architecture", nargs="+", choices=[X86_64, ARM64], default=[X86_64])
    parser.add_argument("--into", type=Path, default=project_root() / "dist")
    arguments = parser.parse_args()
    try:
        build_and_upload(arguments.into, arguments.architecture)
    except TelemetryAssetsError as error:
        sys.exit(f"Error: {error}")


def build_and_upload(folder: Path, architectures: list[str]) -> None:
    """Build the package in a folder, and upload it to the scripts location of the settings."""
    settings = load_settings()
    if not settings.scripts_uri:
        sys.exit("Error: TELEMETRY_SCRIPTS_URI is not set. Set it to the location of packages (docs/spark.md).")
    print("Building the package. If the versions of its dependencies are new, this takes about a minute.")
    package = build_package(folder, architectures)
    with translate_aws_errors():
        upload_package(folder, package, settings)
    print(f"Package {package.name} is in {packages_location(settings).uri()}")


if __name__ == "__main__":
    main()
