"""One file that other users may still write to: its URI and version, and how it is opened, moved and copied."""

from __future__ import annotations

import errno
import filecmp
import hashlib
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from telemetry_assets.file_system import sync_folder

_SCHEME = "file://"
_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")
_ATTEMPTS = 10
_COPIED_AT_A_TIME = 1024 * 1024
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PLACEHOLDER = "/dev/null/being-claimed"
"""The target of a placeholder link. It can never exist, because ``/dev/null`` is not a folder."""
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
# A link, a device without a reader, or something else that is not a regular file.
_NO_FILE = (errno.ELOOP, errno.ENOTDIR, errno.ENOENT, errno.ENXIO)


class ChangedDuringCopyError(OSError):
    """A file cannot be copied completely, because its writer keeps changing it."""


def file_uri(path: str) -> str:
    """The URI of a file. The URI is text, although a path may have any bytes. No two paths have the same URI."""
    return f"{_SCHEME}{printable(path)}"


def path_of(uri: str) -> str:
    """The path of a URI from :func:`file_uri`."""
    # A lone surrogate is never part of a URI from file_uri, but it must not raise an error here.
    written = uri.removeprefix(_SCHEME).encode("utf-8", "backslashreplace")
    return os.fsdecode(_ESCAPED.sub(lambda found: bytes.fromhex(found[1].decode()), written))


def printable(path: str) -> str:
    r"""A path as valid text: each byte that is not UTF-8 becomes an escape such as ``\xff``.

    If the path itself has the characters of such an escape, its backslash is escaped (``\x5c``).
    """
    written = _ESCAPED.sub(rb"\\x5cx\1", os.fsencode(path))
    return written.decode("utf-8", "backslashreplace")


def opened_file(path: Path) -> int:
    """Open a regular file for reading, without following a link.

    :returns: the file descriptor.
    :raises FileNotFoundError: if it does not exist, or is not a regular file.
    :raises OSError: if it may not be opened.
    """
    try:
        # Without O_NONBLOCK, opening a pipe waits for a writer.
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _NO_FILE:
            raise FileNotFoundError(errno.ENOENT, "it is not a regular file", os.fspath(path)) from error
        raise
    if stat.S_ISREG(os.fstat(opened).st_mode):
        return opened
    os.close(opened)
    raise FileNotFoundError(errno.ENOENT, "it is not a regular file", os.fspath(path))


def take_file(folder: int, name: str, target: Path) -> bool:
    """Rename a file out of a folder that other users write to.

    First a placeholder link is created at the target, so that the rename fails if a folder has the name now. The link
    stays if the file is gone or the process is killed. A target that exists and is not a link stays as it is.

    :param folder: the descriptor of the folder.
    :returns: False if a folder has the name now.
    :raises OSError: if it cannot be renamed; with ``EXDEV`` if the target is on another file system.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.symlink(_PLACEHOLDER, target)
    except FileExistsError:
        if not target.is_symlink():
            # Another run has renamed it there at the same time.
            return True
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    try:
        os.rename(name, target, src_dir_fd=folder)
    except NotADirectoryError:
        return False
    return True


def move_file(source: Path, target: Path, root: Path) -> None:
    """Rename a file, or copy it to another file system and delete it.

    A copy has the content and times of the file, but not the owner, mode or attributes that its writer chose.

    :param root: a folder above the target. The folders between them are synced after a copy.
    :raises ChangedDuringCopyError: if the file changes during each attempt to copy it.
    """
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy_whole(source, target)
        for folder in (target.parent, *target.parent.parents):
            sync_folder(folder)
            if folder == root:
                break
        source.unlink()


def _copy_whole(source: Path, target: Path) -> None:
    """Copy a file to a draft, sync it, and rename the draft to the target.

    :raises ChangedDuringCopyError: if the source changes during each attempt, because data that is added later would be
        lost.
    """
    for _ in range(_ATTEMPTS):
        with _draft_of(target) as draft:
            if version_of(copy_file(source, draft)) == version_of(source.stat(follow_symlinks=False)):
                draft.rename(target)
                return
    raise ChangedDuringCopyError(errno.EBUSY, "it changed while it was copied", os.fspath(source))


def copy_file(source: Path, draft: Path) -> os.stat_result:
    """Copy a file's content and times to a new file, and sync it.

    :returns: the status of the source before it was copied.
    :raises FileNotFoundError: if the source is not a regular file.
    """
    with open(opened_file(source), "rb", buffering=0) as file:
        before = os.fstat(file.fileno())
        _copy_content(file.fileno(), draft, before.st_size, (before.st_atime_ns, before.st_mtime_ns))
    return before


def copy_part(source: Path, target: Path, size: int, modified: datetime) -> None:
    """Copy the first bytes of a file.

    :param size: how many bytes to copy.
    :param modified: the modification time of the copy.
    :raises OSError: if the source cannot be read or the target cannot be written.
    """
    moment = int(modified.timestamp() * 1_000_000) * 1000
    with open(opened_file(source), "rb", buffering=0) as file, _draft_of(target) as draft:
        _copy_content(file.fileno(), draft, min(size, os.fstat(file.fileno()).st_size), (moment, moment))
        draft.rename(target)


def _copy_content(source: int, draft: Path, size: int, times: tuple[int, int]) -> None:
    """Copy the first ``size`` bytes and sync them. Holes of a sparse file stay holes."""
    with open(os.open(draft, _NEW_FILE, 0o640), "wb") as copied:
        for start, end in _data_in(source, size):
            copied.seek(start)
            while start < end and (piece := os.pread(source, min(end - start, _COPIED_AT_A_TIME), start)):
                copied.write(piece)
                start += len(piece)
        copied.flush()
        os.ftruncate(copied.fileno(), size)
        os.utime(copied.fileno(), ns=times)
        os.fsync(copied.fileno())


def _data_in(file: int, size: int) -> Iterator[tuple[int, int]]:
    """The start and end of each range of a file that has data, up to ``size``. Between the ranges are holes."""
    position = 0
    while position < size:
        try:
            start = os.lseek(file, position, os.SEEK_DATA)
            end = os.lseek(file, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:
                # The rest of the file is a hole.
                return
            # The file system does not report holes.
            start, end = position, size
        yield start, min(end, size)
        position = end


@contextmanager
def _draft_of(target: Path) -> Iterator[Path]:
    """A path for a draft, to be renamed to the target when it is complete.

    Each run has its own draft, in one folder for each target. The folder is removed when the target exists, together
    with drafts of killed runs.
    """
    folder = target.with_name(f".{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:32]}")
    folder.mkdir(mode=0o700, exist_ok=True)
    draft = folder / os.urandom(4).hex()
    try:
        yield draft
    finally:
        with suppress(OSError):
            draft.unlink()
    if target.exists():
        shutil.rmtree(folder, ignore_errors=True)


def is_another(claimed: Path, archived: Path) -> bool:
    """Whether the archive has a different file at this path.

    On a file system that ignores case, several uploads can have the same path.
    """
    try:
        return not filecmp.cmp(claimed, archived, shallow=False)
    except (FileNotFoundError, NotADirectoryError):
        return False


def version_of(found: os.stat_result) -> str:
    """Identifies a version of a file."""
    return f"{found.st_ino}-{found.st_mtime_ns}-{found.st_size}"
