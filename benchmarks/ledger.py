"""Benchmark of the ledger and the archive audit. Run it with ``python -m benchmarks.ledger``.

It measures their share of the time that `process` of 1,000 uploads takes. Both times are of the same run.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

from benchmarks.measuring import temporary_deployment
from telemetry_assets.ingestion import batches, intake
from telemetry_assets.ingestion.archive_audit import ArchiveAudit
from telemetry_assets.lakehouse.batch_rows import TablePosition
from telemetry_assets.lakehouse.catalog import Lakehouse
from telemetry_assets.pipeline import open_pipeline
from telemetry_assets.settings import Settings
from telemetry_assets.tables import UPLOADS
from telemetry_assets.tables.contract import TableContract

_RUNS = 3


class _Clock:
    """Sums the time spent in functions. A call within another timed call is not counted again."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._inside = False

    def time_calls(self, owner: Any, name: str, matches: Callable[..., bool] = lambda *_, **__: True) -> None:
        """Time the calls of a function for whose arguments ``matches`` returns True."""
        original = getattr(owner, name)

        @functools.wraps(original)
        def timed(*arguments: Any, **options: Any) -> Any:
            if self._inside or not matches(*arguments, **options):
                return original(*arguments, **options)
            self._inside, started = True, time.perf_counter()
            try:
                return original(*arguments, **options)
            finally:
                self.seconds += time.perf_counter() - started
                self._inside = False

        setattr(owner, name, timed)


def _is_ledger(_: object, contract: TableContract, *__: object) -> bool:
    return contract is UPLOADS


def main() -> None:
    """Run the benchmark and print a Markdown table."""
    clock = _Clock()
    clock.time_calls(Lakehouse, "_created", _is_ledger)
    clock.time_calls(Lakehouse, "table", _is_ledger)
    clock.time_calls(batches, "append_batch", _is_ledger)
    clock.time_calls(batches, "rows_of_batch")
    clock.time_calls(batches, "latest_ingested_at")
    clock.time_calls(intake, "latest_ingested_at")
    clock.time_calls(TablePosition, "of")
    for name in ("complete_ledger", "newest"):
        clock.time_calls(ArchiveAudit, name)
    print("| `process` of 1,000 uploads, 100,000 documents | total s | ledger and audit s | share |\n|---|---|---|---|")
    for _ in range(_RUNS):
        with temporary_deployment() as deployment:
            deployment.fill(documents=100_000, uploads=1_000, cars=500, days=30)
            settings = Settings(landing_uri=str(deployment.landing), lakehouse_uri=str(deployment.folder / "lakehouse"))
            clock.seconds, started = 0.0, time.perf_counter()
            with open_pipeline(settings) as pipeline:
                pipeline.process("benchmark")
            seconds = time.perf_counter() - started
        print(
            f"| into a new lakehouse | {seconds:.1f} | {clock.seconds:.2f} | {clock.seconds / seconds:.1%} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
