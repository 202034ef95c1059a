"""A deployment that changes its alert rules: all alerts are computed again, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from telemetry_assets.cli.main import main
from telemetry_assets.tables import ALERTS, SILVER
from telemetry_assets.tables.alert_rules import AlertRules, read_alert_rules
from telemetry_assets_tests.harness.deployment import deployment
from telemetry_assets_tests.harness.made_documents import event, framed

RULES = """
[[rules]]
name = "OVERHEAT_ENGINE"
column = "engine_temp_celsius"
direction = "above"
bounds = { WARNING = 95, CRITICAL = 119 }
message = "{value} is above {bound}."
"""


@pytest.fixture
def rules_file(tmp_path: Path) -> Path:
    file = tmp_path / "rules.toml"
    file.write_text(RULES)
    return file


@pytest.fixture
def rules(rules_file: Path) -> AlertRules:
    return read_alert_rules(rules_file)


def test_all_alerts_are_computed_again_and_say_the_bound_that_was_crossed(tmp_path: Path, rules: AlertRules) -> None:
    readings = [(day, value) for day in (1, 2) for value in (96, 105, 120)]
    documents = [
        event(f"CAR-{value}", f"2025-11-0{day}T10:00:00Z", engineTempCelsius=value, oilPressurePsi=1)
        for day, value in readings
    ]
    with deployment(tmp_path) as deployed:
        deployed.upload("x.json", framed(documents, "array")[1])
        deployed.process()
        before = deployed.pipeline.lakehouse.table(SILVER).metadata_location
        assert len(deployed.rows(ALERTS)) == 10
    with deployment(tmp_path, alert_rules=rules) as deployed:
        assert deployed.pipeline.tables_behind() == [ALERTS]
        results = {one.contract: one for one in deployed.process().refreshes}
        assert "its transform has computed it" in results[ALERTS].rebuild_reason
        alerts = sorted(
            (row["alert_date"].day, row["alert_value"], row["alert_threshold"]) for row in deployed.rows(ALERTS)
        )
        assert alerts == [(day, value, 119.0 if value > 119 else 95.0) for day, value in readings]
        assert deployed.pipeline.tables_behind() == []
        assert deployed.pipeline.lakehouse.table(SILVER).metadata_location == before
        assert not any(one.changed for one in deployed.process().refreshes)


def test_the_doctor_prints_the_rules_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rules_file: Path
) -> None:
    monkeypatch.setenv("TELEMETRY_LANDING_URI", str(tmp_path / "landing"))
    monkeypatch.setenv("TELEMETRY_LAKEHOUSE_URI", str(tmp_path / "lakehouse"))
    assert "LOW_FUEL: fuel_available_liters CRITICAL below 5, WARNING below 10; not gas_type Electric" in doctor()
    monkeypatch.setenv("TELEMETRY_ALERT_RULES", str(rules_file))
    assert "OVERHEAT_ENGINE: engine_temp_celsius CRITICAL above 119, WARNING above 95; all cars" in doctor()
    assert "LOW_FUEL" not in doctor()


def doctor() -> str:
    return CliRunner().invoke(main, ["doctor"]).output
