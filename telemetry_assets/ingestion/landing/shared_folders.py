"""Folders that other users write to: listing them without following links, and this user's own folders in them.

A folder is opened level by level from its root (``openat`` with ``O_NOFOLLOW``), so a name that is replaced by a link
meanwhile does not lead elsewhere.
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
"""The names of folders on the way from a root down to one of the folders below it."""

LONGEST_PATH = 4095
"""How many bytes a path may have, where a file is named by it from the file system's root."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Somebody has put a link, or something else that is no folder, in the place of one.
_NO_FOLDER = (errno.ELOOP, errno.ENOTDIR, errno.ENOENT)
_DEEPEST = 500
"""Folders inside each other. Each is opened from its root down, so a folder costs as much as it lies deep."""
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_ATTEMPTS = 100
"""How often this process makes its folder while somebody keeps putting something else into its place."""
# Somebody has put something else into the place, or a folder that keeps its own owner's files.
_NOT_OPENED = (errno.ELOOP, errno.ENOTDIR, errno.ENOENT, errno.EACCES)


@dataclass(frozen=True)
class Entry:
    """Something below a folder.

    :param name: its path below the folder.
    :param problem: why it cannot be taken; empty where it can.
    """

    name: str
    found: os.stat_result
    problem: str = ""

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file that can be taken."""
        return not self.problem and stat.S_ISREG(self.found.st_mode)


def entries_below(root: Path, within: Parts = (), longest: int = LONGEST_PATH) -> Iterator[Entry]:
    """Every file below a folder and in no hidden one, and what else cannot be taken, each with the reason.

    :param within: the folder below the root; the root itself where it is empty. Names begin there.
    :param longest: how many bytes a name may have. It bounds how deep folders are looked into, too.
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
                yield replace(entry, problem=f"it lies deeper than {_DEEPEST} folders; move it up")
            elif len(os.fsencode(entry.name)) > longest:
                yield replace(entry, problem="its path is too long for the archive; give it a shorter one")
            elif stat.S_ISDIR(entry.found.st_mode) and not entry.problem:
                if not os.path.basename(entry.name).startswith((".", "_")):
                    folders.append(tuple(entry.name.split("/")))
            else:
                yield entry


def folders_in(root: Path, within: Parts = ()) -> list[str]:
    """The names of the folders that a folder below a root holds itself; links to folders are none."""
    try:
        with opened_folder(root, within) as folder, os.scandir(folder) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, PermissionError):
        return []


@contextmanager
def opened_folder(root: Path, parts: Parts) -> Iterator[int]:
    """A folder below another one, as a descriptor, no link being followed below the root.

    :raises FileNotFoundError: where there is no such folder, or a link is on the way.
    :raises OSError: where it may not be opened.
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
    """Remove a folder and those in it, unless there is a file.

    :param links: whether links in it are removed too; otherwise a folder with one stays.
    :returns: why any of them stays: another process has removed it first, or has just put something there, or this
        process may not look into it.
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
    """What a folder holds, once the links in it are removed."""
    for entry in _listed(folder):
        # Not by the listing: a run that is late may have just put a file into its place.
        if stat.S_ISLNK(os.stat(entry.name, dir_fd=folder, follow_symlinks=False).st_mode):
            os.unlink(entry.name, dir_fd=folder)
    return _listed(folder)


def _entries(root: Path, within: Parts, parts: Parts, device: int) -> Iterator[Entry]:
    prefix = "/".join((*parts, ""))
    try:
        with opened_folder(root, (*within, *parts)) as folder:
            held = os.fstat(folder)
            movable = os.access(os.path.join(root, *within, *parts), os.W_OK | os.X_OK)
            for entry in _listed(folder):
                name = f"{prefix}{entry.name}"
                try:
                    found = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    # Gone since the listing: there is nothing to take.
                    continue
                except OSError as error:
                    problem = f"this user may not look at it ({error.strerror}); let this user into its folder"
                    yield Entry(name, held, problem)
                    continue
                yield Entry(name, found, _problem(found, held, device, movable))
    except FileNotFoundError:
        # Gone since the listing, such as the claims of a batch that another run has ended.
        return
    except OSError as error:
        yield Entry(prefix.rstrip("/"), root.stat(), f"its files cannot be listed ({error.strerror})")


def _problem(found: os.stat_result, held: os.stat_result, device: int, movable: bool) -> str:
    if stat.S_ISLNK(found.st_mode):
        return "it is a link; put the file itself there"
    if found.st_dev != device:
        return "it is on another file system, out of which nothing can be renamed"
    if stat.S_ISDIR(found.st_mode):
        return ""
    if not stat.S_ISREG(found.st_mode):
        return "it is neither a file nor a folder; remove it"
    if not movable or _is_kept_by_its_owner(found, held):
        return "this user may not move it out of its folder"
    return ""


def _is_kept_by_its_owner(file: os.stat_result, folder: os.stat_result) -> bool:
    """Whether the folder's sticky bit lets only others than this process's user rename the file."""
    return bool(folder.st_mode & stat.S_ISVTX) and os.geteuid() not in (0, file.st_uid, folder.st_uid)


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
