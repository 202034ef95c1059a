"""Several writers on one lakehouse: each document is ingested once, Gold is correct, and no process fails."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from dagster._cli import cli as dagster

from telemetry_assets.cli.main import main
from telemetry_assets.simulator.fleet import Fleet, SimulatedUpload, simulate
from telemetry_assets.tables import BRONZE, REJECTED
from telemetry_assets_tests.harness.aws.fault_proxy import FaultProxy
from telemetry_assets_tests.harness.aws.faults import Fault, FaultKind
from telemetry_assets_tests.harness.aws.services import AwsServices
from telemetry_assets_tests.harness.deployment import AS_OF, Deployment, DeploymentInS3
from telemetry_assets_tests.harness.forked import ForkedProgram

pytestmark = pytest.mark.long

PROCESSES = 8


def send(deployed: Deployment, uploads: int) -> list[SimulatedUpload]:
    """A messy fleet's uploads."""
    sent = list(simulate(Fleet(date(2025, 12, 31), cars=5, days=2, uploads=uploads, mess=True)))
    for upload in sent:
        deployed.upload(upload.name, upload.content)
    return sent


def command_line(*arguments: str) -> None:
    main(arguments)


def dagster_command(*arguments: str) -> None:
    dagster(arguments)


def start(deployed: Deployment, program: Callable[..., object], *arguments: str, **environment: str) -> ForkedProgram:
    settings = deployed.settings
    return ForkedProgram(
        program,
        *arguments,
        environment={
            **os.environ,
            "TELEMETRY_LANDING_URI": settings.landing_uri,
            "TELEMETRY_LAKEHOUSE_URI": settings.lakehouse_uri,
            "TELEMETRY_CATALOG": settings.catalog,
            "TELEMETRY_UPLOAD_MINIMUM_AGE_SECONDS": "0",
            "TELEMETRY_BATCH_MAX_UPLOADS": "6",
            **environment,
        },
    )


def process(deployed: Deployment, **environment: str) -> ForkedProgram:
    return start(deployed, command_line, "process", "--insurance-as-of", AS_OF.isoformat(), **environment)


def assert_exact(deployed: Deployment, sent: list[SimulatedUpload]) -> None:
    """Assert that every document is ingested once, and that every table follows the contract."""
    received = deployed.rows(BRONZE) + deployed.rows(REJECTED)
    times = Counter((row["batch_id"], row["source_uri"], row["source_position"]) for row in received)
    assert set(times.values()) == {1}
    deployed.recall_batches()
    assert sum(batch_report.uploads for batch_report in deployed.batch_reports) == len(sent)
    deployed.assert_equals_the_contract()
    assert not deployed.pipeline.ingestion.has_work()
    assert deployed.pipeline.tables_behind() == []


def assert_all_end_well(processes: list[ForkedProgram]) -> None:
    ended = [process.wait() for process in processes]
    assert [code for code, _ in ended] == [0] * len(processes), [output for code, output in ended if code]


def test_many_processes_share_the_uploads_and_all_succeed(deployed: Deployment) -> None:
    sent = send(deployed, 8)
    assert_all_end_well(
        [
            process(deployed, TELEMETRY_BATCH_MAX_UPLOADS="3")
            for _ in range(4 if deployed.settings.is_in_s3 else PROCESSES)
        ]
    )
    assert_exact(deployed, sent)


@pytest.mark.parametrize("deployed", ["folder", pytest.param("s3", marks=pytest.mark.exhaustive)], indirect=True)
def test_two_dagster_deployments_can_share_one_lakehouse(deployed: Deployment, tmp_path: Path) -> None:
    sent = send(deployed, 12)
    homes = [tmp_path / name for name in ("one", "other")]
    for home in homes:
        home.mkdir()
    job = ("job", "execute", "-m", "telemetry_assets.definitions", "-j", "ingest")
    assert_all_end_well([start(deployed, dagster_command, *job, DAGSTER_HOME=str(home)) for home in homes])
    deployed.process()
    assert_exact(deployed, sent)


@pytest.mark.parametrize("deployed", ["s3"], indirect=True)
@pytest.mark.parametrize(
    ("operation", "key", "after"),
    [
        ("PutObject", "in_progress.json", 1),
        pytest.param("UpdateTable", "car_telemetry", 0, marks=pytest.mark.exhaustive),
        ("DeleteObject", "in_progress.json", 0),
        pytest.param("PutObject", "in_progress.json", 0, marks=pytest.mark.exhaustive),
        pytest.param("CopyObject", "archive/", 3, marks=pytest.mark.exhaustive),
        pytest.param("DeleteObject", "landing/", 2, marks=pytest.mark.exhaustive),
        pytest.param("UpdateTable", "car_telemetry", 1, marks=pytest.mark.exhaustive),
    ],
)
def test_paused_run_that_resumes_after_another_has_completed_its_batch_changes_nothing(
    deployed: DeploymentInS3, aws: AwsServices, operation: str, key: str, after: int
) -> None:
    deployed.process()
    sent = send(deployed, 5)
    with FaultProxy(aws.endpoint) as proxy:
        pause = proxy.inject(Fault(FaultKind.PAUSED, operation, key, after=after))
        paused = process(deployed, AWS_ENDPOINT_URL=proxy.endpoint)
        assert pause.wait_until_reached(60)
        deployed.process()
        deployed.upload(sent[0].name, sent[0].content)
        deployed.process()
        pause.release()
        assert_all_end_well([paused])
    deployed.process()
    assert_exact(deployed, [*sent, sent[0]])
