"""The interface of a service that runs Spark programs, and the retry policy of requests to it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Protocol, TypeVar

from botocore.exceptions import ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as UnreachableError
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_before_delay

from telemetry_assets.aws.errors import error_code
from telemetry_assets.engines.package.build import Package
from telemetry_assets.engines.remote.step import StepFolder
from telemetry_assets.settings import RemoteSize
from telemetry_assets.text.plain import plain_logger

logger = plain_logger(__name__)

_BUSY = frozenset(
    {
        "ConcurrentRunsExceededException",
        "ConflictException",
        "InternalError",
        "InternalFailure",
        "InternalServerException",
        "InternalServiceException",
        "OperationTimeoutException",
        "RequestLimitExceeded",
        "ResourceNumberLimitExceededException",
        "ServiceQuotaExceededException",
        "ServiceUnavailable",
        "ServiceUnavailableException",
        "SlowDown",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
_LONGEST_WAIT_SECONDS = 30
_UNREACHABLE = (HTTPClientError, UnreachableError)
_UNREACHABLE_MINUTES = 5

Answer = TypeVar("Answer")


class Phase(Enum):
    """The phase of a job run. The states of all services map to phases."""

    WAITING = "waiting"
    RUNNING = "running"
    STOPPING = "stopping"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_over(self) -> bool:
        """Whether the phase is final."""
        return self in (Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED)


@dataclass(frozen=True)
class State:
    """The state of a job run.

    :param name: the service's name of the state.
    :param details: the service's message about the state.
    :param is_final_failure: whether a retry would fail too, as after a time limit.
    """

    phase: Phase
    name: str
    details: str = ""
    is_final_failure: bool = False


@dataclass(frozen=True)
class Submission:
    """The parameters with which a job run is started.

    :param configuration: the whole Spark configuration.
    """

    folder: StepFolder
    package: Package
    configuration: dict[str, str]
    size: RemoteSize
    timeout_minutes: int
    region: str


@dataclass(frozen=True)
class StepRun:
    """A job run in the list of a service.

    :param step_uri: the argument that it was started with; see :attr:`StepFolder.uri`.
    :param started: when its start was requested.
    """

    run_id: str
    step_uri: str
    started: datetime


class RemoteService(Protocol):
    """A service that runs Spark programs, such as EMR Serverless."""

    name: str

    def problems(self) -> Iterator[str]:
        """Problems that would prevent the service from running steps and can be found without a job run."""
        ...

    def start(self, submission: Submission) -> str:
        """Start a job run and return its id. If an earlier attempt has started the job run, return its id."""
        ...

    def state(self, run_id: str) -> State:
        """The state of a job run."""
        ...

    def active_runs(self) -> list[StepRun]:
        """The job runs of steps, of any lakehouse, whose phase is not final, oldest first."""
        ...

    def failed_since(self, moment: datetime) -> list[StepRun]:
        """The job runs of steps, of any lakehouse, that failed at or after a time."""
        ...

    def cancel(self, run_id: str) -> None:
        """Request the cancellation of a job run. If it has ended, nothing happens."""
        ...

    def link(self, run_id: str) -> str:
        """The URL of the job run's page or logs in the AWS console."""
        ...

    def last_lines(self, run_id: str) -> list[str]:
        """The last lines of the driver's log; none if there is no log."""
        ...


def retry_while_busy(what: str, minutes: float, request: Callable[[], Answer]) -> Answer:
    """Repeat a request while the service throttles it, has no capacity, is at its limit of runs, or does not answer.

    :param what: what the request is for; it begins the log lines.
    :param minutes: how long it is repeated at most.
    :raises ClientError: the last busy response after that time; any other error response at once.
    :raises HTTPClientError: if AWS does not answer for five minutes.
    :raises botocore.exceptions.ConnectionError: if AWS cannot be reached for five minutes.
    """
    stop_busy = stop_before_delay(minutes * 60)
    stop_unreachable = stop_before_delay(min(minutes, _UNREACHABLE_MINUTES) * 60)

    def stop(state: RetryCallState) -> bool:
        # One attempt can take as long as the limit, if AWS accepts a connection and does not answer.
        is_over = (stop_unreachable if isinstance(_error(state), _UNREACHABLE) else stop_busy)(state)
        return is_over and state.attempt_number > 1

    def log(state: RetryCallState) -> None:
        why = "AWS does not answer" if isinstance(_error(state), _UNREACHABLE) else "the service is busy"
        logger.info("%s waits, because %s: %s", what, why, _error(state))

    retrying = Retrying(retry=retry_if_exception(_is_busy), stop=stop, wait=_wait, before_sleep=log, reraise=True)
    return retrying(request)


def _is_busy(error: BaseException) -> bool:
    return isinstance(error, _UNREACHABLE) or (isinstance(error, ClientError) and error_code(error) in _BUSY)


def _wait(state: RetryCallState) -> float:
    """The seconds until the next attempt: exponential backoff with jitter of its upper half."""
    return min(2.0 ** min(state.attempt_number - 1, 5), _LONGEST_WAIT_SECONDS) * random.uniform(0.5, 1)


def _error(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None
