"""The requirements of tests with a JVM, in addition to the project's dependencies."""

from __future__ import annotations

import os
import shutil

import pytest

from telemetry_assets.engines.spark.jars import fetch


def need_java() -> None:
    """Skip the test if there is no Java, or fail it in CI; download the jars."""
    if not (os.environ.get("JAVA_HOME") or shutil.which("java")):
        if "CI" in os.environ:
            pytest.fail("CI has no Java; `make test-long` installs it")
        pytest.skip("Java is not installed")
    fetch()
