"""A JVM for the tests of the Spark engine."""

from __future__ import annotations

import pytest

from telemetry_assets_tests.harness.aws.services import AwsServices


@pytest.fixture(scope="session")
def java(aws_services: AwsServices) -> None:
    """Java and the jars, which `make test-long` installs, and a JVM with credentials for all tests."""
    from telemetry_assets.engines.spark.session import open_session
    from telemetry_assets.settings import Settings
    from telemetry_assets_tests.harness.java import need_java
    from telemetry_assets_tests.harness.on_engines import SMALL_SPARK

    need_java()
    with pytest.MonkeyPatch.context() as environment:
        for name, value in aws_services.environment().items():
            environment.setenv(name, value)
        open_session(Settings(spark_configuration=SMALL_SPARK))
