"""A folder as the landing location. A claim renames a file, so a new file under the old name is a new upload.

Uploaders may be other users of the machine. Claimed and released uploads are in the lakehouse's folder, where uploaders
cannot write. If the landing folder is on another file system, they are in hidden folders of the landing folder instead,
which no other user may write to. No link below the landing folder is followed.
"""

from __future__ import annotations

import errno
import hashlib
import math
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from telemetry_assets.errors import LandingUnavailableError
from telemetry_assets.ingestion.landing.base import Listing, WaitingUpload, is_finished, newest_batch_ids
from telemetry_assets.ingestion.landing.files import (
    ChangedDuringCopyError,
    copy_part,
    file_uri,
    is_another,
    move_file,
    opened_file,
    path_of,
    printable,
    take_file,
    version_of,
)
from telemetry_assets.ingestion.landing.shared_folders import (
    LONGEST_PATH,
    Entry,
    Parts,
    entries_below,
    folders_in,
    is_ours,
    opened_folder,
    own_folder,
    remove_without_files,
)
from telemetry_assets.text.formatting import megabytes
from telemetry_assets.text.plain import plain_logger

logger = plain_logger(__name__)

_CLAIMED = "claimed"
_RELEASED = "released"
_UNARCHIVED = "unarchived"
_CLAIMS_IN_LANDING = "claims_in_landing"
"""A file that exists if claims are in the landing folder, because the lakehouse is on another file system."""
# The year 9999 in seconds. File systems can have later times than `datetime`.
_LATEST_TIME = 253_370_764_800
_BATCH_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)
_ATTEMPTS = 10
"""How often a step is tried again after another process has undone it."""
_LONGEST_ADDITION = 160
"""The bytes that the archive adds to a path: a batch id, and names of folders and drafts."""


@dataclass(frozen=True)
class FolderLanding:
    """A folder with its subfolders.

    :param folder: where uploads arrive. Other users may write to it.
    :param lakehouse: the lakehouse's folder, which no other user may write to. Claimed uploads are in its ``ingestion``
        folder, archived ones in ``archive``. It may be on another file system.
    :param minimum_age_seconds: for how long the size and time of a file must not change before it is ingested.
    """

    folder: Path
    lakehouse: Path
    minimum_age_seconds: float

    @property
    def archive_folder(self) -> Path:
        """The archive, with a folder for each batch."""
        return self.lakehouse / "archive"

    @property
    def archive_can_change(self) -> bool:
        """See :attr:`Landing.archive_can_change`. A process that has a file open can write to it after a rename."""
        return True

    def waiting(self) -> Iterator[WaitingUpload]:
        """See :meth:`Landing.waiting`. A folder is never an upload, regardless of its name."""
        now = time.time()
        for upload, found in self._finished():
            # A file with a time in the future must not wait until then.
            if abs(now - found.st_mtime) >= self.minimum_age_seconds:
                yield upload

    def listing(self) -> Listing:
        """See :meth:`Landing.listing`."""
        return Listing(tuple(upload for upload, _ in self._finished()), time.monotonic())

    def stable(self, listing: Listing) -> list[WaitingUpload]:
        """See :meth:`Landing.stable`. The age of a file's own time is not used: the writer's clock may be wrong."""
        if not listing.uploads or not self.minimum_age_seconds:
            return list(listing.uploads)
        time.sleep(max(0.0, listing.at + self.minimum_age_seconds - time.monotonic()))
        found = {(upload.name, upload.version) for upload, _ in self._finished()}
        for upload in listing.uploads:
            if (upload.name, upload.version) not in found:
                logger.info("%s is still being written, or is gone; it is ingested when it is complete", upload.uri)
        return [upload for upload in listing.uploads if (upload.name, upload.version) in found]

    def _finished(self) -> Iterator[tuple[WaitingUpload, os.stat_result]]:
        for _, _, entry in self._offered():
            if entry.is_file and is_finished(entry.name):
                yield self._upload(entry), entry.found

    def obstacles(self) -> Iterator[tuple[str, str]]:
        """See :meth:`Landing.obstacles`."""
        if not self.folder.is_dir():
            yield str(self.folder), "the folder does not exist; create it, or correct TELEMETRY_LANDING_URI"
        for root, within, entry in self._offered():
            if entry.problem and is_finished(entry.name):
                yield printable(os.path.join(root, *within, entry.name)), entry.problem
        for name in (_CLAIMED, _RELEASED, _UNARCHIVED):
            place = self.folder / f".{name}"
            if os.path.lexists(place) and not is_ours(place):
                yield (
                    printable(os.fspath(place)),
                    "it does not belong to this pipeline, so nothing in it is ingested; remove it",
                )
        for root, within in self._places(_UNARCHIVED):
            for entry in entries_below(root, within):
                yield (
                    printable(os.path.join(root, *within, entry.name)),
                    "it is rejected as unreadable, and cannot be copied to the archive; move it there",
                )

    def begin(self, batch_id: str) -> None:
        """See :meth:`Landing.begin`."""
        (self._place(_CLAIMED) / batch_id).mkdir(parents=True, exist_ok=True)

    def claim(self, batch_id: str, upload: WaitingUpload) -> bool:
        """See :meth:`Landing.claim`.

        :raises LandingUnsafeError: if claims have to be in the landing folder, and other users could replace them.
        """
        if self._is_taken(batch_id, upload):
            return True
        *parents, name = upload.name.split("/")
        for root, within in self._waiting_places():
            try:
                with opened_folder(root, (*within, *parents)) as opened:
                    if version_of(os.stat(name, dir_fd=opened, follow_symlinks=False)) == upload.version:
                        return self._renamed(opened, name, batch_id, upload)
            except (FileNotFoundError, NotADirectoryError):
                self._require_claims(batch_id)
        return self._is_taken(batch_id, upload)

    def _is_taken(self, batch_id: str, upload: WaitingUpload) -> bool:
        # Its type and permissions do not matter: a claimed upload that became unreadable is rejected, not ignored.
        claimed = self._place(_CLAIMED) / batch_id / upload.name
        if os.path.lexists(claimed) and not claimed.is_symlink():
            return True
        return self._claimed(batch_id, upload.name) is not None or _is_file(self._archived(batch_id, upload))

    def _renamed(self, folder: int, name: str, batch_id: str, upload: WaitingUpload) -> bool:
        """Rename a file into the batch's folder; False if something else has just taken its name."""
        claimed = self._place(_CLAIMED) / batch_id / upload.name
        try:
            is_taken = take_file(folder, name, claimed)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _, free = self._room()
            if upload.size > free:
                raise OSError(errno.EFBIG, _too_large(upload.size, free), upload.uri) from error
            claimed = self._place_in_landing(_CLAIMED) / batch_id / upload.name
            self._place(_CLAIMS_IN_LANDING).touch()
            is_taken = take_file(folder, name, claimed)
        if not is_taken:
            return False
        found = claimed.stat(follow_symlinks=False)
        if stat.S_ISREG(found.st_mode) and found.st_nlink <= 1:
            return True
        self._give_back(claimed, batch_id, upload.name)
        return False

    def read(self, batch_id: str, upload: WaitingUpload) -> bytes:
        """See :meth:`Landing.read`."""
        # A run of another version may have archived a part of the batch already.
        for path in self._claimed_paths(batch_id, upload.name):
            try:
                with open(opened_file(path), "rb") as file:
                    # Data that a writer adds later was not claimed; see :meth:`is_as_claimed`.
                    return file.read(upload.size)
            except (FileNotFoundError, NotADirectoryError):
                continue
        self._require_claims(batch_id)
        raise FileNotFoundError(errno.ENOENT, "it is gone from its claim folder, and is not in the archive", upload.uri)

    def is_as_claimed(self, batch_id: str, upload: WaitingUpload) -> bool:
        """See :meth:`Landing.is_as_claimed`."""
        for path in self._claimed_paths(batch_id, upload.name):
            try:
                found = path.stat(follow_symlinks=False)
            except (FileNotFoundError, NotADirectoryError):
                continue
            return (found.st_size, _moment(found)) == (upload.size, upload.modified)
        return True

    def archive(self, batch_id: str, upload: WaitingUpload) -> None:
        """See :meth:`Landing.archive`."""
        claimed, archived = self._claimed(batch_id, upload.name), self._archived(batch_id, upload)
        if claimed is None:
            if not archived.exists():
                self._require_claims(batch_id)
                logger.warning("%s is gone from its claim folder, so the archive has no copy of it", upload.uri)
            return
        try:
            if is_another(claimed, archived):
                archived = self._archived_apart(batch_id, upload.name)
                logger.warning(
                    "the archive has another file in the place of %s, which is archived at %s", upload.uri, archived
                )
            archived.parent.mkdir(parents=True, exist_ok=True)
            move_file(claimed, archived, self.archive_folder)
        except ChangedDuringCopyError:
            # Archive only the part that was read. The file that the writer keeps changing is a new upload.
            copy_part(claimed, archived, upload.size, upload.modified)
            self._give_back(claimed, batch_id, upload.name)
            logger.warning(
                "%s was still being written while it was archived; the complete file waits to be ingested", upload.uri
            )
        except FileNotFoundError:
            if not archived.exists():
                raise
        except PermissionError:
            if os.access(claimed, os.R_OK):
                raise
            kept = self._beside(claimed, _UNARCHIVED) / batch_id / upload.name
            kept.parent.mkdir(parents=True, exist_ok=True)
            claimed.rename(kept)
            logger.warning(
                "%s cannot be read, so it cannot be copied to the archive; it is kept at %s", upload.uri, kept
            )

    def release(self, batch_id: str, upload: WaitingUpload) -> None:
        """See :meth:`Landing.release`.

        :raises OSError: if other processes keep undoing the release.
        """
        for _ in range(_ATTEMPTS):
            claimed = self._claimed(batch_id, upload.name)
            if claimed is None:
                return
            try:
                self._give_back(claimed, batch_id, upload.name)
            except (FileNotFoundError, FileExistsError) as error:
                # Another run has released it, or has removed the folder while it was empty.
                logger.debug("releasing %s: %s", upload.uri, error)
        if self._claimed(batch_id, upload.name) is not None:
            raise OSError(errno.EBUSY, "it cannot be given back; its claim folder keeps changing", upload.uri)

    def _give_back(self, claimed: Path, batch_id: str, name: str) -> None:
        # Do not move it to its old path, where a newer upload may wait.
        released = self._beside(claimed, _RELEASED) / batch_id / name
        released.parent.mkdir(parents=True, exist_ok=True)
        claimed.rename(released)

    def read_archived(self, batch_id: str, uri: str) -> bytes:
        """See :meth:`Landing.read_archived`."""
        return self._read_archived(batch_id, os.path.relpath(path_of(uri), self.folder))

    def archived_content(self, batch_id: str, upload: WaitingUpload) -> bytes:
        """See :meth:`Landing.archived_content`."""
        return self._read_archived(batch_id, upload.name)

    def _read_archived(self, batch_id: str, name: str) -> bytes:
        apart, archived = self._archived_places(batch_id, name)
        with open(opened_file(apart if apart.exists() else archived), "rb") as file:
            return file.read()

    def archive_uri(self, batch_id: str, upload: WaitingUpload) -> str:
        """See :meth:`Landing.archive_uri`."""
        return file_uri(os.fspath(self._archived(batch_id, upload)))

    def archived_batches(self) -> list[str]:
        """See :meth:`Landing.archived_batches`."""
        return sorted(folders_in(self.archive_folder))

    def newest_batches(self, count: int, since: datetime | None) -> list[str]:
        """See :meth:`Landing.newest_batches`. Lists the names of all batches, and reads no file."""
        try:
            return newest_batch_ids(os.listdir(self.archive_folder), count)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return []

    def archived(self, batch_id: str) -> Iterator[WaitingUpload]:
        """See :meth:`Landing.archived`."""
        for entry in entries_below(self.archive_folder, (batch_id,)):
            # Unfinished names are drafts of killed runs.
            if entry.is_file and is_finished(entry.name):
                yield self._upload(entry)

    def move_back(self, batch_id: str, upload: WaitingUpload) -> bool:
        """See :meth:`Landing.move_back`."""
        place = self._place(_RELEASED)
        waits = place / batch_id / upload.name
        archived = self._archived(batch_id, upload)
        for _ in range(_ATTEMPTS):
            try:
                waits.parent.mkdir(parents=True, exist_ok=True)
                move_file(archived, waits, place)
            except FileNotFoundError:
                if not archived.exists():
                    return False
                # Another run has just removed the folder while it was empty.
            else:
                return True
        raise FileNotFoundError(errno.ENOENT, "it cannot be moved back to the landing location", os.fspath(waits))

    def delete_archived(self, batch_id: str, upload: WaitingUpload) -> None:
        """See :meth:`Landing.delete_archived`. A folder that becomes empty is removed."""
        self._archived(batch_id, upload).unlink(missing_ok=True)
        for problem in remove_without_files(self.archive_folder, (batch_id,)):
            logger.debug("%s stays: %s", self.archive_folder / batch_id, problem)

    def claimed(self) -> Iterator[tuple[str, WaitingUpload]]:
        """See :meth:`Landing.claimed`."""
        for root, outer in self._places(_CLAIMED):
            # Other users can create folders of any name in the landing folder.
            for batch_id in filter(_BATCH_ID.fullmatch, folders_in(root, outer)):
                for entry in entries_below(root, (*outer, batch_id), self._longest_name):
                    if entry.is_file:
                        yield batch_id, self._upload(entry)

    def finish(self, batch_id: str) -> None:
        """See :meth:`Landing.finish`."""
        emptied = [(root, (*outer, batch_id), True) for root, outer in self._places(_CLAIMED)]
        emptied += [(*place, False) for place in self._waiting_places() if place != (self.folder, ())]
        for root, folder, links in emptied:
            for problem in remove_without_files(root, folder, links=links):
                logger.debug("%s stays: %s", os.path.join(root, *folder), problem)

    def _waiting_places(self) -> list[tuple[Path, Parts]]:
        """The folders where uploads wait: one for each batch with released uploads, and the landing folder."""
        released = [
            (root, (*outer, batch_id))
            for root, outer in self._places(_RELEASED)
            for batch_id in folders_in(root, outer)
        ]
        return [*released, (self.folder, ())]

    def _places(self, name: str) -> list[tuple[Path, Parts]]:
        """The places of claimed, released or unarchived uploads, each as a root and a folder below it.

        The place in the landing folder counts only if it belongs to this user, because any user can create a folder
        with its name.
        """
        in_landing = f".{name}"
        is_there = is_ours(self.folder / in_landing)
        return [(self._place(name), ()), *([(self.folder, (in_landing,))] if is_there else [])]

    def _offered(self) -> Iterator[tuple[Path, Parts, Entry]]:
        """All entries in the places where uploads wait."""
        device, free = self._room()
        for root, within in self._waiting_places():
            for entry in entries_below(root, within, self._longest_name):
                if entry.is_file and entry.found.st_nlink > 1:
                    problem = (
                        "it has a second name (a hard link), through which it can be changed; remove one of the names, "
                        "or replace it with a copy"
                    )
                    yield root, within, replace(entry, problem=problem)
                elif entry.is_file and entry.found.st_dev != device and entry.found.st_size > free:
                    yield root, within, replace(entry, problem=_too_large(entry.found.st_size, free))
                else:
                    yield root, within, entry

    def _room(self) -> tuple[int, float]:
        """The device of the archive's file system, and its free bytes. Files on other devices are copied to it."""
        for place in (self.archive_folder, self.lakehouse):
            with suppress(FileNotFoundError, NotADirectoryError):
                return place.stat().st_dev, shutil.disk_usage(place).free
        return 0, math.inf

    @property
    def _longest_name(self) -> int:
        """The maximum length in bytes of a path below the landing folder. Paths in the archive are longer."""
        below = max(len(os.fsencode(place)) for place in (self.folder, self.lakehouse))
        return LONGEST_PATH - _LONGEST_ADDITION - below

    def _upload(self, entry: Entry) -> WaitingUpload:
        return WaitingUpload(
            uri=file_uri(os.path.join(self.folder, entry.name)),
            name=entry.name,
            version=version_of(entry.found),
            size=entry.found.st_size,
            modified=_moment(entry.found),
        )

    def _place(self, name: str) -> Path:
        """The place of claimed, released or unarchived uploads beside the tables."""
        return self.lakehouse / "ingestion" / name

    def _place_in_landing(self, name: str) -> Path:
        """The same place in the landing folder, for a lakehouse on another file system.

        :raises LandingUnsafeError: if other users could replace its content.
        """
        return own_folder(self.folder / f".{name}")

    def _beside(self, claimed: Path, name: str) -> Path:
        """The place of this name on the file system of a claimed upload."""
        is_own_place = claimed.is_relative_to(self._place(_CLAIMED))
        return self._place(name) if is_own_place else self._place_in_landing(name)

    def _claimed(self, batch_id: str, name: str) -> Path | None:
        """The path of a claimed upload; None if it is not claimed.

        An upload that an earlier version has claimed in the landing folder, where others may write, is moved out first.
        """
        claimed = self._place(_CLAIMED) / batch_id / name
        if _is_file(claimed):
            return claimed
        if not is_ours(self.folder / f".{_CLAIMED}"):
            return None
        if self._place(_CLAIMS_IN_LANDING).exists():
            in_landing = self._place_in_landing(_CLAIMED) / batch_id / name
            return in_landing if _is_file(in_landing) else None
        *parents, base = name.split("/")
        try:
            with opened_folder(self.folder, (f".{_CLAIMED}", batch_id, *parents)) as opened:
                if not stat.S_ISREG(os.stat(base, dir_fd=opened, follow_symlinks=False).st_mode):
                    return None
                take_file(opened, base, claimed)
        except (FileNotFoundError, NotADirectoryError) as error:
            # Another run has moved it at the same time.
            logger.debug("taking %s out of %s: %s", name, self.folder, error)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            return self._place_in_landing(_CLAIMED) / batch_id / name
        return claimed if _is_file(claimed) else None

    def _claimed_paths(self, batch_id: str, name: str) -> Iterator[Path]:
        """The paths where a claimed upload may be."""
        claimed = self._claimed(batch_id, name)
        if claimed is not None:
            yield claimed
        yield from self._archived_places(batch_id, name)

    def _require_claims(self, batch_id: str) -> None:
        """Raise an error if the folder of all claims is missing, for example because it is not mounted yet."""
        in_landing = self.folder / f".{_CLAIMED}"
        if self._place(_CLAIMED).is_dir() and not self._place(_CLAIMS_IN_LANDING).exists():
            return
        if not in_landing.is_dir():
            raise LandingUnavailableError(str(self.folder), str(in_landing), batch_id)

    def _archived(self, batch_id: str, upload: WaitingUpload) -> Path:
        return self.archive_folder / batch_id / upload.name

    def _archived_places(self, batch_id: str, name: str) -> tuple[Path, Path]:
        return self._archived_apart(batch_id, name), self.archive_folder / batch_id / name

    def _archived_apart(self, batch_id: str, name: str) -> Path:
        """The path of an archived upload if its usual path has another file, because the file system ignores case."""
        return self.archive_folder / batch_id / f".{hashlib.sha256(os.fsencode(name)).hexdigest()}" / name


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat(follow_symlinks=False).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _moment(found: os.stat_result) -> datetime:
    return datetime.fromtimestamp(min(max(found.st_mtime, 0), _LATEST_TIME), UTC)


def _too_large(size: int, free: float) -> str:
    return (
        f"it has {megabytes(size)} and has to be copied to the archive's file system, which has {megabytes(int(free))} "
        "free; make room there, or remove it"
    )
