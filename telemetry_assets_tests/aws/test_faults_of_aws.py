"""Faults of AWS's services: nothing is lost or duplicated, and no manual work is needed."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from telemetry_assets.aws.limits import RETRIES
from telemetry_assets.errors import AwsError, TableMismatchError, UnclaimableUploadsError
from telemetry_assets.ingestion.reconciliation import reconcile
from telemetry_assets.tables import BRONZE
from telemetry_assets_tests.harness.aws.fault_proxy import FaultProxy
from telemetry_assets_tests.harness.aws.faults import Fault, FaultKind
from telemetry_assets_tests.harness.aws.services import AwsServices
from telemetry_assets_tests.harness.deployment import DeploymentInS3, deployment_in_s3
from telemetry_assets_tests.harness.made_documents import event, framed

pytestmark = pytest.mark.long

TRANSIENT = (FaultKind.SLOW_DOWN, FaultKind.RESET_BEFORE, FaultKind.RESET_AFTER, FaultKind.ERROR_AFTER)
STEPS = {
    "listing": ("ListObjectsV2", "landing/"),
    "creating the journal": ("PutObject", "in_progress.json"),
    "claiming": ("CopyObject", "archive/"),
    "reading": ("GetObject", "archive/"),
    "writing data": ("PutObject", "bronze/car_telemetry/data/"),
    "writing metadata": ("PutObject", "bronze/car_telemetry/metadata/"),
    "committing to Bronze": ("UpdateTable", ""),
    "taking out of the landing location": ("DeleteObject", "landing/"),
    "removing the journal": ("DeleteObject", "in_progress.json"),
    "looking up a table": ("GetTable", ""),
}


@pytest.fixture
def services(request: pytest.FixtureRequest) -> AwsServices:
    """The services, without a proxy."""
    made: AwsServices = request.getfixturevalue("aws")
    return made


@pytest.fixture
def proxy(services: AwsServices, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A proxy between the product and AWS."""
    with FaultProxy(services.endpoint) as one:
        monkeypatch.setenv("AWS_ENDPOINT_URL", one.endpoint)
        yield one


@pytest.fixture
def deployed(services: AwsServices, proxy: FaultProxy) -> Iterator[DeploymentInS3]:
    """A deployment with existing tables and waiting uploads."""
    with deployment_in_s3(services) as one:
        one.process()
        for number in range(3):
            one.upload(f"{number}.json", framed([event(f"CAR-{number}", engineTempCelsius=120), {}], "array")[1])
        yield one


def assert_exact(deployed: DeploymentInS3) -> None:
    """Assert that every document is ingested once, every table follows the contract, and no work is left."""
    deployed.assert_equals_the_contract()
    assert [len(deployed.archived(one.batch_id)) for one in deployed.batch_reports] == [3]
    assert all(batch.conserved for batch in reconcile(deployed.pipeline.lakehouse).batches)
    assert not deployed.pipeline.ingestion.has_work()
    assert deployed.pipeline.tables_behind() == []


@pytest.mark.parametrize("step", STEPS)
def test_transient_fault_is_overcome_in_the_same_run(deployed: DeploymentInS3, proxy: FaultProxy, step: str) -> None:
    operation, key = STEPS[step]
    for number, kind in enumerate((FaultKind.SLOW_DOWN, FaultKind.RESET_AFTER)):
        proxy.inject(Fault(kind, operation, key, after=number))
    deployed.process()
    assert {hit.kind for hit in proxy.faults_hit} == {FaultKind.SLOW_DOWN, FaultKind.RESET_AFTER}
    assert_exact(deployed)


@pytest.mark.parametrize("key", ["archive/", "in_progress.json", "metadata.json", "bronze/car_telemetry/data/"])
def test_truncated_response_is_requested_again(deployed: DeploymentInS3, proxy: FaultProxy, key: str) -> None:
    deployed.pipeline.lakehouse.forget_metadata()
    proxy.inject(Fault(FaultKind.TRUNCATED_BODY, "GetObject", key, times=2))
    deployed.process()
    assert len(proxy.faults_hit) == 2
    assert_exact(deployed)


def test_glue_conflict_without_another_commit_is_retried(deployed: DeploymentInS3, proxy: FaultProxy) -> None:
    proxy.inject(Fault(FaultKind.LOST_LOCK, "UpdateTable", times=3))
    deployed.process()
    assert_exact(deployed)


@pytest.mark.parametrize("kind", [FaultKind.RESET_AFTER, FaultKind.ERROR_AFTER])
def test_commit_that_took_effect_despite_an_error_stays_complete(
    deployed: DeploymentInS3, proxy: FaultProxy, kind: FaultKind
) -> None:
    # The SDK's retry then conflicts with its own update, which looks like another writer's. A client that takes it for
    # one deletes the manifests of a valid commit.
    proxy.inject(Fault(kind, "UpdateTable", times=5))
    deployed.process()
    assert len(deployed.pipeline.lakehouse.table(BRONZE).snapshots()) == 1
    assert_exact(deployed)


def test_upload_that_cannot_be_copied_waits_and_is_reported_and_others_are_ingested(
    deployed: DeploymentInS3, proxy: FaultProxy
) -> None:
    proxy.inject(Fault(FaultKind.ACCESS_DENIED, "CopyObject", "1.json", times=2))
    deployed.process()
    [batch_report] = deployed.batch_reports
    assert batch_report.uploads == 2
    with pytest.raises(UnclaimableUploadsError, match=r"1\.json: .*Access Denied"):
        deployed.process()
    deployed.process()
    assert [one.uploads for one in deployed.batch_reports] == [2, 1]
    deployed.assert_equals_the_contract()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients with one retry only, so that tests of an outage are short."""
    monkeypatch.setitem(RETRIES, "total_max_attempts", 2)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.usefixtures("impatient")
def test_outage_fails_the_run_with_a_clear_error_and_the_next_run_continues(
    deployed: DeploymentInS3, proxy: FaultProxy, step: str
) -> None:
    operation, key = STEPS[step]
    proxy.inject(Fault(FaultKind.INTERNAL_ERROR, operation, key, times=1_000))
    with pytest.raises((AwsError, TableMismatchError, OSError)) as raised:
        deployed.process()
    assert "nternal" in str(raised.value)
    proxy.stop_injecting()
    deployed.process()
    deployed.recall_batches()
    assert_exact(deployed)


@pytest.mark.parametrize("seed", [1, 2])
def test_random_faults_of_all_services(deployed: DeploymentInS3, proxy: FaultProxy, seed: int) -> None:
    proxy.inject_randomly(random.Random(seed), 0.1, TRANSIENT)
    deployed.process()
    proxy.stop_injecting()
    assert len(proxy.faults_hit) > 5
    assert_exact(deployed)
