"""Deployments in every kind of location."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from telemetry_assets_tests.harness.deployment import Deployment, deployment, deployment_in_s3


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.long)])
def deployed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deployment]:
    """An empty deployment in each kind of location."""
    if request.param == "folder":
        with deployment(tmp_path) as one:
            yield one
    else:
        with deployment_in_s3(request.getfixturevalue("aws")) as one:
            yield one
