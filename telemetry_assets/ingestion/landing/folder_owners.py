"""Folders that the pipeline needs for itself in a folder that others write to: whose they are, and making them."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from telemetry_assets.errors import LandingUnsafeError
from telemetry_assets.ingestion.landing.file_uris import printable
from telemetry_assets.text.plain import plain_logger

logger = plain_logger(__name__)

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_ATTEMPTS = 100
"""How often this process makes its folder while somebody keeps putting something else into its place."""
# Somebody has put something else into the place, or a folder that keeps its own owner's files.
_NOT_OPENED = (errno.ELOOP, errno.ENOTDIR, errno.ENOENT, errno.EACCES)


def own_folder(place: Path) -> Path:
    """A folder of this process's own at a place, made where it is not there, which nobody else may write to.

    What somebody else has put there gets another name beside it, so that it stops nothing.

    :raises LandingUnsafeError: where others could exchange what is in it, or keep taking its place.
    """
    for _ in range(_ATTEMPTS):
        if os.path.lexists(place) and not is_ours(place):
            _put_aside(place)
        with suppress(FileExistsError):
            place.mkdir(mode=0o700)
        if _close_to_others(place):
            break
    if not is_own(place):
        raise LandingUnsafeError(printable(os.fspath(place)))
    return place


def _close_to_others(place: Path) -> bool:
    """Let nobody else into this process's folder; False where it is none. What a link there leads to is not touched.

    The first edition left it to `umask` who else may write to it.
    """
    try:
        opened = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _NOT_OPENED:
            return False
        raise
    try:
        if not _is_ours(os.fstat(opened), place):
            return False
        os.fchmod(opened, 0o700)
        return True
    finally:
        os.close(opened)


def _put_aside(place: Path) -> None:
    aside = place.with_name(f".foreign-{os.urandom(8).hex()}")
    try:
        place.rename(aside)
    except FileNotFoundError:
        return
    except OSError as error:
        raise LandingUnsafeError(printable(os.fspath(place))) from error
    logger.warning("%s was not this pipeline's and is %s now; remove it", place, aside)


def is_ours(folder: Path) -> bool:
    """Whether a folder was made by this process's user, and not everybody may write to it; a link to one is none."""
    try:
        return _is_ours(folder.stat(follow_symlinks=False), folder)
    except OSError:
        return False


def _is_ours(found: os.stat_result, folder: Path) -> bool:
    if not stat.S_ISDIR(found.st_mode):
        return False
    if found.st_uid == os.geteuid() and not found.st_mode & stat.S_IWOTH:
        return True
    made = _as_made_in(folder.parent)
    return made is not None and _keeps_no_owners(made) and found.st_uid == made.st_uid


def is_own(folder: Path) -> bool:
    """Whether nobody but this process's user can change what a folder holds, nor put another folder in its place.

    On a file system that keeps no owners and modes, such as exFAT or an SMB share, every folder is as those are that
    this process makes.
    """
    try:
        found, held = folder.stat(follow_symlinks=False), folder.parent.stat()
    except OSError:
        return False
    if not stat.S_ISDIR(found.st_mode):
        return False
    is_kept = bool(held.st_mode & stat.S_ISVTX) or not _others_may_write(held)
    if found.st_uid == os.geteuid() and held.st_uid in (0, os.geteuid()) and is_kept and not _others_may_write(found):
        return True
    made = _as_made_in(folder.parent)
    return made is not None and _keeps_no_owners(made) and found.st_uid == made.st_uid == held.st_uid


def _keeps_no_owners(made: os.stat_result) -> bool:
    return made.st_uid != os.geteuid() or bool(made.st_mode & _OTHERS_WRITE)


def _others_may_write(found: os.stat_result) -> bool:
    # Where every user has a group of their own, `umask` lets it write, and nobody else is in it.
    own_group = os.getegid() if os.getegid() == os.geteuid() else None
    return bool(found.st_mode & (stat.S_IWOTH if found.st_gid == own_group else _OTHERS_WRITE))


@lru_cache
def _as_made_in(folder: Path) -> os.stat_result | None:
    """What a file of this process looks like in a folder; by its descriptor, which nobody can exchange."""
    path = folder / f".{os.getpid()}-{os.urandom(8).hex()}"
    try:
        made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    try:
        return os.fstat(made)
    finally:
        os.close(made)
        with suppress(OSError):
            path.unlink()
