"""The policy of docs/aws-one-machine.md allows what the product asks AWS for, and nothing that it does not ask for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from telemetry_assets.ingestion.manifests import ReplaySelection
from telemetry_assets.lakehouse.contracts import ALERTS
from telemetry_assets.lakehouse.doctor import examine
from telemetry_assets_tests.aws.api_requests import Request
from telemetry_assets_tests.aws.fault_proxy import FaultProxy
from telemetry_assets_tests.aws.services import AwsServices
from telemetry_assets_tests.deployment import deployment_in_s3
from telemetry_assets_tests.made_documents import event, framed

PAGE = Path(__file__).resolve().parent.parent / "docs" / "aws-one-machine.md"
LANDING, LAKEHOUSE = "my-fleet-landing", "my-fleet-lakehouse"
GLUE = "arn:aws:glue:eu-central-1:111122223333:"

# Of operations of S3 that are named otherwise than what they need.
ACTIONS = {
    "ListObjectsV2": ("ListBucket",),
    "ListObjectVersions": ("ListBucketVersions",),
    "HeadObject": ("GetObject",),
    "CopyObject": ("PutObject",),
    "DeleteObjects": ("DeleteObject",),
}
# Asked for only where a large upload to S3 breaks off.
NOT_SEEN_HERE = {"s3:AbortMultipartUpload"}

Needed = tuple[str, str]
"""An action, and the resource that it is asked for."""


@pytest.fixture
def proxy(aws: AwsServices, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """Between the product and AWS, to see what it asks for."""
    with FaultProxy(aws.endpoint) as one:
        monkeypatch.setenv("AWS_ENDPOINT_URL", one.endpoint)
        yield one


def live(aws: AwsServices) -> None:
    """All that a deployment does: first run, corrections, uploads put off and replaced, replay, doctor and repair."""
    for bucket in (LANDING, LAKEHOUSE):
        aws.make_bucket(bucket, versioned=bucket == LANDING)
    places: dict[str, Any] = {"landing_uri": f"s3://{LANDING}", "lakehouse_uri": f"s3://{LAKEHOUSE}/telemetry"}
    with deployment_in_s3(aws, batch_max_bytes=20_000, **places) as deployed:
        for number in range(3):
            padded = [event(str(number), padding="x" * 1_000, engineTempCelsius=120) for _ in range(10)]
            for content in (b"{}", framed([*padded, {}], "gzip")[1]):
                deployed.upload(f"{number}.jsonl.gz", content)
        deployed.process()
        deployed.pipeline.replay_rejected(ReplaySelection(), "replay")
        deployed.pipeline.lakehouse.catalog.drop_table(ALERTS.identifier)
        for finding in examine(deployed.pipeline.lakehouse):
            if finding.repair:
                finding.repair()
        glue = aws.client("glue")
        entry = glue.get_table(DatabaseName="gold", Name="performance_alerts")["Table"]
        kept = {name: entry[name] for name in ("Name", "TableType", "Parameters")}
        glue.update_table(DatabaseName="gold", TableInput={**kept, "StorageDescriptor": {"Columns": []}})
        for finding in examine(deployed.pipeline.lakehouse):
            if finding.repair:
                finding.repair()
        deployed.process()


def needed(request: Request) -> Iterable[Needed]:
    if request.service == "glue":
        yield f"glue:{request.operation}", f"{GLUE}catalog"
        yield f"glue:{request.operation}", f"{GLUE}database/{request.bucket or request.key}"
        if "Table" in request.operation:
            yield f"glue:{request.operation}", f"{GLUE}table/{request.bucket}/{request.key}"
        return
    on_bucket = request.operation.startswith(("List", "GetBucket"))
    resource = f"arn:aws:s3:::{request.bucket}{'' if on_bucket else f'/{request.key}'}"
    for action in ACTIONS.get(request.operation, (request.operation,)):
        yield f"s3:{action}", resource
    if request.operation == "CopyObject":
        yield "s3:GetObject", f"arn:aws:s3:::{LANDING}/{request.key.rsplit('/', 1)[-1]}"
    if request.operation == "DeleteObject" and request.bucket == LANDING:
        yield "s3:DeleteObjectVersion", resource


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
