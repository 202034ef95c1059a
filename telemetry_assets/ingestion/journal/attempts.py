"""Notes of which upload a run parses, kept beside the journal entry, so that an upload that runs die of is known.

Only a run that takes up what another run has begun leaves a note. It removes the note when it ends, so a note whose run
is gone is that of a run that was killed or ran out of memory. Notes are not in the journal entry: several runs may
be at the same batch, and each writes its own.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

from telemetry_assets.file_system.posix import lock_file

_DIGITS = 10


class Attempt(Protocol):
    """A run that is parsing a batch."""

    def note(self, number: int) -> None:
        """Note that this run parses the upload of this number now."""
        ...

    def end(self, *, is_death: bool = False) -> None:
        """Remove the note; keep it as that of a dead run where this one has run out of memory."""
        ...


class Attempts(Protocol):
    """The runs that have parsed one batch since the first one."""

    def begin(self) -> Attempt:
        """A new attempt, of this process."""
        ...

    def deaths(self) -> list[int]:
        """The number of the upload that was being parsed, for each run that has died."""
        ...

    def forget(self) -> None:
        """Remove all notes of the batch, which has ended."""
        ...


@contextmanager
def attempt(attempts: Attempts) -> Iterator[Attempt]:
    """An attempt for as long as something is parsed. An error ends it; only one of memory counts as a death."""
    current = attempts.begin()
    try:
        yield current
    except MemoryError:
        current.end(is_death=True)
        raise
    except BaseException:
        current.end()
        raise
    current.end()


@dataclass(frozen=True)
class AttemptFiles:
    """Notes in files of one folder. A run locks its own note, so it is alive for as long as the lock is there."""

    folder: Path

    def begin(self) -> Attempt:
        """See :meth:`Attempts.begin`."""
        path = self.folder / uuid.uuid4().hex
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            # A run that ends the batch may have just removed the folder.
            with suppress(FileNotFoundError):
                return _AttemptFile(path, _opened(path, os.O_CREAT | os.O_EXCL))

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
        # Another run may have just put its note there, or have removed the folder.
        with suppress(OSError):
            self.folder.rmdir()


@dataclass(frozen=True)
class _AttemptFile:
    path: Path
    file: IO[bytes] = field(repr=False)

    def note(self, number: int) -> None:
        """See :meth:`Attempt.note`. A killed process leaves it whole, so it need not be brought to the disk."""
        os.pwrite(self.file.fileno(), f"{number:{_DIGITS}}".encode(), 0)

    def end(self, *, is_death: bool = False) -> None:
        """See :meth:`Attempt.end`."""
        if not is_death:
            self.path.unlink(missing_ok=True)
        self.file.close()


def _opened(path: Path, flags: int = 0) -> IO[bytes]:
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, 0o600), "r+b", buffering=0)
    try:
        lock_file(file, wait=bool(flags))
    except OSError:
        file.close()
        raise
    return file


def _note_of_dead_run(path: Path) -> bytes:
    """What a run that is gone has noted last; nothing where it is alive, or has ended meanwhile."""
    try:
        with _opened(path) as file:
            return file.read(_DIGITS).strip()
    except (BlockingIOError, FileNotFoundError):
        return b""
