"""Random sequences of small uploads: new, late, repeated, corrected and moved events at the seams of four months."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

from telemetry_assets_tests.harness.made_documents import event, vehicle

CARS = ("CAR-1", "CAR-2", "CAR-3", "9BWZZZ377VT004251")
FIRST_DAY = date(2025, 8, 25)


def small_uploads(seed: int, uploads: int = 15) -> Iterator[list[dict[str, Any]]]:
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
