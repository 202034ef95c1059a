"""The manifest of the one batch in progress: which uploads, which versions of them, which moment."""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from telemetry_assets.ingestion.landing import WaitingUpload


class BatchUpload(BaseModel):
    """An upload of a batch. ``outcome`` is set, before anything is committed, where it cannot be read as usual."""

    upload: WaitingUpload
    outcome: Literal["claimed", "gone", "unreadable"] = "claimed"
    problem: str = ""


class Manifest(BaseModel):
    """The one batch in progress."""

    batch_id: str
    ingested_at: datetime
    uploads: list[BatchUpload]


@dataclass(frozen=True)
class ManifestFile:
    """The manifest in progress, kept in a file that exists for as long as its batch is unfinished."""

    path: Path

    def load(self) -> Manifest | None:
        """The batch in progress, None where there is none."""
        try:
            return Manifest.model_validate_json(self.path.read_bytes())
        except FileNotFoundError:
            return None

    def create(self, manifest: Manifest) -> bool:
        """Make it the batch in progress; False where another one is. The file appears whole or not at all."""
        draft = self._draft(manifest)
        try:
            os.link(draft, self.path)
        except FileExistsError:
            return False
        finally:
            draft.unlink()
        return True

    def replace(self, manifest: Manifest) -> None:
        """Write the batch in progress anew, in one step."""
        self._draft(manifest).rename(self.path)

    def remove(self, manifest: Manifest) -> None:
        """Say that the batch is finished, where it still is the one in progress."""
        current = self.load()
        if current is not None and current.batch_id == manifest.batch_id:
            self.path.unlink(missing_ok=True)

    def _draft(self, manifest: Manifest) -> Path:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex}")
        # Names of files that are not UTF-8 hold lone surrogates, which only the escapes of ASCII JSON can carry.
        draft.write_text(json.dumps(manifest.model_dump(mode="json"), ensure_ascii=True), encoding="ascii")
        return draft
