"""A document may be a few long texts; whatever a table makes of them, no step stops at it."""

from __future__ import annotations

import gzip
import json

from telemetry_assets.tables import CURRENT_STATE
from telemetry_assets_tests.harness.deployment import Deployment
from telemetry_assets_tests.harness.made_documents import vehicle

MEBIBYTE = 1024 * 1024


def test_an_event_id_of_many_mebibytes_reaches_the_state_which_has_it_for_each_attribute(deployed: Deployment) -> None:
    known = vehicle(
        static={"Manufacturer": "M", "Model": "N", "year": 2020, "gasType": "g"},
        insurance={"provider": "P", "validUntil": "2026-01-01"},
        snapshot={"currentMileage": 1, "fuelAvailableLiters": 1, "engineTempCelsius": 1},
    )
    # Of characters of four bytes: together longer than a message of gRPC may be.
    document = {**known, "event_id": "\U0001f600" * (4 * MEBIBYTE)}
    deployed.upload("long.json.gz", gzip.compress(json.dumps(document, ensure_ascii=False).encode(), 1))
    deployed.process()
    state = deployed.pipeline.lakehouse.table(CURRENT_STATE).scan().to_arrow()
    assert state["car_chassis"].to_pylist() == ["CAR-1"]
    assert state.nbytes > 128 * MEBIBYTE
