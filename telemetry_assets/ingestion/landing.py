"""Where uploads wait: list them, claim them for a batch, read them, archive them.

:class:`Landing` is what a kind of location has to do; nothing outside this module asks which kind it is.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from telemetry_assets.errors import SettingsError
from telemetry_assets.settings import Settings

logger = logging.getLogger(__name__)

_UNFINISHED_ENDINGS = (".tmp", ".part", ".crdownload")
_CLAIMS = ".claimed"
# The year 9999, in seconds: a file system can hold times that no date can.
_LATEST_TIME = 253_370_764_800


@dataclass(frozen=True)
class WaitingUpload:
    """An upload as a listing shows it: where it is, which version of it, how large and how old."""

    uri: str
    name: str
    version: str
    size: int
    modified: datetime


class Landing(Protocol):
    """A location where uploads arrive. It is the queue: what is there is what is to do."""

    def waiting(self) -> Iterator[WaitingUpload]:
        """Every upload that may be taken now, in no order. Names of unfinished writes are not among them."""
        ...

    def claim(self, batch_id: str, upload: WaitingUpload) -> bool:
        """Make exactly this version of the upload the batch's own, so that a replacement is a new upload.

        Doing it again is harmless. False where this version is no longer there and was never claimed.
        """
        ...

    def read(self, batch_id: str, upload: WaitingUpload) -> bytes:
        """The claimed version's bytes.

        :raises OSError: where it cannot be read.
        """
        ...

    def archive(self, batch_id: str, upload: WaitingUpload) -> None:
        """Move the claimed version to the archive. Doing it again is harmless."""
        ...

    def finish(self, batch_id: str) -> None:
        """Forget the batch's claim, all of whose uploads are archived."""
        ...


def is_finished(name: str) -> bool:
    """Whether nobody is still writing an upload of this name (a path below the landing location).

    Hidden names, as Hadoop has them (``.x``, ``_x``, folders too), and endings of partial downloads are unfinished.
    """
    parts = [part for part in name.split("/") if part not in (".", "..")]
    return not any(part.startswith((".", "_")) for part in parts) and not name.endswith(_UNFINISHED_ENDINGS)


@dataclass(frozen=True)
class FolderLanding:
    """A folder, its subfolders included. A claim is a rename into a folder of the batch's own.

    :param folder: where uploads arrive.
    :param archive_folder: where they go, each below its batch's id; it may lie on another file system.
    :param minimum_age_seconds: how long a file must have rested before it is taken.
    """

    folder: Path
    archive_folder: Path
    minimum_age_seconds: float

    def waiting(self) -> Iterator[WaitingUpload]:
        """See :meth:`Landing.waiting`. Files only: a folder named ``x.json`` is a folder."""
        if not self.folder.exists():
            return
        now = time.time()
        for path, found in _files(os.fspath(self.folder)):
            name = os.path.relpath(path, self.folder)
            # A time in the future says nothing about how long the file has rested; it must not wait for ever.
            if is_finished(name) and abs(now - found.st_mtime) >= self.minimum_age_seconds:
                yield WaitingUpload(
                    uri=f"file://{_printable(path)}",
                    name=name,
                    version=_version(found),
                    size=found.st_size,
                    modified=datetime.fromtimestamp(min(max(found.st_mtime, 0), _LATEST_TIME), UTC),
                )

    def claim(self, batch_id: str, upload: WaitingUpload) -> bool:
        """See :meth:`Landing.claim`."""
        claimed = self._claimed(batch_id, upload)
        if claimed.exists() or self._archived(batch_id, upload).exists():
            return True
        source = self.folder / upload.name
        try:
            if _version(source.stat()) != upload.version:
                return False
            claimed.parent.mkdir(parents=True, exist_ok=True)
            source.rename(claimed)
        except FileNotFoundError:
            return claimed.exists()
        return True

    def read(self, batch_id: str, upload: WaitingUpload) -> bytes:
        """See :meth:`Landing.read`."""
        return self._claimed(batch_id, upload).read_bytes()

    def archive(self, batch_id: str, upload: WaitingUpload) -> None:
        """See :meth:`Landing.archive`."""
        claimed, archived = self._claimed(batch_id, upload), self._archived(batch_id, upload)
        archived.parent.mkdir(parents=True, exist_ok=True)
        try:
            _move(claimed, archived)
        except FileNotFoundError:
            if not archived.exists():
                logger.warning("%s is gone from its claim folder, so the archive has no copy of it", upload.uri)

    def finish(self, batch_id: str) -> None:
        """See :meth:`Landing.finish`."""
        for folder, _, files in os.walk(self.folder / _CLAIMS / batch_id, topdown=False):
            if files:
                logger.warning("%s still holds %d claimed files, so it stays", folder, len(files))
                return
            try:
                os.rmdir(folder)
            except FileNotFoundError:
                logger.debug("another run has removed %s first", folder)

    def _claimed(self, batch_id: str, upload: WaitingUpload) -> Path:
        return self.folder / _CLAIMS / batch_id / upload.name

    def _archived(self, batch_id: str, upload: WaitingUpload) -> Path:
        return self.archive_folder / batch_id / upload.name


def _files(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    folders = [folder]
    while folders:
        folder = folders.pop()
        try:
            entries = list(os.scandir(folder))
        except OSError as error:
            logger.warning("uploads in %s are out of reach: %s", folder, error.strerror)
            continue
        for entry in entries:
            try:
                found = entry.stat()
            except OSError:
                # Gone since the listing, or a link to nowhere: there is nothing to take.
                continue
            if stat.S_ISREG(found.st_mode):
                yield entry.path, found
            elif entry.is_dir(follow_symlinks=False) and not entry.name.startswith((".", "_")):
                folders.append(entry.path)


def _move(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # Another file system: copy under a name of its own first, so that a kill leaves no half file.
        copied = target.with_name(f".{target.name}.copying")
        shutil.copy2(source, copied)
        copied.rename(target)
        source.unlink()


def _version(found: os.stat_result) -> str:
    return f"{found.st_ino}-{found.st_mtime_ns}-{found.st_size}"


def _printable(path: str) -> str:
    """The path as text that UTF-8 can hold; a byte of it that is not UTF-8 shows as an escape."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def open_landing(settings: Settings) -> Landing:
    """The landing location that the settings name.

    :raises SettingsError: where it exists and is not a folder.
    """
    folder = settings.landing_folder()
    if folder.exists() and not folder.is_dir():
        raise SettingsError(f"TELEMETRY_LANDING_URI={folder} is a file. Name a folder.")
    return FolderLanding(folder, settings.lakehouse_folder() / "archive", settings.upload_minimum_age_seconds)
