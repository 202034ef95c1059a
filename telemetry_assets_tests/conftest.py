"""Fixtures of all tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from dagster import DagsterInstance, instance_for_test

from telemetry_assets_tests.deployment import Deployment, deployment


@pytest.fixture
def deployed(tmp_path: Path) -> Iterator[Deployment]:
    """An empty deployment."""
    with deployment(tmp_path) as one:
        yield one


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[DagsterInstance]:
    """An empty Dagster instance."""
    home = tmp_path / "dagster_home"
    home.mkdir()
    with instance_for_test(temp_dir=str(home)) as one:
        yield one
