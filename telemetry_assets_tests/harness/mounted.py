"""File systems that are mounted in the mount namespace of a test's process, and end with it.

This needs root, or a kernel with user namespaces. Otherwise the tests fail.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000


def leave_mounts_to_others() -> None:
    """Give this process, which must have no threads yet, its own mount namespace."""
    user, flags = os.geteuid(), _CLONE_NEWNS
    if user:
        flags |= _CLONE_NEWUSER
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags):
        number = ctypes.get_errno()
        raise OSError(number, f"no mounts of its own for a test: {os.strerror(number)}")
    if user:
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    _mount("--make-rprivate", "/")


def mount_tmpfs(folder: Path, size: str) -> Path:
    """Mount a file system in memory at a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={size}", "none", str(folder))
    return folder


def make_ext4(image: Path, size: int) -> None:
    """Create an image of an empty ext4 file system."""
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)


def mount_image(image: Path, folder: Path) -> Path:
    """Mount an image's file system at a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    _mount("-o", "loop", str(image), str(folder))
    return folder


def remount(folder: Path, mode: str) -> None:
    """Make a mounted file system read-only (``ro``) or writable again (``rw``)."""
    _mount("-o", f"remount,{mode}", str(folder))


@contextmanager
def filled(folder: Path, left: int) -> Iterator[None]:
    """Fill a file system until ``left`` bytes are free, for the duration of the context."""
    filler = folder / ".filler"
    found = os.statvfs(folder)
    with filler.open("wb") as file:
        file.write(bytes(max(found.f_bavail * found.f_frsize - left, 0)))
    try:
        yield
    finally:
        filler.unlink()


def _mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"mount {' '.join(arguments)}: {done.stderr}"
