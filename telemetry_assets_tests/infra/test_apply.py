"""Applies ``infra/`` to an empty account, processes uploads with the created resources, and destroys them."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from dotenv import dotenv_values

from telemetry_assets.engines.package.build import build_package, upload_package
from telemetry_assets.monitoring.smoke_test import check
from telemetry_assets.pipeline import open_pipeline
from telemetry_assets.settings import Settings, project_root
from telemetry_assets_tests.harness.aws.api_requests import Request
from telemetry_assets_tests.harness.aws.permissions import (
    APPLICATION,
    LAKEHOUSE,
    LANDING,
    ROLE,
    SCRIPTS,
    Statement,
    needed,
    refused,
    statements_of,
)
from telemetry_assets_tests.harness.aws.remote_programs import PROGRAM
from telemetry_assets_tests.harness.aws.services import PRODUCT, AwsServices
from telemetry_assets_tests.harness.deployment import DeploymentInS3
from telemetry_assets_tests.harness.java import need_java
from telemetry_assets_tests.harness.made_documents import event, framed
from telemetry_assets_tests.harness.terraform import INFRA, Configuration, terraform

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(terraform() is None, reason="neither Terraform nor OpenTofu is on this machine"),
]
# moto does not support subscribers of a budget.
_VALUES = """
name               = "fleet"
region             = "eu-central-1"
compute            = ["emr_serverless", "glue"]
create_kms_key     = true
monthly_budget_usd = null
"""


_ACCOUNT = "123456789012"
# Actions without requests in this test: moto does not record uses of a key; other tests cover aborted uploads,
# canceled runs and requests for driver logs.
_NOT_SEEN = {
    "kms:Decrypt",
    "kms:GenerateDataKey",
    "s3:AbortMultipartUpload",
    "emr-serverless:CancelJobRun",
    "glue:BatchStopJobRun",
    "logs:GetLogEvents",
}
# s3:ListBucket only changes the answer for a missing object from 403 to 404; Glue itself writes the logs of its runs.
_NOT_SEEN_OF_PROGRAMS = {
    "kms:Decrypt",
    "kms:GenerateDataKey",
    "s3:AbortMultipartUpload",
    "s3:ListBucket",
    "logs:CreateLogGroup",
    "logs:CreateLogStream",
    "logs:PutLogEvents",
}


@pytest.fixture
def applied(aws: AwsServices, tmp_path: Path) -> Configuration:
    configuration = Configuration(tmp_path / "infra", aws.environment())
    (configuration.folder / "fleet.auto.tfvars").write_text(_VALUES)
    output = configuration.run("apply", "-auto-approve")
    assert "0 changed, 0 destroyed" in output
    return configuration


def settings_of(configuration: Configuration, folder: Path, engine: str) -> Settings:
    """The settings of the outputs, with short waits for tests."""
    path = folder / ".env"
    path.write_text(configuration.outputs()["dotenv"])
    given = {name.removeprefix("TELEMETRY_").lower(): value for name, value in dotenv_values(path).items()}
    return Settings(**{**given, "engine": engine, "remote_poll_seconds": 0.2})  # type: ignore[arg-type]  # texts


def names_of_policies(configuration: Configuration, aws: AwsServices) -> dict[str, str]:
    """The names of resources in the account, mapped to the names in the tests' requests and policies."""
    suffix = f"{_ACCOUNT}-eu-central-1"
    buckets = {"landing": LANDING, "lakehouse": LAKEHOUSE, "scripts": SCRIPTS}
    application = aws.client("emr-serverless").list_applications()["applications"][0]
    return {
        **{f"fleet-{bucket}-{suffix}": name for bucket, name in buckets.items()},
        application["arn"]: APPLICATION,
        f"arn:aws:iam::{_ACCOUNT}:role/fleet-job-eu-central-1": ROLE,
        _ACCOUNT: "111122223333",
    }


def applied_policy(name: str, aws: AwsServices, names: dict[str, str]) -> list[Statement]:
    """The statements of a policy that Terraform has created in IAM."""
    iam = aws.client("iam")
    [arn] = [one["Arn"] for one in iam.list_policies(Scope="Local")["Policies"] if one["PolicyName"].startswith(name)]
    version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
    document = json.dumps(iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"])
    for applied, known in names.items():
        document = document.replace(applied, known)
    return statements_of(document)


def unused(statements: list[Statement], requests: list[Request]) -> set[str]:
    """The actions that a policy grants and no request needed."""
    granted = {action for statement in statements for action in statement.actions}
    return granted - {action for request in requests for action, _ in needed(request)}


def test_a_second_apply_changes_nothing(applied: Configuration) -> None:
    assert "No changes." in applied.run("plan", "-detailed-exitcode")


def test_uploads_reach_gold_in_created_resources_and_data_is_not_destroyed_by_default(
    applied: Configuration, aws: AwsServices, tmp_path: Path
) -> None:
    need_java()
    folder = project_root() / "dist"
    folder.mkdir(exist_ok=True)
    package = build_package(folder)
    aws.take_requests()
    for number, engine in enumerate(("emr_serverless", "glue", "embedded")):
        settings = settings_of(applied, tmp_path, engine)
        upload_package(folder, package, settings)
        lines: list[str] = []
        assert check(settings, lines.append), lines
        with open_pipeline(settings) as pipeline:
            deployed = DeploymentInS3(settings, pipeline, client=aws.client("s3"))
            deployed.upload(f"{number}.json", framed([event(str(number), engineTempCelsius=160)], "array")[1])
            deployed.process()
            deployed.recall_batches()
            deployed.assert_equals_the_contract()
    assert_policies_allow_exactly_the_requests(applied, aws)

    with pytest.raises(AssertionError, match="BucketNotEmpty"):
        applied.run("destroy", "-auto-approve")
    databases = aws.client("glue").get_databases()["DatabaseList"]
    assert {one["Name"] for one in databases} == {"bronze", "silver", "gold"}

    (applied.folder / "fleet.auto.tfvars").write_text(f"{_VALUES}delete_data_on_destroy = true\n")
    applied.run("apply", "-auto-approve")
    assert "Destroy complete!" in applied.run("destroy", "-auto-approve")
    assert aws.client("s3").list_buckets()["Buckets"] == []


def assert_policies_allow_exactly_the_requests(configuration: Configuration, aws: AwsServices) -> None:
    names = names_of_policies(configuration, aws)
    api_requests = [
        (
            who,
            replace(
                request,
                bucket=names.get(request.bucket, request.bucket),
                names=names.get(request.names, request.names),
            ),
        )
        for who, request in aws.take_requests()
    ]
    for who, name, not_seen in ((PRODUCT, "orchestrator", _NOT_SEEN), (PROGRAM, "job", _NOT_SEEN_OF_PROGRAMS)):
        statements = applied_policy(f"fleet-{name}", aws, names)
        requests = [request for key, request in api_requests if key == who]
        assert refused(statements, requests) == set(), name
        assert unused(statements, requests) == not_seen, name


def test_data_removed_from_the_state_is_kept_and_can_be_imported_again(
    applied: Configuration, aws: AwsServices
) -> None:
    kept = ["module.landing", "module.lakehouse", "module.access_logs", "aws_glue_catalog_database.this"]
    applied.run("state", "rm", *kept, "aws_kms_key.this", "aws_kms_alias.this")
    applied.run("destroy", "-auto-approve")
    names = {one["Name"].split("-")[1] for one in aws.client("s3").list_buckets()["Buckets"]}
    assert names == {"landing", "lakehouse", "access"}
    assert len(aws.client("glue").get_databases()["DatabaseList"]) == 3

    [key] = aws.client("kms").list_keys()["Keys"]
    values = {"name": "fleet", "account": _ACCOUNT, "region": "eu-central-1", "key": key["KeyId"]}
    imports = re.findall(r"^terraform import (.*)$", (INFRA / "README.md").read_text(), re.MULTILINE)
    assert len(imports) == 8
    for line in imports:
        applied.run("import", *shlex.split(re.sub(r"<(\w+)>", lambda found: values[found[1]], line)))
    assert " 0 destroyed" in applied.run("apply", "-auto-approve")
    assert "No changes." in applied.run("plan", "-detailed-exitcode")
    assert len(aws.client("kms").list_keys()["Keys"]) == 1
