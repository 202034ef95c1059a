"""The policy of docs/aws-one-machine.md allows exactly the requests that the product sends to AWS."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from telemetry_assets_tests.harness.aws.fault_proxy import FaultProxy
from telemetry_assets_tests.harness.aws.permissions import LAKEHOUSE, Statement, allowed, live, needed, statements_of
from telemetry_assets_tests.harness.aws.services import AwsServices

pytestmark = pytest.mark.long

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "aws-one-machine.md"
# Needed only if a multipart upload to S3 fails.
NOT_SEEN_HERE = {"s3:AbortMultipartUpload"}


@pytest.fixture
def proxy(aws: AwsServices, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A proxy between the product and AWS, to record its requests."""
    with FaultProxy(aws.endpoint) as one:
        monkeypatch.setenv("AWS_ENDPOINT_URL", one.endpoint)
        yield one


def policy_on_the_page() -> list[Statement]:
    found = re.search(r"```json\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    return statements_of(found[1])


def test_policy_on_the_page_allows_exactly_the_sent_requests(aws: AwsServices, proxy: FaultProxy) -> None:
    policy = policy_on_the_page()
    live(aws)
    needed_permissions = {
        (*pair, request.key)
        for request in proxy.requests
        if request.operation != "DeleteTable"
        for pair in needed(request)
    }
    refused = [one for one in sorted(needed_permissions) if not allowed(policy, one[0], one[1], prefix=one[2])]
    assert refused == []
    granted = {action for statement in policy for action in statement.actions}
    assert granted - {action for action, _, _ in needed_permissions} == NOT_SEEN_HERE


def test_every_listing_of_the_lakehouse_names_a_prefix_in_it(aws: AwsServices, proxy: FaultProxy) -> None:
    live(aws)
    prefixes = {one.key for one in proxy.requests if one.operation.startswith("List") and one.bucket == LAKEHOUSE}
    assert prefixes
    assert all(prefix.startswith("telemetry/") for prefix in prefixes)
