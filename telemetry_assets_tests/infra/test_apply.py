"""Applied to an empty account, used, and taken away again: the life of a lakehouse in AWS."""

from __future__ import annotations

from pathlib import Path

import pytest
from dotenv import dotenv_values

from telemetry_assets.engines.package import build_package, upload_package
from telemetry_assets.pipeline import open_pipeline
from telemetry_assets.settings import Settings, project_root
from telemetry_assets_tests.aws.services import AwsServices
from telemetry_assets_tests.deployment import DeploymentInS3
from telemetry_assets_tests.infra.terraform import Configuration, terraform
from telemetry_assets_tests.java import need_java
from telemetry_assets_tests.made_documents import event, framed

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(terraform() is None, reason="neither Terraform nor OpenTofu is on this machine"),
]
# moto knows no subscriber of a budget.
_VALUES = """
name               = "fleet"
region             = "eu-central-1"
compute            = ["emr_serverless", "glue"]
create_kms_key     = true
monthly_budget_usd = null
"""


@pytest.fixture
def applied(aws: AwsServices, tmp_path: Path) -> Configuration:
    configuration = Configuration(tmp_path / "infra", aws.environment())
    (configuration.folder / "fleet.auto.tfvars").write_text(_VALUES)
    told = configuration.run("apply", "-auto-approve")
    assert "0 changed, 0 destroyed" in told
    return configuration


def settings_of(configuration: Configuration, folder: Path, engine: str) -> Settings:
    """As the outputs say, and as quick as tests are."""
    path = folder / ".env"
    path.write_text(configuration.outputs()["dotenv"])
    given = {name.removeprefix("TELEMETRY_").lower(): value for name, value in dotenv_values(path).items()}
    return Settings(**{**given, "engine": engine, "remote_poll_seconds": 0.2})  # type: ignore[arg-type]  # texts


def test_a_second_apply_changes_nothing(applied: Configuration) -> None:
    assert "No changes." in applied.run("plan", "-detailed-exitcode")


def test_uploads_go_to_gold_in_what_was_made_and_nothing_that_holds_data_is_destroyed_unasked(
    applied: Configuration, aws: AwsServices, tmp_path: Path
) -> None:
    need_java()
    folder = project_root() / "dist"
    folder.mkdir(exist_ok=True)
    package = build_package(folder)
    for number, engine in enumerate(("emr_serverless", "glue", "embedded")):
        settings = settings_of(applied, tmp_path, engine)
        upload_package(folder, package, settings)
        with open_pipeline(settings) as pipeline:
            deployed = DeploymentInS3(settings, pipeline, client=aws.client("s3"))
            deployed.upload(f"{number}.json", framed([event(str(number), engineTempCelsius=160)], "array")[1])
            deployed.process()
            deployed.recall_batches()
            deployed.assert_equals_the_contract()

    with pytest.raises(AssertionError, match="BucketNotEmpty"):
        applied.run("destroy", "-auto-approve")
    databases = aws.client("glue").get_databases()["DatabaseList"]
    assert {one["Name"] for one in databases} == {"bronze", "silver", "gold"}

    (applied.folder / "fleet.auto.tfvars").write_text(f"{_VALUES}delete_data_on_destroy = true\n")
    applied.run("apply", "-auto-approve")
    assert "Destroy complete!" in applied.run("destroy", "-auto-approve")
    assert aws.client("s3").list_buckets()["Buckets"] == []


def test_data_is_kept_where_terraform_has_forgotten_it_before(applied: Configuration, aws: AwsServices) -> None:
    kept = ["module.landing", "module.lakehouse", "module.access_logs", "aws_glue_catalog_database.this"]
    applied.run("state", "rm", *kept, "aws_kms_key.this", "aws_kms_alias.this")
    applied.run("destroy", "-auto-approve")
    names = {one["Name"].split("-")[1] for one in aws.client("s3").list_buckets()["Buckets"]}
    assert names == {"landing", "lakehouse", "access"}
    assert len(aws.client("glue").get_databases()["DatabaseList"]) == 3
