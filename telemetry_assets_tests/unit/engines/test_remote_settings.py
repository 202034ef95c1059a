"""The settings of remote steps."""

from __future__ import annotations

import json

import pytest

from telemetry_assets.errors import SettingsError
from telemetry_assets.settings import load_settings, require_engine_settings

IN_S3 = {"LANDING_URI": "s3://cars/landing", "LAKEHOUSE_URI": "s3://cars/lake", "CATALOG": "glue"}


@pytest.fixture(autouse=True)
def in_s3(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in IN_S3.items():
        monkeypatch.setenv(f"TELEMETRY_{name}", value)


def test_missing_settings_of_a_service_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELEMETRY_ENGINE", "emr_serverless")
    needed = "TELEMETRY_SCRIPTS_URI and TELEMETRY_EMR_APPLICATION_ID and TELEMETRY_EMR_JOB_ROLE_ARN"
    with pytest.raises(SettingsError, match=needed):
        require_engine_settings(load_settings())
    monkeypatch.setenv("TELEMETRY_ENGINE", "glue")
    monkeypatch.setenv("TELEMETRY_SCRIPTS_URI", "s3://scripts")
    with pytest.raises(SettingsError, match="TELEMETRY_ENGINE=glue needs TELEMETRY_GLUE_JOB_NAME"):
        require_engine_settings(load_settings())


def test_services_refuse_tables_in_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in IN_S3:
        monkeypatch.delenv(f"TELEMETRY_{name}")
    monkeypatch.setenv("TELEMETRY_ENGINE", "glue")
    with pytest.raises(SettingsError, match="remote Spark needs tables in S3"):
        require_engine_settings(load_settings())


def test_most_specific_size_wins_and_spark_configurations_are_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELEMETRY_SPARK_CONFIGURATION", '{"a": "1", "b": "1"}')
    sizes = {
        "default": {"executors": 2, "spark": {"b": 2, "c": 2}},
        "rebuild": {"executors": 8, "glue_worker_type": "G.2X"},
        "silver.car_telemetry": {"executors": 3},
        "silver.car_telemetry/rebuild": {"executors": 16, "spark": {"c": True}},
    }
    monkeypatch.setenv("TELEMETRY_REMOTE_SIZES", json.dumps(sizes))
    settings = load_settings()
    assert settings.remote_size("gold.performance_alerts", rebuild=False).executors == 2
    assert settings.remote_size("gold.performance_alerts", rebuild=True).executors == 8
    assert settings.remote_size("silver.car_telemetry", rebuild=False).executors == 3
    chosen = settings.remote_size("silver.car_telemetry", rebuild=True)
    assert (chosen.executors, chosen.glue_worker_type) == (16, "G.2X")
    assert chosen.spark == {"a": "1", "b": "2", "c": "true"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("[]", "is not a JSON object"),
        ('{"default": {"executors": 0}}', "default: executors"),
        (
            '{"rebuild": {"workers": 3}}',
            "rebuild: another name is unknown; known are executors, glue_worker_type, spark",
        ),
        ('{"default": {}, "gold.x": {"executors": 0}}', "entry 2: executors"),
    ],
)
def test_invalid_size_is_refused(monkeypatch: pytest.MonkeyPatch, given: str, message: str) -> None:
    monkeypatch.setenv("TELEMETRY_REMOTE_SIZES", given)
    with pytest.raises(SettingsError, match=message):
        load_settings()


def test_scripts_location_must_be_in_s3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELEMETRY_SCRIPTS_URI", "scripts")
    with pytest.raises(SettingsError, match="TELEMETRY_SCRIPTS_URI"):
        load_settings()
