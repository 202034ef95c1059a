"""Local file systems: locks, writing to the disk, and storage errors.

Storage errors are errors of file systems, and limits of the operating system, that say nothing about the data: no
space, read-only, I/O errors, too many open files. This module finds them in exceptions of libraries, and creates
messages that say what to do. ``ingestion/storage_checks.py`` tests whether a file system has what the pipeline needs.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import resource
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from telemetry_assets.errors import StorageError, TelemetryAssetsError
from telemetry_assets.text.formatting import megabytes

_WAITS = "the batch waits, and the next run continues it."
# Errors of Rust and gRPC reach Python only as text, in these forms.
_NUMBER_IN_TEXT = re.compile(r"\(os error (\d+)\)|\[[Ee]rrno (\d+)\]|\bOs \{ code: (\d+)")
_NUMBERS_IN_TEXT = ("pyspark.", "grpc.", "pysail.", "pyo3_runtime.")
_NO_TEMPORARY_FOLDER = "No usable temporary directory"


def lock_file(file: IO[Any], *, wait: bool = True) -> None:
    """Lock a file against all others that open it, in this process or another. Closing the file releases the lock.

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


def _no_space(place: Path) -> str:
    try:
        found = os.statvfs(place)
    except OSError:
        return f"There is no space left on the file system of {place}. Free some space"
    if found.f_files and not found.f_favail and found.f_bavail:
        return (
            f"No more files can be created on the file system of {place} (all of its {found.f_files:,} inodes are in "
            "use). Remove files that are not needed"
        )
    free, total = (megabytes(blocks * found.f_frsize) for blocks in (found.f_bavail, found.f_blocks))
    return f"There is no space left on the file system of {place} ({free} free of {total}). Free some space"


def _open_files(_: Path) -> str:
    limit, _most = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (
        f"This process has reached its limit of open files ({limit:,}). Raise the limit, for example with "
        "`ulimit -n 4096` or systemd's LimitNOFILE="
    )


_ADVICE: dict[int, Callable[[Path], str]] = {
    errno.ENOSPC: _no_space,
    errno.EDQUOT: ("This user's quota on the file system of {} is used up. Free some space, or raise the quota").format,
    errno.EROFS: (
        "The file system of {} is read-only. Mount it read-write (the machine's log says whether it was made read-only "
        "after an error)"
    ).format,
    errno.EIO: (
        "The file system of {} returned an I/O error. The machine's log names the disk or the server. Repair it, or "
        "move the unreadable file out of its claim folder"
    ).format,
    errno.EMFILE: _open_files,
    errno.ENFILE: (
        "This machine has reached its limit of open files. Raise fs.file-max, or stop processes that have many files "
        "open"
    ).format,
    errno.ESTALE: (
        "The file system of {} was replaced or exported again by its server (stale file handle). Mount it again"
    ).format,
    errno.ENOLCK: (
        "The file system of {} does not support locks (flock). Start the server's lock service (lockd for NFS), or "
        "mount it with lock support"
    ).format,
}
"""For each storage error, the problem of a folder's file system, and the solution."""


def storage_advice(number: int, place: str | Path) -> str:
    """A message for an error number: the problem of a folder's file system, and the solution.

    :param number: the number of a storage error, such as ``errno.ENOSPC``.
    """
    return f"{_ADVICE[number](Path(place))}; {_WAITS}"


def is_storage_error(error: BaseException) -> bool:
    """Whether an error comes from the file system or a limit of the process, so that a later attempt may succeed."""
    return isinstance(error, OSError) and error.errno in _ADVICE


@contextmanager
def translate_storage_errors(*folders: Path) -> Iterator[None]:
    """Convert storage errors, even if a library has wrapped them, to a :class:`StorageError` that says what to do.

    Every other error passes unchanged.

    :param folders: the folders that the work uses. An error that names no file is attributed to one of them, or to the
        folder for temporary files.
    :raises StorageError: in place of every storage error.
    """
    try:
        yield
    except TelemetryAssetsError:
        raise
    except BaseException as error:
        # A panic of the embedded engine is a BaseException. KeyboardInterrupt and SystemExit are not failures.
        is_failure = isinstance(error, Exception) or type(error).__module__ == "pyo3_runtime"
        text = _explained(error, folders) if is_failure else None
        if text is None:
            raise
        raise StorageError(text) from error


def _explained(error: BaseException, folders: Sequence[Path]) -> str | None:
    for cause in _chain(error):
        if isinstance(cause, OSError) and _NO_TEMPORARY_FOLDER in str(cause):
            return (
                f"No folder for temporary files is writable. Free some space, or set TMPDIR to another folder; {_WAITS}"
            )
        number = _number(cause)
        if number in _ADVICE:
            return storage_advice(number, _place(cause, number, [*folders, *_temporary_folder()]))
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _number(error: BaseException) -> int:
    if isinstance(error, OSError):
        return error.errno or 0
    if isinstance(error, ImportError):
        # This happens if a compiled module is first imported after the limit of open files was reached.
        return next((number for number in _ADVICE if os.strerror(number) in str(error)), 0)
    # Only the texts of these errors are searched, because the text of any other error may quote an upload.
    if type(error) is RuntimeError or f"{type(error).__module__}.".startswith(_NUMBERS_IN_TEXT):
        found = _NUMBER_IN_TEXT.search(str(error))
        return int(found[found.lastindex or 0]) if found else 0
    return 0


def _place(error: BaseException, number: int, folders: Sequence[Path]) -> Path:
    """The folder to name in the message: one of ``folders``, or the mount point of another file system below it."""
    # If an error has two names, the second is the target of the operation.
    named = getattr(error, "filename2", None) or getattr(error, "filename", None)
    if isinstance(named, (str, bytes)):
        path = Path(os.fsdecode(named))
        folder = next((one for one in folders if path.is_relative_to(one)), None)
        return _mounted(path, folder) if folder else path.parent
    return next((one for one in folders if _looks_like(number, one)), folders[0] if folders else Path())


def _mounted(path: Path, folder: Path) -> Path:
    with suppress(OSError):
        device = folder.stat().st_dev
        inner = [one for one in (path, *path.parents) if one.is_relative_to(folder) and one.exists()]
        apart = [one for one in inner if one.stat().st_dev != device]
        if apart and inner[0] in apart:
            return apart[-1]
    return folder


def _looks_like(number: int, folder: Path) -> bool:
    try:
        found = os.statvfs(folder)
    except OSError:
        return number == errno.ESTALE
    if number == errno.EROFS:
        return bool(found.f_flag & os.ST_RDONLY)
    is_full = found.f_bavail * found.f_frsize < 0.02 * found.f_blocks * found.f_frsize
    return number == errno.ENOSPC and (is_full or (found.f_files > 0 and not found.f_favail))


def _temporary_folder() -> list[Path]:
    try:
        return [Path(tempfile.gettempdir())]
    except OSError:
        return []
