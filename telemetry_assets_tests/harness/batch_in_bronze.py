"""A deployment with a batch in Bronze, whose next step runs remotely."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from telemetry_assets.pipeline import open_pipeline
from telemetry_assets.settings import Settings
from telemetry_assets_tests.harness.aws.remote_account import RemoteAccount
from telemetry_assets_tests.harness.deployment import DeploymentInS3
from telemetry_assets_tests.harness.made_documents import event, framed
from telemetry_assets_tests.harness.waiting import until

SUCCESS = {"emr_serverless": "SUCCESS", "glue": "SUCCEEDED"}
CANCELLED = {"emr_serverless": "CANCELLED", "glue": "STOPPED"}


@contextmanager
def with_a_batch_in_bronze(account: RemoteAccount, engine: str, **settings: Any) -> Iterator[DeploymentInS3]:
    chosen = Settings(**account.settings(engine, **settings))
    with open_pipeline(chosen) as pipeline:
        deployed = DeploymentInS3(chosen, pipeline, client=account.aws.client("s3"))
        deployed.upload("x.json", framed([event(engineTempCelsius=120)], "array")[1])
        pipeline.ingest("a run")
        yield deployed


def states(account: RemoteAccount, deployed: DeploymentInS3) -> list[str]:
    return [state for _, state in account.runs(deployed.settings)]


def cancel_when_running(account: RemoteAccount, deployed: DeploymentInS3) -> None:
    until(lambda: "RUNNING" in states(account, deployed))
    [run_id] = [run_id for run_id, state in account.runs(deployed.settings) if state == "RUNNING"]
    account.cancel(deployed.settings, run_id)
