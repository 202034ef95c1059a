"""What is in a folder that others write to, without ever following a link of theirs.

A folder is opened from its root down, each level by the one before (``openat`` with ``O_NOFOLLOW``), so that no name
that somebody exchanges for a link meanwhile leads elsewhere.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

Parts = tuple[str, ...]
"""The names of folders on the way from a root down to one of the folders below it."""

LONGEST_PATH = 4095
"""How many bytes a path may have, where a file is named by it from the file system's root."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Somebody has put a link, or something else that is no folder, in the place of one.
_NO_FOLDER = (errno.ELOOP, errno.ENOTDIR, errno.ENOENT)
_DEEPEST = 500
"""Folders inside each other. Each is opened from its root down, so a folder costs as much as it lies deep."""


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


def opened_file(path: Path) -> int:
    """A regular file, as a descriptor to read from. It is the file of this name and none that the name links to.

    :raises FileNotFoundError: where there is none, or another kind of thing.
    :raises OSError: where it may not be opened.
    """
    try:
        # Without O_NONBLOCK, opening a pipe waits for somebody to write to it.
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (*_NO_FOLDER, errno.ENXIO):
            raise FileNotFoundError(errno.ENOENT, "it is no regular file", os.fspath(path)) from error
        raise
    if stat.S_ISREG(os.fstat(opened).st_mode):
        return opened
    os.close(opened)
    raise FileNotFoundError(errno.ENOENT, "it is no regular file", os.fspath(path))


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
