"""A folder as the landing location: a claim is a rename, so whoever writes there can never change what was claimed."""

from __future__ import annotations

import errno
import filecmp
import hashlib
import os
import shutil
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from telemetry_assets.errors import LandingUnavailableError
from telemetry_assets.ingestion.landing import FirstLook, WaitingUpload, is_finished, newest_batch_ids
from telemetry_assets.plain_text import plain_logger
from telemetry_assets.storage import sync_file, sync_folder

logger = plain_logger(__name__)

_CLAIMS = ".claimed"
_RELEASED = ".released"
_UNARCHIVED = ".unarchived"
# The year 9999, in seconds: a file system can hold times that no date can.
_LATEST_TIME = 253_370_764_800
_ATTEMPTS = 10
"""How often a step is tried that another process keeps undoing: a writer that goes on, a folder that is removed."""


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

    @property
    def archive_can_change(self) -> bool:
        """See :attr:`Landing.archive_can_change`. A file keeps its writers when it is renamed."""
        return True

    def waiting(self) -> Iterator[WaitingUpload]:
        """See :meth:`Landing.waiting`. Files only: a folder named ``x.json`` is a folder."""
        now = time.time()
        for upload, found in self._finished():
            # A time in the future says nothing about how long the file has rested; it must not wait for ever.
            if abs(now - found.st_mtime) >= self.minimum_age_seconds:
                yield upload

    def first_look(self) -> FirstLook:
        """See :meth:`Landing.first_look`."""
        return FirstLook(tuple(upload for upload, _ in self._finished()), time.monotonic())

    def whole(self, look: FirstLook) -> list[WaitingUpload]:
        """See :meth:`Landing.whole`. A file's own time is its writer's word, whose clock may be wrong."""
        if not look.uploads or not self.minimum_age_seconds:
            return list(look.uploads)
        time.sleep(max(0.0, look.at + self.minimum_age_seconds - time.monotonic()))
        found = {(upload.name, upload.version) for upload, _ in self._finished()}
        for upload in look.uploads:
            if (upload.name, upload.version) not in found:
                logger.info("%s is still being written, or is gone; it is taken once it is whole", upload.uri)
        return [upload for upload in look.uploads if (upload.name, upload.version) in found]

    def _finished(self) -> Iterator[tuple[WaitingUpload, os.stat_result]]:
        for folder in (*_folders(self.folder / _RELEASED), self.folder):
            for upload, found in self._uploads(folder):
                if is_finished(upload.name):
                    yield upload, found

    def obstacles(self) -> Iterator[tuple[str, str]]:
        """See :meth:`Landing.obstacles`."""
        if not self.folder.is_dir():
            yield str(self.folder), "the folder does not exist; make it, or correct TELEMETRY_LANDING_URI"
        for path, _, problem in _entries_below(self.folder):
            if problem and is_finished(os.path.relpath(path, self.folder)):
                yield _printable(path), problem
        for path, _, _ in _entries_below(self.folder / _UNARCHIVED):
            yield _printable(path), "it is rejected as unreadable, and cannot be copied to the archive; move it there"

    def begin(self, batch_id: str) -> None:
        """See :meth:`Landing.begin`."""
        (self.folder / _CLAIMS / batch_id).mkdir(parents=True, exist_ok=True)

    def claim(self, batch_id: str, upload: WaitingUpload) -> bool:
        """See :meth:`Landing.claim`."""
        claimed = self._claimed(batch_id, upload)
        if claimed.exists() or self._archived(batch_id, upload).exists():
            return True
        released = (folder / upload.name for folder in _folders(self.folder / _RELEASED))
        for source in (self.folder / upload.name, *released):
            try:
                if _version(source.stat(follow_symlinks=False)) == upload.version:
                    claimed.parent.mkdir(parents=True, exist_ok=True)
                    source.rename(claimed)
                    return True
            except (FileNotFoundError, NotADirectoryError):
                self._hold_reachable(batch_id)
        return claimed.exists() or self._archived(batch_id, upload).exists()

    def read(self, batch_id: str, upload: WaitingUpload) -> bytes:
        """See :meth:`Landing.read`."""
        # A run of another edition may have begun to archive a batch that this one reads once more.
        for path in (self._claimed(batch_id, upload), *self._archived_places(batch_id, upload.name)):
            try:
                with path.open("rb") as file:
                    # What a writer adds later is not what was claimed; :meth:`is_as_claimed` notices it.
                    return file.read(upload.size)
            except (FileNotFoundError, NotADirectoryError):
                continue
        self._hold_reachable(batch_id)
        raise FileNotFoundError(errno.ENOENT, "it is gone from its claim folder, and is not in the archive", upload.uri)

    def is_as_claimed(self, batch_id: str, upload: WaitingUpload) -> bool:
        """See :meth:`Landing.is_as_claimed`."""
        for path in (self._claimed(batch_id, upload), *self._archived_places(batch_id, upload.name)):
            try:
                found = path.stat(follow_symlinks=False)
            except (FileNotFoundError, NotADirectoryError):
                continue
            return (found.st_size, _moment(found)) == (upload.size, upload.modified)
        return True

    def archive(self, batch_id: str, upload: WaitingUpload) -> None:
        """See :meth:`Landing.archive`."""
        claimed, archived = self._claimed(batch_id, upload), self._archived(batch_id, upload)
        try:
            if _is_another(claimed, archived):
                archived = self._archived_apart(batch_id, upload.name)
                logger.warning("the archive has another file in place of %s, which is kept at %s", upload.uri, archived)
            archived.parent.mkdir(parents=True, exist_ok=True)
            _move(claimed, archived, self.archive_folder)
        except FileNotFoundError:
            if not archived.exists():
                self._hold_reachable(batch_id)
                logger.warning("%s is gone from its claim folder, so the archive has no copy of it", upload.uri)
        except PermissionError:
            if os.access(claimed, os.R_OK):
                raise
            kept = self.folder / _UNARCHIVED / batch_id / upload.name
            kept.parent.mkdir(parents=True, exist_ok=True)
            claimed.rename(kept)
            logger.warning(
                "%s cannot be read, so it cannot be copied to the archive; it is kept at %s", upload.uri, kept
            )

    def release(self, batch_id: str, upload: WaitingUpload) -> None:
        """See :meth:`Landing.release`."""
        # Not to where it came from: a newer one may wait there.
        released = self.folder / _RELEASED / batch_id / upload.name
        claimed = self._claimed(batch_id, upload)
        while claimed.exists():
            try:
                released.parent.mkdir(parents=True, exist_ok=True)
                claimed.rename(released)
            except (FileNotFoundError, FileExistsError) as error:
                # Another run has released it, or takes away the folder that was empty.
                logger.debug("releasing %s: %s", upload.uri, error)

    def read_archived(self, batch_id: str, uri: str) -> bytes:
        """See :meth:`Landing.read_archived`."""
        return self._read_archived(batch_id, os.path.relpath(uri.removeprefix("file://"), self.folder))

    def archived_content(self, batch_id: str, upload: WaitingUpload) -> bytes:
        """See :meth:`Landing.archived_content`."""
        return self._read_archived(batch_id, upload.name)

    def _read_archived(self, batch_id: str, name: str) -> bytes:
        apart, archived = self._archived_places(batch_id, name)
        return (apart if apart.exists() else archived).read_bytes()

    def archive_uri(self, batch_id: str, upload: WaitingUpload) -> str:
        """See :meth:`Landing.archive_uri`."""
        return f"file://{_printable(os.fspath(self._archived(batch_id, upload)))}"

    def archived_batches(self) -> list[str]:
        """See :meth:`Landing.archived_batches`."""
        return sorted(folder.name for folder in _folders(self.archive_folder))

    def newest_batches(self, count: int, since: datetime | None) -> list[str]:
        """See :meth:`Landing.newest_batches`. All names are listed, and no file is looked at."""
        try:
            return newest_batch_ids(os.listdir(self.archive_folder), count)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return []

    def archived(self, batch_id: str) -> Iterator[WaitingUpload]:
        """See :meth:`Landing.archived`."""
        for upload, _ in self._uploads(self.archive_folder / batch_id):
            # Drafts of copies that a kill has left.
            if is_finished(upload.name):
                yield upload

    def put_back(self, batch_id: str, upload: WaitingUpload) -> bool:
        """See :meth:`Landing.put_back`."""
        waits = self.folder / _RELEASED / batch_id / upload.name
        archived = self._archived(batch_id, upload)
        for _ in range(_ATTEMPTS):
            try:
                waits.parent.mkdir(parents=True, exist_ok=True)
                _move(archived, waits, self.folder)
            except FileNotFoundError:
                if not archived.exists():
                    return False
                # Another run has just taken away the folder that was empty.
            else:
                return True
        raise FileNotFoundError(errno.ENOENT, "it cannot be put back", os.fspath(waits))

    def claimed(self) -> Iterator[tuple[str, WaitingUpload]]:
        """See :meth:`Landing.claimed`."""
        for folder in _folders(self.folder / _CLAIMS):
            for upload, _ in self._uploads(folder):
                yield folder.name, upload

    def finish(self, batch_id: str) -> None:
        """See :meth:`Landing.finish`."""
        for emptied in (self.folder / _CLAIMS / batch_id, *_folders(self.folder / _RELEASED)):
            _remove_without_files(emptied)

    def _uploads(self, folder: Path) -> Iterator[tuple[WaitingUpload, os.stat_result]]:
        """The files below a folder that can be claimed, by a rename."""
        for path, found, problem in _entries_below(folder):
            if not problem and stat.S_ISREG(found.st_mode):
                yield self._upload(folder, path, found), found

    def _upload(self, folder: Path, path: str, found: os.stat_result) -> WaitingUpload:
        name = os.path.relpath(path, folder)
        return WaitingUpload(
            uri=f"file://{_printable(os.path.join(self.folder, name))}",
            name=name,
            version=_version(found),
            size=found.st_size,
            modified=_moment(found),
        )

    def _hold_reachable(self, batch_id: str) -> None:
        """A file that is missing tells nothing where the whole folder is missing, as one that is mounted late is."""
        claims = self.folder / _CLAIMS
        if not claims.is_dir():
            raise LandingUnavailableError(str(self.folder), str(claims), batch_id)

    def _claimed(self, batch_id: str, upload: WaitingUpload) -> Path:
        return self.folder / _CLAIMS / batch_id / upload.name

    def _archived(self, batch_id: str, upload: WaitingUpload) -> Path:
        return self.archive_folder / batch_id / upload.name

    def _archived_places(self, batch_id: str, name: str) -> tuple[Path, Path]:
        return self._archived_apart(batch_id, name), self.archive_folder / batch_id / name

    def _archived_apart(self, batch_id: str, name: str) -> Path:
        """Where an upload is archived whose own place is another one's, because its file system ignores case."""
        return self.archive_folder / batch_id / f".{hashlib.sha256(os.fsencode(name)).hexdigest()}" / name


def _entries_below(root: Path) -> Iterator[tuple[str, os.stat_result, str]]:
    """What is below a folder and in no hidden one, each with the reason why it cannot be taken, if there is one."""
    if not root.is_dir():
        return
    device = root.stat().st_dev
    folders = [os.fspath(root)]
    while folders:
        for path, found, problem in _entries(folders.pop(), device):
            if stat.S_ISDIR(found.st_mode) and not problem:
                if not os.path.basename(path).startswith((".", "_")):
                    folders.append(path)
            else:
                yield path, found, problem


def _folders(folder: Path) -> list[Path]:
    try:
        return [inner for inner in folder.iterdir() if inner.is_dir()]
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []


def _remove_without_files(folder: Path) -> None:
    """Remove a folder and those in it, but for any that holds a file."""
    for inner, _, files in os.walk(folder, topdown=False):
        if files:
            return
        try:
            os.rmdir(inner)
        except OSError as error:
            # Another run has removed it first, or has just put something there.
            logger.debug("%s stays: %s", inner, error)


def _entries(folder: str, device: int) -> Iterator[tuple[str, os.stat_result, str]]:
    """What a folder holds. Neither files nor folders, such as pipes, are not among it."""
    try:
        held = os.stat(folder)
    except FileNotFoundError:
        # Gone since the listing, such as the claims of a batch that another run has ended.
        return
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    except OSError as error:
        yield folder, held, f"its files cannot be listed ({error.strerror})"
        return
    movable = os.access(folder, os.W_OK | os.X_OK)
    for entry in entries:
        try:
            found = entry.stat(follow_symlinks=False)
        except OSError:
            # Gone since the listing: there is nothing to take.
            continue
        problem = ""
        if stat.S_ISLNK(found.st_mode):
            problem = "it is a link; put the file itself there"
        elif found.st_dev != device:
            problem = "it is on another file system, out of which nothing can be renamed"
        elif stat.S_ISREG(found.st_mode) and (not movable or _is_kept_by_its_owner(found, held)):
            problem = "this user may not move it out of its folder"
        if problem or stat.S_ISDIR(found.st_mode) or stat.S_ISREG(found.st_mode):
            yield entry.path, found, problem


def _is_kept_by_its_owner(file: os.stat_result, folder: os.stat_result) -> bool:
    """Whether the folder's sticky bit lets only others than this process's user rename the file."""
    return bool(folder.st_mode & stat.S_ISVTX) and os.geteuid() not in (0, file.st_uid, folder.st_uid)


def _move(source: Path, target: Path, archive: Path) -> None:
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copied_whole(source, target).rename(target)
        for folder in (target.parent, *target.parent.parents):
            sync_folder(folder)
            if folder == archive:
                break
        source.unlink()


def _copied_whole(source: Path, target: Path) -> Path:
    """A copy on the target's file system, under a name of its own, so that a kill leaves no half file.

    It is on the disk before the source is removed, or a loss of power could take the only copy.

    :raises OSError: where the source changes each time that it is copied: what is added after the copy would be lost.
    """
    copied = target.with_name(f".{hashlib.sha256(os.fsencode(target.name)).hexdigest()}")
    for _ in range(_ATTEMPTS):
        before = source.stat()
        shutil.copy2(source, copied)
        sync_file(copied)
        if _version(source.stat()) == _version(before):
            return copied
    copied.unlink()
    raise OSError(errno.EBUSY, "its writer goes on while it is copied", os.fspath(source))


def _moment(found: os.stat_result) -> datetime:
    return datetime.fromtimestamp(min(max(found.st_mtime, 0), _LATEST_TIME), UTC)


def _is_another(claimed: Path, archived: Path) -> bool:
    """Whether there is a file of this name already that is not a copy of the claimed one.

    A file system that ignores case has one name for several uploads.
    """
    try:
        return not filecmp.cmp(claimed, archived, shallow=False)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _version(found: os.stat_result) -> str:
    return f"{found.st_ino}-{found.st_mtime_ns}-{found.st_size}"


def _printable(path: str) -> str:
    """The path as text that UTF-8 can hold; a byte of it that is not UTF-8 shows as an escape."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
