"""Small disks that become full or read-only: tmpfs in a mount namespace of this process and its children.

This needs root, or the capability to mount. Otherwise :func:`mounts_permitted` is False, and no schedule has a disk
of its own.

A read-only bind mount makes a disk read-only, because the kernel refuses to remount a file system while SQLite has a
file open for writing. Open files keep their mode, as with a remount; opening, creating, renaming or removing a file
afterwards fails with ``EROFS``.
"""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

_CLONE_NEWNS = 0x00020000
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
_MNT_DETACH = 2
_PAGE = 4096
_SIZE = "24m"
FILLER = ".filler"
"""The file that fills a disk. No upload has its name."""

_libc = ctypes.CDLL(None, use_errno=True)


def _call(answer: int, what: str) -> None:
    if answer:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _mount(source: str, target: Path | str, kind: str | None, flags: int, options: str | None = None) -> None:
    given = [None if text is None else text.encode() for text in (source, str(target), kind, options)]
    _call(_libc.mount(given[0], given[1], given[2], ctypes.c_ulong(flags), given[3]), f"mount {target}")


def own_namespace() -> None:
    """Give this process and its later children their own mount namespace. Call it before starting threads."""
    _call(_libc.unshare(_CLONE_NEWNS), "unshare")
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE)


def try_all() -> None:
    """Try everything that schedules do with disks, in a process that ends afterwards."""
    own_namespace()
    with TemporaryDirectory() as folder:
        disk = Disk(Path(folder))
        disk.attach()
        disk.turn("read-only", 0)
        disk.heal()
        disk.detach()


def mounts_permitted() -> bool:
    """Whether disks can be mounted here, tried in a separate process."""
    program = f"from {__name__} import {try_all.__name__}; {try_all.__name__}()"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=False).returncode == 0


class Disk:
    """A small file system at a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read_only = False
        self._attached = False

    def attach(self) -> None:
        """Mount an empty disk."""
        self.folder.mkdir(parents=True, exist_ok=True)
        _mount("tmpfs", self.folder, "tmpfs", 0, f"size={_SIZE}")
        self._attached = True

    def turn(self, what: Literal["full", "read-only"], pages: int) -> None:
        """Fill the disk except for some pages, or make it read-only."""
        if what == "read-only":
            _mount(str(self.folder), self.folder, None, _MS_BIND)
            self._read_only = True
            _mount("none", self.folder, None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY)
            return
        with (self.folder / FILLER).open("ab") as filler:
            while (size := self._free_bytes() - pages * _PAGE) > 0:
                # Other processes may have written since the free space was read.
                with suppress(OSError):
                    os.posix_fallocate(filler.fileno(), 0, size)
                    return

    def _free_bytes(self) -> int:
        space = os.statvfs(self.folder)
        return space.f_bavail * space.f_frsize

    def heal(self) -> None:
        """Make the disk writable and remove its filler."""
        if self._read_only:
            self._read_only = False
            _call(_libc.umount2(str(self.folder).encode(), _MNT_DETACH), f"umount {self.folder}")
        with suppress(OSError):
            (self.folder / FILLER).unlink(missing_ok=True)

    def detach(self) -> None:
        """Unmount the disk with everything on it.

        An open connection to SQLite would, when closed, remove the WAL of the next disk's database, which has the same
        path and, because tmpfs restarts its inode numbers, the same inode.
        """
        gc.collect()
        self.heal()
        if self._attached:
            self._attached = False
            _call(_libc.umount2(str(self.folder).encode(), _MNT_DETACH), f"umount {self.folder}")
