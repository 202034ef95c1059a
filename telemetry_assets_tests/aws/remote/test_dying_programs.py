"""If a program dies, the error has all available details, and the step is retried where a retry can help."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ConnectTimeoutError, EndpointConnectionError, ReadTimeoutError

from telemetry_assets.aws.locations import S3Location
from telemetry_assets.aws.requests import get_object
from telemetry_assets.engines.plan import RefreshRequest
from telemetry_assets.engines.remote.emr_serverless import EmrServerless
from telemetry_assets.engines.remote.engine import RemoteEngine
from telemetry_assets.engines.remote.service import Phase, State, Submission, retry_while_busy
from telemetry_assets.engines.remote.step import StepFolder
from telemetry_assets.errors import QualityError, RemoteRunError
from telemetry_assets.settings import Settings
from telemetry_assets.tables import SILVER
from telemetry_assets.transforms.refresh import RefreshParameters
from telemetry_assets_tests.harness.aws.remote_account import RemoteAccount
from telemetry_assets_tests.harness.batch_in_bronze import with_a_batch_in_bronze
from telemetry_assets_tests.harness.deployment import AS_OF

pytestmark = pytest.mark.long

STREAMED = {"method": "log_external_stream", "params": {"stream": "stdout", "text": "INFO it begins\n"}}
CRASHED = {"method": "closed", "params": {"exception": {"name": "SomeError", "message": "of nobody's", "stack": []}}}
FOUND = {
    "method": "report_custom_message",
    "params": {"payload": {"error": {"message": "two rows", "table": "a", "rows": 1}}},
}
JAVA = "java.lang.OutOfMemoryError: Java heap space"


class Dying(EmrServerless):
    """A service whose programs send messages and then die; the harness' own die before any message, or not at all."""

    def __init__(self, settings: Settings, account: RemoteAccount, *messages: dict[str, Any]) -> None:
        super().__init__(settings)
        self._s3 = account.aws.client("s3")
        self._messages = messages
        self.starts = 0

    def start(self, submission: Submission) -> str:
        self.starts += 1
        place = submission.folder.location.below("messages")
        content = "\n".join(map(json.dumps, self._messages)).encode()
        self._s3.put_object(Bucket=place.bucket, Key=f"{place.prefix}1.json", Body=content)
        return "00run"

    def state(self, run_id: str) -> State:
        return State(Phase.FAILED, "FAILED")

    def last_lines(self, run_id: str) -> list[str]:
        return [JAVA]


def refreshed_by(account: RemoteAccount, *messages: dict[str, Any]) -> tuple[int, Exception]:
    """The number of starts of a step that dies after these messages, and the final error."""
    with with_a_batch_in_bronze(account, "emr_serverless", remote_poll_seconds=0.01) as deployed:
        service = Dying(deployed.settings, account, *messages)
        engine = RemoteEngine(deployed.pipeline.lakehouse, deployed.settings, service)
        request = RefreshRequest(SILVER, None, RefreshParameters(AS_OF, deployed.settings.alert_rules), "a run")
        with pytest.raises((RemoteRunError, QualityError)) as raised:
            engine.refresh(request)
        return service.starts, raised.value


def test_death_without_a_message_is_retried_and_reported_with_javas_error(account: RemoteAccount) -> None:
    starts, error = refreshed_by(account, STREAMED)
    assert starts == 3
    assert "INFO it begins" in str(error)
    assert JAVA in str(error)


def test_unexpected_error_is_retried(account: RemoteAccount) -> None:
    starts, error = refreshed_by(account, STREAMED, CRASHED)
    assert starts == 3
    assert "SomeError: of nobody's" in str(error)
    assert JAVA in str(error)


def test_quality_error_is_not_retried(account: RemoteAccount) -> None:
    starts, error = refreshed_by(account, STREAMED, FOUND)
    assert starts == 1
    assert isinstance(error, QualityError)


def test_temporarily_unreadable_message_is_received_after_earlier_ones(
    account: RemoteAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3 = account.aws.client("s3")
    account.aws.make_bucket("steps")
    settings = Settings(lakehouse_uri="s3://steps/lake", landing_uri="s3://steps/landing", catalog="glue")
    folder = StepFolder(S3Location.parse("s3://steps/lake/remote/a/"), settings)
    for number in (1, 2):
        s3.put_object(Bucket="steps", Key=f"lake/remote/a/messages/{number}.json", Body=json.dumps({"n": number}))
    failures = [ReadTimeoutError(endpoint_url="https://s3")]

    def failing_once(client: Any, bucket: str, key: str) -> tuple[bytes, str]:
        if key.endswith("2.json") and failures:
            raise failures.pop()
        return get_object(client, bucket, key)

    monkeypatch.setattr("telemetry_assets.engines.remote.step.get_object", failing_once)
    assert retry_while_busy("a step", 1, folder.new_messages) == [{"n": 1}, {"n": 2}]
    assert folder.new_messages() == []


@pytest.mark.parametrize(
    "error",
    [
        EndpointConnectionError(endpoint_url="https://glue"),
        ConnectTimeoutError(endpoint_url="https://glue"),
        ReadTimeoutError(endpoint_url="https://glue"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_requests_to_temporarily_unreachable_aws_are_retried(error: Exception) -> None:
    answers: list[Any] = [error, "there"]

    def answer() -> str:
        match answers.pop(0):
            case Exception() as failed:
                raise failed
            case text:
                return str(text)

    assert retry_while_busy("a step", 1, answer) == "there"
