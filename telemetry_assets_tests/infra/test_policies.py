"""What the policies of ``infra/`` allow and deny. Needs Python only, not Terraform."""

from __future__ import annotations

import pytest

from telemetry_assets_tests.harness.aws.fault_proxy import FaultProxy
from telemetry_assets_tests.harness.aws.permissions import (
    APPLICATION,
    GLUE,
    LAKEHOUSE,
    LANDING,
    ROLE,
    SCRIPTS,
    allowed,
    refused,
)
from telemetry_assets_tests.harness.aws.permissions import live as live_on_one_machine
from telemetry_assets_tests.harness.aws.services import AwsServices
from telemetry_assets_tests.harness.policies import (
    KEY,
    Block,
    blocks,
    documents,
    policy,
)

# Statements with principals belong to resource policies and trust policies.
STATEMENTS = [
    pytest.param(statement, id=f"{file}-{name}-{number}")
    for file, name, document in documents()
    for number, statement in enumerate(blocks(document))
    if "principals" not in statement
]
# Terraform creates the databases, and the tests themselves drop a table.
NOT_THE_PROJECTS_OWN = {"CreateDatabase", "DeleteTable"}


def test_all_policies_are_examined() -> None:
    assert {name for _, name, _ in documents()} >= {"uploader", "orchestrator", "job", "analyst", "execution"}


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_statement_names_its_actions(statement: Block) -> None:
    assert statement["actions"]
    assert not [action for action in statement["actions"] if "*" in action]


@pytest.mark.parametrize("statement", STATEMENTS)
def test_statement_names_its_resources_or_comments_why_not(statement: Block) -> None:
    named = '"*"' not in statement["resources"]
    assert named or statement.get("__comments__"), statement


def test_orchestrator_may_do_all_that_a_deployment_on_one_machine_needs(
    aws: AwsServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    orchestrator = policy("orchestrator")
    with FaultProxy(aws.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        live_on_one_machine(aws)
    assert proxy.requests
    assert refused(orchestrator, (one for one in proxy.requests if one.operation not in NOT_THE_PROJECTS_OWN)) == set()


@pytest.mark.parametrize(
    ("who", "action", "resource"),
    [
        ("orchestrator", "s3:PutObject", f"arn:aws:s3:::{LANDING}/a.json"),
        ("orchestrator", "s3:DeleteObject", f"arn:aws:s3:::{SCRIPTS}/telemetry/packages/a.zip"),
        ("orchestrator", "s3:PutObject", f"arn:aws:s3:::{SCRIPTS}/telemetry/logs/a.gz"),
        ("orchestrator", "s3:GetObject", f"arn:aws:s3:::{LAKEHOUSE}/of-others/a"),
        ("orchestrator", "s3:DeleteObjectVersion", f"arn:aws:s3:::{LAKEHOUSE}/telemetry/gold/a.parquet"),
        ("orchestrator", "s3:PutBucketPolicy", f"arn:aws:s3:::{LAKEHOUSE}"),
        ("orchestrator", "glue:DeleteTable", f"{GLUE}table/gold/performance_alerts"),
        ("orchestrator", "glue:CreateDatabase", f"{GLUE}database/gold"),
        ("orchestrator", "glue:UpdateTable", f"{GLUE}table/of_others/a"),
        ("orchestrator", "glue:UpdateJob", f"{GLUE}job/fleet-steps"),
        ("orchestrator", "glue:StartJobRun", f"{GLUE}job/of-others"),
        ("orchestrator", "emr-serverless:StartJobRun", f"{APPLICATION}-of-others"),
        ("orchestrator", "emr-serverless:UpdateApplication", APPLICATION),
        ("orchestrator", "cloudwatch:PutMetricAlarm", "*"),
        ("orchestrator", "kms:ScheduleKeyDeletion", KEY),
        ("job", "s3:PutObject", f"arn:aws:s3:::{SCRIPTS}/telemetry/packages/entrypoint.py"),
        ("job", "s3:DeleteObject", f"arn:aws:s3:::{LANDING}/a.json"),
        ("job", "glue:CreateTable", f"{GLUE}table/gold/another"),
        ("job", "glue:DeleteTable", f"{GLUE}table/gold/performance_alerts"),
        ("job", "iam:PassRole", ROLE),
        ("analyst", "s3:GetObject", f"arn:aws:s3:::{LAKEHOUSE}/telemetry/silver/car_telemetry/data/a.parquet"),
        ("analyst", "s3:GetObject", f"arn:aws:s3:::{LAKEHOUSE}/telemetry/archive/a"),
        ("analyst", "s3:PutObject", f"arn:aws:s3:::{LAKEHOUSE}/telemetry/gold/a"),
        ("analyst", "glue:GetTable", f"{GLUE}table/default/a"),
        ("analyst", "glue:GetTable", f"{GLUE}table/bronze/car_telemetry"),
        ("analyst", "glue:UpdateTable", f"{GLUE}table/gold/performance_alerts"),
        ("uploader", "s3:GetObject", f"arn:aws:s3:::{LANDING}/a.json"),
        ("uploader", "s3:DeleteObject", f"arn:aws:s3:::{LANDING}/a.json"),
        ("uploader", "s3:PutObject", f"arn:aws:s3:::{LAKEHOUSE}/telemetry/gold/a"),
    ],
)
def test_a_policy_denies_everything_else(who: str, action: str, resource: str) -> None:
    assert not allowed(policy(who), action, resource)


@pytest.mark.parametrize("bucket", [LAKEHOUSE, SCRIPTS])
def test_the_orchestrator_lists_its_own_prefix_alone(bucket: str) -> None:
    orchestrator, resource = policy("orchestrator"), f"arn:aws:s3:::{bucket}"
    assert allowed(orchestrator, "s3:ListBucket", resource, prefix="telemetry/packages/")
    assert not allowed(orchestrator, "s3:ListBucket", resource, prefix="of-others/")
    assert not allowed(orchestrator, "s3:ListBucket", resource)


def test_the_orchestrator_puts_metrics_in_its_own_namespace_only() -> None:
    orchestrator = policy("orchestrator")
    assert allowed(orchestrator, "cloudwatch:PutMetricData", "*", namespace="TelemetryAssets")
    assert not allowed(orchestrator, "cloudwatch:PutMetricData", "*", namespace="AWS/Billing")


@pytest.mark.parametrize(
    ("who", "buckets"),
    [
        ("uploader", {LANDING}),
        ("orchestrator", {LANDING, LAKEHOUSE, SCRIPTS}),
        ("job", {LANDING, LAKEHOUSE, SCRIPTS}),
        ("analyst", {LAKEHOUSE, "my-fleet-results"}),
    ],
)
def test_key_is_for_objects_in_the_roles_own_buckets(who: str, buckets: set[str]) -> None:
    every = {LANDING, LAKEHOUSE, SCRIPTS, "my-fleet-results"}
    for action in ("kms:Decrypt", "kms:GenerateDataKey"):
        for place in ("", "/telemetry/a"):
            contexts = {bucket: {"EncryptionContext:aws:s3:arn": f"arn:aws:s3:::{bucket}{place}"} for bucket in every}
            assert {one for one, context in contexts.items() if allowed(policy(who), action, KEY, **context)} == buckets
        assert not allowed(policy(who), action, KEY)


def test_the_job_role_is_passed_to_emr_serverless_alone() -> None:
    orchestrator = policy("orchestrator")
    assert allowed(orchestrator, "iam:PassRole", ROLE, PassedToService="emr-serverless.amazonaws.com")
    assert not allowed(orchestrator, "iam:PassRole", ROLE, PassedToService="ec2.amazonaws.com")
    assert not allowed(
        orchestrator, "iam:PassRole", f"{ROLE}-of-others", PassedToService="emr-serverless.amazonaws.com"
    )
