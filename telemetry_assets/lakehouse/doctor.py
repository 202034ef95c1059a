"""Holds every table against its contract and its upstream, and says what is found, in words. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pyiceberg.exceptions import NoSuchTableError

from telemetry_assets.lakehouse.catalog import Lakehouse
from telemetry_assets.lakehouse.changes import changes_since_applied
from telemetry_assets.lakehouse.contracts import CONTRACTS, UPSTREAM
from telemetry_assets.lakehouse.table_contract import TableContract


class Finding(NamedTuple):
    """One thing to know about a table; ``needs_action`` where somebody has to do something about it."""

    table: str
    text: str
    needs_action: bool = False


def examine(lakehouse: Lakehouse) -> list[Finding]:
    """The findings of all tables, in the order of the contracts; a healthy table has one that says so."""
    return [finding for contract in CONTRACTS for finding in _examine_table(lakehouse, contract)]


def _examine_table(lakehouse: Lakehouse, contract: TableContract) -> Iterator[Finding]:
    name = contract.full_name
    try:
        table = lakehouse.table(contract)
    except NoSuchTableError:
        yield Finding(name, "not there yet; the first run makes it")
        return
    except OSError as error:
        yield Finding(name, f"its metadata cannot be read, so nobody can read or write the table: {error}", True)
        return
    differences = lakehouse.differences(table, contract)
    for difference in differences:
        yield Finding(name, f"{difference}, so no run writes to it", True)
    snapshot = table.current_snapshot()
    rows = snapshot.summary.additional_properties.get("total-records", "?") if snapshot and snapshot.summary else "0"
    yield Finding(name, f"{rows} rows, {len(table.snapshots())} snapshots, metadata {table.metadata_location}")
    if contract in UPSTREAM and not differences:
        yield from _behind(lakehouse, contract)


def _behind(lakehouse: Lakehouse, contract: TableContract) -> Iterator[Finding]:
    upstream = UPSTREAM[contract]
    try:
        changes = changes_since_applied(lakehouse.table(contract), upstream, lakehouse.table(upstream))
    except (NoSuchTableError, OSError):
        # The upstream's own finding says so.
        return
    if changes:
        dates = "everything" if changes.everything else f"{len(changes.dates)} event dates"
        yield Finding(contract.full_name, f"behind {upstream.full_name} by {dates}; the next run takes it")
