"""Alert rules of a TOML file: the default is the contract's, and each mistake is named with its line."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from telemetry_assets.errors import SettingsError
from telemetry_assets.settings import Settings, load_settings
from telemetry_assets.tables import ALERTS, SILVER
from telemetry_assets.tables.alert_rules import DEFAULT_FILE, AlertRules, read_alert_rules, transform_edition

ROOT = Path(__file__).resolve().parents[2]
RULE = """
[[rules]]
name = "HOT"
column = "engine_temp_celsius"
direction = "above"
bounds = { WARNING = 90 }
message = "{value} is above {bound}."
"""


def file_of(folder: Path, text: str) -> Path:
    file = folder / "rules.toml"
    file.write_text(text)
    return file


def test_default_is_the_contract() -> None:
    assert [
        (rule.name, rule.column, rule.direction, rule.bounds.get("WARNING"), rule.bounds.get("CRITICAL"))
        for rule in read_alert_rules().rules
    ] == [
        ("OVERHEAT_ENGINE", "engine_temp_celsius", "above", 100, 115),
        ("OVERHEAT_OIL", "oil_temp_celsius", "above", 110, 125),
        ("LOW_OIL_PRESSURE", "oil_pressure_psi", "below", 20, 10),
        ("SPEEDING", "trip_max_speed_kmh", "above", 110, 140),
        ("LOW_FUEL", "fuel_available_liters", "below", 10, 5),
        ("HIGH_MILEAGE", "current_mileage_km", "above", 100_000, None),
    ]
    assert {rule.name: rule.exclude for rule in read_alert_rules().rules if rule.exclude} == {
        "LOW_FUEL": {"gas_type": ("Electric",)}
    }


def test_the_setting_names_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELEMETRY_ALERT_RULES", str(file_of(tmp_path, RULE)))
    assert [rule.name for rule in load_settings().alert_rules.rules] == ["HOT"]
    monkeypatch.setenv("TELEMETRY_ALERT_RULES", "")
    assert load_settings().alert_rules == read_alert_rules()


def test_rules_stay_the_same_in_the_settings_of_a_remote_program(tmp_path: Path) -> None:
    settings = Settings(alert_rules=read_alert_rules(file_of(tmp_path, RULE + 'except = { model = ["Uno"] }')))
    assert Settings(**settings.model_dump(mode="json")).alert_rules == settings.alert_rules


@pytest.mark.parametrize(
    ("text", "mistakes"),
    [
        (RULE.replace("engine_temp_celsius", "engine_temp"), ["line 4: rule 1.column: is not a numeric column"]),
        (RULE.replace("engine_temp_celsius", "model"), ["line 4: rule 1.column: is not a numeric column"]),
        (RULE.replace("above", "over", 1), ["line 5: rule 1.direction: "]),
        (RULE.replace("90", '"warm"'), ["line 6: rule 1.bounds.WARNING: "]),
        (RULE.replace("90", "inf"), ["line 6: rule 1.bounds.WARNING: "]),
        (RULE.replace("WARNING", "SEVERE"), ["line 6: rule 1.bounds.SEVERE: "]),
        (RULE.replace("WARNING = 90", ""), ["line 2: rule 1: bounds: needs a bound for WARNING or CRITICAL"]),
        (RULE.replace("90", "90, CRITICAL = 80"), ["line 2: rule 1: bounds: the CRITICAL bound must be above"]),
        (RULE.replace("{value}", "{reading}"), ["line 7: rule 1.message: has other placeholders"]),
        (RULE.replace("{value}", "{value:.3f}"), ["line 7: rule 1.message: has other placeholders"]),
        (RULE.replace("{value}", "{value"), ["line 7: rule 1.message: is not a message"]),
        (RULE.replace("HOT", "hot"), ["line 3: rule 1.name: "]),
        (RULE + 'colour = "red"', ["line 8: rule 1.colour: "]),
        (RULE + 'only = { color = ["red"] }', ["line 8: rule 1.only.color: "]),
        (RULE.replace('direction = "above"', ""), ["line 2: rule 1.direction: Field required"]),
        (RULE + RULE, ["line 10: rules: 2 rules have the name HOT"]),
        (RULE.replace("90", "true"), ["line 6: rule 1.bounds.WARNING: "]),
        (RULE.replace("90", '"90"'), ["line 6: rule 1.bounds.WARNING: "]),
        (RULE + "only = { model = [] }", ["line 8: rule 1.only.model: "]),
        (RULE + 'except = { model = [""] }', ["line 8: rule 1.except.model.0: "]),
        (RULE + 'exclude = { model = ["Uno"] }', ["line 8: rule 1.exclude: "]),
        (RULE.replace("{value} is above {bound}.", ""), ["line 7: rule 1.message: "]),
        (RULE.replace("is above", "is\\u0000above"), ["line 7: rule 1.message: "]),
        (RULE.replace('"{value} is above {bound}."', '"""\n[[rules]]\n{value"""'), ["line 7: rule 1.message"]),
        (RULE + "x = " + "[" * 5_000, ["not TOML"]),
        (RULE + "x = " + "9" * 5_000, ["not TOML"]),
        (RULE + RULE.replace("HOT", "COLD").replace("above", "under", 1), ["line 12: rule 2.direction: "]),
        ("rules = []", ["line 1: rules"]),
        ("", ["rules: Field required"]),
        (RULE + "version = \nx = 1", ["not TOML", "line 8"]),
        (RULE.replace("above", "x", 1).replace("HOT", "?"), ["line 3: rule 1.name", "line 5: rule 1.direction"]),
    ],
)
def test_each_mistake_is_named_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, mistakes: list[str]
) -> None:
    monkeypatch.setenv("TELEMETRY_ALERT_RULES", str(file_of(tmp_path, text)))
    with pytest.raises(SettingsError) as raised:
        load_settings()
    assert "TELEMETRY_ALERT_RULES: names a file" in str(raised.value)
    for mistake in mistakes:
        assert mistake in str(raised.value)


@pytest.mark.parametrize("file", ["/nowhere/s3cr3t", "~no-such-user/s3cr3t"])
def test_a_file_that_cannot_be_read_is_reported_without_its_name(monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    monkeypatch.setenv("TELEMETRY_ALERT_RULES", file)
    with pytest.raises(SettingsError, match="TELEMETRY_ALERT_RULES: names a file that cannot be read") as raised:
        load_settings()
    assert "s3cr3t" not in str(raised.value)


def test_order_of_bounds_does_not_change_the_edition(tmp_path: Path) -> None:
    bounds = ("WARNING = 1, CRITICAL = 2", "CRITICAL = 2, WARNING = 1")
    texts = [RULE.replace("WARNING = 90", one) for one in bounds]
    assert len({read_alert_rules(file_of(tmp_path, text)).edition for text in texts}) == 1


def test_default_rules_are_part_of_the_package() -> None:
    packaged = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    files = [file for pattern in packaged["telemetry_assets"] for file in (ROOT / "telemetry_assets").glob(pattern)]
    assert DEFAULT_FILE in files


def test_edition_of_the_alerts_depends_on_the_rules_and_no_other_does(tmp_path: Path) -> None:
    default, other = read_alert_rules(), read_alert_rules(file_of(tmp_path, RULE))
    same = AlertRules(**default.model_dump())
    assert transform_edition(ALERTS, default) == transform_edition(ALERTS, same) != transform_edition(ALERTS, other)
    assert transform_edition(SILVER, default) == transform_edition(SILVER, other)
