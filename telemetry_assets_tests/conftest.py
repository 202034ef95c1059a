"""Fixtures of all tests."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from dagster import DagsterInstance, Definitions, instance_for_test

from telemetry_assets.settings import load_settings
from telemetry_assets_tests.harness.aws.services import AwsServices
from telemetry_assets_tests.harness.deployment import Deployment, deployment


@pytest.fixture
def deployed(tmp_path: Path) -> Iterator[Deployment]:
    """An empty deployment."""
    with deployment(tmp_path) as one:
        yield one


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system than the test's own."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system to put the landing folder on")
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[DagsterInstance]:
    """An empty Dagster instance."""
    home = tmp_path / "dagster_home"
    home.mkdir()
    with instance_for_test(temp_dir=str(home)) as one:
        yield one


@pytest.fixture
def defs(deployed: Deployment, monkeypatch: pytest.MonkeyPatch) -> Definitions:
    """The definitions over the deployment's folders, by environment as a user sets them."""
    # Loading them reads the settings of the environment and imports all of Dagster.
    from telemetry_assets.definitions import definitions

    monkeypatch.setenv("TELEMETRY_LANDING_URI", deployed.settings.landing_uri)
    monkeypatch.setenv("TELEMETRY_LAKEHOUSE_URI", deployed.settings.lakehouse_uri)
    monkeypatch.setenv("TELEMETRY_UPLOAD_MINIMUM_AGE_SECONDS", "0")
    return definitions(load_settings())


@pytest.fixture(scope="session")
def aws_services() -> Iterator[AwsServices]:
    """The server that stands for AWS."""
    with AwsServices() as services:
        yield services


@pytest.fixture
def aws(aws_services: AwsServices, monkeypatch: pytest.MonkeyPatch) -> AwsServices:
    """AWS with nothing in it, which every client of this process speaks to."""
    aws_services.reset()
    for name in os.environ:
        if name.startswith(("AWS_", "TELEMETRY_")):
            monkeypatch.delenv(name)
    for name, value in aws_services.environment().items():
        monkeypatch.setenv(name, value)
    return aws_services
