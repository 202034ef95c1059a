"""A remote step is started once, followed to its end despite failures of the service, and cancelled with its run."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any

import pytest

from telemetry_assets.engines.remote import job_runs
from telemetry_assets.engines.remote.engine import open_service
from telemetry_assets.errors import AwsError, RemoteRunError
from telemetry_assets.pipeline import open_pipeline
from telemetry_assets.settings import Settings
from telemetry_assets.tables import SILVER
from telemetry_assets_tests.harness.aws.remote_account import RemoteAccount
from telemetry_assets_tests.harness.batch_in_bronze import (
    CANCELLED,
    SUCCESS,
    cancel_when_running,
    states,
    with_a_batch_in_bronze,
)
from telemetry_assets_tests.harness.deployment import BUCKET, DeploymentInS3
from telemetry_assets_tests.harness.waiting import until

pytestmark = pytest.mark.long


def states_of_a_refresh(account: RemoteAccount, engine: str, *orders: str) -> list[str]:
    """The states of all runs of a step after the given failures were planned."""
    with with_a_batch_in_bronze(account, engine) as deployed:
        for order, count in Counter(orders).items():
            account.aws.order(order, count)
        deployed.pipeline.refresh(SILVER, "a run")
        return states(account, deployed)


def test_nothing_is_started_if_there_is_nothing_to_do(account: RemoteAccount, engine: str) -> None:
    with open_pipeline(Settings(**account.settings(engine))) as pipeline:
        processed = pipeline.process("a run")
        assert not any(one.changed for one in processed.refreshes)
        assert account.runs(pipeline.settings) == []


@pytest.mark.parametrize("code", ["ThrottlingException", "ConcurrentRunsExceededException", "InternalServerException"])
def test_temporarily_refused_start_is_retried(account: RemoteAccount, engine: str, code: str) -> None:
    orders = [f"refuse/{code}", f"refuse/{code}", f"end/{SUCCESS[engine]}"]
    assert states_of_a_refresh(account, engine, *orders) == [SUCCESS[engine]]


def test_permanently_refused_start_is_an_error(account: RemoteAccount, engine: str) -> None:
    with with_a_batch_in_bronze(account, engine) as deployed:
        account.aws.order("refuse/AccessDeniedException")
        with pytest.raises(AwsError, match="AccessDenied"):
            deployed.pipeline.refresh(SILVER, "a run")
        assert states(account, deployed) == []


def test_start_with_a_lost_response_is_not_repeated(account: RemoteAccount, engine: str) -> None:
    assert states_of_a_refresh(account, engine, "lose-answer", f"end/{SUCCESS[engine]}") == [SUCCESS[engine]]


def test_run_without_capacity_is_retried(account: RemoteAccount, engine: str) -> None:
    ended = states_of_a_refresh(account, engine, "end/FAILED", f"end/{SUCCESS[engine]}")
    assert ended == ["FAILED", SUCCESS[engine]]


def test_run_that_never_gets_capacity_is_given_up_with_its_id_and_reason(account: RemoteAccount, engine: str) -> None:
    with with_a_batch_in_bronze(account, engine) as deployed:
        account.aws.order("end/FAILED", 3)
        with pytest.raises(RemoteRunError, match=r"Insufficient capacity.*https://") as raised:
            deployed.pipeline.refresh(SILVER, "a run")
        runs = account.runs(deployed.settings)
        assert [state for _, state in runs] == ["FAILED"] * 3
        assert runs[-1][0] in str(raised.value)


def test_timeout_of_the_service_is_not_retried(account: RemoteAccount) -> None:
    with with_a_batch_in_bronze(account, "glue") as deployed:
        account.aws.order("end/TIMEOUT")
        with pytest.raises(RemoteRunError, match="TIMEOUT"):
            deployed.pipeline.refresh(SILVER, "a run")
        assert states(account, deployed) == ["TIMEOUT"]


@pytest.mark.parametrize("state", ["EXPIRED", "ERROR"])
def test_other_final_states_of_glue_are_retried(account: RemoteAccount, state: str) -> None:
    assert states_of_a_refresh(account, "glue", f"end/{state}", "end/SUCCEEDED") == [state, "SUCCEEDED"]


@pytest.mark.parametrize("order", ["stay/PENDING", "stay/WAITING", "stay/A_NEW_STATE"])
def test_run_that_never_starts_is_cancelled_after_its_timeout(account: RemoteAccount, engine: str, order: str) -> None:
    with with_a_batch_in_bronze(account, engine, remote_wait_minutes=0.03) as deployed:
        account.aws.order(order)
        with pytest.raises(RemoteRunError, match="minutes, and is being cancelled"):
            deployed.pipeline.refresh(SILVER, "a run")
        until_cancelled(account, deployed)


def test_run_that_exceeds_its_timeout_is_cancelled(
    account: RemoteAccount, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with with_a_batch_in_bronze(account, engine) as deployed:
        account.aws.order("stay/RUNNING")
        monkeypatch.setattr(job_runs, "_GRACE_MINUTES", 0.02 - deployed.settings.remote_timeout_minutes)
        with pytest.raises(RemoteRunError, match="was RUNNING for"):
            deployed.pipeline.refresh(SILVER, "a run")
        until_cancelled(account, deployed)


def test_run_cancelled_by_a_user_is_not_started_again(account: RemoteAccount, engine: str) -> None:
    with with_a_batch_in_bronze(account, engine) as deployed:
        account.aws.order("stay/RUNNING")
        user = threading.Thread(target=cancel_when_running, args=(account, deployed))
        user.start()
        with pytest.raises(RemoteRunError, match=CANCELLED[engine]):
            deployed.pipeline.refresh(SILVER, "a run")
        user.join()
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


def test_interruption_during_the_start_cancels_the_run(
    account: RemoteAccount, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with with_a_batch_in_bronze(account, engine) as deployed:
        service = type(open_service(deployed.settings))
        start = service.start

        def interrupted(*arguments: Any) -> str:
            start(*arguments)
            raise KeyboardInterrupt

        account.aws.order("stay/RUNNING")
        monkeypatch.setattr(service, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            deployed.pipeline.refresh(SILVER, "a run")
        until_cancelled(account, deployed)


def test_interrupted_follower_does_not_cancel_the_run(
    account: RemoteAccount, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    class KilledError(Exception):
        """Raised instead of a kill; nothing handles it."""

    def killed(*_: object) -> None:
        raise KilledError

    with with_a_batch_in_bronze(account, engine) as deployed:
        account.aws.order("stay/RUNNING")
        for run_id, ends, error in (
            ("first", killed, KilledError),
            ("cli-second", interrupted, KeyboardInterrupt),
            ("third", interrupted, KeyboardInterrupt),
        ):
            with monkeypatch.context() as patched:
                patched.setattr(job_runs.JobRuns, "_follow", ends)
                with pytest.raises(error):
                    deployed.pipeline.refresh(SILVER, run_id)
        # The sensor decides by the followers that are Dagster runs.
        living = job_runs.of_lakehouse(open_service(deployed.settings).active_runs(), deployed.settings)
        assert [folder.followers() for _, folder in living] == [["first", "third"]]


def test_run_of_a_killed_process_is_followed_instead_of_started_again(
    account: RemoteAccount, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(Exception):
        """Raised instead of a kill; nothing handles it."""

    def killed(*_: object) -> None:
        raise KilledError

    with with_a_batch_in_bronze(account, engine) as deployed:
        account.aws.order("stay/RUNNING")
        with monkeypatch.context() as patched:
            patched.setattr(job_runs.JobRuns, "_follow", killed)
            with pytest.raises(KilledError):
                deployed.pipeline.refresh(SILVER, "a run")
        [(left, state)] = account.runs(deployed.settings)
        assert state not in (CANCELLED[engine], SUCCESS[engine])
        account.aws.order(f"end/{SUCCESS[engine]}")
        user = threading.Thread(target=cancel_when_running, args=(account, deployed))
        user.start()
        deployed.pipeline.refresh(SILVER, "another run")
        user.join()
        # No second run was started while the first one was active.
        assert account.runs(deployed.settings)[0] == (left, CANCELLED[engine])
        assert states(account, deployed)[1:] == [SUCCESS[engine]]


def test_runs_of_other_lakehouses_are_ignored(account: RemoteAccount, engine: str) -> None:
    def refresh() -> None:
        with pytest.raises(RemoteRunError):
            other.pipeline.refresh(SILVER, "a run")

    with with_a_batch_in_bronze(account, engine) as other:
        account.aws.order("stay/RUNNING")
        working = threading.Thread(target=refresh)
        working.start()
        until(lambda: states(account, other) == ["RUNNING"])
        mine = other.settings.model_copy(update={"lakehouse_uri": f"s3://{BUCKET}/mine"})
        living = open_service(mine).active_runs()
        assert job_runs.of_lakehouse(living, mine) == []
        assert len(job_runs.of_lakehouse(living, other.settings)) == 1
        cancel_when_running(account, other)
        working.join()


def until_cancelled(account: RemoteAccount, deployed: DeploymentInS3) -> None:
    until(lambda: states(account, deployed) == [CANCELLED[deployed.settings.engine]])
