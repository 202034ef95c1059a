"""The submitted package, run by each service, produces the same tables as every other engine."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from telemetry_assets.errors import QualityError, RemoteRunError
from telemetry_assets.monitoring.smoke_test import check
from telemetry_assets.pipeline import open_pipeline
from telemetry_assets.settings import Settings
from telemetry_assets.simulator.fleet import Fleet, simulate
from telemetry_assets.tables import ALERTS, SILVER, DerivedTable, all_tables, derived_tables
from telemetry_assets_tests.harness.aws.remote_account import SERVICES, RemoteAccount
from telemetry_assets_tests.harness.deployment import AS_OF, SAMPLES, DeploymentInS3
from telemetry_assets_tests.harness.fuzzed_uploads import fuzzed_uploads
from telemetry_assets_tests.harness.made_documents import event, framed

# A program starts a JVM, which has to compile its code.
pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


def messy_uploads(documents: int) -> list[tuple[str, bytes]]:
    fleet = Fleet(date(2026, 1, 9), cars=4, days=6, uploads=8, documents=documents, seed=5, mess=True)
    return [(upload.name, upload.content) for upload in simulate(fleet)]


def few_uploads() -> list[list[tuple[str, bytes]]]:
    """Two batches: a messy fleet, and hostile documents with the rest of the fleet."""
    messy = messy_uploads(60)
    rejected_whole = [("large.json", b"[" + b" " * 3_000_000 + b"]"), ("x.bin", b"?")]
    return [messy[:5], [*messy[5:], *fuzzed_uploads(7, large=5, small=30), *rejected_whole]]


def many_uploads() -> list[list[tuple[str, bytes]]]:
    """Two larger batches, with the real uploads if they are available."""
    hostile: list[tuple[str, bytes]] = list(fuzzed_uploads(8, large=40, small=200))
    samples = [(sample.name, sample.read_bytes()) for sample in sorted(SAMPLES.glob("*.json"))]
    return [batch for batch in (samples, messy_uploads(400), hostile) if batch]


def process(account: RemoteAccount, settings: dict[str, Any], uploads: list[tuple[str, bytes]]) -> None:
    """Process uploads up to Gold, and assert that every table follows the contract."""
    with open_pipeline(Settings(**settings)) as pipeline:
        deployed = DeploymentInS3(pipeline.settings, pipeline, client=account.aws.client("s3"))
        for name, content in uploads:
            deployed.upload(name, content)
        deployed.process()
        deployed.recall_batches()
        deployed.assert_equals_the_contract()


def assert_embedded_finds_nothing_to_change(settings: dict[str, Any]) -> None:
    with open_pipeline(Settings(**settings | {"engine": "embedded"})) as pipeline:
        rows = pipeline.lakehouse.table(SILVER).scan(selected_fields=("event_date",)).to_arrow()
        days = frozenset(rows["event_date"].to_pylist())
        for contract in derived_tables():
            assert not pipeline.refresh(contract, "a backfill", days, insurance_as_of=AS_OF).changed, contract


@pytest.mark.parametrize(
    ("engine", "tables"),
    [
        pytest.param("emr_serverless", (SILVER,), marks=pytest.mark.exhaustive),
        pytest.param("emr_serverless", tuple(derived_tables()), marks=pytest.mark.exhaustive),
        pytest.param("glue", tuple(derived_tables()), marks=pytest.mark.exhaustive),
    ],
    ids=["emr_serverless-silver", "emr_serverless", "glue"],
)
def test_service_continues_after_the_embedded_engine_with_the_same_tables(
    account: RemoteAccount, engine: str, tables: tuple[DerivedTable, ...]
) -> None:
    settings = account.settings(engine)
    first, second = few_uploads()
    embedded = settings | {"engine": "embedded"}
    process(account, embedded, first)
    # The second batch counts as a large backlog, so that a remote program also parses it.
    large = settings | {"spark_ingestion_min_bytes": 0, "upload_max_bytes": 2_000_000}
    with open_pipeline(Settings(**large)) as pipeline:
        deployed = DeploymentInS3(pipeline.settings, pipeline, client=account.aws.client("s3"))
        for name, content in second:
            deployed.upload(name, content)
        pipeline.ingest("a run")
        for contract in tables:
            assert pipeline.refresh(contract, "a run", insurance_as_of=AS_OF).changed
    assert len(account.runs(Settings(**settings))) == 1 + len(tables)
    process(account, embedded | {"upload_max_bytes": 2_000_000}, [])
    assert_embedded_finds_nothing_to_change(settings)


@pytest.mark.exhaustive
@pytest.mark.parametrize("engine", SERVICES)
def test_account_is_checked_by_a_step_that_changes_nothing(account: RemoteAccount, engine: str) -> None:
    settings = Settings(**account.settings(engine))
    # All tables are behind, and the step must not refresh them.
    with_an_alert(account, account.settings(engine) | settings.model_dump())
    with open_pipeline(settings) as pipeline:
        deployed = DeploymentInS3(settings, pipeline, client=account.aws.client("s3"))
        deployed.upload("y.json", framed([event("2")], "array")[1])
        pipeline.ingest("a run")
        tables = [pipeline.lakehouse.table(contract) for contract in all_tables()]
        before = [table.current_snapshot() for table in tables]
        lines: list[str] = []
        assert check(settings, lines.append), lines
        assert [table.refresh().current_snapshot() for table in tables] == before
    [(run_id, _)] = account.runs(settings)
    assert lines[-1].startswith("ok         a remote step can be submitted and followed")
    assert run_id in lines[-1]


@pytest.mark.exhaustive
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("engine", SERVICES)
def test_service_makes_the_same_tables_from_many_uploads(account: RemoteAccount, engine: str) -> None:
    settings = account.settings(engine)
    for uploads in many_uploads():
        process(account, settings, uploads)
    assert_embedded_finds_nothing_to_change(settings)


def with_an_alert(account: RemoteAccount, settings: dict[str, Any]) -> None:
    """Fill Bronze and Silver with one event that causes an alert; the alerts are behind."""
    with open_pipeline(Settings(**settings | {"engine": "embedded"})) as pipeline:
        deployed = DeploymentInS3(pipeline.settings, pipeline, client=account.aws.client("s3"))
        deployed.upload("x.json", framed([event(engineTempCelsius=120)], "array")[1])
        pipeline.ingest("a run")
        pipeline.refresh(SILVER, "a run")


@pytest.mark.exhaustive
def test_killed_driver_is_started_again(account: RemoteAccount) -> None:
    settings = account.settings("glue")
    with_an_alert(account, settings)
    account.aws.order("kill")
    with open_pipeline(Settings(**settings)) as pipeline:
        result = pipeline.refresh(ALERTS, "a run")
        assert (result.changed, result.rows_written) == (True, 1)
        assert [state for _, state in account.runs(pipeline.settings)] == ["FAILED", "SUCCEEDED"]


def test_result_is_read_from_the_table_if_messages_are_lost(account: RemoteAccount) -> None:
    settings = account.settings("emr_serverless")
    with_an_alert(account, settings)
    account.aws.order("drop-messages", 1000)
    with open_pipeline(Settings(**settings)) as pipeline:
        result = pipeline.refresh(ALERTS, "a run")
        snapshot = pipeline.lakehouse.table(ALERTS).current_snapshot()
        assert snapshot is not None
        assert (result.changed, result.rows_written, result.snapshot_id) == (True, 1, snapshot.snapshot_id)
        [(day, partition)] = result.partitions.items()
        assert (day, partition.rows, dict(result.rows_read)) == (date(2025, 11, 4), 1, {date(2025, 11, 4): 1})
        assert [state for _, state in account.runs(pipeline.settings)] == ["SUCCESS"]


def test_quality_error_of_a_program_is_raised_as_a_local_one(account: RemoteAccount) -> None:
    settings = account.settings("glue")
    with_an_alert(account, settings)
    with open_pipeline(Settings(**settings)) as pipeline:
        silver = pipeline.lakehouse.table(SILVER)
        silver.append(silver.scan().to_arrow())
        with pytest.raises(QualityError, match="as another row, so no table was computed") as raised:
            pipeline.refresh(ALERTS, "a run")
        assert (raised.value.table, raised.value.rows) == (SILVER.full_name, 1)
        # A retry would find the same.
        assert [state for _, state in account.runs(pipeline.settings)] == ["FAILED"]


@pytest.mark.exhaustive
def test_spark_error_is_shown_with_the_drivers_last_lines(account: RemoteAccount) -> None:
    settings = account.settings("emr_serverless")
    with_an_alert(account, settings)
    with open_pipeline(Settings(**settings)) as pipeline:
        [task] = pipeline.lakehouse.table(SILVER).scan().plan_files()
        bucket, key = task.file.file_path.removeprefix("s3://").split("/", 1)
        account.aws.client("s3").delete_object(Bucket=bucket, Key=key)
        with pytest.raises(RemoteRunError, match=r"could not bring gold\.performance_alerts up to date") as raised:
            pipeline.refresh(ALERTS, "a run")
        assert "last lines" in str(raised.value)
