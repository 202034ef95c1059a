"""The alert rules: their bounds for warnings and critical alerts, and the alerts' messages."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from telemetry_assets.tables import SILVER
from telemetry_assets.tables.alert_rules import AlertRules, read_alert_rules
from telemetry_assets.transforms.gold_performance_alerts import performance_alerts
from telemetry_assets_tests.harness.frames import NOON, Frames, silver_row

RULES = read_alert_rules()


def alerts_of(frames: Frames, **values: Any) -> list[tuple[str, str, float]]:
    rows = frames.rows(performance_alerts(frames.of(SILVER, silver_row(**values)), RULES), "alert_type")
    return [(row["alert_type"], row["alert_severity"], row["alert_threshold"]) for row in rows]


@pytest.mark.parametrize(
    ("rule", "column", "warning", "critical", "step"),
    [
        ("OVERHEAT_ENGINE", "engine_temp_celsius", 100.0, 115.0, 0.5),
        ("OVERHEAT_OIL", "oil_temp_celsius", 110.0, 125.0, 0.5),
        ("LOW_OIL_PRESSURE", "oil_pressure_psi", 20.0, 10.0, -0.5),
        ("SPEEDING", "trip_max_speed_kmh", 110.0, 140.0, 0.5),
        ("LOW_FUEL", "fuel_available_liters", 10.0, 5.0, -0.5),
    ],
)
def test_a_rule_warns_beyond_its_bound_and_not_at_it(
    frames: Frames, rule: str, column: str, warning: float, critical: float, step: float
) -> None:
    readings = [warning, warning + step, critical, critical + step]
    values: list[dict[str, Any]] = [{column: reading} for reading in readings]
    silver = frames.of(SILVER, *(silver_row(f"e{number}", **one) for number, one in enumerate(values)))
    rows = frames.rows(performance_alerts(silver, RULES), "event_id")
    assert [(row["event_id"], row["alert_type"], row["alert_severity"], row["alert_threshold"]) for row in rows] == [
        ("e1", rule, "WARNING", warning),
        ("e2", rule, "WARNING", warning),
        ("e3", rule, "CRITICAL", critical),
    ]
    assert [row["alert_value"] for row in rows] == readings[1:]


def test_high_mileage_is_never_critical(frames: Frames) -> None:
    assert alerts_of(frames, current_mileage_km=100_000.0) == []
    assert alerts_of(frames, current_mileage_km=1e9) == [("HIGH_MILEAGE", "WARNING", 100_000.0)]


@pytest.mark.parametrize(
    ("gas_type", "alerts"),
    [("Electric", 0), ("ELECTRIC", 0), ("Flex", 1), (None, 1)],
)
def test_an_electric_car_has_no_low_fuel(frames: Frames, gas_type: str | None, alerts: int) -> None:
    assert len(alerts_of(frames, fuel_available_liters=0.0, gas_type=gas_type)) == alerts


def test_an_event_without_readings_has_no_alert(frames: Frames) -> None:
    assert alerts_of(frames) == []


def test_one_event_can_cross_the_bound_of_every_rule(frames: Frames) -> None:
    alerts = alerts_of(
        frames,
        engine_temp_celsius=120.0,
        oil_temp_celsius=130.0,
        oil_pressure_psi=1.0,
        trip_max_speed_kmh=200.0,
        fuel_available_liters=1.0,
        current_mileage_km=200_000.0,
    )
    assert [alert_type for alert_type, _, _ in alerts] == sorted(rule.name for rule in RULES.rules)


def test_an_alert_names_its_event_and_says_what_happened(frames: Frames) -> None:
    silver = frames.of(SILVER, silver_row("e7", car="CAR-7", engine_temp_celsius=117.25))
    [row] = frames.rows(performance_alerts(silver, RULES))
    assert row["alert_id"] == hashlib.sha256(b"CAR-7|e7|OVERHEAT_ENGINE").hexdigest()
    assert (row["event_id"], row["car_chassis"]) == ("e7", "CAR-7")
    assert (row["telemetry_timestamp"], row["alert_date"]) == (NOON, NOON.date())
    assert row["alert_message"] == "Engine temperature of 117.3 °C is above the critical bound of 115 °C."


@pytest.mark.parametrize(
    ("reading", "text"),
    [(-0.04, "-0.0"), (9.96, "10.0"), (-3.25, "-3.3"), (0.0, "0.0"), (-1e15, "over 10^15 (or below its negative)")],
)
def test_a_reading_is_shown_with_one_decimal(frames: Frames, reading: float, text: str) -> None:
    [row] = frames.rows(performance_alerts(frames.of(SILVER, silver_row(oil_pressure_psi=reading)), RULES))
    assert row["alert_message"].startswith(f"Oil pressure of {text} psi is below the critical bound of 10 psi.")


OWN_RULES = """
[[rules]]
name = "OLD_CAR"
column = "year"
direction = "below"
bounds = { CRITICAL = 1990 }
message = "Built in {value}: {severity}, because it is before {bound}."
only = { manufacturer = ["Fiat", "VW"], model = ["uno"] }
except = { gas_type = ["Electric"] }

[[rules]]
name = "COLD_ENGINE"
column = "engine_temp_celsius"
direction = "below"
bounds = { WARNING = -10.5, CRITICAL = -30 }
message = "It is cold."
"""


@pytest.fixture
def own_rules(tmp_path: Path) -> AlertRules:
    file = tmp_path / "rules.toml"
    file.write_text(OWN_RULES)
    return read_alert_rules(file)


@pytest.mark.parametrize(
    ("car", "alerts"),
    [
        ({"manufacturer": "FIAT", "model": "Uno"}, 1),
        ({"manufacturer": "VW", "model": "UNO", "gas_type": "Flex"}, 1),
        ({"manufacturer": "Fiat", "model": "Uno", "gas_type": "electric"}, 0),
        ({"manufacturer": "Fiat", "model": "Palio"}, 0),
        ({"manufacturer": "Ford", "model": "Uno"}, 0),
        ({"model": "Uno"}, 0),
    ],
)
def test_rule_applies_to_the_cars_that_it_names(
    frames: Frames, own_rules: AlertRules, car: dict[str, Any], alerts: int
) -> None:
    silver = frames.of(SILVER, silver_row(year=1985, **car))
    rows = frames.rows(performance_alerts(silver, own_rules))
    assert len(rows) == alerts
    for row in rows:
        assert (row["alert_value"], row["alert_threshold"]) == (1985.0, 1990.0)
        assert row["alert_message"] == "Built in 1985.0: critical, because it is before 1990."


def test_own_rule_has_its_own_bounds_and_message(frames: Frames, own_rules: AlertRules) -> None:
    rows = [silver_row(f"e{number}", engine_temp_celsius=value) for number, value in enumerate((-10.5, -11.0, -30.5))]
    found = frames.rows(performance_alerts(frames.of(SILVER, *rows), own_rules), "event_id")
    assert [
        (row["event_id"], row["alert_severity"], row["alert_threshold"], row["alert_message"]) for row in found
    ] == [
        ("e1", "WARNING", -10.5, "It is cold."),
        ("e2", "CRITICAL", -30.0, "It is cold."),
    ]
