"""Random sequences of small uploads over months: after every run, the tables equal a computation over everything."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.expressions import EqualTo

from telemetry_assets.tables import BRONZE, SILVER, derived_tables
from telemetry_assets_tests.harness.deployment import AS_OF, Deployment, deployment
from telemetry_assets_tests.harness.made_documents import event, vehicle

SEEDS = range(int(os.environ.get("TELEMETRY_SMALL_CHANGES", "4")))
CARS = ("CAR-1", "CAR-2", "CAR-3", "9BWZZZ377VT004251")
FIRST_DAY = date(2025, 8, 25)
"""The events are at the seams of four months."""


def small_uploads(seed: int, uploads: int = 25) -> Iterator[list[dict[str, Any]]]:
    """Uploads of one to six documents: new, late, repeated, corrected and moved events."""
    chance = random.Random(seed)
    sent: list[dict[str, Any]] = []
    for _ in range(uploads):
        documents = []
        for _ in range(chance.randint(1, 6)):
            if sent and chance.random() < 0.35:
                documents.append(_changed(chance, chance.choice(sent)))
            else:
                documents.append(_new(chance))
        sent += documents
        yield documents


def _new(chance: random.Random) -> dict[str, Any]:
    day = FIRST_DAY + timedelta(chance.choice([0, 3, 5, 6, 7, 8, 20, 34, 36, 37, 38, 66, 67, 68, 70]))
    moment = datetime(day.year, day.month, day.day, chance.choice([0, 1, 12, 23]), chance.choice([0, 59]), tzinfo=UTC)
    text = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    car = chance.choice(CARS)
    if chance.random() < 0.3:
        document = vehicle(car, text, trip={"tripMileage": chance.choice([0, 12.5, 80]), "tripFuelLiters": 3.3})
    else:
        readings = {
            "currentMileageKm": chance.choice([None, 1000, 1001.5, 1100, 2500, 90_000, 100_500]),
            "fuelAvailableLiters": chance.choice([None, 3, 10.5, 40]),
            "engineTempCelsius": chance.choice([None, 90, 105, 120]),
        }
        document = event(car, text, **{name: value for name, value in readings.items() if value is not None})
    if chance.random() < 0.3:
        document["event_id"] = f"evt-{chance.randint(1, 12)}"
    return document


def _changed(chance: random.Random, document: dict[str, Any]) -> dict[str, Any]:
    """The document once more, with other or missing readings, or as it is."""
    again: dict[str, Any] = json.loads(json.dumps(document))
    if "metrics" in again and chance.random() < 0.8:
        again["metrics"] = {
            name: chance.choice([value, 1050.5, 15])
            for name, value in again["metrics"].items()
            if chance.random() < 0.7
        }
    return again


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
