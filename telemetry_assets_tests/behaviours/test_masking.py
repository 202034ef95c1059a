"""No secret of a setting is shown by `doctor`, in an error or in the arguments of a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from telemetry_assets.errors import SettingsError
from telemetry_assets.settings import Settings, load_settings
from telemetry_assets.text.masking import MASK, is_secret, masked, masked_text
from telemetry_assets_tests.harness.forked import ForkedProgram

SECRET = "correct-horse"
CONFIGURATION = {
    "spark.hadoop.fs.s3a.secret.key": SECRET,
    "spark.hadoop.fs.s3a.access.key": SECRET,
    "spark.hadoop.x.url": f"jdbc:postgresql://cars:{SECRET}@db/x?user=cars&password={SECRET}",
    "spark.x.options": f"-Dkey={SECRET}",
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *CONFIGURATION.items(),
        ("spark.authenticate.secret", SECRET),
        ("spark.ssl.keyPassword", SECRET),
        ("spark.executorEnv.API_KEY", SECRET),
        ("x", f"https://{SECRET}@host/path"),
        ("x", f"https://host/?X-Amz-Signature={SECRET}&x=1"),
        ("x", f'{{"password": "{SECRET}"}}'),
        ("x", f"-Djavax.net.ssl.trustStorePassword={SECRET}"),
        ("x", f"-Dany.thing='{SECRET} and more'"),
        ("spark.hadoop.fs.azure.account.key.cars.dfs.core.windows.net", SECRET),
        ("spark.sql.catalog.x.header.Authorization", f"Bearer {SECRET}"),
        ("x", f"Bearer {SECRET}"),
        ("spark.x.passphrase", SECRET),
        ("x", f"https://host/c?sv=1&sig={SECRET}"),
        ("x", f"https://user:p/{SECRET}@host/x"),
        ("x", f"ghp_{SECRET}"),
        *((name, SECRET) for name in ("spark.encryptionKey", "spark.authKey", "spark.dbPass", "x.userpass")),
        *((name, SECRET) for name in ("spark.licenseKey", "spark.redis.AUTH", "spark.session.cookie", "spark.mySas")),
        ("x", f"--password {SECRET}"),
        ("x", f"--conf spark.dbPass={SECRET} -db-pass '{SECRET}'"),
        ("x", f"DefaultEndpointsProtocol=https;AccountKey={SECRET}==;EndpointSuffix=x"),
        ("x", f'password="some \\"{SECRET}"'),
        ("x", f"Pwd=some {SECRET};Server=x"),
        ("x", f"-Dkey=some\\ {SECRET}"),
        ("x", f"Authorization: Token {SECRET}"),
        ("x", f"//user:p@{SECRET}@host/x"),
    ],
)
def test_secret_is_recognized_by_its_name_or_form(name: str, value: str) -> None:
    assert SECRET not in str(masked(name, value))
    assert is_secret(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("landing_uri", "s3://cars/landing"),
        ("kms_key_id", "arn:aws:kms:eu-central-1:123456789012:key/0123"),
        ("emr_job_role_arn", "arn:aws:iam::123456789012:role/telemetry-job"),
        ("spark.sql.shuffle.partitions", "8"),
        ("spark.serializer", "org.apache.spark.serializer.KryoSerializer"),
        ("spark.x.kmsKeyArn", "arn:aws:kms:eu-central-1:123456789012:key/0123"),
        ("spark.sql.mapKeyDedupPolicy", "LAST_WIN"),
        ("spark.shuffle.sort.bypassMergeThreshold", "200"),
        ("spark.sql.hive.compat", "s3://cars/landing/a@b?x=1:2"),
    ],
)
def test_other_values_are_shown(name: str, value: str) -> None:
    assert masked(name, value) == value


@pytest.mark.parametrize(
    "text", ["AKIAIOSFODNN7EXAMPLE", "eyJhbGciOi.eyJzdWIi.c2ln", "-----BEGIN RSA PRIVATE KEY-----\nMII"]
)
def test_keys_and_tokens_are_recognized_by_their_form(text: str) -> None:
    assert masked_text(text).endswith(MASK)
    assert masked_text(text) != text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TELEMETRY_SPARK_CONFIGURATION", f'{{"spark.password": "{SECRET}"'),
        ("TELEMETRY_REMOTE_SIZES", json.dumps({"default": {"spark": {"a": "b"}, "executors": SECRET}})),
        ("TELEMETRY_REMOTE_SIZES", json.dumps({"default": {SECRET: 1}})),
        ("TELEMETRY_REMOTE_SIZES", json.dumps({SECRET: {"executors": 0, "spark": {SECRET: []}}})),
        ("TELEMETRY_REMOTE_SIZES", json.dumps({SECRET: 1})),
        ("TELEMETRY_CATALOG", SECRET),
        ("TELEMETRY_EMR_JOB_ROLE_ARN", SECRET),
        ("TELEMETRY_BATCH_MAX_BYTES", SECRET),
        ("TELEMETRY_LANDING_URI", f"https://cars:{SECRET}@host/landing"),
        ("TELEMETRY_LANDING_URI", f"s3://cars:{SECRET}@bucket/landing"),
    ],
)
def test_error_of_a_malformed_setting_shows_its_name_only(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name) as refused:
        load_settings()
    chain = (refused.value, refused.value.__cause__)
    assert not [error for error in chain if SECRET in str(error)]
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


def test_doctor_shows_no_secret(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "telemetry_assets", "doctor"],
        env={
            **os.environ,
            "TELEMETRY_LANDING_URI": str(tmp_path / "landing"),
            "TELEMETRY_LAKEHOUSE_URI": str(tmp_path / "lakehouse"),
            "TELEMETRY_SPARK_CONFIGURATION": json.dumps(CONFIGURATION),
            "TELEMETRY_REMOTE_SIZES": json.dumps({"default": {"spark": CONFIGURATION}}),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert "spark.hadoop.fs.s3a.secret.key" in result.stdout
    assert SECRET not in result.stdout + result.stderr


def _session_with_secrets(folder: Path) -> None:
    from telemetry_assets.engines.spark.session import open_session

    settings = Settings(
        landing_uri=str(folder / "landing"),
        lakehouse_uri=str(folder / "lakehouse"),
        engine="spark",
        spark_configuration=CONFIGURATION,
    )
    session = open_session(settings)
    configured = session.sparkContext.getConf()
    assert {name: configured.get(name) for name in CONFIGURATION} == CONFIGURATION
    arguments = map(_content, Path("/proc").glob("[0-9]*/cmdline"))
    jvms = [one for one in arguments if b"org.apache.spark.deploy.SparkSubmit" in one]
    assert jvms
    assert not [one for one in jvms if SECRET.encode() in one]
    session.sparkContext.stop()


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        # The process has ended meanwhile.
        return b""


@pytest.mark.long
def test_jvm_gets_secrets_but_not_as_arguments(tmp_path: Path) -> None:
    if not Path("/proc/self/cmdline").exists():
        pytest.skip("arguments of processes are read in /proc, which Linux has")
    exit_code, output = ForkedProgram(_session_with_secrets, tmp_path, environment=dict(os.environ)).wait(120)
    assert exit_code == 0, output
