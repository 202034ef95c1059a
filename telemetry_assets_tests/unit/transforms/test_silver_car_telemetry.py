"""Silver's rows: the newest ingestion of each event, with its payload's values in typed columns."""

from __future__ import annotations

import json
from datetime import date, timedelta
from typing import Any

from telemetry_assets.tables import BRONZE, SILVER
from telemetry_assets.transforms.silver_car_telemetry import car_telemetry, newest_ingestion
from telemetry_assets_tests.harness.frames import NOON, Frames, Row
from telemetry_assets_tests.harness.made_documents import Document, event, vehicle


def bronze_row(document: Document | str, event_id: str = "e1", shape: str = "event", **columns: Any) -> Row:
    return {
        "event_id": event_id,
        "car_chassis": "CAR-1",
        "event_primary_timestamp": NOON.isoformat(),
        "telemetry_timestamp": NOON,
        "event_date": NOON.date(),
        "document_shape": shape,
        "payload": document if isinstance(document, str) else json.dumps(document),
        "source_uri": "x.json",
        "source_position": 0,
        "ingested_at": NOON,
        "batch_id": "batch-1",
        **columns,
    }


def uris(frames: Frames, *rows: Row) -> list[tuple[str, int]]:
    newest = frames.rows(newest_ingestion(frames.of(BRONZE, *rows)), "event_id")
    return [(row["source_uri"], row["source_position"]) for row in newest]


def test_the_newest_ingestion_of_an_event_is_its_row(frames: Frames) -> None:
    assert uris(
        frames,
        bronze_row("{}", source_uri="a.json", ingested_at=NOON + timedelta(seconds=1)),
        bronze_row("{}", source_uri="b.json"),
    ) == [("a.json", 0)]


def test_within_one_ingestion_upload_and_position_decide(frames: Frames) -> None:
    rows = [bronze_row("{}", source_uri=uri, source_position=place) for uri in ("a", "b") for place in (1, 0)]
    assert uris(frames, *rows) == [("b", 1)]


def test_events_of_one_id_on_two_dates_are_two(frames: Frames) -> None:
    other = NOON + timedelta(days=1)
    assert len(uris(frames, bronze_row("{}"), bronze_row("{}", event_date=other.date()))) == 2


def silver(frames: Frames, *rows: Row) -> list[dict[str, Any]]:
    return frames.rows(car_telemetry(frames.of(BRONZE, *rows)), "event_id")


def test_a_flat_document_s_values_are_typed(frames: Frames) -> None:
    [row] = silver(frames, bronze_row(event(engineTempCelsius=98, currentMileageKm=1000)))
    assert (row["engine_temp_celsius"], row["current_mileage_km"]) == (98.0, 1000.0)
    assert (row["event_year"], row["event_month"], row["event_day"]) == (2025, 11, 4)
    assert list(row) == list(SILVER.column_names)


def test_a_nested_document_s_values_are_found(frames: Frames) -> None:
    document = vehicle(static={"Manufacturer": "Fiat", "gasType": "Flex"}, insurance={"validUntil": "2026-02-28"})
    [row] = silver(frames, bronze_row(document, shape="vehicle"))
    assert (row["manufacturer"], row["insurance_valid_until"]) == ("Fiat", date(2026, 2, 28))


def test_payload_that_does_not_match_its_shape_gives_nulls(frames: Frames) -> None:
    rows = silver(
        frames,
        bronze_row("not JSON", "e1"),
        bronze_row("[]", "e2"),
        bronze_row(event(engineTempCelsius=98), "e3", shape="other"),
        bronze_row(event(engineTempCelsius="hot"), "e4"),
    )
    assert [row["engine_temp_celsius"] for row in rows] == [None] * 4
