"""What the ledger and the audit cost `process` of 1,000 uploads: ``python -m benchmarks.ledger``.

The work of both is timed inside the process, so that the share is of one and the same run.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

from benchmarks.measuring import place
from telemetry_assets.ingestion import batches, intake
from telemetry_assets.ingestion.archive_audit import ArchiveAudit
from telemetry_assets.lakehouse.catalog import Lakehouse
from telemetry_assets.pipeline import open_pipeline
from telemetry_assets.settings import Settings
from telemetry_assets.tables import UPLOADS
from telemetry_assets.tables.contract import TableContract

_RUNS = 3


class _Clock:
    """Sums up the time that is spent in functions, but for what one of them spends in another."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._inside = False

    def around(self, owner: Any, name: str, counts: Callable[..., bool] = lambda *_, **__: True) -> None:
        """Time each call of a function, or those for whose arguments ``counts`` is true."""
        original = getattr(owner, name)

        @functools.wraps(original)
        def timed(*arguments: Any, **options: Any) -> Any:
            if self._inside or not counts(*arguments, **options):
                return original(*arguments, **options)
            self._inside, started = True, time.perf_counter()
            try:
                return original(*arguments, **options)
            finally:
                self.seconds += time.perf_counter() - started
                self._inside = False

        setattr(owner, name, timed)


def _is_of_ledger(_: object, contract: TableContract, *__: object) -> bool:
    return contract is UPLOADS


def main() -> None:
    """Measure and print a Markdown table."""
    clock = _Clock()
    clock.around(Lakehouse, "_created", _is_of_ledger)
    clock.around(Lakehouse, "table", _is_of_ledger)
    clock.around(batches, "append_batch", _is_of_ledger)
    clock.around(batches, "rows_of_batch")
    clock.around(batches, "newest_moment")
    clock.around(intake, "newest_moment")
    clock.around(intake.TablePosition, "of")
    for name in ("complete_ledger", "newest"):
        clock.around(ArchiveAudit, name)
    print("| `process` of 1,000 uploads, 100,000 documents | s | of it ledger and audit s | share |\n|---|---|---|---|")
    for _ in range(_RUNS):
        with place() as at:
            at.fill(documents=100_000, uploads=1_000, cars=500, days=30)
            settings = Settings(landing_uri=str(at.landing), lakehouse_uri=str(at.folder / "lakehouse"))
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
