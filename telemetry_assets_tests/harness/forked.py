"""Programs in separate processes, forked from a server that has already imported their modules.

The processes can be killed. Importing a run's modules takes longer than most of the tests' runs.
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
        # Each process imports its parent's main module with all of that module's imports.
        "telemetry_assets_tests.chaos.lanes",
        "telemetry_assets_tests.chaos.report",
        "telemetry_assets_tests.chaos.schedules",
        "pytest",
        # Modules that the product imports lazily.
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


# Starting a process also reads the exit codes of earlier ones, which is possible only once: if two threads read at
# the same time, one of them gets 255.
_one_at_a_time = Lock()


class ForkedProgram:
    """A function that runs like a program, with its own environment and output."""

    def __init__(self, program: Callable[..., object], *arguments: Any, environment: Mapping[str, str]) -> None:
        file, name = tempfile.mkstemp(suffix=".out")
        os.close(file)
        self._output = Path(name)
        given = (program, arguments, dict(environment), name)
        self._process: Any = CONTEXT.Process(target=_run, args=given)
        with _one_at_a_time:
            self._process.start()

    def wait(self, seconds: float = 240) -> tuple[int, str]:
        """Wait for the end; return the exit code, negative for a signal, and the output."""
        wait([self._process.sentinel], seconds)
        with _one_at_a_time:
            exit_code: int | None = self._process.exitcode
        output = self._output.read_text(errors="replace")
        assert exit_code is not None, f"it has not ended within {seconds} s:\n{output}"
        self._output.unlink()
        return exit_code, output


def _run(program: Callable[..., object], arguments: tuple[Any, ...], environment: dict[str, str], output: str) -> None:
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    file = os.open(output, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(file, stream)
    program(*arguments)
