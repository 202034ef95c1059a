"""Deployments in AWS with rows in every table."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from telemetry_assets_tests.harness.aws.services import AwsServices
from telemetry_assets_tests.harness.deployment import Deployment, deployment_in_s3
from telemetry_assets_tests.harness.examined import filled


@pytest.fixture
def in_glue(aws: AwsServices) -> Iterator[Deployment]:
    """A deployment with rows in every table, in Glue."""
    with deployment_in_s3(aws) as one:
        yield filled(one)
