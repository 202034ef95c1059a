"""Glue's table optimizers are for the project's tables."""

from __future__ import annotations

import re

from telemetry_assets.tables import all_tables
from telemetry_assets_tests.harness.terraform import INFRA


def test_every_table_has_optimizers() -> None:
    [block] = re.findall(r"  tables = \{\n(.*?)\n  \}", (INFRA / "optimizers.tf").read_text(), re.DOTALL)
    listed = {
        (database, table)
        for database, tables in re.findall(r"(\w+)\s*= \[(.*?)\]", block)
        for table in re.findall(r'"(\w+)"', tables)
    }
    assert listed == {contract.identifier for contract in all_tables()}
