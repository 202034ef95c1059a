"""The package for remote Spark contains the modules that its program imports, and no others."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from telemetry_assets.engines.package.modules import NOT_IN_JOB_RUNS, ROOT, module_files, modules_digest
from telemetry_assets.tables import derived_tables

IMPORTED_LATER = {
    "telemetry_assets.ingestion.landing.s3",
    "telemetry_assets.lakehouse.glue_catalog",
}
"""Packaged modules that the program imports when it opens the lakehouse and the landing location."""

NOT_PACKAGED = (
    *("assets", "automation", "cli", "definitions", "monitoring", "pipeline", "simulator", "webserver"),
    *("engines.embedded", "engines.package", "engines.remote.engine", "engines.remote.job_runs"),
    *("engines.remote.service", "engines.remote.emr_serverless", "engines.remote.glue", "engines.spark.jars"),
    *("ingestion.batches", "ingestion.intake", "ingestion.replays", "ingestion.landing.folder"),
    *("lakehouse.doctor", "tables.documentation"),
)


@pytest.fixture
def packaged(tmp_path: Path) -> tuple[Path, set[str]]:
    """A folder with the packaged modules only, and their names."""
    names = set()
    for path in module_files():
        relative = path.relative_to(ROOT)
        (tmp_path / relative).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / relative)
        names.add(".".join(relative.with_suffix("").parts).removesuffix(".__init__"))
    return tmp_path, names


def imported_in(folder: Path, names: list[str]) -> set[str]:
    """The modules that a process loads from the folder when it imports the given modules."""
    program = f"""
import importlib, sys
sys.path.insert(0, {str(folder)!r})
for name in {names!r}:
    importlib.import_module(name)
print(*(name for name, one in sys.modules.items() if name.startswith("telemetry_assets")))
"""
    result = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


def test_the_program_needs_every_packaged_module_and_no_other(packaged: tuple[Path, set[str]]) -> None:
    folder, names = packaged
    roots = ["telemetry_assets.engines.remote.entrypoint", "telemetry_assets.lakehouse.s3_file_io"]
    roots += [table.transform for table in derived_tables()]
    assert names == imported_in(folder, roots) | IMPORTED_LATER


def test_every_packaged_module_can_be_imported_from_the_package_alone(packaged: tuple[Path, set[str]]) -> None:
    folder, names = packaged
    assert imported_in(folder, sorted(names)) == names


def test_modules_that_are_named_in_texts_are_packaged(packaged: tuple[Path, set[str]]) -> None:
    folder, names = packaged
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and re.fullmatch(r"telemetry_assets(\.\w+)+", str(node.value)):
                module = re.sub(r"\.[A-Z]\w*$", "", str(node.value))
                assert module in {*names, *NOT_IN_JOB_RUNS}, f"{path} names {module}"


@pytest.mark.parametrize("name", NOT_PACKAGED)
def test_modules_that_a_job_run_does_not_use_are_not_packaged(name: str) -> None:
    place = ROOT / "telemetry_assets" / Path(*name.split("."))
    assert place.is_dir() or place.with_suffix(".py").is_file()
    assert [path for path in module_files() if place in (path.with_suffix(""), *path.parents)] == []


@pytest.mark.parametrize(
    ("edited", "is_other"),
    [
        ("cli/process.py", False),
        ("automation/sensors.py", False),
        ("ingestion/landing/folder.py", False),
        ("engines/remote/job_runs.py", False),
        ("transforms/gold_performance_alerts.py", True),
        ("engines/spark/parser.py", True),
        ("tables/silver_car_telemetry.py", True),
    ],
)
def test_only_edits_of_packaged_modules_require_another_package(tmp_path: Path, edited: str, is_other: bool) -> None:
    shutil.copytree(ROOT / "telemetry_assets", tmp_path / "telemetry_assets")
    before = modules_digest(tmp_path)
    assert before == modules_digest(ROOT)
    path = tmp_path / "telemetry_assets" / edited
    path.write_text(f"{path.read_text()}\n# An edit.\n")
    assert (modules_digest(tmp_path) != before) == is_other


def test_libraries_in_the_same_folder_are_not_packaged(tmp_path: Path, packaged: tuple[Path, set[str]]) -> None:
    folder, _ = packaged
    digest = modules_digest(folder)
    # A folder such as site-packages, where the code imports this library from.
    (folder / "tenacity").mkdir()
    (folder / "tenacity" / "__init__.py").write_text("raise ImportError('it is read, not imported')\n")
    assert modules_digest(folder) == digest
