"""Maintenance of tables in S3 with the Glue Data Catalog."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta

import pytest
from pyiceberg.table import Table

from telemetry_assets.lakehouse import commits
from telemetry_assets.lakehouse.commits import append_files
from telemetry_assets.lakehouse.expiry import Retention
from telemetry_assets.lakehouse.maintenance import MaintenancePolicy, maintain
from telemetry_assets.lakehouse.stored_files import stored_files
from telemetry_assets.tables import BRONZE, SILVER, all_tables
from telemetry_assets.tables.contract import TableContract
from telemetry_assets_tests.harness.aws.services import AwsServices
from telemetry_assets_tests.harness.deployment import BUCKET, DeploymentInS3, deployment_in_s3
from telemetry_assets_tests.harness.made_documents import event

pytestmark = pytest.mark.long

NOTHING_IS_KEPT = MaintenancePolicy(Retention(timedelta(0), 1, 0), 2, timedelta(0))
ORPHAN = "lakehouse/silver/car_telemetry/data/orphan.parquet"


@pytest.fixture
def filled(aws: AwsServices) -> Iterator[DeploymentInS3]:
    """Tables with three batches, and a file that was there before."""
    with deployment_in_s3(aws) as deployed:
        deployed.client.put_object(Bucket=BUCKET, Key=ORPHAN, Body=b"rows")
        for number in range(3):
            deployed.upload(f"{number}.json", json.dumps([event(f"CAR-{number}", engineTempCelsius=120)]))
            deployed.process()
        yield deployed


def stored(deployed: DeploymentInS3, contract: TableContract) -> set[str]:
    return {one.uri for one in stored_files(deployed.pipeline.lakehouse.table(contract).location())}


def test_tables_have_only_the_files_that_they_need(filled: DeploymentInS3) -> None:
    assert f"s3://{BUCKET}/{ORPHAN}" in stored(filled, SILVER)
    for contract in all_tables() * 2:
        maintain(filled.pipeline.lakehouse, contract, NOTHING_IS_KEPT, None)
    table = filled.pipeline.lakehouse.table(SILVER)
    [snapshot] = table.snapshots()
    [manifest, *others] = [
        one for one in snapshot.manifests(table.io) if one.has_existing_files() | one.has_added_files()
    ]
    assert others == []
    [entry] = manifest.fetch_manifest_entry(table.io)
    needed = {snapshot.manifest_list, entry.data_file.file_path, table.metadata_location}
    needed |= {one.manifest_path for one in snapshot.manifests(table.io)}
    assert stored(filled, SILVER) == needed | {one.metadata_file for one in table.metadata.metadata_log}
    assert filled.pipeline.tables_behind() == []
    filled.upload("new.json", json.dumps([event("CAR-1"), event("CAR-NEW")]))
    assert not any(one.rebuild_reason for one in filled.process().refreshes)
    filled.assert_equals_the_contract()


@pytest.mark.parametrize("contract", [BRONZE, SILVER], ids=lambda one: one.full_name)
def test_maintenance_gives_up_if_another_writer_is_faster(
    filled: DeploymentInS3, monkeypatch: pytest.MonkeyPatch, contract: TableContract
) -> None:
    commit = commits.commit

    def too_late(table: Table, *arguments: object) -> None:
        append_files(filled.pipeline.lakehouse.table(contract), (), {})
        commit(table, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("telemetry_assets.lakehouse.rewrites.commit", too_late)
    report = maintain(filled.pipeline.lakehouse, contract, NOTHING_IS_KEPT, None)
    assert (report.lost_race, report.compacted.removed) == (True, 0)
    filled.assert_equals_the_contract()
