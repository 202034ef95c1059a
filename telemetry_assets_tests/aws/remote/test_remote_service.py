"""The service and its package outside of steps: doctor, metrics, the account check and errors."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import pytest
from click.testing import CliRunner, Result

from telemetry_assets.cli.main import main
from telemetry_assets.engines.remote import job_runs
from telemetry_assets.engines.remote.engine import RemoteEngine, open_service
from telemetry_assets.errors import PackageError, RemoteRunError, SettingsError
from telemetry_assets.monitoring.measurements import remote_run_metrics
from telemetry_assets.settings import Settings
from telemetry_assets.tables import FUEL_EFFICIENCY, SILVER
from telemetry_assets_tests.harness.aws.remote_account import RemoteAccount, environment_of
from telemetry_assets_tests.harness.batch_in_bronze import cancel_when_running, states, with_a_batch_in_bronze
from telemetry_assets_tests.harness.waiting import until

pytestmark = pytest.mark.long


def test_package_of_other_code_is_refused(account: RemoteAccount, engine: str) -> None:
    with with_a_batch_in_bronze(
        account, engine, scripts_uri="s3://scripts/telemetry/packages/of-another-version"
    ) as deployed:
        with pytest.raises(PackageError, match="make package"):
            deployed.pipeline.refresh(SILVER, "a run")
        assert states(account, deployed) == []


def test_incomplete_package_is_refused(account: RemoteAccount, engine: str) -> None:
    s3 = account.aws.client("s3")
    key = f"telemetry/packages/{account.package.entry_point.name}"
    content = s3.get_object(Bucket="scripts", Key=key)
    body = content["Body"].read()
    with with_a_batch_in_bronze(account, engine) as deployed:
        s3.delete_object(Bucket="scripts", Key=key)
        try:
            with pytest.raises(PackageError, match=account.package.entry_point.name):
                deployed.pipeline.refresh(SILVER, "a run")
        finally:
            s3.put_object(Bucket="scripts", Key=key, Body=body, Metadata=content["Metadata"])


@pytest.fixture
def doctor(account: RemoteAccount, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    def examined(engine: str, **settings: Any) -> Result:
        for name, value in environment_of(Settings(**account.settings(engine, **settings))).items():
            monkeypatch.setenv(name, value)
        return CliRunner().invoke(main, ["doctor"])

    return examined


def test_doctor_finds_no_problem_with_a_ready_service(doctor: Callable[..., Result], engine: str) -> None:
    result = doctor(engine)
    assert (result.exit_code, f"{engine} can run steps" in result.output) == (0, True), result.output


def test_the_doctor_says_what_a_service_lacks(account: RemoteAccount, doctor: Callable[..., Result]) -> None:
    old = account.aws.client("emr-serverless").create_application(name="old", releaseLabel="emr-6.9.0", type="SPARK")
    glue = account.aws.client("glue")
    glue.create_job(Name="old", Role="role", Command={"Name": "glueetl"}, GlueVersion="4.0")
    glue.create_job(Name="other", Role="role", Command={"Name": "pythonshell"}, GlueVersion="5.1", MaxRetries=2)
    for settings, engine, message in (
        ({"emr_application_id": "00nothing"}, "emr_serverless", "There is no application 00nothing"),
        ({"emr_application_id": old["applicationId"]}, "emr_serverless", "has release emr-6.9.0"),
        ({"glue_job_name": "nothing"}, "glue", "There is no Glue job nothing"),
        ({"glue_job_name": "old"}, "glue", "has Glue version 4.0"),
        ({"glue_job_name": "other"}, "glue", "has type pythonshell"),
        ({"glue_job_name": "other"}, "glue", "has MaxRetries 2. Set it to 0"),
        ({"scripts_uri": "s3://scripts/telemetry/packages/none"}, "glue", "There is no package of this code"),
        ({"spark_configuration": {"spark.a": "b c"}}, "glue", "spark.a has one"),
        ({"remote_sizes": {"defualt": {}}}, "glue", "no table has the name defualt"),
        ({"emr_application_id": ""}, "emr_serverless", "needs TELEMETRY_EMR_APPLICATION_ID"),
    ):
        result = doctor(engine, **settings)
        assert (result.exit_code, message in result.output) == (1, True), result.output


@pytest.mark.parametrize(
    ("engine", "wrong"), [("emr_serverless", "emr_application_id"), ("glue", "glue_job_name")], ids=["emr", "glue"]
)
def test_missing_service_is_reported_with_its_setting(account: RemoteAccount, engine: str, wrong: str) -> None:
    with (
        with_a_batch_in_bronze(account, engine, **{wrong: "nothing"}) as deployed,
        pytest.raises(SettingsError, match=f"nothing: correct TELEMETRY_{wrong.upper()}"),
    ):
        deployed.pipeline.refresh(SILVER, "a run")


def test_metrics_of_failed_runs_and_the_longest_active_run(account: RemoteAccount, engine: str) -> None:
    def refused() -> None:
        with pytest.raises(RemoteRunError):
            deployed.pipeline.refresh(SILVER, "a run")

    with with_a_batch_in_bronze(account, engine) as deployed:
        account.aws.order("end/FAILED", 3)
        refused()
        metrics = {one.name: one.value for one in remote_run_metrics(deployed.settings)}
        assert (metrics["RemoteRunsFailed"], metrics["LongestRemoteRunSeconds"]) == (3, 0)
        account.aws.order("stay/RUNNING")
        working = threading.Thread(target=refused)
        working.start()
        until(lambda: "RUNNING" in states(account, deployed))
        metrics = {one.name: one.value for one in remote_run_metrics(deployed.settings)}
        assert 0 < metrics["LongestRemoteRunSeconds"] < 60
        cancel_when_running(account, deployed)
        working.join()
        failed = open_service(deployed.settings).failed_since(datetime.now(UTC))
        assert job_runs.of_lakehouse(failed, deployed.settings) == []


def test_account_check_does_not_use_a_table_that_is_being_refreshed(
    account: RemoteAccount, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A program left by the first runs remains active.
    monkeypatch.setattr(job_runs.JobRuns, "_try_to_cancel", lambda *_: None)
    with with_a_batch_in_bronze(account, engine, remote_wait_minutes=0.03) as deployed:
        settings, service = deployed.settings, open_service(deployed.settings)
        account.aws.order("stay/PENDING")
        with pytest.raises(RemoteRunError):
            RemoteEngine(deployed.pipeline.lakehouse, settings, service).smoke_test("a check", date(2026, 1, 1))
        [(_, folder)] = job_runs.of_lakehouse(service.active_runs(), settings)
        # Silver, which has no watermark yet, would be rebuilt completely.
        assert folder.step is not None
        assert folder.step.table == FUEL_EFFICIENCY.full_name
        account.aws.order("stay/PENDING")
        with pytest.raises(RemoteRunError):
            RemoteEngine(deployed.pipeline.lakehouse, settings, service).smoke_test("a check", date(2026, 1, 1))
        with pytest.raises(RemoteRunError, match="Every table is being refreshed or has to be rebuilt"):
            RemoteEngine(deployed.pipeline.lakehouse, settings, service).smoke_test("a check", date(2026, 1, 1))
