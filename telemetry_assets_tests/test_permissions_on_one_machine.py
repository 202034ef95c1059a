"""The policy of docs/aws-one-machine.md allows what the product asks AWS for, and nothing that it does not ask for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from telemetry_assets_tests.aws.fault_proxy import FaultProxy
from telemetry_assets_tests.aws.permissions import LAKEHOUSE, live, needed
from telemetry_assets_tests.aws.services import AwsServices

PAGE = Path(__file__).resolve().parent.parent / "docs" / "aws-one-machine.md"
# Asked for only where a large upload to S3 breaks off.
NOT_SEEN_HERE = {"s3:AbortMultipartUpload"}


@pytest.fixture
def proxy(aws: AwsServices, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """Between the product and AWS, to see what it asks for."""
    with FaultProxy(aws.endpoint) as one:
        monkeypatch.setenv("AWS_ENDPOINT_URL", one.endpoint)
        yield one


def allowed(statements: list[dict[str, Any]], action: str, resource: str) -> bool:
    return any(
        action in _as_list(one["Action"]) and any(fnmatchcase(resource, each) for each in _as_list(one["Resource"]))
        for one in statements
    )


def _as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def test_the_policy_on_the_page_allows_exactly_what_is_asked_for(aws: AwsServices, proxy: FaultProxy) -> None:
    found = re.search(r"```json\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    statements = json.loads(found[1])["Statement"]
    live(aws)
    asked = {pair for request in proxy.requests if request.operation != "DeleteTable" for pair in needed(request)}
    assert [pair for pair in sorted(asked) if not allowed(statements, *pair)] == []
    granted = {action for one in statements for action in _as_list(one["Action"])}
    assert granted - {action for action, _ in asked} == NOT_SEEN_HERE


def test_every_listing_of_the_lakehouse_names_a_prefix_in_it(aws: AwsServices, proxy: FaultProxy) -> None:
    live(aws)
    prefixes = {one.key for one in proxy.requests if one.operation.startswith("List") and one.bucket == LAKEHOUSE}
    assert prefixes
    assert all(prefix.startswith("telemetry/") for prefix in prefixes)
