"""The metrics: waiting uploads, the delay of Gold, rejected documents and remote runs."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner
from dagster import DagsterInstance, SkipReason, build_sensor_context

from telemetry_assets.cli.main import main
from telemetry_assets.definitions import definitions
from telemetry_assets.monitoring.measurements import lakehouse_metrics
from telemetry_assets.settings import load_settings
from telemetry_assets.tables import ALERTS, SILVER
from telemetry_assets.tables.contract import TableContract
from telemetry_assets_tests.harness.aws.services import AwsServices
from telemetry_assets_tests.harness.deployment import BUCKET, IN_S3, Deployment
from telemetry_assets_tests.harness.made_documents import event, framed

NAMESPACE = "TelemetryAssets"
QUIET = dict.fromkeys(
    ("WaitingUploads", "OldestUploadSeconds", "UploadsNotTaken", "GoldBehindSeconds", "RejectedDocuments"), 0
)


def metrics(deployed: Deployment, after: timedelta = timedelta(0)) -> dict[str, float]:
    return {one.name: one.value for one in lakehouse_metrics(deployed.pipeline, datetime.now(UTC) + after)}


def test_metrics_of_new_and_up_to_date_deployments_are_zero(deployed: Deployment) -> None:
    deployed.landing.mkdir()
    assert metrics(deployed) == QUIET
    deployed.upload("x.json", framed([event()], "array")[1])
    deployed.process()
    assert metrics(deployed) == QUIET


def test_age_of_the_oldest_waiting_upload(deployed: Deployment) -> None:
    deployed.upload("new.json", b"{}")
    old = deployed.upload("old.json", b"{}")
    os.utime(old, (time.time() - 7200, time.time() - 7200))
    values = metrics(deployed)
    assert values["WaitingUploads"] == 2
    assert 7200 <= values["OldestUploadSeconds"] < 7260


def test_an_upload_of_an_unfinished_batch_still_waits(deployed: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = deployed.upload("x.json", framed([event()], "array")[1])
    os.utime(upload, (time.time() - 60, time.time() - 60))
    with monkeypatch.context() as patched:
        patched.setattr("telemetry_assets.ingestion.batches.BatchWriter.finish", killed)
        with pytest.raises(KeyboardInterrupt):
            deployed.pipeline.ingest("a run")
    assert metrics(deployed)["WaitingUploads"] == 1
    assert metrics(deployed)["OldestUploadSeconds"] >= 60
    deployed.process()
    assert metrics(deployed) == QUIET


def killed(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_gold_delay_begins_with_the_first_bronze_change_that_it_lacks(deployed: Deployment) -> None:
    deployed.upload("1.json", framed([event("1")], "array")[1])
    deployed.process()
    for name in ("2", "3"):
        deployed.upload(f"{name}.json", framed([event(name)], "array")[1])
        deployed.pipeline.ingest("a run")
        time.sleep(2)
    assert metrics(deployed)["GoldBehindSeconds"] >= 4
    deployed.pipeline.refresh(SILVER, "a run")
    # Silver has these changes, Gold does not.
    assert metrics(deployed, timedelta(minutes=10))["GoldBehindSeconds"] >= 600
    deployed.process()
    assert metrics(deployed, timedelta(minutes=10))["GoldBehindSeconds"] == 0


@pytest.mark.parametrize("rolled_back", [SILVER, ALERTS], ids=lambda contract: contract.name)
def test_gold_delay_begins_with_the_rollback_of_a_table(deployed: Deployment, rolled_back: TableContract) -> None:
    for number in ("1", "2"):
        deployed.upload(f"{number}.json", framed([event(number, engineTempCelsius=120)], "array")[1])
        deployed.process()
    table = deployed.pipeline.lakehouse.table(rolled_back)
    first = table.history()[0].snapshot_id
    table.manage_snapshots().set_current_snapshot(first).commit()
    assert 3600 <= metrics(deployed, timedelta(hours=1))["GoldBehindSeconds"] < 3660
    deployed.process()
    assert metrics(deployed, timedelta(hours=1))["GoldBehindSeconds"] == 0


def test_upload_that_cannot_be_ingested_is_counted(deployed: Deployment) -> None:
    (deployed.landing / "elsewhere").mkdir(parents=True)
    (deployed.landing / "link.json").symlink_to(deployed.landing / "elsewhere")
    assert metrics(deployed) == QUIET | {"UploadsNotTaken": 1}


def test_missing_settings_of_the_service_are_named_after_the_other_metrics(
    in_s3: AwsServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TELEMETRY_ENGINE", "glue")
    monkeypatch.setenv("TELEMETRY_METRICS_NAMESPACE", NAMESPACE)
    result = CliRunner().invoke(main, ["metrics", "--send"])
    assert (result.exit_code, "needs TELEMETRY_SCRIPTS_URI" in result.output) == (1, True)
    assert put(in_s3)["WaitingUploads"] == 1


def test_a_gold_table_that_is_lost_is_behind(deployed: Deployment) -> None:
    deployed.upload("x.json", framed([event()], "array")[1])
    deployed.process()
    deployed.pipeline.lakehouse.catalog.drop_table(("gold", "performance_alerts"))
    assert metrics(deployed)["GoldBehindSeconds"] > 0


def test_the_rejects_of_the_last_hour_are_counted(deployed: Deployment) -> None:
    deployed.upload("x.json", framed([event(), {}, {}], "array")[1])
    deployed.process()
    assert metrics(deployed)["RejectedDocuments"] == 2
    assert metrics(deployed, timedelta(minutes=61))["RejectedDocuments"] == 0


@pytest.fixture
def in_s3(aws: AwsServices, monkeypatch: pytest.MonkeyPatch) -> AwsServices:
    aws.make_bucket(BUCKET)
    for name, value in IN_S3.items():
        monkeypatch.setenv(f"TELEMETRY_{name.upper()}", value)
    aws.client("s3").put_object(Bucket=BUCKET, Key="landing/x.json", Body=b"{}")
    return aws


def put(aws: AwsServices) -> dict[str, float]:
    """Send the metrics, and return those in CloudWatch for this lakehouse."""
    cloudwatch = aws.client("cloudwatch")
    dimensions = [{"Name": "Lakehouse", "Value": IN_S3["lakehouse_uri"]}]
    values = {}
    for metric in cloudwatch.list_metrics(Namespace=NAMESPACE)["Metrics"]:
        assert metric["Dimensions"] == dimensions
        [point] = cloudwatch.get_metric_statistics(
            Namespace=NAMESPACE,
            MetricName=metric["MetricName"],
            Dimensions=dimensions,
            StartTime=datetime.now(UTC) - timedelta(hours=1),
            EndTime=datetime.now(UTC) + timedelta(hours=1),
            Period=7200,
            Statistics=["Maximum"],
        )["Datapoints"]
        values[metric["MetricName"]] = point["Maximum"]
    return values


def test_sensor_sends_metrics_to_cloudwatch_if_a_namespace_is_set(
    in_s3: AwsServices, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {one.name for one in definitions(load_settings()).sensors or []}
    assert "metrics" not in names
    monkeypatch.setenv("TELEMETRY_METRICS_NAMESPACE", NAMESPACE)
    with build_sensor_context(instance=instance) as context:
        decision = definitions(load_settings()).get_sensor_def("metrics")(context)
    assert isinstance(decision, SkipReason)
    assert "WaitingUploads 1" in str(decision.skip_message)
    assert set(put(in_s3)) == set(QUIET)
    assert put(in_s3)["WaitingUploads"] == 1


def test_command_prints_metrics_and_sends_them_only_on_request(
    in_s3: AwsServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = CliRunner().invoke(main, ["metrics", "--json"])
    assert json.loads(printed.stdout)["WaitingUploads"] == 1
    refused = CliRunner().invoke(main, ["metrics", "--send"])
    assert (refused.exit_code, "TELEMETRY_METRICS_NAMESPACE is not set" in refused.output) == (1, True)
    monkeypatch.setenv("TELEMETRY_METRICS_NAMESPACE", NAMESPACE)
    CliRunner().invoke(main, ["metrics"])
    assert put(in_s3) == {}
    sent = CliRunner().invoke(main, ["metrics", "--send"])
    assert (sent.exit_code, "WaitingUploads" in sent.output) == (0, True), sent.output
    assert put(in_s3)["WaitingUploads"] == 1
