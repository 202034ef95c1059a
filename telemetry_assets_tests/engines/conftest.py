"""An account that remote steps run in."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from telemetry_assets_tests.aws.remote_account import RemoteAccount, open_account
from telemetry_assets_tests.aws.services import AwsServices


@pytest.fixture(scope="package")
def opened_account(aws_services: AwsServices) -> Iterator[RemoteAccount]:
    """It is prepared once: the package is large."""
    with pytest.MonkeyPatch.context() as environment:
        for name in os.environ:
            if name.startswith(("AWS_", "TELEMETRY_")):
                environment.delenv(name)
        for name, value in aws_services.environment().items():
            environment.setenv(name, value)
        yield open_account(aws_services)


@pytest.fixture
def account(opened_account: RemoteAccount) -> Iterator[RemoteAccount]:
    """With no run of another test at work."""
    yield opened_account
    opened_account.aws.end_programs()
