"""The FileIO of a lakehouse in a folder: files are on the disk before a commit refers to them.

SQLite's commit is on the disk when it returns, but files that PyIceberg wrote may still be in the operating system's
cache. After a loss of power, the catalog would point at files without content.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

from pyiceberg.io.pyarrow import PyArrowFile, PyArrowFileIO

from telemetry_assets.file_system import sync_file, sync_folder

_THREADS = 8
_written: set[Path] = set()
_lock = Lock()


class LocalFileIO(PyArrowFileIO):
    """PyIceberg's FileIO for local files, which also records the files that :func:`sync_written_files` must sync."""

    def new_output(self, location: str) -> PyArrowFile:
        """A file to write, and a record of it."""
        _, _, path = self.parse_location(location, self.properties)
        with _lock:
            _written.add(Path(path))
        return super().new_output(location)


def sync_written_files() -> None:
    """Sync all files that this process wrote through :class:`LocalFileIO` since the last call, and their folders.

    :raises OSError: if the file system cannot, e.g. because of an I/O error; the caller must not commit then.
    """
    with _lock:
        paths = {path for path in _written if path.exists()}
        _written.difference_update(paths)
    try:
        with ThreadPoolExecutor(_THREADS) as threads:
            list(threads.map(sync_file, paths))
            list(threads.map(sync_folder, {path.parent for path in paths}))
    except OSError:
        with _lock:
            _written.update(paths)
        raise
