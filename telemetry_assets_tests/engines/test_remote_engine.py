"""A remote step is started once, followed to its end whatever the service does, and cancelled with its run."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import Any

import pytest
from click.testing import CliRunner, Result

from telemetry_assets.__main__ import main
from telemetry_assets.engines import remote_programs
from telemetry_assets.engines.remote import RemoteEngine, open_service
from telemetry_assets.errors import AwsError, PackageError, RemoteRunError, SettingsError
from telemetry_assets.lakehouse.contracts import FUEL_EFFICIENCY, SILVER
from telemetry_assets.metrics import measured_remotely
from telemetry_assets.pipeline import open_pipeline
from telemetry_assets.settings import Settings
from telemetry_assets_tests.aws.remote_account import SERVICES, RemoteAccount, environment_of
from telemetry_assets_tests.deployment import BUCKET, DeploymentInS3
from telemetry_assets_tests.made_documents import event, framed
from telemetry_assets_tests.waiting import until

SUCCESS = {"emr_serverless": "SUCCESS", "glue": "SUCCEEDED"}
CANCELLED = {"emr_serverless": "CANCELLED", "glue": "STOPPED"}


@pytest.fixture(params=SERVICES)
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@contextmanager
def with_a_batch_in_bronze(account: RemoteAccount, engine: str, **settings: Any) -> Iterator[DeploymentInS3]:
    chosen = Settings(**account.settings(engine, **settings))
    with open_pipeline(chosen) as pipeline:
        deployed = DeploymentInS3(chosen, pipeline, client=account.aws.client("s3"))
        deployed.upload("x.json", framed([event(engineTempCelsius=120)], "array")[1])
        pipeline.ingest("a run")
        yield deployed


def states(account: RemoteAccount, deployed: DeploymentInS3) -> list[str]:
    return [state for _, state in account.runs(deployed.settings)]


def states_of_a_refresh(account: RemoteAccount, engine: str, *orders: str) -> list[str]:
    """The states of all runs that a step has needed, where these things were ordered to happen."""
    with with_a_batch_in_bronze(account, engine) as deployed:
        for order, count in Counter(orders).items():
            account.aws.order(order, count)
        deployed.pipeline.refresh(SILVER, "a run")
        return states(account, deployed)


def test_where_nothing_is_to_do_nothing_is_started(account: RemoteAccount, engine: str) -> None:
    with open_pipeline(Settings(**account.settings(engine))) as pipeline:
        processed = pipeline.process("a run")
        assert not any(one.changed for one in processed.refreshes)
        assert account.runs(pipeline.settings) == []


@pytest.mark.parametrize("code", ["ThrottlingException", "ConcurrentRunsExceededException", "InternalServerException"])
def test_a_start_that_is_refused_for_a_while_is_asked_for_again(account: RemoteAccount, engine: str, code: str) -> None:
    orders = [f"refuse/{code}", f"refuse/{code}", f"end/{SUCCESS[engine]}"]
    assert states_of_a_refresh(account, engine, *orders) == [SUCCESS[engine]]


def test_a_start_that_is_refused_for_good_is_told(account: RemoteAccount, engine: str) -> None:
    with with_a_batch_in_bronze(account, engine) as deployed:
        account.aws.order("refuse/AccessDeniedException")
        with pytest.raises(AwsError, match="AccessDenied"):
            deployed.pipeline.refresh(SILVER, "a run")
        assert states(account, deployed) == []


def test_a_start_whose_answer_is_lost_is_not_made_twice(account: RemoteAccount, engine: str) -> None:
    assert states_of_a_refresh(account, engine, "lose-answer", f"end/{SUCCESS[engine]}") == [SUCCESS[engine]]


def test_a_run_that_found_no_room_is_tried_again(account: RemoteAccount, engine: str) -> None:
    ended = states_of_a_refresh(account, engine, "end/FAILED", f"end/{SUCCESS[engine]}")
    assert ended == ["FAILED", SUCCESS[engine]]


def test_a_run_that_never_finds_room_is_given_up_and_says_which_and_why(account: RemoteAccount, engine: str) -> None:
    with with_a_batch_in_bronze(account, engine) as deployed:
        account.aws.order("end/FAILED", 3)
        with pytest.raises(RemoteRunError, match=r"Insufficient capacity.*https://") as told:
            deployed.pipeline.refresh(SILVER, "a run")
        runs = account.runs(deployed.settings)
        assert [state for _, state in runs] == ["FAILED"] * 3
        assert runs[-1][0] in str(told.value)


def test_a_time_limit_of_the_service_is_not_tried_again(account: RemoteAccount) -> None:
    with with_a_batch_in_bronze(account, "glue") as deployed:
        account.aws.order("end/TIMEOUT")
        with pytest.raises(RemoteRunError, match="TIMEOUT"):
            deployed.pipeline.refresh(SILVER, "a run")
        assert states(account, deployed) == ["TIMEOUT"]


@pytest.mark.parametrize("state", ["EXPIRED", "ERROR"])
def test_other_ends_of_glue_are_tried_again(account: RemoteAccount, state: str) -> None:
    assert states_of_a_refresh(account, "glue", f"end/{state}", "end/SUCCEEDED") == [state, "SUCCEEDED"]


@pytest.mark.parametrize("order", ["stay/PENDING", "stay/WAITING", "stay/A_NEW_STATE"])
def test_a_run_that_never_starts_is_cancelled_when_its_time_is_over(
    account: RemoteAccount, engine: str, order: str
) -> None:
    with with_a_batch_in_bronze(account, engine, remote_wait_minutes=0.03) as deployed:
        account.aws.order(order)
        with pytest.raises(RemoteRunError, match="minutes, and is asked to end"):
            deployed.pipeline.refresh(SILVER, "a run")
        until_cancelled(account, deployed)


def test_a_run_that_runs_for_too_long_is_cancelled(
    account: RemoteAccount, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with with_a_batch_in_bronze(account, engine) as deployed:
        account.aws.order("stay/RUNNING")
        monkeypatch.setattr(remote_programs, "_GRACE_MINUTES", 0.02 - deployed.settings.remote_timeout_minutes)
        with pytest.raises(RemoteRunError, match="was RUNNING for"):
            deployed.pipeline.refresh(SILVER, "a run")
        until_cancelled(account, deployed)


def test_a_run_that_somebody_cancels_is_not_started_again(account: RemoteAccount, engine: str) -> None:
    with with_a_batch_in_bronze(account, engine) as deployed:
        account.aws.order("stay/RUNNING")
        somebody = threading.Thread(target=cancel_when_running, args=(account, deployed))
        somebody.start()
        with pytest.raises(RemoteRunError, match=CANCELLED[engine]):
            deployed.pipeline.refresh(SILVER, "a run")
        somebody.join()
        assert states(account, deployed) == [CANCELLED[engine]]


def test_an_interruption_cancels_the_run(account: RemoteAccount, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    with with_a_batch_in_bronze(account, engine) as deployed:
        account.aws.order("stay/RUNNING")
        monkeypatch.setattr(time, "sleep", interrupted)
        with pytest.raises(KeyboardInterrupt):
            deployed.pipeline.refresh(SILVER, "a run")
        monkeypatch.undo()
        until_cancelled(account, deployed)


def test_the_run_of_an_earlier_life_is_followed_rather_than_doubled(
    account: RemoteAccount, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(Exception):
        """Nothing of this process is done any more."""

    def killed(*_: object) -> None:
        raise KilledError

    with with_a_batch_in_bronze(account, engine) as deployed:
        account.aws.order("stay/RUNNING")
        with monkeypatch.context() as patched:
            patched.setattr(remote_programs.RemotePrograms, "_watched", killed)
            with pytest.raises(KilledError):
                deployed.pipeline.refresh(SILVER, "a run")
        [(left, state)] = account.runs(deployed.settings)
        assert state not in (CANCELLED[engine], SUCCESS[engine])
        account.aws.order(f"end/{SUCCESS[engine]}")
        somebody = threading.Thread(target=cancel_when_running, args=(account, deployed))
        somebody.start()
        deployed.pipeline.refresh(SILVER, "another run")
        somebody.join()
        # Nobody has started a second one while the first was at work.
        assert account.runs(deployed.settings)[0] == (left, CANCELLED[engine])
        assert states(account, deployed)[1:] == [SUCCESS[engine]]


def test_runs_of_other_lakehouses_are_left_alone(account: RemoteAccount, engine: str) -> None:
    def refresh() -> None:
        with pytest.raises(RemoteRunError):
            other.pipeline.refresh(SILVER, "a run")

    with with_a_batch_in_bronze(account, engine) as other:
        account.aws.order("stay/RUNNING")
        working = threading.Thread(target=refresh)
        working.start()
        until(lambda: states(account, other) == ["RUNNING"])
        mine = other.settings.model_copy(update={"lakehouse_uri": f"s3://{BUCKET}/mine"})
        living = open_service(mine).living()
        assert remote_programs.of_lakehouse(living, mine) == []
        assert len(remote_programs.of_lakehouse(living, other.settings)) == 1
        cancel_when_running(account, other)
        working.join()


def test_runs_that_fail_and_the_oldest_one_that_is_at_work_are_measured(account: RemoteAccount, engine: str) -> None:
    def refused() -> None:
        with pytest.raises(RemoteRunError):
            deployed.pipeline.refresh(SILVER, "a run")

    with with_a_batch_in_bronze(account, engine) as deployed:
        account.aws.order("end/FAILED", 3)
        refused()
        told = {one.name: one.value for one in measured_remotely(deployed.settings)}
        assert (told["RemoteRunsFailed"], told["LongestRemoteRunSeconds"]) == (3, 0)
        account.aws.order("stay/RUNNING")
        working = threading.Thread(target=refused)
        working.start()
        until(lambda: "RUNNING" in states(account, deployed))
        told = {one.name: one.value for one in measured_remotely(deployed.settings)}
        assert 0 < told["LongestRemoteRunSeconds"] < 60
        cancel_when_running(account, deployed)
        working.join()
        failed = open_service(deployed.settings).failed_since(datetime.now(UTC))
        assert remote_programs.of_lakehouse(failed, deployed.settings) == []


def test_an_account_is_not_proved_by_a_table_that_a_program_works_on(
    account: RemoteAccount, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What its first runs have left stays at work.
    monkeypatch.setattr(remote_programs.RemotePrograms, "_try_to_cancel", lambda *_: None)
    with with_a_batch_in_bronze(account, engine, remote_wait_minutes=0.03) as deployed:
        settings, service = deployed.settings, open_service(deployed.settings)
        account.aws.order("stay/PENDING")
        with pytest.raises(RemoteRunError):
            RemoteEngine(deployed.pipeline.lakehouse, settings, service).prove("a check", date(2026, 1, 1))
        [(_, folder)] = remote_programs.of_lakehouse(service.living(), settings)
        # Of Silver, which has taken nothing yet, everything would be taken.
        assert folder.step is not None
        assert folder.step.table == FUEL_EFFICIENCY.full_name
        account.aws.order("stay/PENDING")
        with pytest.raises(RemoteRunError):
            RemoteEngine(deployed.pipeline.lakehouse, settings, service).prove("a check", date(2026, 1, 1))
        with pytest.raises(RemoteRunError, match="Every table is worked on, or to be made anew"):
            RemoteEngine(deployed.pipeline.lakehouse, settings, service).prove("a check", date(2026, 1, 1))


def test_a_package_of_other_code_is_not_run(account: RemoteAccount, engine: str) -> None:
    with with_a_batch_in_bronze(
        account, engine, scripts_uri="s3://scripts/telemetry/packages/of-another-version"
    ) as deployed:
        with pytest.raises(PackageError, match="make package"):
            deployed.pipeline.refresh(SILVER, "a run")
        assert states(account, deployed) == []


def test_a_package_that_lacks_a_file_is_not_run(account: RemoteAccount, engine: str) -> None:
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


def test_the_doctor_is_content_with_a_service_that_is_ready(doctor: Callable[..., Result], engine: str) -> None:
    told = doctor(engine)
    assert (told.exit_code, f"{engine} can be given steps" in told.output) == (0, True), told.output


def test_the_doctor_says_what_a_service_lacks(account: RemoteAccount, doctor: Callable[..., Result]) -> None:
    old = account.aws.client("emr-serverless").create_application(name="old", releaseLabel="emr-6.9.0", type="SPARK")
    glue = account.aws.client("glue")
    glue.create_job(Name="old", Role="role", Command={"Name": "glueetl"}, GlueVersion="4.0")
    for settings, engine, said in (
        ({"emr_application_id": "00nothing"}, "emr_serverless", "There is no application 00nothing"),
        ({"emr_application_id": old["applicationId"]}, "emr_serverless", "is of release emr-6.9.0"),
        ({"glue_job_name": "nothing"}, "glue", "There is no Glue job nothing"),
        ({"glue_job_name": "old"}, "glue", "is of Glue 4.0"),
        ({"scripts_uri": "s3://scripts/telemetry/packages/none"}, "glue", "There is no package of this code"),
        ({"spark_configuration": {"spark.a": "b c"}}, "glue", "spark.a has one"),
        ({"remote_sizes": {"defualt": {}}}, "glue", "no table is named defualt"),
        ({"emr_application_id": ""}, "emr_serverless", "needs TELEMETRY_EMR_APPLICATION_ID"),
    ):
        told = doctor(engine, **settings)
        assert (told.exit_code, said in told.output) == (1, True), told.output


@pytest.mark.parametrize(
    ("engine", "wrong"), [("emr_serverless", "emr_application_id"), ("glue", "glue_job_name")], ids=["emr", "glue"]
)
def test_a_service_that_is_not_there_is_told_with_its_setting(account: RemoteAccount, engine: str, wrong: str) -> None:
    with (
        with_a_batch_in_bronze(account, engine, **{wrong: "nothing"}) as deployed,
        pytest.raises(SettingsError, match=f"nothing: correct TELEMETRY_{wrong.upper()}"),
    ):
        deployed.pipeline.refresh(SILVER, "a run")


def cancel_when_running(account: RemoteAccount, deployed: DeploymentInS3) -> None:
    until(lambda: "RUNNING" in states(account, deployed))
    [run_id] = [run_id for run_id, state in account.runs(deployed.settings) if state == "RUNNING"]
    account.cancel(deployed.settings, run_id)


def until_cancelled(account: RemoteAccount, deployed: DeploymentInS3) -> None:
    until(lambda: states(account, deployed) == [CANCELLED[deployed.settings.engine]])
