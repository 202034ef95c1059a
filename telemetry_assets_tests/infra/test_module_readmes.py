"""Each module's README lists its inputs and outputs. Needs Python only, not Terraform."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.readme_tables import MODULES, readme_with_tables
from telemetry_assets_tests.harness.terraform import INFRA


def test_every_module_has_a_readme() -> None:
    assert set(MODULES) == {path.parent for path in INFRA.rglob("variables.tf") if ".terraform" not in path.parts}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_a_readme_lists_the_inputs_and_outputs_that_make_docs_writes(module: Path) -> None:
    assert (module / "README.md").read_text() == readme_with_tables(module)
