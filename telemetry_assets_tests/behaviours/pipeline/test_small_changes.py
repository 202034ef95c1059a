"""Random sequences of small uploads over months: after every run, the tables equal a computation over everything."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.expressions import EqualTo

from telemetry_assets.tables import BRONZE, SILVER, derived_tables
from telemetry_assets_tests.harness.deployment import AS_OF, Deployment, deployment
from telemetry_assets_tests.harness.small_uploads import small_uploads

SEEDS = [
    pytest.param(seed, marks=[pytest.mark.long] if seed else [])
    for seed in range(int(os.environ.get("TELEMETRY_SMALL_CHANGES", "3")))
]


@pytest.mark.parametrize("seed", SEEDS)
def test_tables_equal_a_computation_over_everything_after_each_small_upload(tmp_path: Path, seed: int) -> None:
    with deployment(tmp_path) as deployed:
        for number, documents in enumerate(small_uploads(seed)):
            deployed.upload(f"{number}.json", json.dumps(documents))
            deployed.process()
            deployed.assert_equals_the_contract()


@pytest.mark.parametrize("seed", SEEDS)
def test_an_update_and_a_rebuild_make_the_same_table(tmp_path: Path, seed: int) -> None:
    with deployment(tmp_path) as deployed:
        for number, documents in enumerate(small_uploads(100 + seed)):
            deployed.upload(f"{number}.json", json.dumps(documents))
            if number % 2:
                deployed.process()
        deployed.process()
        days = frozenset(row["event_date"] for row in deployed.rows(SILVER))
        for contract in derived_tables():
            before = deployed.pipeline.lakehouse.table(contract).current_snapshot()
            rebuilt = deployed.pipeline.refresh(contract, "a rebuild", days, insurance_as_of=AS_OF)
            assert (rebuilt.changed, rebuilt.snapshot_id) == (False, before and before.snapshot_id), contract.full_name


@pytest.mark.parametrize("seed", SEEDS)
def test_tables_follow_manual_commits_between_small_uploads(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    with deployment(tmp_path) as deployed:
        for number, documents in enumerate(small_uploads(200 + seed, uploads=12)):
            deployed.upload(f"{number}.json", json.dumps(documents))
            deployed.process()
            if number % 3 == 2:
                _delete_some_rows(chance, deployed)
                deployed.process()
                _assert_equal_to_a_rebuild(deployed)


def _delete_some_rows(chance: random.Random, deployed: Deployment) -> None:
    """Delete the Bronze or the Silver rows of a car or of a date."""
    table = deployed.pipeline.lakehouse.table(chance.choice([BRONZE, SILVER]))
    row = chance.choice(table.scan().to_arrow().to_pylist())
    column = chance.choice(["car_chassis", "event_date"])
    table.delete(EqualTo(term=column, value=row[column]))


def _assert_equal_to_a_rebuild(deployed: Deployment) -> None:
    """Compare Gold with what a new lakehouse would compute from the same Silver rows."""
    for contract in derived_tables():
        if contract is not SILVER:
            rows = deployed.rows(contract)
            table = deployed.pipeline.lakehouse.table(contract)
            table.delete()
            with table.transaction() as transaction:
                transaction.remove_properties("telemetry.applied.silver.car_telemetry")
            deployed.pipeline.refresh(contract, "from nothing", insurance_as_of=AS_OF)
            assert _content(deployed.rows(contract)) == _content(rows), contract.full_name


def _content(rows: list[dict[str, Any]]) -> list[str]:
    return sorted(str({name: value for name, value in row.items() if name != "updated_at"}) for row in rows)
