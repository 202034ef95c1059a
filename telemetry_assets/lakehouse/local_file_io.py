"""How PyIceberg writes files in a folder: they are on the disk before a commit names them.

The catalog's own commit is on the disk when it returns. Without this, a loss of power could leave an entry that points
at files whose content was still in memory, of uploads that are in the archive.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

from pyiceberg.io.pyarrow import PyArrowFile, PyArrowFileIO

from telemetry_assets.file_system.posix import sync_file, sync_folder

_THREADS = 8
_written: set[Path] = set()
_one_at_a_time = Lock()


class LocalFileIO(PyArrowFileIO):
    """PyIceberg's own, which also remembers the files that no commit has yet brought to the disk."""

    def new_output(self, location: str) -> PyArrowFile:
        """A file to be written."""
        _, _, path = self.parse_location(location, self.properties)
        with _one_at_a_time:
            _written.add(Path(path))
        return super().new_output(location)


def sync_written_files() -> None:
    """Bring every file that this process has written through :class:`LocalFileIO` to the disk, with its folder.

    :raises OSError: where the file system cannot, such as with an I/O error; nothing may be committed then.
    """
    with _one_at_a_time:
        paths = {path for path in _written if path.exists()}
        _written.difference_update(paths)
    try:
        with ThreadPoolExecutor(_THREADS) as threads:
            list(threads.map(sync_file, paths))
            list(threads.map(sync_folder, {path.parent for path in paths}))
    except OSError:
        with _one_at_a_time:
            _written.update(paths)
        raise
