"""Spark's own maintenance of tables: no table is rebuilt, and nothing is lost."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from telemetry_assets.engines.spark.configuration import table_name
from telemetry_assets.engines.spark.engine import SparkEngine
from telemetry_assets.tables import BRONZE, all_tables
from telemetry_assets.tables.contract import TableContract
from telemetry_assets_tests.harness.deployment import Deployment
from telemetry_assets_tests.harness.made_documents import event
from telemetry_assets_tests.harness.on_engines import deployed_on

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("java")]


class SparkMaintenance:
    """Iceberg's actions, which the procedures ``rewrite_data_files`` etc. execute."""

    def __init__(self, deployed: Deployment) -> None:
        engine = deployed.pipeline.engine
        assert isinstance(engine, SparkEngine)
        self._session: Any = engine._spark
        self._jvm: Any = self._session._jvm

    def rewrite_data_files(self, contract: TableContract) -> int:
        """Compact a table; return how many data files were rewritten."""
        result = self._actions().rewriteDataFiles(self._table(contract)).option("rewrite-all", "true").execute()
        return int(result.rewrittenDataFilesCount())

    def rewrite_manifests(self, contract: TableContract) -> None:
        """Rewrite all manifests of a table."""
        self._actions().rewriteManifests(self._table(contract)).execute()

    def expire_snapshots(self, contract: TableContract) -> int:
        """Expire all snapshots but the current one; return how many manifest lists were deleted."""
        action = self._actions().expireSnapshots(self._table(contract))
        return int(action.expireOlderThan(_now()).retainLast(1).execute().deletedManifestListsCount())

    def remove_orphan_files(self, contract: TableContract) -> None:
        """Remove all files that the table does not need, whatever their age."""
        self._actions().deleteOrphanFiles(self._table(contract)).olderThan(_now()).execute()

    def _actions(self) -> Any:
        return self._jvm.org.apache.iceberg.spark.actions.SparkActions.get(self._session._jsparkSession)

    def _table(self, contract: TableContract) -> Any:
        spark = self._jvm.org.apache.iceberg.spark.Spark3Util
        return spark.loadIcebergTable(self._session._jsparkSession, table_name(contract))


def _now() -> int:
    return int(time.time() * 1000) + 1


def upload(deployed: Deployment, name: str, *cars: str) -> None:
    deployed.upload(name, json.dumps([event(car, engineTempCelsius=120) for car in cars]))


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[Deployment]:
    with deployed_on("spark", tmp_path) as deployed:
        for number in range(3):
            upload(deployed, f"{number}.json", "CAR-A", f"CAR-{number}")
            deployed.process()
        yield deployed


def test_tables_that_spark_has_maintained_are_up_to_date_and_stay_exact(filled: Deployment) -> None:
    spark = SparkMaintenance(filled)
    tables = [one for one in all_tables() if filled.pipeline.lakehouse.table(one).current_snapshot() is not None]
    assert sum(spark.rewrite_data_files(contract) for contract in tables) > 0
    for contract in tables:
        spark.rewrite_manifests(contract)
        assert spark.expire_snapshots(contract) > 0
        spark.remove_orphan_files(contract)
    assert not any(one.rebuild_reason or one.changed for one in filled.process().refreshes)
    upload(filled, "new.json", "CAR-A", "CAR-NEW")
    assert not any(one.rebuild_reason for one in filled.process().refreshes)
    filled.assert_equals_the_contract()


def test_rows_that_were_not_taken_before_spark_maintained_bronze_are_taken_without_a_rebuild(
    filled: Deployment,
) -> None:
    upload(filled, "new.json", "CAR-A", "CAR-NEW")
    filled.batch_reports += filled.pipeline.ingest("only Bronze")
    spark = SparkMaintenance(filled)
    spark.rewrite_manifests(BRONZE)
    spark.expire_snapshots(BRONZE)
    spark.remove_orphan_files(BRONZE)
    assert not any(one.rebuild_reason for one in filled.process().refreshes)
    filled.assert_equals_the_contract()


def test_spark_reads_and_writes_tables_that_this_project_has_maintained(filled: Deployment) -> None:
    list(filled.pipeline.maintain(all_tables()))
    spark = SparkMaintenance(filled)
    assert spark.rewrite_data_files(BRONZE) > 0
    upload(filled, "new.json", "CAR-A", "CAR-NEW")
    assert not any(one.rebuild_reason for one in filled.process().refreshes)
    filled.assert_equals_the_contract()
