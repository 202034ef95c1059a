"""Kilometers and liters per car and month: which events contribute, and how much."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from telemetry_assets.tables import SILVER
from telemetry_assets.transforms.gold_fuel_efficiency_monthly import events_of_months, monthly_sums
from telemetry_assets_tests.harness.frames import Frames, silver_row


def at(day: int, month: int = 11) -> datetime:
    return datetime(2025, month, day, 12, tzinfo=UTC)


def months(frames: Frames, *events: dict[str, Any]) -> list[dict[str, Any]]:
    rows = [silver_row(f"e{number}", **event) for number, event in enumerate(events)]
    return frames.rows(monthly_sums(events_of_months(frames.of(SILVER, *rows))), "car_chassis", "month")


def reading(day: int, km: float | None, liters: float | None = None, month: int = 11) -> dict[str, Any]:
    return {"at": at(day, month), "current_mileage_km": km, "fuel_available_liters": liters}


def test_without_trips_distance_and_fuel_are_differences_of_readings(frames: Frames) -> None:
    [row] = months(frames, reading(1, 1000.0, 50.0), reading(2, 1060.0, 45.0), reading(3, 1120.0, 40.0))
    assert (row["year_month"], row["month"]) == ("2025-11", date(2025, 11, 1))
    assert (row["total_km_driven"], row["total_fuel_liters"], row["trip_count"]) == (120.0, 10.0, 2)
    assert (row["measured_km"], row["avg_fuel_efficiency_kmpl"]) == (120.0, 12.0)


def test_trip_values_take_precedence_over_readings(frames: Frames) -> None:
    trip = {**reading(2, 5000.0, 1.0), "trip_distance_km": 30.0, "trip_fuel_liters": 2.0}
    [row] = months(frames, reading(1, 1000.0, 50.0), trip)
    assert (row["total_km_driven"], row["total_fuel_liters"], row["trip_count"]) == (30.0, 2.0, 1)


def test_trip_without_fuel_is_ignored(frames: Frames) -> None:
    half = {**reading(2, 1060.0, 45.0), "trip_distance_km": 30.0}
    [row] = months(frames, reading(1, 1000.0, 50.0), half)
    assert (row["total_km_driven"], row["total_fuel_liters"]) == (60.0, 5.0)


def test_refueling_adds_kilometres_and_no_fuel(frames: Frames) -> None:
    [row] = months(frames, reading(1, 1000.0, 5.0), reading(2, 1060.0, 50.0))
    assert (row["total_km_driven"], row["trip_count"]) == (60.0, 1)
    assert (row["measured_km"], row["total_fuel_liters"], row["avg_fuel_efficiency_kmpl"]) == (0.0, 0.0, None)


@pytest.mark.parametrize("km", [999.0, None])
def test_decreasing_or_missing_odometer_contributes_nothing(frames: Frames, km: float | None) -> None:
    [row] = months(frames, reading(1, 1000.0, 50.0), reading(2, km, 40.0))
    assert (row["total_km_driven"], row["trip_count"], row["total_fuel_liters"]) == (0.0, 0, 0.0)


def test_first_event_of_a_month_is_measured_from_the_previous_month(frames: Frames) -> None:
    october, november = months(frames, reading(31, 1000.0, 50.0, month=10), reading(1, 1050.0, 45.0))
    assert (october["total_km_driven"], november["total_km_driven"]) == (0.0, 50.0)


def test_event_two_months_earlier_is_ignored(frames: Frames) -> None:
    _, november = months(frames, reading(30, 1000.0, 50.0, month=9), reading(1, 1050.0, 45.0))
    assert (november["total_km_driven"], november["trip_count"]) == (0.0, 0)


def test_event_without_a_reading_is_no_reference(frames: Frames) -> None:
    [row] = months(frames, reading(1, 1000.0, 50.0), reading(2, None, 20.0), reading(3, 1060.0, 45.0))
    assert (row["total_km_driven"], row["total_fuel_liters"], row["trip_count"]) == (60.0, 5.0, 1)


def test_reference_may_be_any_event_of_the_month_before(frames: Frames) -> None:
    events = [reading(2, 1000.0, 50.0, month=10), reading(30, None, 30.0, month=10), reading(28, 1050.0, 45.0)]
    _, november = months(frames, *events)
    assert (november["total_km_driven"], november["total_fuel_liters"]) == (50.0, 5.0)


def test_latest_reading_of_two_months_before_hides_no_earlier_month(frames: Frames) -> None:
    *_, november = months(frames, reading(30, 900.0, month=9), reading(30, None, month=10), reading(1, 1050.0))
    assert (november["total_km_driven"], november["trip_count"]) == (0.0, 0)


@pytest.mark.parametrize(("km", "driven"), [(1301.0, 301.0), (1301.5, 0.0)])
def test_distance_that_no_car_drives_in_the_time_contributes_nothing(frames: Frames, km: float, driven: float) -> None:
    start = at(1)
    first, last = ({**reading(1, value), "at": start + timedelta(hours=hour)} for value, hour in ((1000.0, 0), (km, 1)))
    [row] = months(frames, first, last)
    assert (row["total_km_driven"], row["trip_count"]) == (driven, int(driven > 0))


def test_impossible_reading_is_the_reference_of_what_follows(frames: Frames) -> None:
    times = [{**reading(1, km), "at": at(1) + timedelta(hours=hour)} for hour, km in enumerate((1e3, 1e6, 1e6 + 60))]
    [row] = months(frames, *times)
    assert (row["total_km_driven"], row["trip_count"]) == (60.0, 1)


def test_two_readings_of_one_moment_may_differ_by_one_kilometre(frames: Frames) -> None:
    [row] = months(frames, reading(1, 1000.0), reading(1, 1001.0), reading(1, 1003.0))
    assert (row["total_km_driven"], row["trip_count"]) == (1.0, 1)


def test_speed_of_a_trip_is_not_limited(frames: Frames) -> None:
    trip = {**reading(1, 9_000.0), "trip_distance_km": 5_000.0, "trip_fuel_liters": 2.0}
    [row] = months(frames, reading(1, 1000.0, 50.0), trip)
    assert row["total_km_driven"] == 5_000.0


def test_cars_are_measured_separately(frames: Frames) -> None:
    events = [{**reading(day, km), "car": car} for car, km in (("A", 1000.0), ("B", 7000.0)) for day in (1,)]
    events += [{**reading(2, km), "car": car} for car, km in (("A", 1010.0), ("B", 7020.0))]
    assert [row["total_km_driven"] for row in months(frames, *events)] == [10.0, 20.0]


def test_the_month_s_last_known_manufacturer_and_model_are_taken(frames: Frames) -> None:
    [row] = months(
        frames,
        {"at": at(1), "manufacturer": "Fiat", "model": "Uno"},
        {"at": at(2), "manufacturer": "Ford"},
        {"at": at(3)},
    )
    assert (row["manufacturer"], row["model"]) == ("Ford", "Uno")


def test_readings_too_large_for_a_double_give_no_efficiency(frames: Frames) -> None:
    trips = [{"at": at(day), "trip_distance_km": 1e308, "trip_fuel_liters": 1e308} for day in (1, 2, 3)]
    [row] = months(frames, *trips)
    assert row["avg_fuel_efficiency_kmpl"] is None
