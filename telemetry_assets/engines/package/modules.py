"""The modules of a package: only those that the entry point and the transforms import."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import version
from modulefinder import ModuleFinder
from pathlib import Path
from typing import Any

from telemetry_assets.tables import derived_tables

ROOT = Path(__file__).resolve().parents[3]
"""The folder that has the folder ``telemetry_assets``."""

ENTRY_POINT = ROOT / "telemetry_assets" / "engines" / "remote" / "entrypoint.py"

IMPORTED_BY_NAME = ("telemetry_assets.lakehouse.s3_file_io",)
"""Modules that packaged modules load by name and not with an import statement: PyIceberg loads its FileIO this way."""

_PROJECT_PACKAGES = ("telemetry_assets", "telemetry_assets_tests")

NOT_IN_JOB_RUNS = (
    "telemetry_assets.engines.embedded",
    "telemetry_assets.engines.remote.engine",
    "telemetry_assets.engines.spark.session",
    "telemetry_assets.ingestion.journal.file",
    "telemetry_assets.ingestion.journal.s3",
    "telemetry_assets.ingestion.landing.folder",
)
"""Modules that packaged modules import in functions that a job run does not call."""


@cache
def package_name() -> str:
    """The name of the package of the code that this process runs: the version, and a digest of the modules."""
    return f"{version('telemetry-assets')}-{modules_digest(ROOT)}"


def modules_digest(root: Path) -> str:
    """A digest of the names and the content of the packaged modules.

    :param root: the folder that has the folder ``telemetry_assets``.
    """
    digest = hashlib.sha256()
    for path in module_files(root):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


class _ProjectModules(ModuleFinder):
    """Finds modules of this project only, also if libraries are installed in the same folder."""

    def find_module(self, name: str, path: Any, parent: Any = None) -> Any:
        """Find a module.

        :raises ImportError: if it is not a module of this project.
        """
        if path is None and name not in _PROJECT_PACKAGES:
            raise ImportError(name)
        return super().find_module(name, path, parent)


def module_files(root: Path = ROOT) -> list[Path]:
    """The files of the packaged modules, sorted.

    :param root: the folder that has the folder ``telemetry_assets``.
    """
    finder = _ProjectModules(path=[str(root)], excludes=NOT_IN_JOB_RUNS)
    entry_point = ".".join(ENTRY_POINT.relative_to(ROOT).with_suffix("").parts)
    for name in (entry_point, *(table.transform for table in derived_tables()), *IMPORTED_BY_NAME):
        finder.import_hook(name)
    # Modules of the interpreter, such as `sys`, have no file. typeshed lacks the attribute.
    files = [module.__file__ for module in finder.modules.values()]  # type: ignore[attr-defined]
    return sorted(map(Path, filter(None, files)))
