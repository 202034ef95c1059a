"""No step fails on a document of a few long texts."""

from __future__ import annotations

import gzip
import json

from telemetry_assets.tables import CURRENT_STATE
from telemetry_assets_tests.harness.deployment import Deployment
from telemetry_assets_tests.harness.made_documents import event, vehicle

MEBIBYTE = 1024 * 1024


def test_the_last_character_before_the_surrogates_is_a_character_like_others(deployed: Deployment) -> None:
    # The default bounds of a text in Iceberg's manifests are its first 16 characters, of which the last is raised.
    text = "a" * 15 + "\ud7ff" + "a"
    static = {"Manufacturer": text, "Model": text, "gasType": text}
    document = vehicle(text, static=static, insurance={"provider": text}, snapshot={"engineTempCelsius": 120})
    rejected = {**event(time=text), text: text}
    deployed.upload(f"{text}.json", json.dumps([{**document, "event_id": text}, rejected]))
    deployed.process()
    deployed.assert_equals_the_contract()


def test_event_id_of_many_mebibytes_reaches_every_attribute_of_the_state(deployed: Deployment) -> None:
    known = vehicle(
        static={"Manufacturer": "M", "Model": "N", "year": 2020, "gasType": "g"},
        insurance={"provider": "P", "validUntil": "2026-01-01"},
        snapshot={"currentMileage": 1, "fuelAvailableLiters": 1, "engineTempCelsius": 1},
    )
    # Four-byte characters: together longer than a gRPC message may be.
    document = {**known, "event_id": "\U0001f600" * (4 * MEBIBYTE)}
    deployed.upload("long.json.gz", gzip.compress(json.dumps(document, ensure_ascii=False).encode(), 1))
    deployed.process()
    state = deployed.pipeline.lakehouse.table(CURRENT_STATE).scan().to_arrow()
    assert state["car_chassis"].to_pylist() == ["CAR-1"]
    assert state.nbytes > 128 * MEBIBYTE
