"""The registry of tables: one file per table, each table after its upstream.

A table's file defines its columns, key, partitions, upstream, figures and freshness. Catalog tables, engine steps,
assets, jobs, checks and documentation are derived from the registry. This package imports neither Dagster nor Spark.
"""

from __future__ import annotations

from telemetry_assets.tables.bronze_car_telemetry import BRONZE
from telemetry_assets.tables.bronze_rejected_documents import REJECTED
from telemetry_assets.tables.bronze_uploads import UPLOADS
from telemetry_assets.tables.contract import DerivedTable, TableContract
from telemetry_assets.tables.gold_car_current_state import CURRENT_STATE
from telemetry_assets.tables.gold_fuel_efficiency_monthly import FUEL_EFFICIENCY
from telemetry_assets.tables.gold_performance_alerts import ALERTS
from telemetry_assets.tables.silver_car_telemetry import SILVER

__all__ = [
    "ALERTS",
    "BRONZE",
    "CURRENT_STATE",
    "FUEL_EFFICIENCY",
    "REJECTED",
    "SILVER",
    "TABLES",
    "UPLOADS",
    "DerivedTable",
    "TableContract",
    "all_tables",
    "derived_table_named",
    "derived_tables",
    "table_named",
]

TABLES: tuple[TableContract, ...] = (BRONZE, REJECTED, UPLOADS, SILVER, CURRENT_STATE, FUEL_EFFICIENCY, ALERTS)
"""The registry: every table, each after its upstream."""


def all_tables() -> tuple[TableContract, ...]:
    """Every table, each after its upstream."""
    return TABLES


def derived_tables() -> tuple[DerivedTable, ...]:
    """The tables that a transform computes, each after its upstream."""
    return tuple(table for table in all_tables() if isinstance(table, DerivedTable))


def table_named(name: str) -> TableContract:
    """The table with a name.

    :param name: ``<layer>.<table>``, ``<layer>/<table>``, or ``<table>`` if only one layer has a table of that name.
    :raises KeyError: if there is no such table; the error's text lists the tables.
    """
    for table in all_tables():
        if name in (table.full_name, "/".join(table.identifier)):
            return table
    candidates = [table for table in all_tables() if table.name == name]
    if len(candidates) == 1:
        return candidates[0]
    raise KeyError(f"there is no table {name!r}; the tables are {', '.join(one.full_name for one in all_tables())}")


def derived_table_named(name: str) -> DerivedTable:
    """The derived table with a name.

    :param name: see :func:`table_named`.
    :raises KeyError: if there is no such table, or if no transform computes it.
    """
    table = table_named(name)
    if not isinstance(table, DerivedTable):
        raise KeyError(f"{table.full_name} is not a derived table; uploads are ingested into it")
    return table
