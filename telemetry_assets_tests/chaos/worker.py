"""The process that executes runs. It is used for many runs of several deployments until it is killed.

The server that it is forked from does the imports once, so that replacing a killed worker is cheap.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import os
import re
import signal
import tempfile
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from threading import Lock
from typing import Any

from telemetry_assets.engines.embedded import EmbeddedEngine
from telemetry_assets.engines.plan import Limits
from telemetry_assets.ingestion.journal.base import ReplaySelection
from telemetry_assets.pipeline import Pipeline, open_pipeline
from telemetry_assets.settings import Settings
from telemetry_assets.tables import all_tables, derived_table_named
from telemetry_assets_tests.chaos.machine import MACHINE
from telemetry_assets_tests.chaos.steps import Backfill, ClockJump, Kill, Pause, Work
from telemetry_assets_tests.harness.deployment import AS_OF
from telemetry_assets_tests.harness.killed_process import BOUNDARIES, Boundary

_SHORTENED = 0.1
_PLAN_AS_TEXT = "_proto_to_string"
_PARTICULAR = re.compile(r"[0-9a-f]{8,}(-[0-9a-f]+)*")


@dataclass(frozen=True)
class Order:
    """The order of a run to a worker.

    :param at: where the worker stops by itself; in folders only.
    """

    settings: dict[str, Any]
    work: tuple[Work, ...]
    clock: float
    at: Kill | Pause | ClockJump | None
    hard_links: bool = True


@dataclass(frozen=True)
class Message:
    """A worker's message: ``ready``, ``done``, ``failed``, ``paused``, ``jumped`` or ``killed``, with details."""

    what: str
    about: str = ""
    error: str = ""


class _Stops:
    """The boundaries of the product's steps on folders, at which this process can be killed or paused."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._passed = 0
        self._at: Kill | Pause | ClockJump | None = None
        self._one_at_a_time = Lock()
        for boundary in BOUNDARIES:
            self._wrap(boundary)

    def order(self, at: Kill | Pause | ClockJump | None) -> None:
        self._passed, self._at = 0, at

    def _wrap(self, boundary: Boundary) -> None:
        original = getattr(boundary.owner, boundary.function)
        signature = inspect.signature(original)

        @functools.wraps(original)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if self._at is None:
                return original(*args, **kwargs)
            step = boundary.step.format(boundary.of(signature.bind(*args, **kwargs).arguments))
            ordered = self._ordered(step)
            if ordered is None:
                return original(*args, **kwargs)
            if ordered.at.before:
                self._stop(ordered, f"before {step}")
            result = original(*args, **kwargs)
            if not ordered.at.before:
                self._stop(ordered, f"after {step}")
            return result

        static = isinstance(inspect.getattr_static(boundary.owner, boundary.function), staticmethod)
        setattr(boundary.owner, boundary.function, staticmethod(wrapped) if static else wrapped)

    def _ordered(self, step: str) -> Kill | Pause | ClockJump | None:
        """The order if this is its boundary."""
        with self._one_at_a_time:
            if self._at is None or not step.startswith(self._at.at.step):
                return None
            self._passed += 1
            return self._at if self._passed == self._at.at.number else None

    def _stop(self, ordered: Kill | Pause | ClockJump, point: str) -> None:
        point = _PARTICULAR.sub("…", point)
        if isinstance(ordered, ClockJump):
            MACHINE.clock_seconds += ordered.seconds
            self._connection.send(Message("jumped", point))
            return
        if isinstance(ordered, Kill):
            self._connection.send(Message("killed", point))
            os.kill(os.getpid(), signal.SIGKILL)
        self._connection.send(Message("paused", point))
        self._connection.recv()


def serve(connection: Connection, environment: Mapping[str, str], sabotage: str) -> None:
    """Execute orders until the connection closes."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "TELEMETRY_"))]:
        del os.environ[name]
    os.environ.update(environment)
    tempfile.tempdir = None
    _shorten_waits()
    _spare_work()
    MACHINE.install()
    if sabotage:
        from telemetry_assets_tests.chaos.sabotage import SABOTAGES

        SABOTAGES[sabotage]()
    stops = _Stops(connection) if "AWS_ENDPOINT_URL" not in environment else None
    engine = EmbeddedEngine(None, Limits(100_000, 500_000, 2_000_000))  # type: ignore[arg-type]  # each run sets its own lakehouse
    connection.send(Message("ready"))
    while True:
        try:
            order: Order = connection.recv()
        except EOFError:
            return
        if stops is not None:
            stops.order(order.at)
        message = _done(order, engine)
        if stops is not None:
            stops.order(None)
        # As at the end of a process: close what an error kept open before the disk changes.
        gc.collect()
        connection.send(message)


def _done(order: Order, engine: EmbeddedEngine) -> Message:
    MACHINE.clock_seconds, MACHINE.hard_links = order.clock, order.hard_links
    try:
        with open_pipeline(Settings(**order.settings)) as pipeline:
            # Starting an engine takes as long as a run, and a run depends only on the engine's lakehouse.
            engine._lakehouse = pipeline.lakehouse
            pipeline.__dict__["engine"] = engine
            try:
                for work in order.work:
                    _do(pipeline, work)
            finally:
                del pipeline.__dict__["engine"]
    except Exception as error:
        return Message(
            "failed", f"{type(error).__name__}: {str(error)[:300]}", "".join(traceback.format_exception(error))
        )
    return Message("done")


def _do(pipeline: Pipeline, work: Work) -> None:
    if isinstance(work, Backfill):
        pipeline.refresh(derived_table_named(work.table), "backfill", frozenset(work.dates), AS_OF)
    elif work == "replay":
        pipeline.replay_rejected(ReplaySelection(), "replay")
    elif work == "maintain":
        list(pipeline.maintain(all_tables()))
    else:
        pipeline.process("run", AS_OF)


def _spare_work() -> None:
    """Disable work that takes time and affects no table."""
    from pyspark.sql.connect.client import SparkConnectClient

    # The text of each plan, for a log that is not stored.
    setattr(SparkConnectClient, _PLAN_AS_TEXT, lambda *_: "")
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _shorten_waits() -> None:
    """Shorten the waits between retries, which affect only a schedule's duration."""
    sleep, sleep_in_loop = time.sleep, asyncio.sleep

    async def short_in_loop(delay: Any, result: Any = None) -> Any:
        return await sleep_in_loop(delay * _SHORTENED, result)

    time.sleep = lambda seconds: sleep(float(seconds) * _SHORTENED)
    asyncio.sleep = short_in_loop
