"""Events on a few days of three months, and what tests of rebuilds do with a lakehouse of these events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from telemetry_assets import tables
from telemetry_assets.tables import derived_tables
from telemetry_assets.tables.contract import DerivedTable
from telemetry_assets_tests.harness.deployment import AS_OF, Deployment, deployment
from telemetry_assets_tests.harness.made_documents import event

DAYS = [date(2025, month, day) for month in (9, 10, 11) for day in (1, 2, 28)]


class KilledError(Exception):
    """Stands for the end of a process between two pieces."""


def documents(temperature: int = 120, cars: int = 4) -> Iterator[dict[str, Any]]:
    """One event for each day and car, with an odometer reading and an alert."""
    for number, day in enumerate(DAYS):
        for car in range(cars):
            reading = {"currentMileageKm": 1000 + 10 * number + car, "fuelAvailableLiters": 50 - number}
            yield event(f"CAR-{car}", f"{day}T10:00:00Z", engineTempCelsius=temperature, **reading)


@contextmanager
def rebuilt_in_pieces(folder: Path) -> Iterator[Deployment]:
    """A lakehouse of these events, whose rebuilds have pieces of about two days."""
    with deployment(folder, rebuild_max_rows=8, gold_rebuild_max_rows=8) as deployed:
        deployed.upload("first.json", json.dumps(list(documents())))
        deployed.process()
        yield deployed


def raise_edition(monkeypatch: pytest.MonkeyPatch, contract: DerivedTable) -> DerivedTable:
    """Raise the edition of a table's transform, in the registry too."""
    changed = replace(contract, transform_edition=contract.transform_edition + 1)
    replaced = tuple(changed if one is contract else one for one in tables.TABLES)
    below = tuple(
        replace(one, upstream=changed) if isinstance(one, DerivedTable) and one.upstream is contract else one
        for one in replaced
    )
    monkeypatch.setattr(tables, "TABLES", below)
    return changed


def update_all(deployed: Deployment) -> list[str]:
    """Update all tables as between two pieces of a rebuild. Returns the names of the updated tables."""
    results = [deployed.pipeline.update(contract, "between", AS_OF) for contract in derived_tables()]
    return [result.contract.name for result in results if result is not None]
