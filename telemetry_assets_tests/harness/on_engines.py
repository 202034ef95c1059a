"""Deployments on each local engine, and assertions for all of them."""

from __future__ import annotations

import random
from contextlib import AbstractContextManager
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from telemetry_assets.simulator.fleet import Fleet, simulate
from telemetry_assets.tables import all_tables
from telemetry_assets_tests.harness.deployment import Deployment, deployment

ENGINES = ("spark", "embedded")
SMALL_SPARK = {
    "spark.sql.shuffle.partitions": "2",
    # Runs take seconds only, so the C2 compiler is not worth its cost.
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1",
}


def deployed_on(engine: str, folder: Path, **settings: Any) -> AbstractContextManager[Deployment]:
    """A deployment in a folder, new or existing, whose transforms run on an engine."""
    return deployment(folder, engine=engine, spark_configuration=SMALL_SPARK, **settings)


def messy_uploads() -> list[tuple[str, bytes]]:
    fleet = Fleet(date(2026, 1, 9), cars=4, days=20, uploads=16, documents=160, seed=4, mess=True)
    uploads = [(upload.name, upload.content) for upload in simulate(fleet)]
    random.Random(4).shuffle(uploads)
    return uploads + uploads[:4]


def assert_types_are_those_of_the_contract(deployed: Deployment) -> None:
    """Compare the types in the files themselves, because readers of the metadata cast them."""
    for contract in all_tables():
        table = deployed.pipeline.lakehouse.table(contract)
        assert deployed.pipeline.lakehouse.differences(table, contract) == []
        wanted = [(field.name, field.type, place) for place, field in enumerate(contract.arrow_schema, 1)]
        for task in table.scan().plan_files():
            with table.io.new_input(task.file.file_path).open() as file:
                written = pq.ParquetFile(file).schema.to_arrow_schema()
            assert [(one.name, one.type, int(one.metadata[b"PARQUET:field_id"])) for one in written] == wanted
