"""The permissions that requests need, policies that allow them, and all requests of a deployment on one machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from telemetry_assets.ingestion.journal.base import ReplaySelection
from telemetry_assets.lakehouse.doctor import examine
from telemetry_assets.tables import ALERTS, all_tables
from telemetry_assets_tests.harness.aws.api_requests import Request
from telemetry_assets_tests.harness.aws.services import AwsServices
from telemetry_assets_tests.harness.deployment import deployment_in_s3
from telemetry_assets_tests.harness.made_documents import event, framed

LANDING, LAKEHOUSE, SCRIPTS = "my-fleet-landing", "my-fleet-lakehouse", "my-fleet-scripts"
GLUE = "arn:aws:glue:eu-central-1:111122223333:"
GLUE_JOB = f"{GLUE}job/fleet-steps"
APPLICATION = "arn:aws:emr-serverless:eu-central-1:111122223333:/applications/00f1"
ROLE = "arn:aws:iam::111122223333:role/fleet-job"
_LOGS = "arn:aws:logs:eu-central-1:111122223333:log-group:"

# Actions of S3 operations whose action has another name.
_ACTIONS = {
    "ListObjectsV2": ("ListBucket",),
    "ListObjectVersions": ("ListBucketVersions",),
    "HeadObject": ("GetObject",),
    "CopyObject": ("PutObject",),
}
TESTS = ("StringEquals", "StringLike")
"""The condition operators that this module supports."""

Needed = tuple[str, str]
"""An action and its resource."""


def live(aws: AwsServices) -> None:
    """Run all that a deployment does: first run, corrections, deferred and replaced uploads, replay, doctor, repair,
    maintenance.
    """
    for bucket in (LANDING, LAKEHOUSE):
        aws.make_bucket(bucket, versioned=bucket == LANDING)
    places: dict[str, Any] = {"landing_uri": f"s3://{LANDING}", "lakehouse_uri": f"s3://{LAKEHOUSE}/telemetry"}
    maintained: dict[str, Any] = {"snapshots_min": 1, "snapshot_retention_hours": 1e-6, "orphan_age_hours": 1e-6}
    retention: dict[str, Any] = {"archive_retention_days": 1e-6, "rejected_retention_days": 1e-6}
    with deployment_in_s3(aws, batch_max_bytes=20_000, **maintained, **retention, **places) as deployed:
        for number in range(3):
            padded = [event(str(number), padding="x" * 1_000, engineTempCelsius=120) for _ in range(10)]
            for content in (b"{}", framed([*padded, {}], "gzip")[1]):
                deployed.upload(f"{number}.jsonl.gz", content)
        deployed.process()
        deployed.pipeline.replay_rejected(ReplaySelection(), "replay")
        deployed.pipeline.lakehouse.catalog.drop_table(ALERTS.identifier)
        for finding in examine(deployed.pipeline.lakehouse):
            if finding.repair:
                finding.repair()
        glue = aws.client("glue")
        entry = glue.get_table(DatabaseName="gold", Name="performance_alerts")["Table"]
        kept = {name: entry[name] for name in ("Name", "TableType", "Parameters")}
        glue.update_table(DatabaseName="gold", TableInput={**kept, "StorageDescriptor": {"Columns": []}})
        for finding in examine(deployed.pipeline.lakehouse):
            if finding.repair:
                finding.repair()
        deployed.process()
        list(deployed.pipeline.maintain(all_tables()))
        deployed.pipeline.clean_up("maintain")


def needed(request: Request) -> Iterable[Needed]:
    """The actions that a request needs, each with its resource."""
    if request.service in _OF_OTHERS:
        yield from _OF_OTHERS[request.service](request)
    elif request.service == "glue" and "Job" in request.operation:
        yield f"glue:{request.operation}", GLUE_JOB
    elif request.service == "glue":
        yield f"glue:{request.operation}", f"{GLUE}catalog"
        yield f"glue:{request.operation}", f"{GLUE}database/{request.bucket or request.key}"
        if "Table" in request.operation:
            yield f"glue:{request.operation}", f"{GLUE}table/{request.bucket}/{request.key}"
    else:
        assert request.service == "s3", request
        yield from _of_s3(request)


def refused(statements: list[Statement], requests: Iterable[Request]) -> set[Needed]:
    """The permissions that requests need and no statement allows."""
    return {
        pair for request in requests for pair in needed(request) if not allowed(statements, *pair, **_context(request))
    }


def _context(request: Request) -> dict[str, str]:
    """A request's values by condition key."""
    return {"prefix": request.key, "namespace": request.names, "PassedToService": f"{request.service}.amazonaws.com"}


def _of_emr_serverless(request: Request) -> Iterable[Needed]:
    run = f"{APPLICATION}/jobruns/{request.key or '00run'}"
    yield f"emr-serverless:{request.operation}", run if request.key else APPLICATION
    if request.operation == "StartJobRun":
        yield "emr-serverless:TagResource", run
        yield "iam:PassRole", request.names


_OF_OTHERS: dict[str, Callable[[Request], Iterable[Needed]]] = {
    "emr-serverless": _of_emr_serverless,
    "logs": lambda request: [(f"logs:{request.operation}", f"{_LOGS}{request.names}:log-stream:00run")],
    "monitoring": lambda request: [(f"cloudwatch:{request.operation}", "*")],
    # GetCallerIdentity needs no permission.
    "sts": lambda request: [] if request.operation == "GetCallerIdentity" else [(f"sts:{request.operation}", "*")],
}


def _of_s3(request: Request) -> Iterable[Needed]:
    if request.operation == "DeleteObjects":
        yield from (("s3:DeleteObject", f"arn:aws:s3:::{request.bucket}/{key}") for key in request.names.split("\n"))
        return
    on_bucket = request.operation.startswith(("List", "GetBucket"))
    resource = f"arn:aws:s3:::{request.bucket}{'' if on_bucket else f'/{request.key}'}"
    for action in _ACTIONS.get(request.operation, (request.operation,)):
        yield f"s3:{action}", resource
    if request.operation == "CopyObject":
        yield "s3:GetObject", f"arn:aws:s3:::{LANDING}/{request.key.rsplit('/', 1)[-1]}"
    if request.operation == "DeleteObject" and request.bucket == LANDING:
        yield "s3:DeleteObjectVersion", resource


@dataclass(frozen=True)
class Statement:
    """A statement with the effect ``Allow``.

    :param conditions: patterns by condition key; a request's value must match one of them.
    """

    actions: tuple[str, ...]
    resources: tuple[str, ...]
    conditions: Mapping[str, tuple[str, ...]]

    def allows(self, action: str, resource: str, context: Mapping[str, str]) -> bool:
        """Whether the statement allows a request; a condition fails if the request lacks its key."""
        return (
            action in self.actions
            and any(fnmatchcase(resource, pattern) for pattern in self.resources)
            and all(
                key in context and any(fnmatchcase(context[key], pattern) for pattern in patterns)
                for key, patterns in self.conditions.items()
            )
        )


def statements_of(policy: str) -> list[Statement]:
    """The statements of a policy in JSON; an unsupported condition operator raises an error."""
    read = []
    for one in json.loads(policy)["Statement"]:
        conditions = one.get("Condition", {})
        assert set(conditions) <= set(TESTS), conditions
        held = {key: _texts(values) for keys in conditions.values() for key, values in keys.items()}
        read.append(Statement(_texts(one["Action"]), _texts(one["Resource"]), held))
    return read


def _texts(value: str | list[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def allowed(statements: list[Statement], action: str, resource: str, **context: str) -> bool:
    """Whether any statement allows a request.

    :param context: the request's values by condition key without its service, e.g. ``prefix`` for ``s3:prefix``.
    """
    service = action.partition(":")[0]
    conditions = {f"{service}:{key}": value for key, value in context.items()}
    return any(statement.allows(action, resource, conditions) for statement in statements)
