"""Functions for commands that run the pipeline: run ids, progress, and signals that end a run."""

from __future__ import annotations

import logging
import signal
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from telemetry_assets.cli.terminal import say
from telemetry_assets.engines.base import COMMAND_LINE
from telemetry_assets.text.formatting import counted

if TYPE_CHECKING:
    from telemetry_assets.engines.result import RefreshResult

_ENGINES = "telemetry_assets.engines"


def new_run_id() -> str:
    """An id for a run of the command line."""
    return f"{COMMAND_LINE}{uuid.uuid4().hex}"


def interrupt_on_sigterm() -> None:
    """Let SIGTERM raise KeyboardInterrupt, so that the run cancels the remote steps that it has started."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@contextmanager
def engine_log_on_stderr() -> Iterator[None]:
    """Print the engine's log to standard error: which remote run performs a step, and its state."""
    logger = logging.getLogger(_ENGINES)  # noqa: TID251  # adds a handler, logs nothing
    handler = logging.StreamHandler(sys.stderr)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def say_refresh(done: RefreshResult) -> None:
    """Print a refreshed table, as progress."""
    written = f"{counted(len(done.event_dates), 'event date')}, {counted(done.rows_written, 'row')}"
    text = written if done.changed else "up to date"
    why = f"; rebuilt, because {done.rebuild_reason}" if done.rebuild_reason else ""
    say(f"{done.contract.full_name}: {text} ({done.seconds:.1f} s){why}", err=True)
