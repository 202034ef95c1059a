"""The policies of ``infra/``, evaluated in Python with the tests' resource names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import hcl2

from telemetry_assets_tests.harness.aws.permissions import (
    APPLICATION,
    GLUE,
    GLUE_JOB,
    LAKEHOUSE,
    LANDING,
    ROLE,
    SCRIPTS,
    TESTS,
    Statement,
)
from telemetry_assets_tests.harness.terraform import INFRA

KEY = "arn:aws:kms:eu-central-1:111122223333:key/0123"
_LAYERS = ("bronze", "silver", "gold")
_VALUES: dict[str, Any] = {
    "module.landing.arn": f"arn:aws:s3:::{LANDING}",
    "module.lakehouse.arn": f"arn:aws:s3:::{LAKEHOUSE}",
    "module.scripts.arn": f"arn:aws:s3:::{SCRIPTS}",
    "module.query_results.arn": "arn:aws:s3:::my-fleet-results",
    "local.lakehouse_prefix": "telemetry",
    "local.scripts_prefix": "telemetry",
    "local.metrics_namespace": "TelemetryAssets",
    "local.glue_arn": GLUE.rstrip(":"),
    "local.glue_job_arn": GLUE_JOB,
    "local.catalog_arns": [
        f"{GLUE}catalog",
        *(f"{GLUE}database/{layer}" for layer in _LAYERS),
        *(f"{GLUE}table/{layer}/*" for layer in _LAYERS),
    ],
    "local.pipeline_contents": [
        f"arn:aws:s3:::{bucket}{below}" for bucket in (LANDING, LAKEHOUSE, SCRIPTS) for below in ("", "/*")
    ],
    "local.partition": "aws",
    "local.account": "111122223333",
    "var.region": "eu-central-1",
    "aws_iam_role.job[0].arn": ROLE,
    "aws_emrserverless_application.this[0].arn": APPLICATION,
    "aws_athena_workgroup.this.arn": "arn:aws:athena:eu-central-1:111122223333:workgroup/fleet",
    "statement.value": KEY,
}
_REFERENCE = re.compile(r"\$\{([^}]+)}")

Block = dict[str, Any]


def blocks(block: Block) -> Iterator[Block]:
    """The statements of a policy document, including those that depend on an option."""
    yield from block.get("statement", [])
    for dynamic in block.get("dynamic", []):
        yield from dynamic.get('"statement"', {}).get("content", [])


def documents() -> Iterator[tuple[str, str, Block]]:
    """Every policy document of ``infra/``: the name of its file, its own name, and its content."""
    for path in sorted(INFRA.rglob("*.tf")):
        if ".terraform" in path.parts:
            continue
        with path.open() as file:
            read = hcl2.load(file)
        for data in read.get("data", []):
            for name, document in data.get('"aws_iam_policy_document"', {}).items():
                yield path.stem, name.strip('"'), document


@cache
def policy(name: str) -> list[Statement]:
    """The statements of a policy in ``iam_policies.tf``, with every option enabled."""
    [document] = [block for file, one, block in documents() if (file, one) == ("iam_policies", name)]
    return [_statement(block) for block in blocks(document)]


def _statement(block: Block) -> Statement:
    conditions = {}
    for condition in block.get("condition", []):
        assert condition["test"].strip('"') in TESTS, condition
        conditions[condition["variable"].strip('"')] = _resolved(condition["values"])
    return Statement(_resolved(block["actions"]), _resolved(block["resources"]), conditions)


def _resolved(values: Any) -> tuple[str, ...]:
    if isinstance(values, str):
        return tuple(_VALUES[values.removeprefix("${").removesuffix("}")])
    return tuple(_REFERENCE.sub(lambda found: str(_VALUES[found[1]]), value).strip('"') for value in values)
