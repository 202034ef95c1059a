"""Behaviour of the tables that is specific to the Glue Data Catalog and S3."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pyiceberg.catalog.glue import GlueCatalog

from telemetry_assets.aws.limits import RETRIES
from telemetry_assets.errors import AwsError, SettingsError
from telemetry_assets.lakehouse.commits import set_table_properties
from telemetry_assets.pipeline import open_pipeline
from telemetry_assets.settings import Settings
from telemetry_assets.tables import BRONZE, SILVER, all_tables
from telemetry_assets_tests.harness.aws.fault_proxy import FaultProxy
from telemetry_assets_tests.harness.aws.faults import Fault, FaultKind
from telemetry_assets_tests.harness.aws.services import AwsServices
from telemetry_assets_tests.harness.deployment import IN_S3, DeploymentInS3, deployment_in_s3, keys
from telemetry_assets_tests.harness.made_documents import event, framed


@pytest.fixture
def deployed(aws: AwsServices) -> Iterator[DeploymentInS3]:
    """An empty deployment in S3."""
    with deployment_in_s3(aws) as one:
        yield one


def send_one(deployed: DeploymentInS3) -> None:
    deployed.upload("x.json", framed([event(engineTempCelsius=120), {}], "array")[1])
    deployed.process()


def test_every_entry_shows_the_columns_of_the_contract(deployed: DeploymentInS3, aws: AwsServices) -> None:
    send_one(deployed)
    for contract in all_tables():
        entry = aws.client("glue").get_table(DatabaseName=contract.layer, Name=contract.name)["Table"]
        assert entry["Parameters"]["table_type"] == "ICEBERG"
        assert [column["Name"] for column in entry["StorageDescriptor"]["Columns"]] == list(contract.column_names)
        assert entry["StorageDescriptor"]["Location"] == deployed.pipeline.lakehouse.table_location(contract)


def test_any_engine_of_the_catalog_reads_the_tables(deployed: DeploymentInS3, aws: AwsServices) -> None:
    send_one(deployed)
    properties: dict[str, Any] = {"s3.endpoint": aws.endpoint}
    catalog = GlueCatalog("analyst", **properties)
    alerts = catalog.load_table("gold.performance_alerts").scan().to_arrow().to_pylist()
    assert [alert["alert_type"] for alert in alerts] == ["OVERHEAT_ENGINE"]


@pytest.mark.long
def test_everything_that_is_written_is_encrypted_with_the_key_of_the_settings(aws: AwsServices) -> None:
    with deployment_in_s3(aws, kms_key_id="alias/telemetry") as deployed:
        send_one(deployed)
        lakehouse = keys(deployed.client, deployed.settings.lakehouse_in_s3())
        heads: list[Any] = [deployed.client.head_object(Bucket="cars", Key=key) for key in lakehouse]
        assert {(one["ServerSideEncryption"], one["SSEKMSKeyId"]) for one in heads} == {("aws:kms", "alias/telemetry")}


@pytest.mark.long
def test_buckets_may_be_in_other_regions_than_the_catalog(aws: AwsServices, monkeypatch: pytest.MonkeyPatch) -> None:
    # Unlike AWS's other tools, boto3 reads AWS_DEFAULT_REGION only.
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    aws.make_bucket("landing-in-ohio", versioned=True, region="us-east-2")
    aws.make_bucket("lakehouse-in-oregon", region="us-west-2")
    locations = {"landing_uri": "s3://landing-in-ohio", "lakehouse_uri": "s3://lakehouse-in-oregon/telemetry"}
    with open_pipeline(Settings(**{**IN_S3, **locations})) as pipeline:
        aws.client("s3", region="us-east-2").put_object(
            Bucket="landing-in-ohio", Key="x.json", Body=framed([event()], "array")[1]
        )
        processed = pipeline.process("a run")
        assert [one.accepted for one in processed.batch_reports] == [1]
        assert pipeline.lakehouse.table(SILVER).scan().to_arrow().num_rows == 1
        assert list(pipeline.ingestion.landing.waiting()) == []


def test_a_lakehouse_prefix_that_engines_would_misread_is_refused(aws: AwsServices) -> None:
    settings = Settings(**{**IN_S3, "lakehouse_uri": "s3://cars/lake?house"})
    with pytest.raises(SettingsError, match="table locations must not contain"), open_pipeline(settings):
        pass


@pytest.mark.long
def test_property_set_despite_an_error_is_recognized(
    deployed: DeploymentInS3, aws: AwsServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed.process()
    with FaultProxy(aws.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        with open_pipeline(deployed.settings) as pipeline:
            proxy.inject(Fault(FaultKind.RESET_AFTER, "UpdateTable", times=5))
            set_table_properties(pipeline.lakehouse.table(SILVER), {"owner": "fleet"})
            assert pipeline.lakehouse.table(SILVER).properties["owner"] == "fleet"


@pytest.mark.long
def test_temporary_refusal_does_not_create_bronze_again(
    deployed: DeploymentInS3, aws: AwsServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    send_one(deployed)
    deployed.pipeline.lakehouse.catalog.drop_table(BRONZE.identifier)
    monkeypatch.setitem(RETRIES, "total_max_attempts", 1)
    with FaultProxy(aws.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        proxy.inject(Fault(FaultKind.SLOW_DOWN, "GetObject", "bronze/car_telemetry/metadata", times=100))
        with open_pipeline(deployed.settings) as pipeline, pytest.raises(OSError, match="reduce your request rate"):
            pipeline.process("test-run")
    assert deployed.pipeline.lakehouse.existing(BRONZE) is None


class TestErrorMessages:
    """The errors that a user sees if AWS does not match the settings."""

    def test_missing_bucket(self, aws: AwsServices) -> None:
        with (
            pytest.raises(AwsError, match="Create the bucket"),
            open_pipeline(Settings(**IN_S3)) as pipeline,
        ):
            pipeline.ingestion.has_work()

    def test_no_credentials(self, aws: AwsServices, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        with pytest.raises(AwsError, match="No AWS credentials"), open_pipeline(Settings(**IN_S3)) as pipeline:
            pipeline.ingestion.has_work()

    def test_no_region(self, aws: AwsServices, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
            monkeypatch.delenv(name)
        with pytest.raises(AwsError, match="Set AWS_REGION"), open_pipeline(Settings(**IN_S3)):
            pass

    def test_missing_permission(
        self, deployed: DeploymentInS3, aws: AwsServices, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with FaultProxy(aws.endpoint) as proxy:
            monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
            proxy.inject(Fault(FaultKind.ACCESS_DENIED, "GetTable"))
            with (
                open_pipeline(deployed.settings) as pipeline,
                pytest.raises(AwsError, match=r"GetTable.*has the policy"),
            ):
                pipeline.process("test-run")
