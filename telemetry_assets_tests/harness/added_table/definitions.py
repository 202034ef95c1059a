"""The definitions that Dagster loads if the registry has one more table."""

from __future__ import annotations

from telemetry_assets import tables
from telemetry_assets_tests.harness.added_table.table import DAILY_DISTANCE

tables.TABLES = (*tables.TABLES, DAILY_DISTANCE)

from telemetry_assets.definitions import defs  # noqa: E402  # the registry is read when the definitions are made

__all__ = ["defs"]
