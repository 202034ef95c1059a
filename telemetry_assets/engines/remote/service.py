"""What the remote engine needs of a service that runs Spark programs, and how patiently it is asked."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Protocol, TypeVar

from botocore.exceptions import ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as UnreachableError

from telemetry_assets.aws.errors import error_code
from telemetry_assets.engines.package.build import Package
from telemetry_assets.engines.remote.run import StepFolder
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


def patiently(what: str, minutes: float, request: Callable[[], Answer]) -> Answer:
    """Ask again for as long as a service is busy: throttled, without room, or at its limit of runs.

    :raises ClientError: the last refusal when the time is over; any other one at once.
    :raises HTTPClientError: where AWS does not answer for some minutes.
    :raises botocore.exceptions.ConnectionError: where it cannot be reached for some minutes.
    """
    began, wait = time.monotonic(), 1.0
    while True:
        waited = (time.monotonic() - began + wait) / 60
        try:
            return request()
        except ClientError as error:
            if error_code(error) not in _BUSY or waited > minutes:
                raise
            logger.info("%s has to wait: %s", what, error)
        except (HTTPClientError, UnreachableError) as error:
            if waited > min(minutes, _UNREACHABLE_MINUTES):
                raise
            logger.info("%s has to wait, as AWS does not answer: %s", what, error)
        time.sleep(wait * random.uniform(0.5, 1))
        wait = min(wait * 2, _LONGEST_WAIT_SECONDS)
