"""Judges a deployment at rest: nothing is left to do, nothing is lost or double, all tables are as CONTRACT.md says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from telemetry_assets.ingestion.accounts import batch_accounts

from telemetry_assets.lakehouse.contracts import ALERTS, BRONZE, CURRENT_STATE, FUEL_EFFICIENCY, REJECTED, SILVER
from telemetry_assets.lakehouse.table_contract import TableContract
from telemetry_assets.pipeline import Pipeline
from telemetry_assets_tests.chaos.by_hand import BY_HAND
from telemetry_assets_tests.chaos.ledger import Ledger
from telemetry_assets_tests.chaos.points import Record
from telemetry_assets_tests.contract_reading import (
    Batch,
    Upload,
    alert_rows,
    current_state,
    fuel_rows,
    read_batches,
    silver_rows,
)
from telemetry_assets_tests.deployment import AS_OF

Row = dict[str, Any]
_SHOWN = 3


def left_to_do(pipeline: Pipeline) -> list[str]:
    """What a run would still find to do."""
    found = [f"{upload.uri} waits" for upload in pipeline.ingestion.landing.waiting()]
    found += [f"{upload.uri} is claimed for {batch}" for batch, upload in pipeline.ingestion.landing.claimed()]
    in_progress = pipeline.ingestion.manifests.load()
    found += [f"batch {in_progress.batch_id} is in progress"] if in_progress is not None else []
    return found + [f"{table.full_name} is behind" for table in pipeline.tables_behind()]


def judged(pipeline: Pipeline, ledger: Ledger, record: Record) -> list[str]:
    """What is wrong with the tables and the archive."""
    archive = ledger.stage.archived()
    accounts: list[Row] = batch_accounts(pipeline.lakehouse).to_pylist()
    moments = {one["batch_id"]: one["ingested_at"] for one in accounts}
    problems = [*_accounts(accounts, archive), *ledger.problems(archive, moments)]
    rows = {one: _rows(pipeline, one) for one in (BRONZE, REJECTED, SILVER, CURRENT_STATE, FUEL_EFFICIENCY, ALERTS)}
    # What was appended by hand is in no upload; Silver and Gold have it all the same.
    received = [row for row in rows[BRONZE] if not row["batch_id"].startswith(BY_HAND)]
    batches = [Batch(batch, moment, tuple(archive.get(batch, ()))) for batch, moment in moments.items()]
    reading = read_batches(batches, AS_OF, pipeline.settings.upload_max_bytes)
    problems += _differences(BRONZE, received, reading.bronze)
    problems += _differences(REJECTED, rows[REJECTED], reading.rejected)
    problems += _derived(rows)
    record.counts["documents"] += len(received) + len(rows[REJECTED])
    record.counts["batches"] += len(archive)
    return problems


def _rows(pipeline: Pipeline, contract: TableContract) -> list[Row]:
    rows: list[Row] = pipeline.lakehouse.table(contract).scan().to_arrow().to_pylist()
    return rows


def _accounts(accounts: Sequence[Row], archive: Mapping[str, Sequence[Upload]]) -> Iterator[str]:
    """Batches whose documents are not all there once, or whose uploads are not all in the archive."""
    known = set()
    for account in accounts:
        batch = account["batch_id"]
        known.add(batch)
        if batch.startswith(BY_HAND):
            continue
        if account["conserved"] is not True:
            yield f"batch {batch} is not conserved: {account}"
        if account["uploads"] != len(archive.get(batch, [])):
            yield f"batch {batch} has {account['uploads']} uploads and {len(archive.get(batch, []))} in the archive"
    for batch in sorted(archive.keys() - known):
        yield f"the archive has {[one.source_uri for one in archive[batch]]} of batch {batch}, which no table has"


def _derived(rows: Mapping[TableContract, list[Row]]) -> Iterator[str]:
    """Each derived table against what follows from Bronze, and from nothing else."""
    silver: list[Row] = silver_rows(rows[BRONZE])
    in_order = sorted(silver, key=lambda row: (row["car_chassis"], row["telemetry_timestamp"], row["event_id"]))
    cars = [list(events) for _, events in groupby(in_order, key=lambda row: row["car_chassis"])]
    yield from _differences(SILVER, rows[SILVER], silver)
    yield from _differences(CURRENT_STATE, rows[CURRENT_STATE], [current_state(events, AS_OF) for events in cars])
    fuel = [row for events in cars for row in fuel_rows(events)]
    yield from _differences(FUEL_EFFICIENCY, rows[FUEL_EFFICIENCY], fuel)
    yield from _differences(ALERTS, rows[ALERTS], [alert for event in silver for alert in alert_rows(event)])


def _differences(contract: TableContract, found: Sequence[Row], wanted: Sequence[Row]) -> Iterator[str]:
    """Rows too many and too few, over the columns that the reading tells."""
    columns = list(wanted[0]) if wanted else list(contract.key)
    there = Counter(_shown(row, columns) for row in found)
    due = Counter(_shown(row, columns) for row in wanted)
    for words, rows in (("too many", there - due), ("missing", due - there)):
        if rows:
            shown = "\n      ".join(list(rows)[:_SHOWN])
            yield f"{contract.full_name}: {rows.total()} rows {words}, such as\n      {shown}"


def _shown(row: Mapping[str, object], columns: Sequence[str]) -> str:
    return ", ".join(f"{name}={row[name]}" for name in sorted(columns))
