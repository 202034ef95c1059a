"""Workers as the checker has them: started ahead, ordered, killed and paused from outside, and replaced."""

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
from telemetry_assets_tests.chaos.worker import Order, Told
from telemetry_assets_tests.harness.aws.api_requests import Request
from telemetry_assets_tests.harness.aws.fault_proxy import FaultProxy
from telemetry_assets_tests.harness.aws.faults import Fault, FaultKind
from telemetry_assets_tests.harness.forked import CONTEXT

LONGEST_RUN = 100.0


class StuckError(Exception):
    """A run has not ended for longer than any run takes."""


class Worker:
    """A process that works, and what it has told. On S3 it stands behind a proxy of its own."""

    def __init__(self, environment: dict[str, str], aws: AwsHere | None, sabotage: str) -> None:
        self._proxy: FaultProxy | None = None
        if aws is not None:
            self._proxy = aws.proxy().__enter__()
            self._proxy.on_request(self._met)
            environment = {**environment, **aws.environment(self._proxy.endpoint)}
        self._told: queue.SimpleQueue[Told] = queue.SimpleQueue()
        self._released = Event()
        self._at: Kill | Pause | None = None
        self._passed = 0
        self._connection, theirs = CONTEXT.Pipe()
        self.process: Any = CONTEXT.Process(target=worker.serve, args=(theirs, environment, sabotage), daemon=True)
        self.process.start()
        theirs.close()
        Thread(target=_listen, args=(self._connection, self._told), daemon=True).start()

    def await_ready(self) -> None:
        """Wait until it can be ordered."""
        told = self.next_told()
        if told.what != "ready":
            raise RuntimeError(f"a worker did not start: {told}")

    def order(self, order: Order, disturbance: Disturbance | None) -> None:
        """Let it begin."""
        at = disturbance if isinstance(disturbance, Kill | Pause) else None
        jump = disturbance if isinstance(disturbance, ClockJump) else None
        if self._proxy is not None:
            self._proxy.requests.clear()
            self._proxy.plan.hits.clear()
            self._passed, self._at = 0, at
            self._released.clear()
            _order_faults(self._proxy, disturbance)
        self._connection.send(order if self._proxy is not None else replace(order, at=at or jump))

    def next_told(self, seconds: float = LONGEST_RUN) -> Told:
        """What it tells next; ``killed`` without a point where it has died by itself."""
        try:
            return self._told.get(timeout=seconds)
        except queue.Empty:
            raise StuckError(f"a run has told nothing for {seconds} seconds") from None

    def release(self) -> None:
        """Let go on what is paused."""
        if self._proxy is None:
            with suppress(OSError):
                self._connection.send("go on")
        else:
            self._released.set()
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGCONT)

    def end_order(self, record: Record) -> None:
        """Let its requests go right again, and note the faults that happened."""
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
        """Kill it, if it is alive, and take its proxy away."""
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
            self._told.put(Told("killed", point))
        elif at.at.before:
            # The request is long on its way; what else the process does meanwhile, it does.
            self._told.put(Told("paused", point))
            self._released.wait()
        else:
            os.kill(self.process.pid, signal.SIGSTOP)
            self._told.put(Told("paused", point))


def _order_faults(proxy: FaultProxy, disturbance: Disturbance | None) -> None:
    from random import Random

    from telemetry_assets_tests.chaos.schedules import FAULT_KINDS

    if isinstance(disturbance, OneFault):
        proxy.inject(Fault(disturbance.kind, after=disturbance.after, times=disturbance.times, seconds=0.3))
    elif isinstance(disturbance, RandomFaults):
        proxy.inject_randomly(Random(disturbance.seed), disturbance.rate, FAULT_KINDS)


def _listen(connection: Connection, told: queue.SimpleQueue[Told]) -> None:
    """Pass on what a worker tells, until it is no more."""
    with suppress(EOFError, OSError):
        while True:
            told.put(connection.recv())
    told.put(Told("killed"))


class Crew:
    """Workers for one kind of place; a dead one is replaced by one that was started ahead."""

    def __init__(self, make: Callable[[], Worker], spare: int) -> None:
        self._make = make
        self._ready: list[Worker] = []
        self._taken: list[Worker] = []
        self._starting = [make() for _ in range(spare)]

    def take(self) -> Worker:
        """A worker that can be ordered."""
        if self._ready:
            one = self._ready.pop()
        else:
            one = self._starting.pop(0) if self._starting else self._make()
            one.await_ready()
        self._taken.append(one)
        return one

    def give_back(self, one: Worker) -> None:
        """Have a worker again, alive or dead."""
        self._taken.remove(one)
        if one.process.is_alive():
            self._ready.append(one)
        else:
            one.end()
            self._starting.append(self._make())

    def end_taken(self) -> None:
        """End those that nobody has given back.

        One that is stopped does not take the signal that a process's end sends to its children, so that the end of
        this process would wait for it for ever.
        """
        while self._taken:
            self._taken.pop().end()

    def end(self) -> None:
        """End all."""
        self.end_taken()
        for one in (*self._ready, *self._starting):
            one.end()
