"""A kill at each step of a batch and of each table's refresh, then a plain restart: nothing lost, nothing double.

A story is what happens to one lakehouse: uploads are sent, runs are started and killed. Every run is a process of its
own, `killed_process`, which also says what the points are. A story has to end as if nobody had disturbed its runs.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from telemetry_assets.lakehouse.contracts import BRONZE, CONTRACTS, CURRENT_STATE, REJECTED, TableContract
from telemetry_assets.pipeline import DERIVED_TABLES, open_pipeline
from telemetry_assets.settings import Settings, project_root
from telemetry_assets_tests.made_documents import Document, event, vehicle

PROGRAM = "telemetry_assets_tests.behaviours.killed_process"
COMPARED = {
    BRONZE: ("source_uri", "source_position", "payload"),
    REJECTED: ("source_uri", "source_position", "reason"),
    **{table: tuple(set(table.column_names) - {"ingested_at", "updated_at"}) for table in DERIVED_TABLES},
}


@dataclass(frozen=True)
class Evidence:
    """What a story leaves behind, without what differs between any two runs over the same uploads."""

    tables: dict[str, list[str]]
    archive: list[tuple[str, bytes]]
    still_in_landing: list[Path]
    batch_in_progress: bool
    tables_behind: list[TableContract]


@dataclass(frozen=True)
class Stage:
    """A deployment's folders, in which one story is played after another."""

    folder: Path
    landing: Path

    @property
    def lakehouse(self) -> Path:
        return self.folder / "lakehouse"

    def play(self, story: Story) -> Evidence:
        shutil.rmtree(self.landing, ignore_errors=True)
        shutil.rmtree(self.lakehouse, ignore_errors=True)
        for act in self._not_played_before(story):
            act.happen(self)
        return self._evidence()

    def environment(self) -> dict[str, str]:
        # What a killed process leaves among the temporary files stays here too.
        (self.folder / "tmp").mkdir(parents=True, exist_ok=True)
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("TELEMETRY_")},
            "TELEMETRY_LANDING_URI": str(self.landing),
            "TELEMETRY_LAKEHOUSE_URI": str(self.lakehouse),
            "TELEMETRY_UPLOAD_MINIMUM_AGE_SECONDS": "0",
            "TMPDIR": str(self.folder / "tmp"),
        }

    def _not_played_before(self, story: Story) -> Story:
        """The rest of a story that begins with data. They are made once: tables know their absolute path."""
        if story[:2] != WITH_DATA or story == WITH_DATA:
            return story
        saved = self.folder / "saved"
        if not saved.exists():
            self.play(WITH_DATA)
            self.lakehouse.rename(saved)
        shutil.copytree(saved, self.lakehouse)
        return story[2:]

    def _evidence(self) -> Evidence:
        archive = self.lakehouse / "archive"
        with open_pipeline(Settings(landing_uri=str(self.landing), lakehouse_uri=str(self.lakehouse))) as pipeline:
            tables = {one: pipeline.lakehouse.table(one).scan().to_arrow().to_pylist() for one in CONTRACTS}
            return Evidence(
                tables={table.full_name: self._compared(table, rows) for table, rows in tables.items()},
                # Each upload lies below its batch's identifier.
                archive=sorted(("/".join(path.parts[1:]), (archive / path).read_bytes()) for path in _files(archive)),
                still_in_landing=_files(self.landing),
                batch_in_progress=pipeline.ingestion.manifest_file.load() is not None,
                tables_behind=pipeline.tables_behind(),
            )

    def _compared(self, table: TableContract, rows: list[dict[str, object]]) -> list[str]:
        names, landing = sorted(COMPARED[table]), f"file://{self.landing}/"
        return sorted(", ".join(f"{name}: {row[name]}".replace(landing, "") for name in names) for row in rows)


def _files(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir())


@dataclass(frozen=True)
class Sent:
    """Uploads arrive whole, each in the place of one of its name that still waits."""

    uploads: tuple[tuple[str, bytes], ...]

    def happen(self, stage: Stage) -> None:
        for name, content in self.uploads:
            path = stage.landing / name
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_name(f".{path.name}")
            draft.write_bytes(content)
            draft.rename(path)


@dataclass(frozen=True)
class Run:
    """A process runs to its end; with a point, until it is killed there."""

    killed: str | None = None

    def happen(self, stage: Stage) -> None:
        command = [sys.executable, "-m", PROGRAM, *([self.killed] if self.killed else [])]
        run = subprocess.run(
            command, cwd=project_root(), env=stage.environment(), capture_output=True, text=True, timeout=60
        )
        wanted = -signal.SIGKILL if self.killed else 0
        assert run.returncode == wanted, f"{self} ended with {run.returncode}\n{run.stderr}"


@dataclass(frozen=True)
class ClaimMoved:
    """Somebody takes a claimed upload away, or brings it back."""

    name: str
    back: bool = False

    def happen(self, stage: Stage) -> None:
        (batch,) = (stage.landing / ".claimed").iterdir()
        claimed, elsewhere = batch / self.name, stage.folder / self.name
        (elsewhere if self.back else claimed).rename(claimed if self.back else elsewhere)


Act = Sent | Run | ClaimMoved
Story = tuple[Act, ...]


def lines(*documents: object) -> bytes:
    return b"\n".join(json.dumps(document).encode() for document in documents)


def latest_event(time: str, **metrics: float) -> Document:
    return event("CAR-A", f"2025-06-03T{time}Z", event_id="evt-3", fuelAvailableLiters=8, **metrics)


TRIP = vehicle(
    "CAR-B",
    "2025-06-03T11:00:00Z",
    static={"Manufacturer": "Hyundai", "Model": "HB20", "year": 2024, "gasType": "Flex"},
    insurance={"provider": "SafeAuto", "validUntil": "2025-06-01"},
    snapshot={"currentMileage": 100_500, "fuelAvailableLiters": 30.5, "oilTempCelsius": 112},
    trip={"tripMileage": 31.5, "tripFuelLiters": 3.2, "tripMaxSpeedKm": 145},
)
READINGS = lines(
    event("CAR-A", "2025-06-03T09:00:00Z", event_id="evt-1", currentMileageKm=8_500, fuelAvailableLiters=30),
    event("CAR-A", "2025-06-03T12:00:00Z", event_id="evt-2", currentMileageKm=8_550, fuelAvailableLiters=25),
    latest_event("14:00:00", currentMileageKm=8_600, engineTempCelsius=118),
)
ONE = event("CAR-C", "2025-05-20T08:00:00Z", event_id="evt-9", currentMileageKm=100)
FIRST = Sent(
    (
        ("north/readings.ndjson", READINGS + b'\n{"carChassis": "CAR-A", "telem'),
        ("trips.json", json.dumps([TRIP, {"carChassis": "CAR-B"}]).encode()),
        ("one.json", lines(ONE)),
        ("late.jsonl.gz", gzip.compress(lines(event("CAR-A", "2025-05-31T23:00:00Z", currentMileageKm=8_400)))),
        ("notes.csv", b"car;km\nCAR-A;8600\n"),
    )
)
# CAR-A's latest event turns out to be the first of its day, and without its alert.
CORRECTION = Sent(
    (
        ("correction.json", lines(latest_event("08:00:00", engineTempCelsius=90))),
        ("more.ndjson", lines(event("CAR-C", "2025-05-21T08:00:00Z", currentMileageKm=180), "no object")),
    )
)
REPETITION = Sent((("again.ndjson", READINGS),))
REJECTS_ONLY = Sent((("broken.json", b"{"),))
REPLACEMENT = Sent((("one.json", lines({**ONE, "metrics": {"currentMileageKm": 120}}, event("CAR-C"))),))
ONLY_REPLACEMENT = Sent(tuple({**dict(FIRST.uploads), **dict(REPLACEMENT.uploads)}.items()))
RESTART = Run()
WITH_DATA: Story = (FIRST, RESTART)

GOLD = [table.full_name for table in DERIVED_TABLES[1:]]
DERIVED = [table.full_name for table in DERIVED_TABLES]
# A table's first metadata file is written when the table is made, which the first run does.
FIRST_RUN = [
    "before making silver.car_telemetry",
    "after writing metadata of silver.car_telemetry",
    "after making gold.performance_alerts",
    "before creating the manifest",
    "before linking the manifest",
    "after linking the manifest",
    "before claiming",
    "after claiming #3",
    "before reading",
    "after reading #5",
    *(
        f"{point} bronze.{table}{number}"
        for table in ("rejected_documents", "car_telemetry")
        for point, number in (
            ("before appending to", ""),
            ("before the commit to", ""),
            ("after writing metadata of", " #2"),
            ("after the commit to", ""),
            ("after appending to", ""),
        )
    ),
    "before archiving",
    "after archiving #3",
    "before forgetting the claims",
    "before removing the manifest",
    "after removing the manifest",
    *(f"before replacing rows of {table}" for table in DERIVED),
    *(f"before the commit to {table}" for table in DERIVED),
    *(f"after writing metadata of {table} #2" for table in DERIVED),
    *(f"after the commit to {table}" for table in DERIVED),
]
CORRECTING_RUN = [
    "before ending the catalog's transaction #2",
    "after writing metadata of bronze.car_telemetry",
    "after the commit to bronze.car_telemetry",
    *(f"before the commit to {table}" for table in DERIVED),
    *(f"after writing metadata of {table}" for table in DERIVED),
    *(f"after the commit to {table}" for table in DERIVED),
]


@pytest.fixture(scope="module")
def ending(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Story], Evidence]]:
    """How a story ends. The stories of all chosen tests are played ahead, two at a time."""
    folders = [tmp_path_factory.mktemp("stage") for _ in range(2)]
    stages = [(Stage(folder, folder / "landing"), ThreadPoolExecutor(1)) for folder in folders]
    chosen = [getattr(item, "callspec").params for item in request.session.items if hasattr(item, "callspec")]
    ...
