"""The upload sensor with S3: the requests of a tick do not depend on the number of waiting uploads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from dagster import DagsterInstance, RunRequest, SkipReason, build_sensor_context

from telemetry_assets.definitions import definitions
from telemetry_assets.settings import load_settings
from telemetry_assets_tests.harness.aws.fault_proxy import FaultProxy
from telemetry_assets_tests.harness.aws.services import AwsServices
from telemetry_assets_tests.harness.deployment import IN_S3, DeploymentInS3, deployment_in_s3

WAITING = 10_000


@pytest.fixture
def proxy(aws: AwsServices, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A proxy between the product and AWS, to count requests."""
    with FaultProxy(aws.endpoint) as one:
        monkeypatch.setenv("AWS_ENDPOINT_URL", one.endpoint)
        for name, value in IN_S3.items():
            monkeypatch.setenv(f"TELEMETRY_{name.upper()}", value)
        # Otherwise loading the definitions makes requests.
        monkeypatch.setenv("TELEMETRY_FIRST_EVENT_DATE", "2025-01-01")
        yield one


@pytest.fixture
def deployed(aws: AwsServices, proxy: FaultProxy) -> Iterator[DeploymentInS3]:
    """A deployment with existing tables."""
    with deployment_in_s3(aws) as one:
        one.process()
        yield one


def tick(instance: DagsterInstance) -> RunRequest | SkipReason:
    sensor = definitions(load_settings()).get_sensor_def("uploads")
    with build_sensor_context(instance=instance) as context:
        decision = sensor(context)
    assert isinstance(decision, RunRequest | SkipReason)
    return decision


def requests_of(proxy: FaultProxy, instance: DagsterInstance) -> tuple[RunRequest | SkipReason, Counter[str]]:
    before = len(proxy.requests)
    decision = tick(instance)
    return decision, Counter(request.operation for request in proxy.requests[before:])


def test_an_upload_in_s3_starts_a_run_and_an_empty_prefix_does_not(
    deployed: DeploymentInS3, instance: DagsterInstance
) -> None:
    decision = tick(instance)
    assert isinstance(decision, SkipReason)
    assert "No upload waits in s3://cars/landing" in str(decision.skip_message)
    deployed.upload("x.json", b"{}")
    assert isinstance(tick(instance), RunRequest)


@pytest.mark.long
def test_tick_with_ten_thousand_waiting_uploads_makes_two_listings(
    deployed: DeploymentInS3, aws: AwsServices, proxy: FaultProxy, instance: DagsterInstance
) -> None:
    aws.fill_bucket("cars", "landing", WAITING)
    assert sum(1 for _ in deployed.pipeline.ingestion.landing.waiting()) == WAITING
    decision, requests = requests_of(proxy, instance)
    assert isinstance(decision, RunRequest)
    # One listing of released uploads, and one page of waiting uploads.
    assert requests == {"GetObject": 1, "ListObjectsV2": 2}


def test_tick_without_waiting_uploads_makes_one_request_per_table(
    deployed: DeploymentInS3, proxy: FaultProxy, instance: DagsterInstance
) -> None:
    deployed.upload("x.json", b"{}")
    deployed.process()
    decision, requests = requests_of(proxy, instance)
    assert isinstance(decision, SkipReason)
    assert requests["GetTable"] == 5
    assert sum(requests.values()) <= 25
