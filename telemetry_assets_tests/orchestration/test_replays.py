"""The job `replay_rejected`, as a user starts it in the launchpad."""

from __future__ import annotations

from typing import Any

import pytest
from dagster import DagsterInstance, Definitions, Failure

from telemetry_assets.tables import REJECTED, SILVER
from telemetry_assets_tests.harness.dagster_runs import run
from telemetry_assets_tests.harness.deployment import Deployment
from telemetry_assets_tests.harness.made_documents import event, framed


def replay(defs: Definitions, instance: DagsterInstance, **config: Any) -> Any:
    """Run the job; raises the error that fails it."""
    ops = {"replay_rejected_documents": {"config": config}}
    return defs.resolve_job_def("replay_rejected").execute_in_process(run_config={"ops": ops}, instance=instance)


def test_next_ingest_takes_replayed_documents_to_silver(
    defs: Definitions, instance: DagsterInstance, deployed: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed.upload("x.json", framed([event(), event("CAR-2")], "array")[1])
    monkeypatch.setenv("TELEMETRY_UPLOAD_MAX_DOCUMENTS", "1")
    assert run(defs, instance, "ingest").success
    assert [row["reason"] for row in deployed.rows(REJECTED)] == ["too_many_documents"]
    monkeypatch.delenv("TELEMETRY_UPLOAD_MAX_DOCUMENTS")
    assert replay(defs, instance, dry_run=True).success
    assert len(deployed.rows(REJECTED)) == 1
    assert replay(defs, instance, reasons=["too_many_documents"], uploads=["x.json"]).success
    assert deployed.rows(REJECTED) == []
    assert run(defs, instance, "ingest").success
    assert {row["car_chassis"] for row in deployed.rows(SILVER)} == {"CAR-1", "CAR-2"}


def test_unknown_reason_is_an_error(defs: Definitions, instance: DagsterInstance) -> None:
    with pytest.raises(Failure, match=r"numbers \[1\], from 0.*too_many_documents"):
        replay(defs, instance, reasons=["not_json", "too_manny"])
