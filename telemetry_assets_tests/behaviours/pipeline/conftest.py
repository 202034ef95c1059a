"""Behaviours hold in every place where uploads and tables can be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from telemetry_assets.engines.spark.session import open_session
from telemetry_assets.settings import Settings
from telemetry_assets_tests.harness.aws.services import AwsServices
from telemetry_assets_tests.harness.deployment import Deployment, deployment, deployment_in_s3
from telemetry_assets_tests.harness.java import need_java
from telemetry_assets_tests.harness.on_engines import SMALL_SPARK


@pytest.fixture(scope="session")
def java(aws_services: AwsServices) -> None:
    """Java and the jars, which `make test` brings, and a JVM that has credentials for all tests."""
    need_java()
    with pytest.MonkeyPatch.context() as environment:
        for name, value in aws_services.environment().items():
            environment.setenv(name, value)
        open_session(Settings(spark_configuration=SMALL_SPARK))


@pytest.fixture(params=["folder", "s3"])
def deployed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deployment]:
    """An empty deployment in each place."""
    if request.param == "folder":
        with deployment(tmp_path) as one:
            yield one
    else:
        with deployment_in_s3(request.getfixturevalue("aws")) as one:
            yield one
