"""``make aws-check`` checks that an account has what the settings need, and reports what is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from telemetry_assets.errors import SettingsError
from telemetry_assets.monitoring.smoke_test import check
from telemetry_assets.pipeline import open_pipeline
from telemetry_assets.settings import Settings
from telemetry_assets.tables import ALERTS
from telemetry_assets_tests.harness.aws.fault_proxy import FaultProxy
from telemetry_assets_tests.harness.aws.faults import Fault, FaultKind
from telemetry_assets_tests.harness.aws.services import PRODUCT, AwsServices
from telemetry_assets_tests.harness.deployment import BUCKET, IN_S3, keys

pytestmark = pytest.mark.long

Checked = Callable[..., tuple[bool, list[str]]]


@pytest.fixture
def proxy(aws: AwsServices, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A proxy between the product and an account with a bucket, to refuse requests."""
    aws.make_bucket(BUCKET)
    with FaultProxy(aws.endpoint) as one:
        monkeypatch.setenv("AWS_ENDPOINT_URL", one.endpoint)
        yield one


@pytest.fixture
def checked(proxy: FaultProxy) -> Checked:
    def of(**settings: Any) -> tuple[bool, list[str]]:
        lines: list[str] = []
        return check(Settings(**{**IN_S3, **settings}), lines.append), lines

    return of


def test_complete_account_passes_and_nothing_is_left_in_it(checked: Checked, aws: AwsServices) -> None:
    is_whole, lines = checked(metrics_namespace="TelemetryAssets")
    assert is_whole, lines
    assert [line.split()[0] for line in lines] == ["ok"] * 5
    assert "123456789012" in lines[0]
    assert "region eu-central-1" in lines[0]
    left = keys(aws.client("s3"), Settings(**IN_S3).lakehouse_in_s3())
    assert [key for key in left if "check" in key] == []
    with open_pipeline(Settings(**IN_S3)) as pipeline:
        assert not [name for name in pipeline.lakehouse.table(ALERTS).properties if "check" in name]
    # A metric that no alarm uses.
    [metric] = aws.client("cloudwatch").list_metrics(Namespace="TelemetryAssets")["Metrics"]
    assert metric["MetricName"] == "AccountChecks"


def test_missing_bucket_is_named_and_the_rest_is_checked(checked: Checked) -> None:
    is_whole, lines = checked(landing_uri="s3://nowhere")
    assert not is_whole
    assert [line.split()[0] for line in lines] == ["ok", "MISSING", "ok", "ok"]
    assert "nowhere" in lines[1]
    assert "Create the bucket" in lines[1]


@pytest.mark.parametrize(
    ("operation", "key", "title"),
    [
        ("ListObjectsV2", "landing/", "uploads can be listed and read"),
        ("GetObject", "landing/.telemetry-assets-check", "uploads can be listed and read"),
        ("PutObject", "ingestion/.telemetry-assets-check", "the lakehouse can be written, read and deleted from"),
        ("GetObject", "ingestion/.telemetry-assets-check", "the lakehouse can be written, read and deleted from"),
        ("DeleteObject", "ingestion/.telemetry-assets-check", "the lakehouse can be written, read and deleted from"),
        ("GetBucketVersioning", "", "uploads can be listed and read"),
        ("ListObjectVersions", "landing/", "uploads can be listed and read"),
        ("CreateTable", "", "tables exist or can be created"),
        ("UpdateTable", "performance_alerts", "tables exist or can be created"),
    ],
)
def test_missing_permission_is_reported_with_its_purpose(
    checked: Checked, proxy: FaultProxy, operation: str, key: str, title: str
) -> None:
    proxy.inject(Fault(FaultKind.ACCESS_DENIED, operation, key))
    is_whole, lines = checked()
    [missing] = [line for line in lines if line.startswith("MISSING")]
    assert not is_whole
    assert title in missing
    assert "AccessDenied" in missing


def test_no_step_is_submitted_if_something_else_is_missing(checked: Checked, aws: AwsServices) -> None:
    remote = {"engine": "glue", "scripts_uri": f"s3://{BUCKET}/scripts", "glue_job_name": "nothing"}
    is_whole, lines = checked(**remote)
    assert not is_whole
    assert "There is no Glue job nothing" in lines[-2]
    assert "There is no package of this code" in lines[-2]
    assert lines[-1].startswith("not tried  a remote step")
    assert "StartJobRun" not in {request.operation for key, request in aws.take_requests() if key == PRODUCT}


def test_settings_without_aws_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="is a folder, so there is nothing to check in AWS"):
        check(Settings(lakehouse_uri=str(tmp_path)), print)
