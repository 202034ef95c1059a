"""A car's last known values, from its history or from changes only, and its insurance status."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from pyspark.sql import Column
from pyspark.sql import functions as f

from telemetry_assets.tables import CURRENT_STATE, SILVER
from telemetry_assets.transforms.gold_car_current_state import NEEDS_HISTORY, last_known, updated, with_insurance
from telemetry_assets_tests.harness.frames import Frames, Row, silver_row


def at(day: int, hour: int = 12) -> datetime:
    return datetime(2025, 11, day, hour, tzinfo=UTC)


def known(frames: Frames, *events: Row) -> list[dict[str, Any]]:
    return frames.rows(last_known(frames.of(SILVER, *events)), "car_chassis")


def test_each_attribute_has_its_last_known_value_and_the_event_that_gave_it(frames: Frames) -> None:
    [row] = known(
        frames,
        silver_row("late", at(3), current_mileage_km=1500.0),
        silver_row("early", at(1), model="Uno", manufacturer="Fiat", current_mileage_km=1000.0),
        silver_row("between", at(2), model="Palio"),
    )
    assert (row["manufacturer"], row["manufacturer_event_id"]) == ("Fiat", "early")
    assert (row["model"], row["model_known_at"], row["model_event_id"]) == ("Palio", at(2), "between")
    assert (row["current_mileage_km"], row["current_mileage_km_event_id"]) == (1500.0, "late")
    assert (row["gas_type"], row["gas_type_known_at"]) == (None, None)
    assert (row["telemetry_timestamp"], row["telemetry_event_id"]) == (at(3), "late")


def test_event_with_the_greater_id_is_the_later_one_at_the_same_time(frames: Frames) -> None:
    [row] = known(frames, silver_row("e2", model="Palio"), silver_row("e1", model="Uno"))
    assert (row["model"], row["telemetry_event_id"]) == ("Palio", "e2")


def test_there_is_one_row_for_each_car(frames: Frames) -> None:
    rows = known(frames, silver_row("e1", car="A"), silver_row("e2", car="B"), silver_row("e3", car="A"))
    assert [row["car_chassis"] for row in rows] == ["A", "B"]


def is_on(dates: set[date]) -> Callable[[str], Column]:
    """Whether a stored value comes from an event on one of these dates."""

    def stored_on(name: str) -> Column:
        known_at = name if name == "telemetry_timestamp" else f"{name}_known_at"
        return f.coalesce(f.to_date(f"_stored_{known_at}").isin(*sorted(dates)), f.lit(False))

    return stored_on


def after(frames: Frames, before: list[Row], changed: list[Row], dates: set[date]) -> list[dict[str, Any]]:
    """The state of ``before`` after ``changed`` has replaced all rows of ``dates``."""
    state = with_insurance(last_known(frames.of(SILVER, *before)), date(2026, 1, 1))
    made = updated(state, last_known(frames.of(SILVER, *changed)), is_on(dates))
    return frames.rows(made, "car_chassis")


def test_a_newer_value_replaces_the_stored_one_and_an_older_one_does_not(frames: Frames) -> None:
    stored = silver_row("e2", at(2), model="Uno", gas_type="Flex")
    [newer] = after(frames, [stored], [silver_row("e3", at(3), model="Palio")], {at(3).date()})
    assert (newer["model"], newer["gas_type"], newer["telemetry_event_id"]) == ("Palio", "Flex", "e3")
    [older] = after(frames, [stored], [silver_row("e1", at(1), model="Palio")], {at(1).date()})
    assert (older["model"], older["telemetry_event_id"]) == ("Uno", "e2")
    assert not newer[NEEDS_HISTORY]
    assert not older[NEEDS_HISTORY]


def test_a_correction_of_the_event_that_gave_the_value_replaces_it(frames: Frames) -> None:
    stored, corrected = silver_row("e1", at(2), model="Uno"), silver_row("e1", at(2), model="Palio")
    [row] = after(frames, [stored], [corrected], {at(2).date()})
    assert (row["model"], row[NEEDS_HISTORY]) == ("Palio", False)


def test_car_needs_its_history_if_the_event_of_a_value_is_gone(frames: Frames) -> None:
    before = [silver_row("e1", at(1), model="Uno"), silver_row("e2", at(2), model="Palio")]
    [row] = after(frames, before, [], {at(2).date()})
    assert row[NEEDS_HISTORY]
    [kept] = after(frames, before, [], {at(5).date()})
    assert (kept["model"], kept[NEEDS_HISTORY]) == ("Palio", False)


def test_new_car_is_added_to_the_stored_ones(frames: Frames) -> None:
    rows = after(frames, [silver_row("e1", at(1), car="A")], [silver_row("e2", at(2), car="B")], {at(2).date()})
    assert [(row["car_chassis"], row["telemetry_event_id"]) for row in rows] == [("A", "e1"), ("B", "e2")]


def test_manually_duplicated_stored_row_counts_once(frames: Frames) -> None:
    row = {
        "car_chassis": "CAR-1",
        "model": "Uno",
        "model_known_at": at(1),
        "model_event_id": "e1",
        "telemetry_timestamp": at(1),
        "telemetry_event_id": "e1",
    }
    state = frames.of(CURRENT_STATE, row, row)
    changed = last_known(frames.of(SILVER, silver_row("e2", at(2))))
    assert len(frames.rows(updated(state, changed, is_on({at(2).date()})))) == 1


@pytest.mark.parametrize(
    ("days_left", "status", "expired"),
    [
        (None, "UNKNOWN", None),
        (-1, "EXPIRED", 1),
        (0, "EXPIRING_IN_90_DAYS", None),
        (90, "EXPIRING_IN_90_DAYS", None),
        (91, "ACTIVE", None),
    ],
)
def test_insurance_status_depends_on_the_remaining_days(
    frames: Frames, days_left: int | None, status: str, expired: int | None
) -> None:
    as_of = date(2026, 1, 1)
    valid_until = None if days_left is None else as_of + timedelta(days=days_left)
    state = last_known(frames.of(SILVER, silver_row(insurance_valid_until=valid_until)))
    [row] = frames.rows(with_insurance(state, as_of))
    assert (row["insurance_status"], row["insurance_days_expired"]) == (status, expired)
    assert row["insurance_as_of"] == as_of
    assert list(row) == list(CURRENT_STATE.column_names)
