"""The output and exit codes of ``telemetry-assets doctor``."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner, Result
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.types import StringType

from telemetry_assets.aws.limits import RETRIES
from telemetry_assets.cli.main import main
from telemetry_assets.tables import BRONZE, SILVER, UPLOADS, all_tables
from telemetry_assets_tests.harness.aws.services import AwsServices
from telemetry_assets_tests.harness.deployment import BUCKET, IN_S3, Deployment


@pytest.fixture
def deployed(in_each_catalog: Deployment) -> Deployment:
    return in_each_catalog


@pytest.fixture
def doctor(deployed: Deployment, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("landing_uri", "lakehouse_uri", "catalog"):
        monkeypatch.setenv(f"TELEMETRY_{name.upper()}", getattr(deployed.settings, name))
    return run_doctor


def run_doctor(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["doctor", *arguments])


def test_it_repairs_what_is_safe_and_exits_with_0(deployed: Deployment, doctor: Any) -> None:
    deployed.pipeline.lakehouse.catalog.drop_table(BRONZE.identifier)
    looked = doctor()
    assert looked.exit_code == 1
    assert "`telemetry-assets doctor --repair` repairs it" in looked.output
    repaired = doctor("--repair")
    assert (repaired.exit_code, "All is well." in repaired.output) == (0, True)
    assert "repaired: the catalog points at" in repaired.output


def test_it_says_why_it_does_not_repair_the_rest(deployed: Deployment, doctor: Any) -> None:
    with deployed.pipeline.lakehouse.table(SILVER).update_schema() as update:
        update.add_column("nickname", StringType())
    repaired = doctor("--repair")
    assert repaired.exit_code == 1
    assert "this command cannot repair it" in repaired.output
    assert repaired.output.endswith("Found 1 problem; see above.\n")


def test_an_archived_upload_without_its_rows_is_found_and_moved_back(deployed: Deployment, doctor: Any) -> None:
    deployed.pipeline.lakehouse.table(BRONZE).delete(AlwaysTrue())
    looked = doctor()
    assert looked.exit_code == 1
    assert "`telemetry-assets doctor --repair` repairs it" in looked.output
    documents = len(deployed.rows(UPLOADS))
    assert doctor("--repair").exit_code == 0
    deployed.process()
    assert len(deployed.rows(UPLOADS)) == documents
    assert "every archived upload has its rows" in doctor().output


def test_missing_bucket_is_named_and_everything_else_is_examined(
    aws: AwsServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws.make_bucket(BUCKET)
    for name, value in {**IN_S3, "landing_uri": "s3://nowhere"}.items():
        monkeypatch.setenv(f"TELEMETRY_{name.upper()}", value)
    looked = run_doctor()
    assert looked.exit_code == 1
    assert "(NoSuchBucket)" in looked.output
    assert "(nowhere). Create the bucket, or correct TELEMETRY_LANDING_URI" in looked.output
    assert looked.output.count("does not exist yet") == len(all_tables())


def test_unreachable_endpoint_is_reported_with_its_environment_variable(
    aws: AwsServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in IN_S3.items():
        monkeypatch.setenv(f"TELEMETRY_{name.upper()}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    # Requests to an endpoint that refuses connections are retried for half a minute.
    monkeypatch.setitem(RETRIES, "total_max_attempts", 2)
    looked = run_doctor()
    assert looked.exit_code == 1
    assert "Could not connect to the endpoint URL" in looked.output
    assert "AWS_ENDPOINT_URL" in looked.output
