"""What tests with a JVM need, beside what is installed with the project."""

from __future__ import annotations

import os
import shutil

import pytest

from telemetry_assets.engines.spark.jars import fetch


def need_java() -> None:
    """Skip where there is no Java, which CI has to have; bring the jars."""
    if not (os.environ.get("JAVA_HOME") or shutil.which("java")):
        if "CI" in os.environ:
            pytest.fail("CI has no Java; `make test-long` installs it")
        pytest.skip("Java is not installed")
    fetch()
