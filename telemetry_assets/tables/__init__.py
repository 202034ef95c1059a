"""What each table is: one file per table, and this registry of them, in the data's order.

A table's columns, key, partitions, upstream, figures and freshness are decided in its file. Everything else that knows
tables (catalog, engines, assets, jobs, checks, documentation) is derived from the registry. Neither Dagster nor Spark
is imported here.
"""

from __future__ import annotations

from telemetry_assets.tables.bronze_car_telemetry import BRONZE
from telemetry_assets.tables.bronze_rejected_documents import REJECTED
from telemetry_assets.tables.bronze_uploads import UPLOADS
from telemetry_assets.tables.contract import TableContract
from telemetry_assets.tables.derived import DerivedTable
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
    """The tables that a transform makes, each after its upstream."""
    return tuple(table for table in all_tables() if isinstance(table, DerivedTable))


def table_named(name: str) -> TableContract:
    """The table of ``<layer>.<table>`` or ``<layer>/<table>``, or of ``<table>`` where only one layer has it.

    :raises KeyError: where there is no such table; its text lists the tables.
    """
    for table in all_tables():
        if name in (table.full_name, "/".join(table.identifier)):
            return table
    candidates = [table for table in all_tables() if table.name == name]
    if len(candidates) == 1:
        return candidates[0]
    raise KeyError(f"there is no table {name!r}; the tables are {', '.join(one.full_name for one in all_tables())}")


def derived_table_named(name: str) -> DerivedTable:
    """The derived table of a name, as :func:`table_named` takes it.

    :raises KeyError: where there is no such table, or no transform makes it.
    """
    table = table_named(name)
    if not isinstance(table, DerivedTable):
        raise KeyError(f"no transform makes {table.full_name}; uploads are ingested into it")
    return table
