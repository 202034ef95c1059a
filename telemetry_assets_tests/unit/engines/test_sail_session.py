"""Sessions on Sail servers of one process do not disturb each other."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from pyspark.errors.exceptions.connect import SparkConnectGrpcException

from telemetry_assets.engines.embedded import SailSession


@pytest.fixture
def without_garbage_collection() -> Iterator[None]:
    """Garbage stays until :func:`gc.collect` is called."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.timeout(60)
@pytest.mark.usefixtures("without_garbage_collection")
def test_session_works_while_a_new_thread_finalizes_a_closed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread._bootstrap_inner  # type: ignore[attr-defined]

    def start_with_garbage_collection(thread: threading.Thread) -> None:
        gc.collect()
        start(thread)

    with closing(SailSession()) as closed:
        closed.spark.range(1).collect()
    cycle: list[object] = [closed]
    cycle.append(cycle)
    del closed, cycle
    monkeypatch.setattr(threading.Thread, "_bootstrap_inner", start_with_garbage_collection)

    with closing(SailSession()) as session:
        assert session.spark.range(3).count() == 3


def test_query_that_panics_raises_an_error(tmp_path: Path) -> None:
    with closing(SailSession()) as session:
        panicking = session.spark.range(4).selectExpr("format_number(cast(id as double), cast(id * 1000000 as int)) x")
        with pytest.raises(SparkConnectGrpcException, match="panicked"):
            panicking.write.parquet(f"file://{tmp_path}/rows")
