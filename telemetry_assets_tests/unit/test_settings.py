"""Settings: typed, from the environment and a .env file, read on demand only."""

from __future__ import annotations

from pathlib import Path

import pytest

from telemetry_assets import settings
from telemetry_assets.aws.locations import S3Location
from telemetry_assets.cli import environment
from telemetry_assets.cli.environment import require_consistent_environment, unknown_settings
from telemetry_assets.errors import SettingsError
from telemetry_assets.settings import load_settings


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("TELEMETRY_LANDING_URI", "TELEMETRY_LAKEHOUSE_URI", "TELEMETRY_CATALOG"):
        monkeypatch.delenv(name, raising=False)
    for module in (settings, environment):
        monkeypatch.setattr(module, "project_root", lambda: tmp_path)
    return tmp_path


def test_relative_folders_are_below_the_project(root: Path) -> None:
    settings = load_settings()
    assert settings.landing_folder() == root / "data" / "landing"
    assert settings.lakehouse_folder() == root / "data" / "lakehouse"


def test_the_environment_wins_over_the_env_file(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / ".env").write_text("TELEMETRY_BATCH_MAX_UPLOADS=7\nTELEMETRY_READ_THREADS=2\n")
    monkeypatch.setenv("TELEMETRY_READ_THREADS", "3")
    settings = load_settings()
    assert (settings.batch_max_uploads, settings.read_threads) == (7, 3)


def test_difference_is_reported_before_dagster_gives_the_env_file_precedence(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / ".env").write_text("TELEMETRY_ENGINE=glue\nTELEMETRY_READ_THREADS=2\nTELEMETRY_CATALOG=glue\n")
    monkeypatch.setenv("TELEMETRY_READ_THREADS", "2")
    require_consistent_environment()
    monkeypatch.setenv("TELEMETRY_ENGINE", "embedded")
    with pytest.raises(SettingsError, match=r"^TELEMETRY_ENGINE in the environment"):
        require_consistent_environment()


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("TELEMETRY_EMR_JOB_ROLE_ARN", "telemetry-job", "is not the ARN of a role"),
        ("TELEMETRY_BATCH_MAX_UPLOADS", "0", "TELEMETRY_BATCH_MAX_UPLOADS"),
        ("TELEMETRY_CATALOG", "hive", "TELEMETRY_CATALOG"),
        ("TELEMETRY_LANDING_URI", " ", "is empty"),
        ("TELEMETRY_LAKEHOUSE_URI", "data/landing/tables", "lies inside"),
        ("TELEMETRY_LAKEHOUSE_URI", "data/landing", "lies inside"),
        ("TELEMETRY_LANDING_URI", "data/lakehouse/archive", "lies inside"),
        ("TELEMETRY_LANDING_URI", "s3:///landing", "names no bucket"),
        ("TELEMETRY_LANDING_URI", "gs://cars/landing", "begins with s3://"),
        ("TELEMETRY_LANDING_URI", "s3://cars/landing", "both be folders or both be in S3"),
        ("TELEMETRY_CATALOG", "glue", "Set it to sqlite"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named_with_the_reason(
    name: str, value: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=says):
        load_settings()


@pytest.mark.parametrize(
    ("landing", "lakehouse", "catalog", "says"),
    [
        ("s3://cars/landing", "s3://cars/lakehouse", "sqlite", "Set it to glue"),
        ("s3://cars/data/landing", "s3://cars/data", "glue", "lies inside"),
        ("s3://cars", "s3://cars/lakehouse", "glue", "lies inside"),
        ("data/landing", "s3://cars/lakehouse", "glue", "both be folders or both be in S3"),
    ],
)
def test_incompatible_locations_are_refused(
    landing: str, lakehouse: str, catalog: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("LANDING_URI", landing), ("LAKEHOUSE_URI", lakehouse), ("CATALOG", catalog)):
        monkeypatch.setenv(f"TELEMETRY_{name}", value)
    with pytest.raises(SettingsError, match=says):
        load_settings()


def test_a_whole_bucket_and_prefixes_with_or_without_a_slash_are_locations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELEMETRY_LANDING_URI", "s3://cars/")
    monkeypatch.setenv("TELEMETRY_LAKEHOUSE_URI", "s3://lakehouse/a/b/")
    monkeypatch.setenv("TELEMETRY_CATALOG", "glue")
    settings = load_settings()
    assert settings.landing_in_s3() == S3Location("cars", "")
    assert settings.lakehouse_in_s3().below("archive").uri("x.json") == "s3://lakehouse/a/b/archive/x.json"


def test_misspelled_setting_is_reported_with_the_most_similar_name(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / ".env").write_text("TELEMETRY_LANDNG_URI=elsewhere\nTELEMETRY_READ_THREADS=2\n")
    monkeypatch.setenv("TELEMETRY_OF_ANOTHER_KIND", "x")
    assert dict(unknown_settings()) == {
        "TELEMETRY_LANDNG_URI": "TELEMETRY_LANDING_URI",
        "TELEMETRY_OF_ANOTHER_KIND": "",
    }


@pytest.mark.parametrize("given", [None, ""])
def test_the_catalog_follows_the_lakehouse_unless_it_is_set(given: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if given is not None:
        monkeypatch.setenv("TELEMETRY_CATALOG", given)
    assert load_settings().catalog == "sqlite"
    monkeypatch.setenv("TELEMETRY_LANDING_URI", "s3://cars/landing")
    monkeypatch.setenv("TELEMETRY_LAKEHOUSE_URI", "s3://cars/lakehouse")
    assert load_settings().catalog == "glue"
