"""The Spark engine's requirements and its configuration of the tables."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from telemetry_assets.cli.main import main
from telemetry_assets.engines.spark import jars as spark_jars
from telemetry_assets.engines.spark.configuration import iceberg_configuration
from telemetry_assets.engines.spark.jars import JARS, fetch, jars
from telemetry_assets.engines.spark.session import open_session
from telemetry_assets.errors import SettingsError
from telemetry_assets.settings import Settings, load_settings
from telemetry_assets_tests.harness.java import need_java


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of jars that is empty."""
    monkeypatch.setattr(spark_jars, "jars_folder", lambda: tmp_path / "jars")
    return tmp_path / "jars"


def test_without_java_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    with pytest.raises(SettingsError, match="needs Java 17 at JAVA_HOME"):
        open_session(Settings(engine="spark"))
    monkeypatch.delenv("JAVA_HOME")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SettingsError, match="needs Java 17"):
        open_session(Settings(engine="spark"))


@pytest.mark.long
def test_spark_startup_error_is_shown_without_javas_stack() -> None:
    need_java()
    # In a separate process, because a running JVM keeps its memory.
    program = """
from telemetry_assets.engines.spark.session import open_session
from telemetry_assets.settings import Settings
open_session(Settings(engine="spark", spark_configuration={"spark.driver.memory": "100m"}))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "SettingsError: Spark did not start in its JVM" in result.stderr.splitlines()[-1]
    assert "Install it" not in result.stderr
    assert "must be at least" in result.stderr.splitlines()[-1]


def test_without_its_jars_the_message_says_how_to_get_them(empty_folder: Path) -> None:
    with pytest.raises(SettingsError, match=r"iceberg-spark-runtime.*`make spark-jars`"):
        jars()


def test_the_doctor_says_what_the_engine_lacks(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("landing", "lakehouse"):
        monkeypatch.setenv(f"TELEMETRY_{name.upper()}_URI", str(tmp_path / name))
    monkeypatch.setenv("TELEMETRY_ENGINE", "spark")
    monkeypatch.setenv("TELEMETRY_SPARK_CONFIGURATION", '{"spark.sql.session.timeZone": "Europe/Berlin"}')
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 1
    for message in (
        "needs Java 17",
        "Run `make spark-jars`",
        "spark.sql.session.timeZone has no effect, because the project sets it to UTC",
    ):
        assert message in result.output


def test_existing_jars_are_not_downloaded_again(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty_folder.mkdir()
    for jar in JARS:
        (empty_folder / jar.file_name).touch()
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: pytest.fail("it asks for them"))
    fetch()


def test_jar_with_another_checksum_is_not_loaded(empty_folder: Path) -> None:
    empty_folder.mkdir()
    for jar in JARS:
        (empty_folder / jar.file_name).write_bytes(b"anything else")
    with pytest.raises(SettingsError, match=r"differs from that of org\.apache\.iceberg:iceberg-spark-runtime.*no JVM"):
        jars()
    with pytest.raises(SettingsError, match=r"The SHA-256 of .* differs from"):
        open_session(Settings(engine="spark"))


def test_downloaded_jar_with_another_checksum_is_not_kept(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: io.BytesIO(b"anything else"))
    with pytest.raises(SettingsError, match="the file was not kept"):
        fetch()
    assert list(empty_folder.iterdir()) == []


def test_jar_changed_after_its_check_is_checked_again(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"a jar"
    one = replace(JARS[0], sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(spark_jars, "JARS", (one,))
    empty_folder.mkdir()
    path = empty_folder / one.file_name
    path.write_bytes(content)
    assert jars() == [path]
    path.write_bytes(b"b jar")
    with pytest.raises(SettingsError, match=r"The SHA-256 of .* differs from"):
        jars()


def test_configuration_of_tables_in_s3_follows_awss_own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_GLUE", "http://glue.here")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    result = iceberg_configuration(
        Settings(landing_uri="s3://cars", lakehouse_uri="s3://lake/telemetry", catalog="glue", kms_key_id="alias/key")
    )
    options = {name.removeprefix("spark.sql.catalog.telemetry."): value for name, value in result.items()}
    assert options["catalog-impl"].endswith("GlueCatalog")
    assert (options["client.region"], options["glue.endpoint"]) == ("eu-west-1", "http://glue.here")
    assert (options["s3.sse.type"], options["s3.sse.key"]) == ("kms", "alias/key")
    assert not {"s3.endpoint", "s3.path-style-access"} & set(options)


def test_spark_s_own_configuration_is_a_json_object(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELEMETRY_SPARK_CONFIGURATION", '{"spark.driver.memory": "8g"}')
    assert load_settings().spark_configuration == {"spark.driver.memory": "8g"}
    monkeypatch.setenv("TELEMETRY_SPARK_CONFIGURATION", '{"spark.task.cpus": 2, "spark.ui.enabled": true}')
    assert load_settings().spark_configuration == {"spark.task.cpus": "2", "spark.ui.enabled": "true"}
    for wrong in ("8g", "[]"):
        monkeypatch.setenv("TELEMETRY_SPARK_CONFIGURATION", wrong)
        with pytest.raises(SettingsError, match=r"TELEMETRY_SPARK_CONFIGURATION: .*is not a JSON object"):
            load_settings()


def test_doctor_masks_secrets_in_sparks_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELEMETRY_SPARK_CONFIGURATION", '{"spark.ssl.keyPassword": "hush", "spark.app.name": "cars"}')
    monkeypatch.setenv("TELEMETRY_REMOTE_SIZES", '{"rebuild": {"spark": {"spark.ssl.keyPassword": "hush"}}}')
    result = CliRunner().invoke(main, ["doctor"]).output
    assert "hush" not in result
    assert 'TELEMETRY_SPARK_CONFIGURATION={"spark.ssl.keyPassword": "\\u2026", "spark.app.name": "cars"}' in result
