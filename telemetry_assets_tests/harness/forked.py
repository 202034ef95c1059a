"""Programs in processes of their own, which really die, forked from a server that has done their imports once.

Importing what a run needs takes longer than most runs of the tests.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from multiprocessing import get_context
from multiprocessing.connection import wait
from pathlib import Path
from threading import Lock
from typing import Any

CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "telemetry_assets.cli.main",
        "telemetry_assets_tests.harness.killed_process",
        "telemetry_assets_tests.chaos.worker",
        # Each process imports the main module of the one that started it, and with it all that this one imports.
        "telemetry_assets_tests.chaos.lanes",
        "telemetry_assets_tests.chaos.report",
        "telemetry_assets_tests.chaos.schedules",
        "pytest",
        # What the product imports where it is used.
        "grpc._channel",
        "pyarrow.acero",
        "pyspark.sql.connect.window",
        "pyspark.sql.connect.session",
        "pysail.spark",
        "sqlalchemy.dialects.sqlite",
        "sqlite3",
        "boto3",
        "s3fs",
        "telemetry_assets.aws.clients",
        "telemetry_assets.engines.embedded",
        "telemetry_assets.lakehouse.glue_catalog",
        "telemetry_assets.lakehouse.s3_file_io",
        "telemetry_assets.ingestion.landing.s3",
        "telemetry_assets.ingestion.journal.s3",
        "telemetry_assets.ingestion.landing.folder",
    ]
)


# Starting a process also asks how each earlier one has ended, and that can be read only once: of two threads that ask
# at the same time one would be told 255.
_one_at_a_time = Lock()


class ForkedProgram:
    """A function that runs as a program does, from its start: with an environment and an output of its own."""

    def __init__(self, program: Callable[..., object], *arguments: Any, environment: Mapping[str, str]) -> None:
        file, name = tempfile.mkstemp(suffix=".out")
        os.close(file)
        self._output = Path(name)
        given = (program, arguments, dict(environment), name)
        self._process: Any = CONTEXT.Process(target=_run, args=given)
        with _one_at_a_time:
            self._process.start()

    def wait(self, seconds: float = 240) -> tuple[int, str]:
        """How it ended, the number of a signal below zero, and what it has written."""
        wait([self._process.sentinel], seconds)
        with _one_at_a_time:
            ended: int | None = self._process.exitcode
        written = self._output.read_text(errors="replace")
        assert ended is not None, f"it has not ended within {seconds} s:\n{written}"
        self._output.unlink()
        return ended, written


def _run(program: Callable[..., object], arguments: tuple[Any, ...], environment: dict[str, str], output: str) -> None:
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    file = os.open(output, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(file, stream)
    program(*arguments)
