"""Runs that kill themselves: the program of such a run, and the stage on which tests start it.

The program processes waiting uploads up to Gold. With a point, such as ``before claiming #3`` or ``after the commit to
silver.car_telemetry``, its process sends itself SIGKILL there; if it never reaches that point, it ends normally.
Without a point, the product runs unpatched.
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

from telemetry_assets.engines import base
from telemetry_assets.ingestion import batches
from telemetry_assets.ingestion.journal.file import JournalFile
from telemetry_assets.ingestion.landing import files
from telemetry_assets.ingestion.landing.folder import FolderLanding
from telemetry_assets.lakehouse import compaction, expiry, maintenance, merging
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
    """A function of the product or of a library, before and after which the process can be killed.

    :param owner: the object in which the product looks the function up.
    :param step: the function's name in points; ``{}`` is replaced by what ``of`` returns for a call's arguments.
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
    Boundary(SqlCatalog, "create_table", "creating {}", lambda call: ".".join(call["identifier"])),
    Boundary(JournalFile, "create", "creating the journal"),
    Boundary(os, "link", "linking the journal"),
    Boundary(JournalFile, "replace", "replacing the journal"),
    Boundary(JournalFile, "remove", "removing the journal"),
    Boundary(FolderLanding, "claim", "claiming"),
    Boundary(FolderLanding, "read", "reading"),
    Boundary(FolderLanding, "archive", "archiving"),
    Boundary(FolderLanding, "release", "releasing"),
    Boundary(FolderLanding, "finish", "removing the claim folders"),
    Boundary(os, "symlink", "keeping the place of {}", lambda call: Path(call["dst"]).name),
    Boundary(os, "rename", "renaming to {}", lambda call: Path(call["dst"]).name),
    Boundary(Path, "replace", "renaming to {}", lambda call: Path(call["target"]).name),
    Boundary(files, "copy_file", "copying {}", lambda call: Path(call["source"]).name),
    Boundary(batches, "append_batch", "appending to {}", _of_contract),
    Boundary(merging, "replace_files", "replacing rows of {}", _of_table),
    Boundary(base, "set_table_properties", "moving the watermark of {}", _of_table),
    Boundary(merging, "set_table_properties", "moving the watermark of {}", _of_table),
    Boundary(compaction, "commit_rewrite", "compacting {}", _of_table),
    Boundary(expiry, "change_snapshots", "expiring snapshots of {}", _of_table),
    Boundary(maintenance, "delete_files", "deleting old files"),
    Boundary(SqlCatalog, "commit_table", "the commit to {}", _of_table),
    Boundary(SqlCatalog, "_write_metadata", "writing metadata of {}", _of_location),
    Boundary(Session, "commit", "ending the catalog's transaction"),
)


def die_at(point: str) -> None:
    """Wrap every boundary, so that the process is killed at ``point``: before or after the n-th call of a step."""
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
    """Complete uploads arrive; each replaces a waiting upload of the same name."""

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
    """A process runs to its end, or until it is killed at a point. ``batch_max_bytes`` may limit its batches."""

    killed: str | None = None
    batch_max_bytes: int | None = None

    def happen(self, stage: Stage) -> None:
        exit_code, output = self.run(stage)
        expected = -signal.SIGKILL if self.killed else 0
        assert exit_code == expected, f"{self} ended with {exit_code}, not {expected}\n{output}"

    def run(self, stage: Stage) -> tuple[int, str]:
        bound = {"TELEMETRY_BATCH_MAX_BYTES": str(self.batch_max_bytes)} if self.batch_max_bytes else {}
        points = [self.killed] if self.killed else []
        return ForkedProgram(main, points, environment={**stage.environment(), **bound}).wait(120)


@dataclass(frozen=True)
class LateMount:
    """A run before the landing folder exists, as with a late mount. The run may fail."""

    def happen(self, stage: Stage) -> None:
        away = stage.landing.rename(stage.folder / "away")
        Run().run(stage)
        shutil.rmtree(stage.landing, ignore_errors=True)
        away.rename(stage.landing)


@dataclass(frozen=True)
class Unreadable:
    """A claimed upload is replaced by a folder, or restored. Removing its permissions would not affect root."""

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
"""The events of a deployment, in order."""


@dataclass(frozen=True)
class Evidence:
    """The result of a story, without what differs between any two runs over the same uploads."""

    tables: dict[str, list[str]]
    archive: list[tuple[str, bytes]]
    still_in_landing: list[Path]
    batch_in_progress: bool
    tables_behind: list[str]


@dataclass(frozen=True)
class Stage:
    """A deployment's folders, in which stories are played one after another."""

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
        """The rest of the story: an initial undisturbed run with its uploads is played once and then copied."""
        beginning, rest = story[:2], story[2:]
        if not rest or beginning[1] != Run():
            return story
        saved = self.folder / f"saved-{hash(beginning)}"
        if not saved.exists():
            self.play(beginning)
            self.lakehouse.rename(saved)
        # To the original path, because tables store their absolute location.
        shutil.copytree(saved, self.lakehouse)
        return rest

    def environment(self) -> dict[str, str]:
        # The temporary files of a killed process stay here too.
        (self.folder / "tmp").mkdir(parents=True, exist_ok=True)
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("TELEMETRY_")},
            "TELEMETRY_LANDING_URI": str(self.landing),
            "TELEMETRY_LAKEHOUSE_URI": str(self.lakehouse),
            "TELEMETRY_UPLOAD_MINIMUM_AGE_SECONDS": "0",
            # One upload at a time: at a point such as the fifth claim, the first four are complete.
            "TELEMETRY_READ_THREADS": "1",
            "TMPDIR": str(self.folder / "tmp"),
        }

    def _evidence(self) -> Evidence:
        archive = self.lakehouse / "archive"
        with open_pipeline(Settings(landing_uri=str(self.landing), lakehouse_uri=str(self.lakehouse))) as pipeline:
            tables = {one: pipeline.lakehouse.table(one).scan().to_arrow().to_pylist() for one in all_tables()}
            return Evidence(
                tables={table.full_name: self._compared(table, rows) for table, rows in tables.items()},
                # Uploads are stored below their batch's identifier.
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
