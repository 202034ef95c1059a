"""Remote runs and their Dagster runs: a cancelled or killed run on one side ends the run on the other side."""

from __future__ import annotations

import os
import signal
import time
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, SkipReason, build_sensor_context

from telemetry_assets.automation import remote_runs
from telemetry_assets.definitions import definitions
from telemetry_assets.engines.remote.engine import open_service
from telemetry_assets.engines.remote.job_runs import of_lakehouse
from telemetry_assets.errors import RemoteRunError
from telemetry_assets.pipeline import open_pipeline
from telemetry_assets.settings import Settings, load_settings
from telemetry_assets.tables import ALERTS, SILVER
from telemetry_assets_tests.harness.aws.remote_account import RemoteAccount, environment_of
from telemetry_assets_tests.harness.deployment import DeploymentInS3
from telemetry_assets_tests.harness.made_documents import event, framed
from telemetry_assets_tests.harness.running_code_server import running_code_server
from telemetry_assets_tests.harness.running_dagster import ENDED, RunningDagster, running_dagster
from telemetry_assets_tests.harness.waiting import until

pytestmark = pytest.mark.long

CANCELLED = {"emr_serverless": "CANCELLED", "glue": "STOPPED"}


def dagster_on(account: RemoteAccount, folder: Path, settings: Settings) -> AbstractContextManager[RunningDagster]:
    """A running Dagster with these settings and the account's AWS."""
    return running_dagster(folder, **account.aws.environment(), **environment_of(settings))


def upload(account: RemoteAccount, settings: Settings, name: str = "x.json", car: str = "CAR-1") -> None:
    location = settings.landing_in_s3()
    content = framed([event(car, engineTempCelsius=120)], "array")[1]
    account.aws.client("s3").put_object(Bucket=location.bucket, Key=f"{location.prefix}{name}", Body=content)


def states(account: RemoteAccount, settings: Settings) -> list[str]:
    return [state for _, state in account.runs(settings)]


@pytest.mark.alone
@pytest.mark.parametrize("engine", ["emr_serverless", pytest.param("glue", marks=pytest.mark.exhaustive)])
def test_run_cancelled_in_the_ui_is_cancelled_remotely_within_15_seconds(
    account: RemoteAccount, tmp_path: Path, engine: str
) -> None:
    settings = Settings(**account.settings(engine, remote_poll_seconds=5))
    account.aws.order("stay/RUNNING")
    upload(account, settings)
    with dagster_on(account, tmp_path, settings) as dagster:
        dagster.until("the remote run is active", lambda: states(account, settings) == ["RUNNING"])
        [run] = dagster.runs("ingest")
        dagster.until("its state is logged", lambda: any("is RUNNING" in line for line in dagster.logged(run["runId"])))
        dagster.cancel(run["runId"])
        dagster.until("it is cancelled", lambda: states(account, settings) == [CANCELLED[engine]], seconds=15)


@pytest.mark.alone
def test_sigterm_to_the_code_server_cancels_the_remote_step_and_ends_the_run(
    account: RemoteAccount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(**account.settings("emr_serverless"))
    for name, value in environment_of(settings).items():
        monkeypatch.setenv(name, value)
    account.aws.order("stay/RUNNING")
    upload(account, settings)
    with running_code_server(tmp_path) as server:
        run = server.launch("ingest")
        until(lambda: states(account, settings) == ["RUNNING"], seconds=120)
        until(lambda: any("is RUNNING" in one.message for one in server.instance.all_logs(run.run_id)), seconds=60)
        # To every process, as tini does in the image.
        os.killpg(server.process.pid, signal.SIGTERM)
        until(lambda: states(account, settings) == ["CANCELLED"], seconds=60)
        until(lambda: not server.processes(), seconds=30)
        ended_run = server.instance.get_run_by_id(run.run_id)
        assert ended_run is not None
        assert ended_run.status == DagsterRunStatus.FAILURE


@pytest.mark.alone
@pytest.mark.timeout(600)
def test_remote_run_is_followed_to_its_end_after_dagster_was_killed(account: RemoteAccount, tmp_path: Path) -> None:
    settings = Settings(**account.settings("glue"))
    account.aws.order("stay/RUNNING")
    # This test does not involve Gold.
    account.aws.order("end/FAILED", 100)
    upload(account, settings)
    with dagster_on(account, tmp_path, settings) as dagster:
        dagster.until("the remote run is active", lambda: states(account, settings) == ["RUNNING"])
        [killed] = dagster.runs("ingest")
        dagster.kill()
    [(step, _)] = account.runs(settings)
    with dagster_on(account, tmp_path, settings) as dagster:

        def following() -> str | None:
            runs = [run["runId"] for run in dagster.runs("ingest") if run["runId"] != killed["runId"]]
            lines = dagster.logged(runs[-1]) if runs else []
            return runs[-1] if any("following the active job run" in line for line in lines) else None

        follower = dagster.until("the next run follows it", following)
        assert follower is not None
        assert states(account, settings) == ["RUNNING"]
        account.aws.release_programs()
        dagster.until("the follower is over", lambda: ended(dagster, follower), seconds=240)
        [of_silver] = dagster.materializations("silver", "car_telemetry")
    assert account.runs(settings)[0] == (step, "SUCCEEDED")
    assert of_silver["runId"] == follower
    assert of_silver["metadata"]["remote_run_id"]["text"] == step
    with open_pipeline(settings) as pipeline:
        assert pipeline.lakehouse.table(SILVER).scan().count() == 1


def ended(dagster: RunningDagster, run_id: str) -> bool:
    return any(run["runId"] == run_id and run["status"] in ENDED for run in dagster.runs())


@pytest.fixture
def left_over(
    account: RemoteAccount, monkeypatch: pytest.MonkeyPatch, instance: DagsterInstance
) -> tuple[Settings, DagsterRun]:
    """A remote run of a started Dagster run that no process follows."""
    settings = Settings(**account.settings("emr_serverless", remote_wait_minutes=0.01))
    for name, value in environment_of(settings).items():
        monkeypatch.setenv(name, value)
    run = instance.create_run_for_job(
        definitions(load_settings()).resolve_job_def("ingest"), status=DagsterRunStatus.STARTED
    )
    with open_pipeline(settings) as pipeline:
        deployed = DeploymentInS3(settings, pipeline, client=account.aws.client("s3"))
        deployed.upload("x.json", framed([event()], "array")[1])
        pipeline.ingest(run.run_id)
        account.aws.order("stay/PENDING")
        with monkeypatch.context() as patched:
            # Its process has no time to cancel anything.
            patched.setattr("telemetry_assets.engines.remote.emr_serverless.EmrServerless.cancel", lambda *_: None)
            with pytest.raises(RemoteRunError):
                pipeline.refresh(SILVER, run.run_id)
    return settings, run


def tick(instance: DagsterInstance) -> str:
    sensor = definitions(load_settings()).get_sensor_def("remote_runs")
    with build_sensor_context(instance=instance) as context:
        decision = sensor(context)
    assert isinstance(decision, SkipReason)
    return str(decision.skip_message)


def test_remote_run_continues_while_its_dagster_run_is_active(
    account: RemoteAccount, left_over: tuple[Settings, DagsterRun], instance: DagsterInstance
) -> None:
    assert tick(instance) == "Active runs in EMR Serverless: 1."
    until(lambda: states(account, left_over[0]) == ["PENDING"])


def test_a_remote_run_whose_dagster_run_was_cancelled_is_cancelled(
    account: RemoteAccount, left_over: tuple[Settings, DagsterRun], instance: DagsterInstance
) -> None:
    settings, run = left_over
    instance.report_run_canceled(run)
    assert "Cancelled, because their Dagster runs have ended" in tick(instance)
    until(lambda: states(account, settings) == ["CANCELLED"])


def test_remote_run_of_a_failed_dagster_run_waits_for_another_one_to_follow_it(
    account: RemoteAccount,
    left_over: tuple[Settings, DagsterRun],
    instance: DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, run = left_over
    instance.report_run_failed(run)
    assert "Cancelled" not in tick(instance)
    monkeypatch.setattr(remote_runs, "_GRACE_SECONDS", -1)
    job = definitions(load_settings()).resolve_job_def("ingest")
    another = instance.create_run_for_job(job, status=DagsterRunStatus.STARTED)
    assert "Cancelled" not in tick(instance)
    instance.report_run_failed(another)
    assert "Cancelled" in tick(instance)


def test_remote_run_depends_on_the_dagster_run_that_follows_it(
    left_over: tuple[Settings, DagsterRun], instance: DagsterInstance
) -> None:
    settings, run = left_over
    instance.report_run_canceled(run)
    job = definitions(load_settings()).resolve_job_def("ingest")
    another = instance.create_run_for_job(job, status=DagsterRunStatus.STARTED)
    [(_, folder)] = of_lakehouse(open_service(settings).active_runs(), settings)
    folder.follow(another.run_id)
    assert "Cancelled" not in tick(instance)


def test_remote_run_that_the_command_line_follows_is_not_cancelled(
    left_over: tuple[Settings, DagsterRun], instance: DagsterInstance
) -> None:
    settings, run = left_over
    instance.report_run_canceled(run)
    [(_, folder)] = of_lakehouse(open_service(settings).active_runs(), settings)
    folder.follow("cli-123")
    assert "Cancelled" not in tick(instance)
    folder.follow(run.run_id)
    assert "Cancelled" not in tick(instance)
    folder.leave("cli-123")
    assert "Cancelled" in tick(instance)


@pytest.mark.alone
@pytest.mark.exhaustive
@pytest.mark.timeout(1200)
def test_five_uploads_five_seconds_apart_are_all_processed_though_glue_runs_one_job_at_a_time(
    account: RemoteAccount, tmp_path: Path
) -> None:
    settings = Settings(**account.settings("glue"))
    with dagster_on(account, tmp_path, settings) as dagster:
        for number in range(5):
            upload(account, settings, f"{number}.json", f"CAR-{number}")
            time.sleep(5)

        def is_quiet() -> bool:
            with open_pipeline(settings) as pipeline:
                work = pipeline.ingestion.has_work() or pipeline.tables_behind()
            return not work and all(run["status"] in ENDED for run in dagster.runs())

        dagster.until("all is in Gold", is_quiet, seconds=900)
        assert {run["status"] for run in dagster.runs("ingest")} == {"SUCCESS"}
    with open_pipeline(settings) as pipeline:
        alerted = pipeline.lakehouse.table(ALERTS).scan().to_arrow()["car_chassis"].to_pylist()
    assert sorted(alerted) == [f"CAR-{number}" for number in range(5)]
    assert set(states(account, settings)) == {"SUCCEEDED"}
