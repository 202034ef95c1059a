"""Runs that kill themselves: the program that is the run, and the stage on which tests start it.

The program takes what waits to Gold. With a point, such as ``before claiming #3`` or ``after the commit to
silver.car_telemetry``, its process sends itself SIGKILL there; where it never comes to that point, it ends as usual.
Without one nothing of the product is touched.
"""

from __future__ import annotations

import functools
import inspect
import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from threading import Lock
from typing import Any

from pyiceberg.catalog.sql import SqlCatalog
from sqlalchemy.orm import Session

from telemetry_assets.engines import embedded, refresh
from telemetry_assets.ingestion import batches
from telemetry_assets.ingestion.journal.file import JournalFile
from telemetry_assets.ingestion.landing import files
from telemetry_assets.ingestion.landing.folder import FolderLanding
from telemetry_assets.pipeline import open_pipeline
from telemetry_assets.settings import Settings, load_settings
from telemetry_assets.tables import BRONZE, REJECTED, UPLOADS, all_tables, derived_tables
from telemetry_assets.tables.contract import TableContract
from telemetry_assets_tests.harness.forked import ForkedProgram

INSURANCE_AS_OF = date(2025, 6, 10)
COMPARED: dict[TableContract, tuple[str, ...]] = {
    BRONZE: ("source_uri", "source_position", "payload"),
    REJECTED: ("source_uri", "source_position", "reason"),
    UPLOADS: tuple(set(UPLOADS.column_names) - {"batch_id", "archive_uri", "ingested_at", "uploaded_at"}),
    **{table: tuple(set(table.column_names) - {"ingested_at", "updated_at"}) for table in derived_tables()},
}

Arguments = Mapping[str, Any]


@dataclass(frozen=True)
class Boundary:
    """A function of the product, or of what it stands on, before and after which the process can be killed.

    :param owner: where the product looks the function up.
    :param step: what it does, as points have it; ``{}`` stands for what ``of`` says of a call's arguments.
    """

    owner: object
    function: str
    step: str
    of: Callable[[Arguments], str] = lambda _: ""


def _of_contract(call: Arguments) -> str:
    return str(call["contract"].full_name)


def _of_table(call: Arguments) -> str:
    return ".".join(call["table"].name())


def _of_location(call: Arguments) -> str:
    return ".".join(call["metadata"].location.split("/")[-2:])


BOUNDARIES = (
    Boundary(SqlCatalog, "create_table", "making {}", lambda call: ".".join(call["identifier"])),
    Boundary(JournalFile, "create", "creating the manifest"),
    Boundary(os, "link", "linking the manifest"),
    Boundary(JournalFile, "replace", "replacing the manifest"),
    Boundary(JournalFile, "remove", "removing the manifest"),
    Boundary(FolderLanding, "claim", "claiming"),
    Boundary(FolderLanding, "read", "reading"),
    Boundary(FolderLanding, "archive", "archiving"),
    Boundary(FolderLanding, "release", "releasing"),
    Boundary(FolderLanding, "finish", "forgetting the claims"),
    Boundary(os, "symlink", "keeping the place of {}", lambda call: Path(call["dst"]).name),
    Boundary(os, "rename", "renaming to {}", lambda call: Path(call["dst"]).name),
    Boundary(Path, "replace", "renaming to {}", lambda call: Path(call["target"]).name),
    Boundary(files, "copy_file", "copying {}", lambda call: Path(call["source"]).name),
    Boundary(batches, "append_batch", "appending to {}", _of_contract),
    Boundary(embedded, "replace_rows", "replacing rows of {}", _of_table),
    Boundary(refresh, "set_table_properties", "moving the mark of {}", _of_table),
    Boundary(SqlCatalog, "commit_table", "the commit to {}", _of_table),
    Boundary(SqlCatalog, "_write_metadata", "writing metadata of {}", _of_location),
    Boundary(Session, "commit", "ending the catalog's transaction"),
)


def die_at(point: str) -> None:
    """Wrap every boundary, so that the process is killed at ``point``: a moment, a step, and which call of it."""
    calls: Counter[str] = Counter()
    one_at_a_time = Lock()

    def numbered(step: str) -> str:
        with one_at_a_time:
            calls[step] += 1
            return step if calls[step] == 1 else f"{step} #{calls[step]}"

    for boundary in BOUNDARIES:
        _wrap(boundary, numbered, point)


def _wrap(boundary: Boundary, numbered: Callable[[str], str], point: str) -> None:
    original = getattr(boundary.owner, boundary.function)
    signature = inspect.signature(original)

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        step = numbered(boundary.step.format(boundary.of(signature.bind(*args, **kwargs).arguments)))
        _die_where(point == f"before {step}")
        result = original(*args, **kwargs)
        _die_where(point == f"after {step}")
        return result

    static = isinstance(inspect.getattr_static(boundary.owner, boundary.function), staticmethod)
    setattr(boundary.owner, boundary.function, staticmethod(wrapped) if static else wrapped)


def _die_where(reached: bool) -> None:
    if reached:
        os.kill(os.getpid(), signal.SIGKILL)


def main(points: list[str]) -> None:
    for point in points:
        die_at(point)
    with open_pipeline(load_settings()) as pipeline:
        pipeline.process("killed-and-restarted", insurance_as_of=INSURANCE_AS_OF)


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
    """A process runs to its end; with a point, until it is killed there. Its batches may be bounded to some bytes."""

    killed: str | None = None
    batch_max_bytes: int | None = None

    def happen(self, stage: Stage) -> None:
        ended, told = self.run(stage)
        wanted = -signal.SIGKILL if self.killed else 0
        assert ended == wanted, f"{self} ended with {ended}, not {wanted}\n{told}"

    def run(self, stage: Stage) -> tuple[int, str]:
        bound = {"TELEMETRY_BATCH_MAX_BYTES": str(self.batch_max_bytes)} if self.batch_max_bytes else {}
        points = [self.killed] if self.killed else []
        return ForkedProgram(main, points, environment={**stage.environment(), **bound}).wait(120)


@dataclass(frozen=True)
class LateMount:
    """A run before the landing folder is there, as with a mount that comes late. The run may fail."""

    def happen(self, stage: Stage) -> None:
        away = stage.landing.rename(stage.folder / "away")
        Run().run(stage)
        shutil.rmtree(stage.landing, ignore_errors=True)
        away.rename(stage.landing)


@dataclass(frozen=True)
class Unreadable:
    """A claimed upload turns into a folder, or is itself again. Taking its mode away would not keep root out."""

    name: str
    no_longer: bool = False

    def happen(self, stage: Stage) -> None:
        (batch,) = (stage.lakehouse / "ingestion" / "claimed").iterdir()
        claimed, kept = batch / self.name, stage.folder / self.name
        if self.no_longer:
            claimed.rmdir()
            kept.rename(claimed)
        else:
            claimed.rename(kept)
            claimed.mkdir()


Story = tuple[Sent | Run | LateMount | Unreadable, ...]
"""What happens to a deployment, one thing after another."""


@dataclass(frozen=True)
class Evidence:
    """What a story leaves behind, without what differs between any two runs over the same uploads."""

    tables: dict[str, list[str]]
    archive: list[tuple[str, bytes]]
    still_in_landing: list[Path]
    batch_in_progress: bool
    tables_behind: list[str]


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
        for act in self._all_but_a_known_beginning(story):
            act.happen(self)
        return self._evidence()

    def _all_but_a_known_beginning(self, story: Story) -> Story:
        """What is left to play: uploads and an undisturbed run to begin with are played once, then copied."""
        beginning, rest = story[:2], story[2:]
        if not rest or beginning[1] != Run():
            return story
        saved = self.folder / f"saved-{hash(beginning)}"
        if not saved.exists():
            self.play(beginning)
            self.lakehouse.rename(saved)
        # To the path where it was made: tables know their absolute location.
        shutil.copytree(saved, self.lakehouse)
        return rest

    def environment(self) -> dict[str, str]:
        # What a killed process leaves among the temporary files stays here too.
        (self.folder / "tmp").mkdir(parents=True, exist_ok=True)
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("TELEMETRY_")},
            "TELEMETRY_LANDING_URI": str(self.landing),
            "TELEMETRY_LAKEHOUSE_URI": str(self.lakehouse),
            "TELEMETRY_UPLOAD_MINIMUM_AGE_SECONDS": "0",
            # One upload after another: at a point such as the fifth claim, the four before it are done.
            "TELEMETRY_READ_THREADS": "1",
            "TMPDIR": str(self.folder / "tmp"),
        }

    def _evidence(self) -> Evidence:
        archive = self.lakehouse / "archive"
        with open_pipeline(Settings(landing_uri=str(self.landing), lakehouse_uri=str(self.lakehouse))) as pipeline:
            tables = {one: pipeline.lakehouse.table(one).scan().to_arrow().to_pylist() for one in all_tables()}
            return Evidence(
                tables={table.full_name: self._compared(table, rows) for table, rows in tables.items()},
                # Each upload lies below its batch's identifier.
                archive=sorted(("/".join(path.parts[1:]), (archive / path).read_bytes()) for path in _files(archive)),
                still_in_landing=_files(self.landing),
                batch_in_progress=pipeline.ingestion.journal.load() is not None,
                tables_behind=[table.full_name for table in pipeline.tables_behind()],
            )

    def _compared(self, table: TableContract, rows: list[dict[str, object]]) -> list[str]:
        names, landing = sorted(COMPARED[table]), f"file://{self.landing}/"
        return sorted(", ".join(f"{name}: {row[name]}".replace(landing, "") for name in names) for row in rows)


def _files(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir())
