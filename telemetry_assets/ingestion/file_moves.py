"""Files that are moved to another file system, or compared with copies, while somebody may still write to them."""

from __future__ import annotations

import errno
import filecmp
import hashlib
import os
import shutil
from datetime import datetime
from pathlib import Path

from telemetry_assets.ingestion.folder_entries import opened_file
from telemetry_assets.storage import sync_file, sync_folder

_ATTEMPTS = 10
_COPIED_AT_A_TIME = 1024 * 1024


class WriterGoesOnError(OSError):
    """A file cannot be copied whole, as somebody keeps changing it."""


def move_file(source: Path, target: Path, root: Path) -> None:
    """Rename a file, or copy it to another file system and remove it here.

    :param root: the folder above the target whose folders are brought to the disk.
    :raises WriterGoesOnError: where it changes each time that it is copied.
    """
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copied_whole(source, target).rename(target)
        for folder in (target.parent, *target.parent.parents):
            sync_folder(folder)
            if folder == root:
                break
        source.unlink()


def _copied_whole(source: Path, target: Path) -> Path:
    """A copy on the target's file system, under a name of its own, so that a kill leaves no half file.

    It is on the disk before the source is removed, or a loss of power could take the only copy.

    :raises WriterGoesOnError: where the source changes each time that it is copied: what is added later would be lost.
    """
    copied = _draft_of(target)
    for _ in range(_ATTEMPTS):
        before = source.stat()
        shutil.copy2(source, copied)
        sync_file(copied)
        if version_of(source.stat()) == version_of(before):
            return copied
    copied.unlink()
    raise WriterGoesOnError(errno.EBUSY, "its writer goes on while it is copied", os.fspath(source))


def copy_part(source: Path, target: Path, size: int, modified: datetime) -> None:
    """Copy so many bytes from a file's beginning, and give the copy a time.

    :raises OSError: where one of them cannot be read or written.
    """
    draft = _draft_of(target)
    with open(opened_file(source), "rb") as file, draft.open("wb") as copied:
        left = size
        while left and (piece := file.read(min(left, _COPIED_AT_A_TIME))):
            copied.write(piece)
            left -= len(piece)
    moment = modified.timestamp()
    os.utime(draft, (moment, moment))
    sync_file(draft)
    draft.rename(target)


def _draft_of(target: Path) -> Path:
    return target.with_name(f".{hashlib.sha256(os.fsencode(target.name)).hexdigest()}")


def is_another(claimed: Path, archived: Path) -> bool:
    """Whether there is a file of this name already that is not a copy of the claimed one.

    A file system that ignores case has one name for several uploads.
    """
    try:
        return not filecmp.cmp(claimed, archived, shallow=False)
    except (FileNotFoundError, NotADirectoryError):
        return False


def version_of(found: os.stat_result) -> str:
    """What tells a version of a file from every other one."""
    return f"{found.st_ino}-{found.st_mtime_ns}-{found.st_size}"
