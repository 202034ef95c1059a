"""What AWS's services do on a bad day: nothing lost, nothing double, and nobody has to look."""

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
    """The services, without a proxy before them."""
    made: AwsServices = request.getfixturevalue("aws")
    return made


@pytest.fixture
def proxy(services: AwsServices, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """Between the product and AWS."""
    with FaultProxy(services.endpoint) as one:
        monkeypatch.setenv("AWS_ENDPOINT_URL", one.endpoint)
        yield one


@pytest.fixture
def deployed(services: AwsServices, proxy: FaultProxy) -> Iterator[DeploymentInS3]:
    """A deployment whose tables are there, with uploads that wait."""
    with deployment_in_s3(services) as one:
        one.process()
        for number in range(3):
            one.upload(f"{number}.json", framed([event(f"CAR-{number}", engineTempCelsius=120), {}], "array")[1])
        yield one


def assert_exact(deployed: DeploymentInS3) -> None:
    """Every document once, every table as the contract has it, nothing left to do."""
    deployed.assert_equals_the_contract()
    assert [len(deployed.archived(one.batch_id)) for one in deployed.batch_reports] == [3]
    assert all(batch.conserved for batch in reconcile(deployed.pipeline.lakehouse).batches)
    assert not deployed.pipeline.ingestion.has_work()
    assert deployed.pipeline.tables_behind() == []


@pytest.mark.parametrize("step", STEPS)
def test_a_fault_that_passes_is_got_over_in_the_same_run(
    deployed: DeploymentInS3, proxy: FaultProxy, step: str
) -> None:
    operation, key = STEPS[step]
    for number, kind in enumerate((FaultKind.SLOW_DOWN, FaultKind.RESET_AFTER)):
        proxy.inject(Fault(kind, operation, key, after=number))
    deployed.process()
    assert {hit.kind for hit in proxy.faults_hit} == {FaultKind.SLOW_DOWN, FaultKind.RESET_AFTER}
    assert_exact(deployed)


@pytest.mark.parametrize("key", ["archive/", "in_progress.json", "metadata.json", "bronze/car_telemetry/data/"])
def test_an_answer_that_ends_too_early_is_asked_for_again(
    deployed: DeploymentInS3, proxy: FaultProxy, key: str
) -> None:
    proxy.inject(Fault(FaultKind.TRUNCATED_BODY, "GetObject", key, times=2))
    deployed.process()
    assert len(proxy.faults_hit) == 2
    assert_exact(deployed)


def test_a_lock_of_glue_that_is_lost_to_nobody_is_taken_again(deployed: DeploymentInS3, proxy: FaultProxy) -> None:
    proxy.inject(Fault(FaultKind.LOST_LOCK, "UpdateTable", times=3))
    deployed.process()
    assert_exact(deployed)


@pytest.mark.parametrize("kind", [FaultKind.RESET_AFTER, FaultKind.ERROR_AFTER])
def test_a_commit_that_took_effect_and_was_answered_with_an_error_stands_whole(
    deployed: DeploymentInS3, proxy: FaultProxy, kind: FaultKind
) -> None:
    # The SDK's retry then meets its own update, which looks like another writer's; who believes that deletes the
    # manifests of a commit that stands.
    proxy.inject(Fault(kind, "UpdateTable", times=5))
    deployed.process()
    assert len(deployed.pipeline.lakehouse.table(BRONZE).snapshots()) == 1
    assert_exact(deployed)


def test_what_this_process_may_not_copy_waits_and_is_told_and_all_else_is_taken(
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
    """Clients that try twice only, so that an outage is soon over for a test."""
    monkeypatch.setitem(RETRIES, "total_max_attempts", 2)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.usefixtures("impatient")
def test_a_service_that_stays_away_ends_the_run_in_words_and_the_next_run_goes_on(
    deployed: DeploymentInS3, proxy: FaultProxy, step: str
) -> None:
    operation, key = STEPS[step]
    proxy.inject(Fault(FaultKind.INTERNAL_ERROR, operation, key, times=1_000))
    with pytest.raises((AwsError, TableMismatchError, OSError)) as told:
        deployed.process()
    assert "nternal" in str(told.value)
    proxy.stop_injecting()
    deployed.process()
    deployed.recall_batches()
    assert_exact(deployed)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_bad_day_with_faults_everywhere(deployed: DeploymentInS3, proxy: FaultProxy, seed: int) -> None:
    proxy.inject_randomly(random.Random(seed), 0.1, TRANSIENT)
    deployed.process()
    proxy.stop_injecting()
    assert len(proxy.faults_hit) > 5
    assert_exact(deployed)
