"""The rules of the test folders: unit tests start no service or program, and collecting a test file is quick."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

UNIT = Path(__file__).resolve().parent
TESTS = UNIT.parent
STARTS_A_PROGRAM = re.compile(
    r"harness\.(aws|deployment|forked|java|killed_process|mounted|on_engines|running_\w+|s3_place)\b|"
    r"\b(aws|aws_services|deployed|instance): "
)


@pytest.mark.parametrize("file", sorted(path.relative_to(UNIT).as_posix() for path in UNIT.rglob("*.py")))
def test_a_unit_test_uses_no_service_and_no_program(file: str) -> None:
    if file != Path(__file__).name:
        assert STARTS_A_PROGRAM.findall((UNIT / file).read_text()) == []


@pytest.mark.parametrize("conftest", ["conftest.py", "unit/transforms/conftest.py"])
def test_collecting_imports_neither_the_product_nor_the_harness(conftest: str) -> None:
    module = f"telemetry_assets_tests.{conftest.removesuffix('.py').replace('/', '.')}"
    program = f"""
import sys, {module}
heavy = ("boto3", "dagster", "moto", "pyarrow", "pyiceberg", "pyspark", "telemetry_assets")
print([name for name in sys.modules if name in heavy or name.startswith("telemetry_assets_tests.harness")])
"""
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=TESTS.parent, capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"
