"""The kinds of faults, and the plan that decides which requests fail."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from threading import Event, Lock

from telemetry_assets_tests.harness.aws.api_requests import Request


class FaultKind(StrEnum):
    """How a request fails. All but the first group are forwarded and therefore take effect."""

    INTERNAL_ERROR = "internal_error"
    SLOW_DOWN = "slow_down"
    ACCESS_DENIED = "access_denied"
    CONFLICT = "conflict"
    LOST_LOCK = "lost_lock"
    RESET_BEFORE = "reset_before"

    RESET_AFTER = "reset_after"
    ERROR_AFTER = "error_after"
    SLOW_ANSWER = "slow_answer"
    TRUNCATED_BODY = "truncated_body"
    PAUSED = "paused"


_Refusal = tuple[int, str, str]
"""HTTP status, code, message."""

_OF_S3: dict[FaultKind, _Refusal] = {
    FaultKind.INTERNAL_ERROR: (500, "InternalError", "We encountered an internal error. Please try again."),
    FaultKind.ERROR_AFTER: (500, "InternalError", "We encountered an internal error. Please try again."),
    FaultKind.SLOW_DOWN: (503, "SlowDown", "Please reduce your request rate."),
    FaultKind.ACCESS_DENIED: (403, "AccessDenied", "Access Denied"),
    FaultKind.CONFLICT: (409, "ConditionalRequestConflict", "A conflicting operation occurred during this request."),
}
_OF_OTHERS: dict[FaultKind, _Refusal] = {
    FaultKind.INTERNAL_ERROR: (500, "InternalServiceException", "An internal error occurred."),
    FaultKind.ERROR_AFTER: (500, "InternalServiceException", "An internal error occurred."),
    FaultKind.SLOW_DOWN: (400, "ThrottlingException", "Rate exceeded"),
    FaultKind.ACCESS_DENIED: (400, "AccessDeniedException", "User is not authorized to perform this operation."),
    FaultKind.LOST_LOCK: (
        400,
        "ConcurrentModificationException",
        "Update table failed due to concurrent modifications.",
    ),
}
_LONGEST_PAUSE = 120


@dataclass
class Fault:
    """A fault of the (after + 1)-th to the (after + times)-th matching request.

    :param operation: e.g. ``PutObject``; every operation if None.
    :param key_contains: a substring of the request's key.
    :param seconds: the delay of a ``slow_answer``, in seconds.
    """

    kind: FaultKind
    operation: str | None = None
    key_contains: str = ""
    after: int = 0
    times: int = 1
    seconds: float = 1.0
    _met: int = 0
    _released: Event = field(default_factory=Event)
    _reached: Event = field(default_factory=Event)

    def release(self) -> None:
        """Release the requests that this fault has paused."""
        self._released.set()

    def wait_until_reached(self, timeout: float = 30) -> bool:
        """Wait until a request is paused; False after the timeout."""
        return self._reached.wait(timeout)

    def hold(self) -> None:
        """Block until the request is released, or for longer than any test takes."""
        self._reached.set()
        self._released.wait(_LONGEST_PAUSE)

    def takes(self, request: Request) -> bool:
        """Whether this request fails; each call counts as one request."""
        if self.operation not in (None, request.operation) or self.key_contains not in request.key:
            return False
        if not can_happen(self.kind, request):
            return False
        self._met += 1
        return self.after < self._met <= self.after + self.times


@dataclass(frozen=True)
class FaultHit:
    """A fault that occurred."""

    kind: FaultKind
    operation: str
    key: str


class RandomFaults:
    """Faults in a share of all requests, with so few in a row that bounded retries succeed.

    :param in_a_row: how often at most one operation on one key goes wrong before it goes right.
    """

    def __init__(self, chance: random.Random, rate: float, kinds: Sequence[FaultKind], in_a_row: int) -> None:
        self._chance = chance
        self._rate = rate
        self._kinds = kinds
        self._in_a_row = in_a_row
        self._row: Counter[tuple[str, str, str]] = Counter()

    def choose(self, request: Request) -> Fault | None:
        """Choose a fault for this request, or None."""
        of = (request.operation, request.bucket, request.key)
        possible = [kind for kind in self._kinds if can_happen(kind, request)]
        if possible and self._row[of] < self._in_a_row and self._chance.random() < self._rate:
            self._row[of] += 1
            return Fault(self._chance.choice(possible), seconds=self._chance.uniform(0.05, 0.3))
        self._row[of] = 0
        return None


class FaultPlan:
    """The faults that are planned."""

    def __init__(self) -> None:
        self.hits: list[FaultHit] = []
        self._ordered: list[Fault] = []
        self._random: RandomFaults | None = None
        self._one_at_a_time = Lock()

    def add(self, fault: Fault) -> None:
        """Add a fault."""
        with self._one_at_a_time:
            self._ordered.append(fault)

    def set_random(self, faults: RandomFaults | None) -> None:
        """Start random faults, or stop them if None."""
        with self._one_at_a_time:
            self._random = faults

    def clear(self) -> None:
        """Forget every order, and let go on what is paused."""
        with self._one_at_a_time:
            for fault in self._ordered:
                fault.release()
            self._ordered.clear()
            self._random = None

    def fault_of(self, request: Request) -> Fault | None:
        """The fault of this request, if any; each call counts as one request."""
        with self._one_at_a_time:
            # Every matching fault counts this request, even if another fault applies to it.
            taking = [fault for fault in self._ordered if fault.takes(request)]
            fault = taking[0] if taking else self._random.choose(request) if self._random else None
            if fault is not None:
                self.hits.append(FaultHit(fault.kind, request.operation, request.key))
            return fault


def can_happen(kind: FaultKind, request: Request) -> bool:
    """Whether AWS can respond to this request with this fault."""
    if kind is FaultKind.TRUNCATED_BODY:
        return request.operation.startswith(("Get", "List"))
    if kind is FaultKind.LOST_LOCK:
        return request.operation == "UpdateTable"
    if kind is FaultKind.CONFLICT:
        return request.service == "s3" and request.is_conditional_write
    return True


def refusal(kind: FaultKind, request: Request) -> tuple[int, str, bytes] | None:
    """Status, content type and body of AWS's error response; None if this kind has none."""
    of = (_OF_S3 if request.service == "s3" else _OF_OTHERS).get(kind)
    if of is None:
        return None
    status, code, message = of
    if request.service != "s3":
        return status, "application/x-amz-json-1.1", json.dumps({"__type": code, "Message": message}).encode()
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return status, "application/xml", text.encode()
