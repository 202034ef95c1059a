"""Single documents: whether they are accepted, their reported fields and their values."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from telemetry_assets.ingestion.parsing.documents import BronzeRow, Rejection, accept, parse_time
from telemetry_assets.tables.payloads import payload_columns
from telemetry_assets_tests.harness.contract_reading_of_fields import FIELD_PATHS, RANGES
from telemetry_assets_tests.harness.made_documents import Document, event, vehicle

INGESTED_AT = datetime(2026, 1, 15, 12, tzinfo=UTC)


def accepted(document: Document) -> BronzeRow:
    outcome = accept(json.dumps(document), 0, INGESTED_AT)
    assert isinstance(outcome, BronzeRow), outcome
    return outcome


def rejected(document: object) -> Rejection:
    outcome = accept(json.dumps(document), 0, INGESTED_AT)
    assert isinstance(outcome, Rejection), outcome
    return outcome


def values(document: Document) -> dict[str, Any]:
    row = accepted(document)
    read = payload_columns(pa.array([row.payload]), pa.array([row.document_shape]))
    return {name: read[name][0].as_py() for name in read.column_names}


@pytest.mark.parametrize(
    ("written", "moment"),
    [
        ("2025-11-04T14:30:00Z", datetime(2025, 11, 4, 14, 30, tzinfo=UTC)),
        ("2025-11-04T14:30:00", datetime(2025, 11, 4, 14, 30, tzinfo=UTC)),
        ("2025-11-04 14:30", datetime(2025, 11, 4, 14, 30, tzinfo=UTC)),
        ("2025-11-04", datetime(2025, 11, 4, tzinfo=UTC)),
        ("2025-11-04T23:30:00-03:00", datetime(2025, 11, 5, 2, 30, tzinfo=UTC)),
        ("2025-11-04T14:30:00.123456789Z", datetime(2025, 11, 4, 14, 30, 0, 123456, tzinfo=UTC)),
        ("2025-11-04T14:30:00,5Z", datetime(2025, 11, 4, 14, 30, 0, 500_000, tzinfo=UTC)),
        ("20251104T143000.5Z", datetime(2025, 11, 4, 14, 30, 0, 500_000, tzinfo=UTC)),
        ("2025-11-04T14:30.5Z", None),
        ("2025-11-04T14:30:00+03.7", None),
        ("2025-11-04T14:30:00+03:00:30.5", None),
        ("2025-11-04-14:30:00 Z", None),
        ("2025-11-04T143Z", None),
        ("2025-11-04T14:30Z\x00junk", None),
        ("20251104T1430.5Z", None),
        ("2025-11-04T14,5Z", None),
        ("yesterday", None),
        ("2025-13-04T14:30:00Z", None),
        ("2025-11-04x14:30:00Z", None),
        ("٢٠٢٥-١١-٠٤", None),
        (1762266600, None),
    ],
)
def test_times_are_iso_8601_and_utc_unless_they_say_otherwise(written: object, moment: datetime | None) -> None:
    assert parse_time(written) == moment


def test_the_event_date_is_the_utc_date() -> None:
    assert accepted(event(time="2025-11-04T23:30:00-03:00")).event_date == date(2025, 11, 5)


def test_document_with_the_event_shapes_time_has_the_event_shape() -> None:
    both = {**event(), "event_primary_timestamp": "2025-01-01T00:00:00Z"}
    assert (accepted(both).document_shape, accepted(vehicle()).document_shape) == ("event", "vehicle")


@pytest.mark.parametrize("given", [{}, {"event_id": ""}, {"event_id": None}, {"event_id": 5}])
def test_event_without_an_id_is_identified_by_its_car_and_its_time_as_written(given: Document) -> None:
    time = "2025-11-04T14:30:00+00:00"
    assert accepted({**event("CAR-1", time), **given}).event_id == f"CAR-1_{time}"


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("9BWZZZ377VT004251", "9BWZZZ377VT004251"),
        ("9bwzzz377vt004251", "9BWZZZ377VT004251"),
        (" \t9bwZZZ377vt004251\r\n", "9BWZZZ377VT004251"),
        ("9bwzzz377vt00425i", "9bwzzz377vt00425i"),
        ("9bwzzz377vt00425", "9bwzzz377vt00425"),
        ("9bwzzz377vt0042511", "9bwzzz377vt0042511"),
        ("9bwzzz377vt00425\u0131", "9bwzzz377vt00425\u0131"),
        (" car-1 ", "car-1"),
        ("\u00a0car-1\u2003", "\u00a0car-1\u2003"),
        ("\x0bcar-1", "\x0bcar-1"),
    ],
)
def test_a_cars_name_has_no_white_space_around_it_and_a_vin_is_in_upper_case(written: str, name: str) -> None:
    row = accepted(event(written))
    assert (row.car_chassis, row.event_id) == (name, f"{name}_2025-11-04T10:00:00Z")


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ([1], "not_an_object"),
        (event(car=" \t\r\n"), "missing_car_chassis"),
        (event(car=""), "missing_car_chassis"),
        ({**event(), "carChassis": 7}, "missing_car_chassis"),
        ({**event(), "carChassis": "\ud800"}, "missing_car_chassis"),
        ({"telemetryTimestamp": "2025-11-04T14:30:00Z"}, "missing_car_chassis"),
        ({"carChassis": "CAR-1"}, "missing_time"),
        ({"carChassis": "CAR-1", "telemetryTimestamp": None}, "missing_time"),
        (event(time="yesterday"), "unparseable_time"),
        (event(time="1999-12-31T23:59:59.999999Z"), "time_before_2000"),
        (event(time="0001-01-01T00:00:00+14:00"), "time_before_2000"),
        (event(time=(INGESTED_AT + timedelta(hours=24, seconds=1)).isoformat()), "time_in_future"),
        (event(time="9999-12-31T23:59:59-14:00"), "time_in_future"),
    ],
)
def test_a_document_that_cannot_be_an_event_is_rejected_with_its_reason(document: object, reason: str) -> None:
    outcome = rejected(document)
    assert (outcome.reason, outcome.payload) == (reason, json.dumps(document))


def test_times_up_to_a_day_ahead_are_accepted() -> None:
    accepted(event(time=(INGESTED_AT + timedelta(hours=24)).isoformat()))


@pytest.mark.parametrize(("seconds", "is_ahead"), [(-1, False), (300, False), (301, True)])
def test_event_is_ahead_of_the_clock_from_five_minutes_after_its_ingestion(seconds: int, is_ahead: bool) -> None:
    assert accepted(event(time=(INGESTED_AT + timedelta(seconds=seconds)).isoformat())).is_ahead == is_ahead


@pytest.mark.parametrize(
    ("payload", "advice"),
    [
        (json.dumps({"Records": [event()]}), "send the objects in 'Records' and not the wrapper"),
        (json.dumps(event()).encode("utf-16-le").decode(), "UTF-16 without byte order mark"),
        ("{'carChassis': 'CAR-1'}", "double quotation marks"),
        (", {}", "A comma is outside of an array"),
        ('{"carChassis": "C"\0\0', "may not have been written completely"),
        (json.dumps({"carChassis": "C", "timestamp": "2025-11-04"}), "Neither `telemetryTimestamp` nor"),
        (json.dumps([event()]), "Send one array per upload"),
    ],
)
def test_message_of_a_rejection_says_what_the_document_looks_like(payload: str, advice: str) -> None:
    outcome = accept(payload, 0, INGESTED_AT)
    assert isinstance(outcome, Rejection)
    assert advice in outcome.message


@pytest.mark.parametrize(
    ("given", "value"),
    [
        (92, 92.0),
        ("92.5", 92.5),
        (" -1.5e1 ", -15.0),
        ("hot", None),
        ("1_000", None),
        ("٣", None),
        ("NaN", None),
        (float("nan"), None),
        (float("inf"), None),
        (10**400, None),
        (True, None),
        ([92], None),
    ],
)
def test_numbers_are_numbers_also_when_written_as_text(given: object, value: float | None) -> None:
    assert values(event(engineTempCelsius=given))["engine_temp_celsius"] == value


@pytest.mark.parametrize(
    ("given", "value"),
    [(2024, 2024), ("2024", 2024), (2024.0, 2024), (2024.5, None), ("n/a", None), (False, None)],
)
def test_a_year_is_a_whole_number(given: object, value: int | None) -> None:
    assert values(event(year=given))["year"] == value


def with_value(column: str, value: float) -> tuple[str, Document]:
    """The path of a column's field, and a document with this value in it."""
    shape, path = next(reversed(FIELD_PATHS[column].items()))
    document = event() if shape == "event" else vehicle()
    *objects, name = path.split(".")
    holder = document
    for one in objects:
        holder = holder.setdefault(one, {})
    holder[name] = value
    return path, document


@pytest.mark.parametrize("column", RANGES)
def test_number_outside_of_its_range_is_null_and_counts_as_out_of_range(column: str) -> None:
    least, greatest = RANGES[column]
    step = 1 if column == "year" else 0.001
    outside = [greatest + step, least - step, -1_000_000, 16_777_215, 10**30]
    for value in (least, greatest):
        path, document = with_value(column, value)
        assert values(document)[column] == value
        assert accepted(document).out_of_range_fields == ()
    for value in outside:
        path, document = with_value(column, value)
        assert values(document)[column] is None
        row = accepted(document)
        assert (row.out_of_range_fields, row.wrong_typed_fields) == ((path,), ())


def test_text_of_a_number_outside_of_its_range_is_out_of_range() -> None:
    assert accepted(event(engineTempCelsius="215")).out_of_range_fields == ("metrics.engineTempCelsius",)


def test_wrong_typed_fields_are_reported_without_a_rejection() -> None:
    document = vehicle(static={"year": "n/a"}, snapshot={"engineTempCelsius": "hot", "tire_pressures_psi": [1]})
    assert set(accepted(document).wrong_typed_fields) == {
        "vehicle_static_info.data.year",
        "trip_data.vehicle_telemetry_snapshot.data.engineTempCelsius",
        "trip_data.vehicle_telemetry_snapshot.data.tire_pressures_psi",
    }


def test_null_and_nan_are_not_wrong_typed() -> None:
    assert accepted(event(engineTempCelsius=None, oilPressurePsi=float("nan"))).wrong_typed_fields == ()


def test_unknown_fields_are_named_by_their_path() -> None:
    document = {**vehicle(static={"Model": "X", "wheels": 4}), "altitude": {"meters": 7}}
    assert set(accepted(document).unknown_fields) == {"vehicle_static_info.data.wheels", "altitude"}


def test_invalid_payload_of_a_manually_added_row_gives_nulls() -> None:
    read = payload_columns(pa.array(["{broken", "[]"]), pa.array(["event", "vehicle"]))
    assert all(column.null_count == 2 for column in read.columns)
