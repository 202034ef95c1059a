"""What every engine answers, and what is asked of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import Any, Protocol

from telemetry_assets.lakehouse.contracts import TableContract
from telemetry_assets.steps import StepParameters


@dataclass(frozen=True)
class RefreshResult:
    """What a refresh did to a table.

    :param event_dates: the event dates that it took, oldest first.
    :param rows_read: rows of the upstream's files that were read; None where nothing was.
    :param rows_written: rows in the replaced partitions now.
    :param rows_by_partition: of those, per partition; one entry under None for a table without partitions.
    :param changed: whether any row differs from before; if not, no snapshot was made.
    :param snapshot_id: the table's current snapshot.
    """

    contract: TableContract
    event_dates: tuple[date, ...]
    rows_read: int
    rows_written: int
    rows_by_partition: dict[date | None, int]
    changed: bool
    snapshot_id: int | None
    repeated_keys: int
    seconds: float
    preview: list[dict[str, Any]] = field(default_factory=list)
    figures: dict[str, dict[date | None, float]] = field(default_factory=dict)


class Engine(Protocol):
    """Runs steps. One engine per process."""

    def refresh(
        self, contract: TableContract, event_dates: frozenset[date] | None, parameters: StepParameters, run_id: str
    ) -> RefreshResult:
        """Bring a derived table up to date, in one commit, redone from the read where others commit in between.

        :param event_dates: the dates to take; None for those that the table is behind on.
        """
        ...

    def close(self) -> None:
        """Release what the engine holds."""
        ...
