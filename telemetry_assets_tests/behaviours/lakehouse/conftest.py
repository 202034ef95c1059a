"""Deployments with rows in every table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from telemetry_assets_tests.harness.deployment import Deployment, deployment, deployment_in_s3
from telemetry_assets_tests.harness.examined import filled
from telemetry_assets_tests.harness.small_batches import SmallBatches


@pytest.fixture(scope="session")
def small_batches(tmp_path_factory: pytest.TempPathFactory) -> SmallBatches:
    """Saved batches."""
    return SmallBatches.save(tmp_path_factory.mktemp("small-batches"))


@pytest.fixture(name="filled")
def restored_batches(small_batches: SmallBatches) -> Iterator[Deployment]:
    """Tables with six batches on two event dates."""
    with small_batches.restored() as deployed:
        yield deployed


@pytest.fixture(params=["sqlite", pytest.param("glue", marks=pytest.mark.long)])
def in_each_catalog(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deployment]:
    """A deployment with rows in every table of its catalog."""
    if request.param == "sqlite":
        with deployment(tmp_path) as one:
            yield filled(one)
    else:
        with deployment_in_s3(request.getfixturevalue("aws")) as one:
            yield filled(one)
