"""Folders that other users write to: listing them without following links, and this user's own folders in them.

A folder is opened level by level from its root (``openat`` with ``O_NOFOLLOW``), so another user cannot redirect the
path by replacing a folder with a link meanwhile.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from telemetry_assets.errors import LandingUnsafeError
from telemetry_assets.ingestion.landing.files import printable
from telemetry_assets.text.plain import plain_logger

logger = plain_logger(__name__)

Parts = tuple[str, ...]
"""The names of the folders from a root down to a folder below it."""

LONGEST_PATH = 4095
"""The maximum length of an absolute path in bytes (PATH_MAX without the final NUL)."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# The name belongs to a link, or to something else that is not a folder.
_NO_FOLDER = (errno.ELOOP, errno.ENOTDIR, errno.ENOENT)
_DEEPEST = 500
"""The maximum depth of folders. Each folder is opened from its root down, so deep folders cost more."""
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_ATTEMPTS = 100
"""How often this process tries to create its folder while another user keeps putting something in its place."""
# The place has something that is not a folder, or a folder that this user may not open.
_NOT_OPENED = (errno.ELOOP, errno.ENOTDIR, errno.ENOENT, errno.EACCES)


@dataclass(frozen=True)
class Entry:
    """A file or folder below a listed folder.

    :param name: its path below the listed folder.
    :param found: its status, without following a link.
    :param problem: why it cannot be claimed; empty if it can.
    """

    name: str
    found: os.stat_result
    problem: str = ""

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file that can be claimed."""
        return not self.problem and stat.S_ISREG(self.found.st_mode)


def entries_below(root: Path, within: Parts = (), longest: int = LONGEST_PATH) -> Iterator[Entry]:
    """List every file below a folder, except in hidden folders, and everything that cannot be claimed.

    :param within: the folder below the root; the root itself if empty. The names of entries are relative to it.
    :param longest: the maximum length of a name in bytes. It also bounds the depth of the search.
    """
    try:
        device = root.stat().st_dev
    except (FileNotFoundError, NotADirectoryError):
        return
    folders: list[Parts] = [()]
    while folders:
        parts = folders.pop()
        for entry in _entries(root, within, parts, device):
            if len(parts) > _DEEPEST:
                yield replace(entry, problem=f"it is more than {_DEEPEST} folders deep; move it to a higher folder")
            elif len(os.fsencode(entry.name)) > longest:
                yield replace(entry, problem="its path is too long for the archive; give it a shorter one")
            elif stat.S_ISDIR(entry.found.st_mode) and not entry.problem:
                if not os.path.basename(entry.name).startswith((".", "_")):
                    folders.append(tuple(entry.name.split("/")))
            else:
                yield entry


def folders_in(root: Path, within: Parts = ()) -> list[str]:
    """The names of the folders directly in a folder below a root, without links to folders."""
    try:
        with opened_folder(root, within) as folder, os.scandir(folder) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, PermissionError):
        return []


@contextmanager
def opened_folder(root: Path, parts: Parts) -> Iterator[int]:
    """Open a folder below a root without following a link below the root. Yields its descriptor.

    :raises FileNotFoundError: if it does not exist, or a part of the path is a link.
    :raises OSError: if it may not be opened.
    """
    opened = _opened_root(root)
    try:
        for part in parts:
            inner = _opened_inner(part, opened)
            os.close(opened)
            opened = inner
        yield opened
    finally:
        os.close(opened)


def _opened_root(root: Path) -> int:
    try:
        return os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except NotADirectoryError as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(root)) from error


def _opened_inner(name: str, folder: int) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=folder)
    except OSError as error:
        if error.errno in _NO_FOLDER:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name) from error
        raise


def remove_without_files(root: Path, within: Parts, *, links: bool = False) -> list[OSError]:
    """Remove a folder and all folders in it, unless one of them has a file.

    :param links: whether to remove links too; otherwise a folder with a link stays.
    :returns: the errors of folders that could not be removed: another process was faster or has just put something
        there, or this process may not open it.
    """
    folders = [within]
    for parts in folders:
        try:
            with opened_folder(root, parts) as folder:
                entries = _without_links(folder) if links else _listed(folder)
        except FileNotFoundError:
            continue
        except OSError as error:
            return [error]
        if not all(entry.is_dir(follow_symlinks=False) for entry in entries):
            return []
        folders += [(*parts, entry.name) for entry in entries]
    problems: list[OSError] = []
    for *outer, name in reversed(folders):
        try:
            with opened_folder(root, tuple(outer)) as folder:
                os.rmdir(name, dir_fd=folder)
        except OSError as error:
            problems.append(error)
    return problems


def _listed(folder: int) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as listing:
        return list(listing)


def _without_links(folder: int) -> list[os.DirEntry[str]]:
    """Remove the links in a folder, and list what remains."""
    for entry in _listed(folder):
        # Checked again, because a slow run may have just replaced the link by a file.
        if stat.S_ISLNK(os.stat(entry.name, dir_fd=folder, follow_symlinks=False).st_mode):
            os.unlink(entry.name, dir_fd=folder)
    return _listed(folder)


def _entries(root: Path, within: Parts, parts: Parts, device: int) -> Iterator[Entry]:
    prefix = "/".join((*parts, ""))
    try:
        with opened_folder(root, (*within, *parts)) as folder:
            folder_status = os.fstat(folder)
            movable = os.access(os.path.join(root, *within, *parts), os.W_OK | os.X_OK)
            for entry in _listed(folder):
                name = f"{prefix}{entry.name}"
                try:
                    found = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    # Gone since the listing.
                    continue
                except OSError as error:
                    problem = f"this user may not read its status ({error.strerror}); grant access to its folder"
                    yield Entry(name, folder_status, problem)
                    continue
                yield Entry(name, found, _problem(found, folder_status, device, movable))
    except FileNotFoundError:
        # Gone since the listing, such as the claims of a batch that another run has finished.
        return
    except OSError as error:
        yield Entry(prefix.rstrip("/"), root.stat(), f"its files cannot be listed ({error.strerror})")


def _problem(found: os.stat_result, folder_status: os.stat_result, device: int, movable: bool) -> str:
    if stat.S_ISLNK(found.st_mode):
        return "it is a link; put the file itself there"
    if found.st_dev != device:
        return "it is on another file system, from which it cannot be renamed; move it to that of the landing folder"
    if stat.S_ISDIR(found.st_mode):
        return ""
    if not stat.S_ISREG(found.st_mode):
        return "it is neither a file nor a folder; remove it"
    if not movable or _is_kept_by_its_owner(found, folder_status):
        return "this user may not move it out of its folder"
    return ""


def _is_kept_by_its_owner(file: os.stat_result, folder: os.stat_result) -> bool:
    """Whether the folder's sticky bit keeps this process's user from renaming the file."""
    return bool(folder.st_mode & stat.S_ISVTX) and os.geteuid() not in (0, file.st_uid, folder.st_uid)


def own_folder(place: Path) -> Path:
    """Create this user's own folder, or check the existing one, so that no other user may write to it.

    If another user has created a file or folder with its name, that file or folder is renamed.

    :raises LandingUnsafeError: if other users could replace the folder's content, or keep creating something in its
        place.
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
    """Remove all permissions of other users on this user's folder. Never follows a link.

    The first version created the folder with the permissions of `umask`.

    :returns: False if the place does not have a folder of this user.
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
    logger.warning("%s did not belong to this pipeline and was renamed to %s; remove it", place, aside)


def is_ours(folder: Path) -> bool:
    """Whether a folder belongs to this user and is not writable by all users. False for a link."""
    try:
        return _is_ours(folder.stat(follow_symlinks=False), folder)
    except OSError:
        return False


def _is_ours(found: os.stat_result, folder: Path) -> bool:
    if not stat.S_ISDIR(found.st_mode):
        return False
    if found.st_uid == os.geteuid() and not found.st_mode & stat.S_IWOTH:
        return True
    created = _status_of_new_file(folder.parent)
    return created is not None and _keeps_no_owners(created) and found.st_uid == created.st_uid


def is_own(folder: Path) -> bool:
    """Whether only this process's user can change the content of a folder, or put another folder in its place.

    A file system without owners and modes, such as exFAT or an SMB share, shows the same owner and mode for every
    folder. There, the folder has to have the owner that new files of this process have.
    """
    try:
        found, parent = folder.stat(follow_symlinks=False), folder.parent.stat()
    except OSError:
        return False
    if not stat.S_ISDIR(found.st_mode):
        return False
    is_kept = bool(parent.st_mode & stat.S_ISVTX) or not _others_may_write(parent)
    is_kept_by_us = is_kept and parent.st_uid in (0, os.geteuid())
    if found.st_uid == os.geteuid() and is_kept_by_us and not _others_may_write(found):
        return True
    created = _status_of_new_file(folder.parent)
    return created is not None and _keeps_no_owners(created) and found.st_uid == created.st_uid == parent.st_uid


def _keeps_no_owners(created: os.stat_result) -> bool:
    return created.st_uid != os.geteuid() or bool(created.st_mode & _OTHERS_WRITE)


def _others_may_write(found: os.stat_result) -> bool:
    # If each user has their own group, `umask` often allows the group to write. No other user is in this group.
    own_group = os.getegid() if os.getegid() == os.geteuid() else None
    return bool(found.st_mode & (stat.S_IWOTH if found.st_gid == own_group else _OTHERS_WRITE))


@lru_cache
def _status_of_new_file(folder: Path) -> os.stat_result | None:
    """The status of a new file of this process in a folder, read from the descriptor, which no user can replace."""
    path = folder / f".{os.getpid()}-{os.urandom(8).hex()}"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)
        with suppress(OSError):
            path.unlink()
