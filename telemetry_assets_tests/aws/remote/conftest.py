"""An account for remote steps, in which all requests must be allowed by the policies of ``infra/``."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from telemetry_assets_tests.harness.aws.permissions import refused
from telemetry_assets_tests.harness.aws.remote_account import SERVICES, RemoteAccount, open_account
from telemetry_assets_tests.harness.aws.remote_programs import PROGRAM
from telemetry_assets_tests.harness.aws.services import PRODUCT, AwsServices
from telemetry_assets_tests.harness.policies import policy


@pytest.fixture(scope="package")
def opened_account(aws_services: AwsServices) -> Iterator[RemoteAccount]:
    """An account that is prepared once, because the package is large."""
    with pytest.MonkeyPatch.context() as environment:
        for name in os.environ:
            if name.startswith(("AWS_", "TELEMETRY_")):
                environment.delenv(name)
        for name, value in aws_services.environment().items():
            environment.setenv(name, value)
        yield open_account(aws_services)


@pytest.fixture
def account(opened_account: RemoteAccount) -> Iterator[RemoteAccount]:
    """The account without other tests' runs."""
    opened_account.aws.take_requests()
    yield opened_account
    opened_account.aws.end_programs()
    # Terraform has created the databases before.
    requests = [(key, one) for key, one in opened_account.take_policy_requests() if one.operation != "CreateDatabase"]
    for who, name in ((PRODUCT, "orchestrator"), (PROGRAM, "job")):
        assert refused(policy(name), (request for key, request in requests if key == who)) == set(), name


@pytest.fixture(params=SERVICES)
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name
