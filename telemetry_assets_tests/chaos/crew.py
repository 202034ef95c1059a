"""The checker's workers: processes that are started in advance, given orders, killed, paused and replaced."""

from __future__ import annotations

import os
import queue
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from threading import Event, Thread
from typing import Any

from telemetry_assets_tests.chaos import worker
from telemetry_assets_tests.chaos.aws_here import AwsHere
from telemetry_assets_tests.chaos.points import Record, is_write, point_of, request_point
from telemetry_assets_tests.chaos.steps import ClockJump, Disturbance, Kill, OneFault, Pause, RandomFaults
from telemetry_assets_tests.chaos.worker import Message, Order
from telemetry_assets_tests.harness.aws.api_requests import Request
from telemetry_assets_tests.harness.aws.fault_proxy import FaultProxy
from telemetry_assets_tests.harness.aws.faults import Fault, FaultKind
from telemetry_assets_tests.harness.forked import CONTEXT

LONGEST_RUN = 100.0


class StuckError(Exception):
    """A run takes longer than any run should."""


class Worker:
    """A worker process and its messages. On S3, it uses a proxy of its own."""

    def __init__(self, environment: dict[str, str], aws: AwsHere | None, sabotage: str) -> None:
        self._proxy: FaultProxy | None = None
        if aws is not None:
            self._proxy = aws.proxy().__enter__()
            self._proxy.on_request(self._met)
            environment = {**environment, **aws.environment(self._proxy.endpoint)}
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._released = Event()
        self._at: Kill | Pause | None = None
        self._passed = 0
        self._connection, theirs = CONTEXT.Pipe()
        self.process: Any = CONTEXT.Process(target=worker.serve, args=(theirs, environment, sabotage), daemon=True)
        self.process.start()
        theirs.close()
        Thread(target=_listen, args=(self._connection, self._messages), daemon=True).start()

    def await_ready(self) -> None:
        """Wait until the worker accepts orders."""
        message = self.next_message()
        if message.what != "ready":
            raise RuntimeError(f"a worker did not start: {message}")

    def order(self, order: Order, disturbance: Disturbance | None) -> None:
        """Start an order."""
        at = disturbance if isinstance(disturbance, Kill | Pause) else None
        jump = disturbance if isinstance(disturbance, ClockJump) else None
        if self._proxy is not None:
            self._proxy.requests.clear()
            self._proxy.plan.hits.clear()
            self._passed, self._at = 0, at
            self._released.clear()
            _order_faults(self._proxy, disturbance)
        self._connection.send(order if self._proxy is not None else replace(order, at=at or jump))

    def next_message(self, seconds: float = LONGEST_RUN) -> Message:
        """The worker's next message; ``killed`` without a point if the process died by itself."""
        try:
            return self._messages.get(timeout=seconds)
        except queue.Empty:
            raise StuckError(f"a run has sent no message for {seconds} seconds") from None

    def release(self) -> None:
        """Resume what is paused."""
        if self._proxy is None:
            with suppress(OSError):
                self._connection.send("go on")
        else:
            self._released.set()
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGCONT)

    def end_order(self, record: Record) -> None:
        """Stop the faults, and record those that occurred."""
        self._at = None
        if self._proxy is None:
            return
        self._proxy.stop_injecting()
        for hit in self._proxy.faults_hit:
            if hit.kind is not FaultKind.RESET_BEFORE or self.process.is_alive():
                record.points[hit.kind, point_of(hit.operation, hit.key)] += 1
                record.counts["faults"] += 1
        record.counts["requests"] += len(self._proxy.requests)

    def end(self) -> None:
        """Kill the process if it is alive, and close its proxy."""
        if self.process.is_alive():
            os.kill(self.process.pid, signal.SIGKILL)
        self._released.set()
        self.process.join(10)
        self._connection.close()
        if self._proxy is not None:
            self._proxy.__exit__(None, None, None)

    def _met(self, request: Request) -> None:
        at = self._at
        if at is None or (at.at.writes_only and not is_write(request)):
            return
        self._passed += 1
        if self._passed != at.at.number:
            return
        self._at = None
        assert self._proxy is not None
        point = f"{'before' if at.at.before else 'after'} {request_point(request)}"
        if isinstance(at, Kill):
            if at.at.before:
                self._proxy.inject(Fault(FaultKind.RESET_BEFORE, request.operation, request.key))
            os.kill(self.process.pid, signal.SIGKILL)
            self._messages.put(Message("killed", point))
        elif at.at.before:
            # Only the request is delayed; the process continues its other work.
            self._messages.put(Message("paused", point))
            self._released.wait()
        else:
            os.kill(self.process.pid, signal.SIGSTOP)
            self._messages.put(Message("paused", point))


def _order_faults(proxy: FaultProxy, disturbance: Disturbance | None) -> None:
    from random import Random

    from telemetry_assets_tests.chaos.schedules import FAULT_KINDS

    if isinstance(disturbance, OneFault):
        proxy.inject(Fault(disturbance.kind, after=disturbance.after, times=disturbance.times, seconds=0.3))
    elif isinstance(disturbance, RandomFaults):
        proxy.inject_randomly(Random(disturbance.seed), disturbance.rate, FAULT_KINDS)


def _listen(connection: Connection, messages: queue.SimpleQueue[Message]) -> None:
    """Pass on a worker's messages until it dies."""
    with suppress(EOFError, OSError):
        while True:
            messages.put(connection.recv())
    messages.put(Message("killed"))


class Crew:
    """Workers for one kind of place; a dead worker is replaced by one that was started in advance."""

    def __init__(self, make: Callable[[], Worker], spare: int) -> None:
        self._make = make
        self._ready: list[Worker] = []
        self._taken: list[Worker] = []
        self._starting = [make() for _ in range(spare)]

    def take(self) -> Worker:
        """Take a worker that accepts orders."""
        if self._ready:
            one = self._ready.pop()
        else:
            one = self._starting.pop(0) if self._starting else self._make()
            one.await_ready()
        self._taken.append(one)
        return one

    def give_back(self, one: Worker) -> None:
        """Return a worker, alive or dead."""
        self._taken.remove(one)
        if one.process.is_alive():
            self._ready.append(one)
        else:
            one.end()
            self._starting.append(self._make())

    def end_taken(self) -> None:
        """End the workers that were not returned.

        A stopped process does not handle the signal that a process sends to its children at its end, so that this
        process would wait for it forever.
        """
        while self._taken:
            self._taken.pop().end()

    def end(self) -> None:
        """End all workers."""
        self.end_taken()
        for one in (*self._ready, *self._starting):
            one.end()
