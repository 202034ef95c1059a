"""Fixtures that tests of several folders use; each imports what it needs itself, so that collecting is quick."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from dagster import DagsterInstance

    from telemetry_assets_tests.harness.aws.services import AwsServices
    from telemetry_assets_tests.harness.deployment import Deployment


@pytest.fixture
def deployed(tmp_path: Path) -> Iterator[Deployment]:
    """An empty deployment."""
    from telemetry_assets_tests.harness.deployment import deployment

    with deployment(tmp_path) as one:
        yield one


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[DagsterInstance]:
    """An empty Dagster instance."""
    from dagster import instance_for_test

    home = tmp_path / "dagster_home"
    home.mkdir()
    with instance_for_test(temp_dir=str(home)) as one:
        yield one


@pytest.fixture(scope="session")
def aws_services() -> Iterator[AwsServices]:
    """The server that stands for AWS."""
    from telemetry_assets_tests.harness.aws.services import AwsServices

    with AwsServices() as services:
        yield services


@pytest.fixture
def aws(aws_services: AwsServices, monkeypatch: pytest.MonkeyPatch) -> AwsServices:
    """AWS with nothing in it, which every client of this process uses."""
    aws_services.reset()
    for name in os.environ:
        if name.startswith(("AWS_", "TELEMETRY_")):
            monkeypatch.delenv(name)
    for name, value in aws_services.environment().items():
        monkeypatch.setenv(name, value)
    return aws_services
