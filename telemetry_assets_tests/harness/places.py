"""Landing locations in which tests put uploads and read the archive; the one in S3 is in ``s3_place``."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from telemetry_assets.ingestion.landing.base import Landing
from telemetry_assets.ingestion.landing.folder import FolderLanding

BATCH = "batch-1"


class Place(Protocol):
    """A landing location with a test's access to it."""

    landing: Landing

    def put(self, name: str, content: bytes) -> None: ...

    def remove(self, name: str) -> None: ...

    def archived(self, name: str, batch_id: str = BATCH) -> bytes: ...


class FolderPlace:
    """A landing folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "landing"
        self.lakehouse = folder / "lakehouse"
        self.archive = self.lakehouse / "archive"
        self.landing: Landing = FolderLanding(self.folder, self.lakehouse, 0)
        self.folder.mkdir()
        self.landing.begin(BATCH)

    def put(self, name: str, content: bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        written = path.with_name(".writing")
        written.write_bytes(content)
        written.rename(path)

    def remove(self, name: str) -> None:
        (self.folder / name).unlink()

    def archived(self, name: str, batch_id: str = BATCH) -> bytes:
        return (self.archive / batch_id / name).read_bytes()


def names(landing: Landing) -> list[str]:
    """The names of the waiting uploads."""
    return sorted(upload.name for upload in landing.waiting())
