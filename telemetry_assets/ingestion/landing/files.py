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

from telemetry_assets.file_system.posix import sync_folder

_SCHEME = "file://"
_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")
_ATTEMPTS = 10
_COPIED_AT_A_TIME = 1024 * 1024
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PLACEHOLDER = "/dev/null/being-claimed"
"""What a placeholder links to: nothing, as there can be no file below another one."""
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
# A link, a device without a reader, or something else that is not a regular file.
_NO_FILE = (errno.ELOOP, errno.ENOTDIR, errno.ENOENT, errno.ENXIO)


class WriterGoesOnError(OSError):
    """A file cannot be copied whole, as somebody keeps changing it."""


def file_uri(path: str) -> str:
    """The URI of a file; :func:`path_of` gives the path back."""
    return f"{_SCHEME}{printable(path)}"


def path_of(uri: str) -> str:
    """The path of the file that :func:`file_uri` has given a URI."""
    # What is no UTF-8 although it is text, such as half of a surrogate pair, is in no URI of a file.
    written = uri.removeprefix(_SCHEME).encode("utf-8", "backslashreplace")
    return os.fsdecode(_ESCAPED.sub(lambda found: bytes.fromhex(found[1].decode()), written))


def printable(path: str) -> str:
    r"""A path as text that UTF-8 can hold; a byte of it that is not UTF-8 shows as an escape, such as ``\xff``.

    Where the path itself has the characters of an escape, its backslash is one (``\x5c``).
    """
    written = _ESCAPED.sub(rb"\\x5cx\1", os.fsencode(path))
    return written.decode("utf-8", "backslashreplace")


def opened_file(path: Path) -> int:
    """A regular file, as a descriptor to read from. It is the file of this name and none that the name links to.

    :raises FileNotFoundError: where there is none, or another kind of thing.
    :raises OSError: where it may not be opened.
    """
    try:
        # Without O_NONBLOCK, opening a pipe waits for somebody to write to it.
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _NO_FILE:
            raise FileNotFoundError(errno.ENOENT, "it is no regular file", os.fspath(path)) from error
        raise
    if stat.S_ISREG(os.fstat(opened).st_mode):
        return opened
    os.close(opened)
    raise FileNotFoundError(errno.ENOENT, "it is no regular file", os.fspath(path))


def take_file(folder: int, name: str, target: Path) -> bool:
    """Rename a file out of an opened folder that others write to; False where a folder has taken its name.

    A link is put at the target first, as no folder can be renamed over one. It stays where the file is gone, or where a
    kill comes between. A target that exists already and is no link is left alone.

    :raises OSError: where it cannot be renamed; with ``EXDEV`` where the target is on another file system.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.symlink(_PLACEHOLDER, target)
    except FileExistsError:
        if not target.is_symlink():
            # Another run has taken it at the same moment.
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
    """Rename a file, or copy it to another file system and remove it here.

    A copy has the file's content and times, and nothing else of it: no owner, mode or attribute that a writer chose.

    :param root: the folder above the target whose folders are brought to the disk.
    :raises WriterGoesOnError: where it changes each time that it is copied.
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
    """Put a copy on the target's file system in the target's place once it is whole and on the disk.

    :raises WriterGoesOnError: where the source changes each time that it is copied: what is added later would be lost.
    """
    for _ in range(_ATTEMPTS):
        with _draft_of(target) as draft:
            if version_of(copy_file(source, draft)) == version_of(source.stat(follow_symlinks=False)):
                draft.rename(target)
                return
    raise WriterGoesOnError(errno.EBUSY, "its writer goes on while it is copied", os.fspath(source))


def copy_file(source: Path, draft: Path) -> os.stat_result:
    """Copy a file's content and times to a new file, and bring that to the disk.

    :returns: what the file was before.
    :raises FileNotFoundError: where it is no regular file.
    """
    with open(opened_file(source), "rb", buffering=0) as file:
        before = os.fstat(file.fileno())
        _copy_content(file.fileno(), draft, before.st_size, (before.st_atime_ns, before.st_mtime_ns))
    return before


def copy_part(source: Path, target: Path, size: int, modified: datetime) -> None:
    """Copy so many bytes from a file's beginning, and give the copy a time.

    :raises OSError: where one of them cannot be read or written.
    """
    moment = int(modified.timestamp() * 1_000_000) * 1000
    with open(opened_file(source), "rb", buffering=0) as file, _draft_of(target) as draft:
        _copy_content(file.fileno(), draft, min(size, os.fstat(file.fileno()).st_size), (moment, moment))
        draft.rename(target)


def _copy_content(source: int, draft: Path, size: int, times: tuple[int, int]) -> None:
    """Copy so many bytes; a part that is a hole stays one, and takes neither space nor time."""
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
    """Where a file has data, up to a size: positions of beginnings and ends. Between them are holes."""
    position = 0
    while position < size:
        try:
            start = os.lseek(file, position, os.SEEK_DATA)
            end = os.lseek(file, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:
                # A hole up to the end.
                return
            # Its file system does not report holes.
            start, end = position, size
        yield start, min(end, size)
        position = end


@contextmanager
def _draft_of(target: Path) -> Iterator[Path]:
    """A path for a file that is renamed to the target once it is whole, so that a kill leaves no half file there.

    Each run has its own, in a folder of all drafts of the target. Those of killed runs are removed once one is whole.
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
