"""The saved queries run on the project's Gold tables."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest

from telemetry_assets.simulator.fleet import Fleet, simulate
from telemetry_assets.tables import all_tables
from telemetry_assets_tests.harness.deployment import Deployment
from telemetry_assets_tests.harness.terraform import INFRA

QUERIES = sorted((INFRA / "queries").glob("*.sql"))


def test_there_is_one_for_each_gold_table() -> None:
    assert {query.stem for query in QUERIES} == {
        one.identifier[1] for one in all_tables() if one.identifier[0] == "gold"
    }


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.stem)
def test_query_runs(deployed: Deployment, query: Path) -> None:
    today = datetime.now(UTC).date()
    for upload in simulate(Fleet(today, cars=40, days=3, uploads=2, documents=300)):
        deployed.upload(upload.name, upload.content)
    deployed.pipeline.process("a run", today)
    with duckdb.connect() as connection:
        connection.execute("CREATE SCHEMA gold")
        for contract in (one for one in all_tables() if one.identifier[0] == "gold"):
            rows = deployed.pipeline.lakehouse.table(contract).scan().to_arrow()
            connection.register("rows", rows)
            connection.execute(f"CREATE TABLE {contract.full_name} AS SELECT * FROM rows")
        assert connection.execute(query.read_text()).fetchall()
