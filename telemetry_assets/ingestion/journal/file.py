"""The journal in files beside the tables."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from telemetry_assets.file_system import is_storage_error, lock_file
from telemetry_assets.ingestion.journal.base import Attempt, Attempts, JournalEntry
from telemetry_assets.text.plain import plain_logger

logger = plain_logger(__name__)

_DIGITS = 10


@dataclass(frozen=True)
class JournalFile:
    """The entry in a file. Its tag is the digest of the file's content."""

    path: Path

    def load(self) -> JournalEntry | None:
        """See :meth:`Journal.load`."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        return JournalEntry.from_json(content, _digest(content), str(self.path))

    def create(self, entry: JournalEntry) -> JournalEntry | None:
        """See :meth:`Journal.create`. The file appears with its whole content or not at all."""
        with self._draft(entry) as draft:
            return _tagged(entry) if self._link(draft) else None

    def replace(self, entry: JournalEntry) -> JournalEntry | None:
        """See :meth:`Journal.replace`. The replacement is atomic."""
        with self._draft(entry) as draft, self._current() as current:
            if current is None or current.tag != entry.tag:
                return None
            draft.rename(self.path)
        return _tagged(entry)

    def remove(self, entry: JournalEntry) -> None:
        """See :meth:`Journal.remove`."""
        with self._current() as current:
            if current is not None and current.batch_id == entry.batch_id:
                self.path.unlink()

    def attempts(self, batch_id: str) -> Attempts:
        """See :meth:`Journal.attempts`."""
        return AttemptFiles(self.path.parent / "attempts" / batch_id)

    def _link(self, draft: Path) -> bool:
        """Give the draft the entry's name; False if an entry exists."""
        try:
            # Atomic for all hosts of a shared file system, even if its locks do nothing.
            os.link(draft, self.path)
        except FileExistsError:
            return False
        except OSError as error:
            if is_storage_error(error):
                raise
            logger.debug("%s: no hard links (%s); a lock is used instead", self.path.parent, error)
            with self._locked():
                if os.path.lexists(self.path):
                    return False
                draft.rename(self.path)
        return True

    @contextmanager
    def _current(self) -> Iterator[JournalEntry | None]:
        """The stored entry. No other process replaces or removes it during the block."""
        with self._locked():
            yield self.load()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self.path.with_name(f".{self.path.name}.lock").open("w") as lock:
            lock_file(lock)
            yield

    @contextmanager
    def _draft(self, entry: JournalEntry) -> Iterator[Path]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex}")
        try:
            with draft.open("wb") as file:
                file.write(entry.to_json())
                file.flush()
                # Otherwise a power failure after the rename could leave an empty file.
                os.fsync(file.fileno())
            yield draft
        finally:
            draft.unlink(missing_ok=True)


def _tagged(entry: JournalEntry) -> JournalEntry:
    return replace(entry, tag=_digest(entry.to_json()))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class AttemptFiles:
    """Notes in files of one folder. A run locks its note, so an unlocked note belongs to a dead run."""

    folder: Path

    def begin(self) -> Attempt:
        """See :meth:`Attempts.begin`."""
        path = self.folder / uuid.uuid4().hex
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            # A run that finishes the batch may have just removed the folder.
            with suppress(FileNotFoundError):
                return _AttemptFile(path, _open_locked(path, os.O_CREAT | os.O_EXCL))

    def deaths(self) -> list[int]:
        """See :meth:`Attempts.deaths`."""
        try:
            names = sorted(os.listdir(self.folder))
        except FileNotFoundError:
            return []
        notes = [_note_of_dead_run(self.folder / name) for name in names]
        return [int(note) for note in notes if note]

    def forget(self) -> None:
        """See :meth:`Attempts.forget`."""
        with suppress(FileNotFoundError):
            for name in os.listdir(self.folder):
                (self.folder / name).unlink(missing_ok=True)
        # Another run may have just written its note there, or have removed the folder.
        with suppress(OSError):
            self.folder.rmdir()


@dataclass(frozen=True)
class _AttemptFile:
    path: Path
    file: IO[bytes] = field(repr=False)

    def note(self, number: int) -> None:
        """See :meth:`Attempt.note`. There is no fsync, because the note only has to survive the process."""
        os.pwrite(self.file.fileno(), f"{number:{_DIGITS}}".encode(), 0)

    def end(self, *, is_death: bool = False) -> None:
        """See :meth:`Attempt.end`."""
        if not is_death:
            self.path.unlink(missing_ok=True)
        self.file.close()


def _open_locked(path: Path, flags: int = 0) -> IO[bytes]:
    """Open and lock a file; if it is created, wait for the lock."""
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, 0o600), "r+b", buffering=0)
    try:
        lock_file(file, wait=bool(flags))
    except OSError:
        file.close()
        raise
    return file


def _note_of_dead_run(path: Path) -> bytes:
    """The last note of a dead run; empty if the run is alive or has ended."""
    try:
        with _open_locked(path) as file:
            return file.read(_DIGITS).strip()
    except (BlockingIOError, FileNotFoundError):
        return b""
