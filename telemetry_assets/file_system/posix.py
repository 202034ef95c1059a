"""POSIX calls that differ between file systems: locks (flock) and writing to the disk (fsync)."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import IO, Any


def lock_file(file: IO[Any], *, wait: bool = True) -> None:
    """Lock an open file for this process; closing the file releases the lock.

    :param wait: whether to wait until another process releases its lock.
    :raises BlockingIOError: if another process has locked the file and ``wait`` is False.
    :raises OSError: with ``ENOLCK`` if the file system does not support locks.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.ENOLCK):
            raise
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK), file.name) from error


def sync_file(path: Path) -> None:
    """Write a file's content to the disk.

    :raises OSError: if the disk reports an error.
    """
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Write a folder's entries (the names of its files) to the disk, if the file system supports it.

    :raises OSError: if the disk reports an error.
    """
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    except OSError as error:
        # Some network file systems do not support fsync of a folder.
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.ENOSYS):
            raise
    finally:
        os.close(opened)
