"""Checks whether the file systems of the landing folder and the lakehouse support the operations that ingestion needs.

Each check does the same operations as a run, with its own files, which it removes.
``telemetry_assets/file_system.py`` defines what errors of file systems mean during a run.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import stat
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from telemetry_assets.file_system import is_storage_error, lock_file, storage_advice, sync_file, sync_folder
from telemetry_assets.settings import MEBIBYTE, Settings
from telemetry_assets.text.formatting import megabytes

_LEAST_BYTES = 64 * MEBIBYTE
# One percent of a large disk is more than enough.
_MUCH_BYTES = 1024 * MEBIBYTE
_MUCH_INODES = 10_000
_LEAST_OPEN_FILES = 256
_CLOCK_TOLERANCE_SECONDS = 2


@dataclass(frozen=True)
class StorageFinding:
    """A finding about a file system.

    :param needs_action: whether a person has to do something; otherwise the finding is information.
    """

    text: str
    needs_action: bool = True


def examine_storage(settings: Settings) -> Iterator[StorageFinding]:
    """Check the file systems of the landing folder and the lakehouse's folder, if the folders exist.

    :param settings: settings whose lakehouse is a folder.
    """
    landing, lakehouse = settings.landing_folder(), settings.lakehouse_folder()
    if lakehouse.is_dir():
        state = lakehouse / "ingestion"
        folder = state if state.is_dir() else lakehouse
        minimum_age = settings.upload_minimum_age_seconds
        yield from _tried(folder, lambda own: chain(_write_trial(own), _clock_trial(own, minimum_age)))
    if landing.is_dir():
        yield from _tried(landing, lambda own: _claim_trial(own, lakehouse))
        yield from _uploaders_reach(landing)
        yield from _archive_place(landing, lakehouse / "archive")
    yield from _room([lakehouse, landing, Path(tempfile.gettempdir())])
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit < _LEAST_OPEN_FILES:
        yield StorageFinding(
            f"this process may open only {limit:,} files, and a run may need {_LEAST_OPEN_FILES}; raise the limit, for "
            "example with `ulimit -n 4096`"
        )


def _tried(folder: Path, trial: Callable[[Path], Iterator[StorageFinding]]) -> Iterator[StorageFinding]:
    """Run a trial in a hidden folder of its own. If it fails, the finding names the step."""
    try:
        with _own_folder(folder) as own:
            yield from trial(own)
    except _StepFailedError as failed:
        error = failed.error
        if is_storage_error(error) and error.errno:
            yield StorageFinding(f"{failed.step}: {storage_advice(error.errno, folder)}")
        else:
            yield StorageFinding(f"{failed.step}: {error.strerror or error}; give this user the permission")


class _StepFailedError(Exception):
    def __init__(self, step: str, error: OSError) -> None:
        super().__init__(step)
        self.step = step
        self.error = error


@contextmanager
def _step(text: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _StepFailedError(text, error) from error


@contextmanager
def _own_folder(folder: Path) -> Iterator[Path]:
    # Runs ignore hidden folders.
    own = folder / f".doctor-{uuid.uuid4().hex}"
    with _step(f"a file cannot be created in {folder}"):
        own.mkdir()
    try:
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _write_trial(own: Path) -> Iterator[StorageFinding]:
    """Try what the journal needs. See :class:`JournalFile`."""
    place, file, renamed = own.parent, own / "one", own / "other"
    with _step(f"a file cannot be created in {place}"):
        file.write_bytes(b"content")
    with _step(f"a file in {place} cannot be synced to the disk (fsync)"):
        sync_file(file)
        sync_folder(own)
    with _step(f"a file in {place} cannot be locked"):
        locks_work = _locks_work(file)
    if not locks_work:
        yield StorageFinding(
            f"locks have no effect in {place}: a second process can lock a file that is already locked. Mount the file "
            "system with lock support, or run only one process at a time"
        )
    try:
        os.link(file, own / "link")
    except OSError:
        yield StorageFinding(f"no hard links in {place}; locks are used instead", needs_action=False)
    with _step(f"a file in {place} cannot be renamed"):
        file.rename(renamed)
    with _step(f"a file in {place} cannot be removed"):
        renamed.unlink()


def _locks_work(file: Path) -> bool:
    """Whether a locked file cannot be locked a second time."""
    with file.open("r+b") as first, file.open("r+b") as second:
        lock_file(first)
        try:
            lock_file(second, wait=False)
        except BlockingIOError:
            return True
        return False


def _clock_trial(own: Path, minimum_age_seconds: float) -> Iterator[StorageFinding]:
    file = own / "clock"
    with _step(f"a file cannot be created in {own.parent}"):
        before = time.time()
        file.write_bytes(b"content")
        written, after = file.stat().st_mtime, time.time()
    skew = max(before - written, written - after, 0)
    if skew > minimum_age_seconds + _CLOCK_TOLERANCE_SECONDS:
        yield StorageFinding(
            f"the clocks of {own.parent} and of this machine differ by {skew:,.0f} s; ingestion uses the clock of "
            "this machine",
            needs_action=False,
        )


def _claim_trial(own: Path, lakehouse: Path) -> Iterator[StorageFinding]:
    """Try what a claim needs. See :meth:`FolderLanding.claim`."""
    landing, file = own.parent, own / "upload"
    state = lakehouse / "ingestion"
    claims = [*([state] if state.is_dir() else []), landing]
    with _step(f"a file cannot be created in {landing}"):
        file.write_bytes(b"content")
    with _step(f"a file cannot be renamed from {landing} to {claims[0]}, which each claim requires"):
        _rename_and_remove(file, [place / f"{own.name}.claimed" for place in claims])
    yield from ()


def _rename_and_remove(file: Path, targets: list[Path]) -> None:
    """Rename a file to the first target that is on its file system, as a claim does, and delete it."""
    *others, last = targets
    for target in others:
        try:
            file.rename(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
        else:
            target.unlink()
            return
    file.rename(last)
    last.unlink()


def _uploaders_reach(landing: Path) -> Iterator[StorageFinding]:
    found = landing.stat()
    if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
        yield StorageFinding(
            f"every user of this machine may rename and remove the uploads of others in {landing}; set its sticky bit "
            "(`chmod +t`), see docs/security.md",
            needs_action=False,
        )


def _archive_place(landing: Path, archive: Path) -> Iterator[StorageFinding]:
    if landing.stat().st_dev != _existing(archive).stat().st_dev:
        yield StorageFinding(
            f"{archive} is on another file system than {landing}; uploads are copied there", needs_action=False
        )


def _room(folders: list[Path]) -> Iterator[StorageFinding]:
    """Check the free space of the folders' file systems. A folder that does not exist yet counts as its parent."""
    seen: set[int] = set()
    for folder in folders:
        existing = _existing(folder)
        device = existing.stat().st_dev
        if device in seen:
            continue
        seen.add(device)
        found = os.statvfs(existing)
        free, total = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
        if free < max(_LEAST_BYTES, min(total // 100, _MUCH_BYTES)):
            yield StorageFinding(
                f"{megabytes(free)} free of {megabytes(total)} on the file system of {folder}; make room"
            )
        # Some file systems do not count inodes.
        if found.f_favail < min(found.f_files // 100, _MUCH_INODES):
            yield StorageFinding(
                f"room for {found.f_favail:,} more files on the file system of {folder} (inodes); remove some"
            )


def _existing(folder: Path) -> Path:
    return next(one for one in (folder, *folder.parents) if one.is_dir())
