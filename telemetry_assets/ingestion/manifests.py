"""The manifest of the one batch in progress: which uploads, which versions of them, which moment."""

from __future__ import annotations

import fcntl
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from telemetry_assets.errors import ManifestUnreadableError
from telemetry_assets.ingestion.landing import WaitingUpload


@dataclass
class BatchUpload:
    """An upload of a batch, and what became of it; other than claimed only once the manifest in progress says so.

    ``gone``: not there any more, or, with a problem, not to be moved. ``postponed``: too much for this batch.
    """

    upload: WaitingUpload
    outcome: Literal["claimed", "gone", "postponed", "unreadable"] = "claimed"
    problem: str = ""

    @property
    def is_in_batch(self) -> bool:
        """Whether the batch has rows of it."""
        return self.outcome in ("claimed", "unreadable")

    @property
    def is_unclaimable(self) -> bool:
        """Whether it is still where uploads wait, because this process may not move it."""
        return self.outcome == "gone" and bool(self.problem)


@dataclass
class Manifest:
    """The one batch in progress."""

    batch_id: str
    ingested_at: datetime
    uploads: list[BatchUpload]


@dataclass(frozen=True)
class ManifestFile:
    """The manifest in progress, kept in a file that exists for as long as its batch is unfinished."""

    path: Path

    def load(self) -> Manifest | None:
        """The batch in progress, None where there is none.

        :raises ManifestUnreadableError: where somebody else has written to it.
        """
        try:
            return _manifest(json.loads(self.path.read_text(encoding="ascii")))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise ManifestUnreadableError(str(self.path), str(error)) from error

    def create(self, manifest: Manifest) -> bool:
        """Make it the batch in progress; False where another one is. The file appears whole or not at all."""
        with self._drafted(manifest) as draft:
            try:
                os.link(draft, self.path)
            except FileExistsError:
                return False
        return True

    def replace(self, manifest: Manifest) -> None:
        """Write the batch in progress anew, in one step, where it still is the one in progress."""
        with self._drafted(manifest) as draft, self._of_this_batch(manifest) as is_current:
            if is_current:
                draft.rename(self.path)

    def remove(self, manifest: Manifest) -> None:
        """Say that the batch is finished, where it still is the one in progress."""
        with self._of_this_batch(manifest) as is_current:
            if is_current:
                self.path.unlink()

    @contextmanager
    def _of_this_batch(self, manifest: Manifest) -> Iterator[bool]:
        """Whether the batch is the one in progress; nobody ends it or begins another before this is over."""
        with self.path.with_name(f".{self.path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            current = self.load()
            yield current is not None and current.batch_id == manifest.batch_id

    @contextmanager
    def _drafted(self, manifest: Manifest) -> Iterator[Path]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex}")
        try:
            # Names of files that are not UTF-8 hold lone surrogates, which only the escapes of ASCII JSON can carry.
            with draft.open("w", encoding="ascii") as file:
                json.dump(asdict(manifest), file, default=datetime.isoformat)
                file.flush()
                # On the disk before it has its name, or a loss of power could leave an empty manifest.
                os.fsync(file.fileno())
            yield draft
        finally:
            draft.unlink(missing_ok=True)


def _manifest(read: dict[str, Any]) -> Manifest:
    uploads = [
        BatchUpload(
            WaitingUpload(**{**one["upload"], "modified": datetime.fromisoformat(one["upload"]["modified"])}),
            one["outcome"],
            one["problem"],
        )
        for one in read["uploads"]
    ]
    return Manifest(read["batch_id"], datetime.fromisoformat(read["ingested_at"]), uploads)
