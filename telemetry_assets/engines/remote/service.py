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
    """What a state of a service means to a step."""

    WAITING = "waiting"
    RUNNING = "running"
    STOPPING = "stopping"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_over(self) -> bool:
        """Whether the run will not change any more."""
        return self in (Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED)


@dataclass(frozen=True)
class State:
    """A run's state.

    :param name: as the service names it.
    :param details: what the service says of it.
    :param is_final_failure: whether another attempt would end the same way, as after a time limit.
    """

    phase: Phase
    name: str
    details: str = ""
    is_final_failure: bool = False


@dataclass(frozen=True)
class Submission:
    """What a run is started with.

    :param configuration: Spark's, all of it.
    """

    folder: StepFolder
    package: Package
    configuration: dict[str, str]
    size: RemoteSize
    timeout_minutes: int
    region: str


@dataclass(frozen=True)
class StepRun:
    """A run of a step, as a service lists it.

    :param step_uri: what it was started with; of any lakehouse.
    :param started: when the service was asked for it.
    """

    run_id: str
    step_uri: str
    started: datetime


class RemoteService(Protocol):
    """Runs submitted programs."""

    name: str

    def problems(self) -> Iterator[str]:
        """What keeps it from running steps, as far as that can be seen without starting one."""
        ...

    def start(self, submission: Submission) -> str:
        """Start a run, or find the one that an earlier attempt to start it has made, and answer its id."""
        ...

    def state(self, run_id: str) -> State:
        """How a run is."""
        ...

    def living(self) -> list[StepRun]:
        """The runs of steps that are not over, oldest first."""
        ...

    def failed_since(self, moment: datetime) -> list[StepRun]:
        """The runs of steps that have failed since a moment."""
        ...

    def cancel(self, run_id: str) -> None:
        """Ask for a run's end. One that is over stays as it is."""
        ...

    def link(self, run_id: str) -> str:
        """Where people see the run."""
        ...

    def last_lines(self, run_id: str) -> list[str]:
        """The last lines of the driver's log, as far as they can be had."""
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
        return (stop_unreachable if isinstance(_error(state), _UNREACHABLE) else stop_busy)(state)

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
