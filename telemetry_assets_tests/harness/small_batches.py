"""A lakehouse after six small batches on two event dates, and what others do with its tables.

The batches are processed once. Tests start from a copy in the same folder, because tables name their files absolutely.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pyiceberg.table import Table

from telemetry_assets.ingestion.reconciliation import BatchReport
from telemetry_assets.lakehouse.compaction import FULL, compact
from telemetry_assets.tables.contract import TableContract
from telemetry_assets_tests.harness.deployment import Deployment, deployment
from telemetry_assets_tests.harness.made_documents import event

BATCHES = 6


def upload(deployed: Deployment, name: str, *cars: str, day: str = "2025-11-04") -> None:
    """An upload with one event per car, each with an alert."""
    deployed.upload(name, json.dumps([event(car, f"{day}T10:00:00Z", engineTempCelsius=120) for car in cars]))


def expire_all_but_current(deployed: Deployment, contract: TableContract) -> None:
    """Remove all snapshots of a table except the current one, as another program does."""
    table = deployed.pipeline.lakehouse.table(contract)
    old = [one.snapshot_id for one in table.snapshots() if one.snapshot_id != table.metadata.current_snapshot_id]
    if old:
        table.maintenance.expire_snapshots().by_ids(old).commit()


def compact_all(table: Table, contract: TableContract) -> None:
    """Compact a table as Spark's ``rewrite_data_files`` does: new files keep the sequence numbers of old ones."""
    list(compact(table, contract, FULL, lambda: False))


@dataclass(frozen=True)
class SmallBatches:
    """The saved batches.

    :param folder: where their lakehouse must be.
    :param copy: a copy of it.
    :param batch_reports: the reports of the batches.
    """

    folder: Path
    copy: Path
    batch_reports: tuple[BatchReport, ...]

    @classmethod
    def save(cls, folder: Path) -> SmallBatches:
        """Process the batches."""
        original, copy = folder / "deployment", folder / "copy"
        with deployment(original) as deployed:
            for number in range(BATCHES):
                upload(deployed, f"{number}.json", "CAR-A", f"CAR-{number}", day=f"2025-11-0{4 + number % 2}")
                deployed.process()
        shutil.copytree(original, copy)
        return cls(original, copy, tuple(deployed.batch_reports))

    @contextmanager
    def restored(self) -> Iterator[Deployment]:
        """The deployment as it was after the batches."""
        shutil.rmtree(self.folder)
        shutil.copytree(self.copy, self.folder)
        with deployment(self.folder) as deployed:
            deployed.batch_reports += self.batch_reports
            yield deployed
