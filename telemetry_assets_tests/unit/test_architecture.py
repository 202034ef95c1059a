"""The rules of the architecture: imports, module docstrings, module sizes and lazy imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import telemetry_assets

PACKAGE = Path(telemetry_assets.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))


def test_modules_import_from_below_and_never_from_above() -> None:
    result = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_says_what_belongs_in_it_and_stays_below_500_lines(module: Path) -> None:
    text = module.read_text()
    assert ast.get_docstring(ast.parse(text))
    assert text.count("\n") <= 500


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_function_has_more_than_40_lines(module: Path) -> None:
    long = {
        f"{node.name}, line {node.lineno}"
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= 40
    }
    assert long == set()


@pytest.mark.parametrize(
    ("imported", "spared"),
    [
        ("telemetry_assets.definitions", ["boto3", "pyspark", "pysail"]),
        ("telemetry_assets.engines.embedded", ["boto3", "aiohttp", "pysail"]),
    ],
)
def test_nothing_of_aws_or_an_engine_is_imported_before_it_is_used(imported: str, spared: list[str]) -> None:
    program = f"import sys, telemetry_assets.pipeline, {imported}; print(sorted({{*{spared}}} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert result.stdout.strip() == "[]"


def test_importing_the_transforms_starts_no_engine_and_reads_no_setting() -> None:
    program = (
        "import os, sys; os.environ['TELEMETRY_ENGINE'] = 'nonsense';"
        "import telemetry_assets.transforms.silver_car_telemetry, telemetry_assets.pipeline;"
        "assert 'pysail' not in sys.modules and 'dagster' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
