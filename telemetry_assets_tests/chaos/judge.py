"""Checks an idle deployment: nothing is left to do, lost or duplicated, and all tables follow docs/contract.md.

It reads the archive and the tables with plain PyIceberg, and asks the product only for its pending work. The expected
rows are computed from the archive by the independent implementation of the contract.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError

from telemetry_assets.pipeline import Pipeline
from telemetry_assets.tables import (
    ALERTS,
    BRONZE,
    CURRENT_STATE,
    FUEL_EFFICIENCY,
    REJECTED,
    SILVER,
    all_tables,
)
from telemetry_assets.tables.contract import TableContract
from telemetry_assets_tests.chaos.by_hand import BY_HAND
from telemetry_assets_tests.chaos.ledger import Ledger
from telemetry_assets_tests.chaos.points import Record
from telemetry_assets_tests.harness.contract_reading import (
    Batch,
    Upload,
    alert_rows,
    current_state,
    fuel_rows,
    read_batches,
    silver_rows,
)
from telemetry_assets_tests.harness.deployment import AS_OF

Row = dict[str, Any]
Archive = Mapping[str, Sequence[Upload]]
_SHOWN = 3
_TAKEN_UPLOADS = "bronze.uploads"
"""The product's ledger, if it has one."""


@dataclass
class Verdict:
    """The problems of a deployment.

    :param lost: required uploads that do not wait and have documents in no table.
    :param double: uploads with documents that are in the tables more often than they were sent.
    :param not_taken: the work that is left after the final runs.
    """

    problems: list[str] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)
    double: set[str] = field(default_factory=set)
    not_taken: set[str] = field(default_factory=set)


def left_to_do(pipeline: Pipeline, ledger: Ledger) -> list[str]:
    """The work that a run would still find."""
    return [*ledger.stage.left(), *(f"{table.full_name} is behind" for table in pipeline.tables_behind())]


def judge(catalog: Catalog, max_upload_bytes: int, ledger: Ledger, left: Sequence[str], record: Record) -> Verdict:
    """Check the tables and the archive."""
    verdict = Verdict(list(left), not_taken=set(left))
    archive = ledger.stage.archived()
    rows = {one: _rows(catalog, one.full_name) for one in (BRONZE, REJECTED, *_DERIVED)}
    # Manually appended rows are in no upload, but in Silver and Gold.
    received = [row for row in rows[BRONZE] if not row["batch_id"].startswith(BY_HAND)]
    moments = _moments([*received, *rows[REJECTED]], verdict)
    _uploads(ledger, archive, moments, left, verdict)
    whole = {(batch, one.source_uri) for batch, uploads in archive.items() for one in uploads}
    # If an upload grew after it was read, the rows of its first part may stay or not.
    halves = {uri for _, uri in whole if ledger.name_of(uri) in ledger.grown}
    batches = [Batch(batch, moment, tuple(archive.get(batch, ()))) for batch, moment in moments.items()]
    reading = read_batches(batches, AS_OF, max_upload_bytes)
    for table, found, wanted in ((BRONZE, received, reading.bronze), (REJECTED, rows[REJECTED], reading.rejected)):
        of_wholes = [
            row for row in found if row["source_uri"] not in halves or (row["batch_id"], row["source_uri"]) in whole
        ]
        record.counts["rows of halves that stay"] += len(found) - len(of_wholes)
        _received(table, of_wholes, wanted, verdict)
    verdict.problems += _derived(rows)
    verdict.problems += _unreadable(catalog)
    verdict.problems += _taken_uploads(catalog, whole, halves, received, rows[REJECTED], record)
    record.counts["documents"] += len(received) + len(rows[REJECTED])
    record.counts["batches"] += len(archive)
    return verdict


_DERIVED = (SILVER, CURRENT_STATE, FUEL_EFFICIENCY, ALERTS)


def _rows(catalog: Catalog, name: str) -> list[Row]:
    try:
        rows: list[Row] = catalog.load_table(name).scan().to_arrow().to_pylist()
    except (NoSuchTableError, NoSuchNamespaceError):
        return []
    return rows


def _unreadable(catalog: Catalog) -> Iterator[str]:
    """The snapshots of all tables that cannot be read."""
    for contract in all_tables():
        try:
            table = catalog.load_table(contract.full_name)
        except (NoSuchTableError, NoSuchNamespaceError):
            continue
        for snapshot in table.snapshots():
            try:
                table.scan(snapshot_id=snapshot.snapshot_id).to_arrow()
            except OSError as error:
                yield f"snapshot {snapshot.snapshot_id} of {contract.full_name} cannot be read: {error}"


def _moments(rows: Sequence[Row], verdict: Verdict) -> dict[str, datetime]:
    """The time of each batch's ingestion, from its rows."""
    moments: dict[str, datetime] = {}
    for row in rows:
        moment = moments.setdefault(row["batch_id"], row["ingested_at"])
        if moment != row["ingested_at"]:
            verdict.problems.append(f"batch {row['batch_id']} was ingested at {moment} and at {row['ingested_at']}")
    return moments


def _uploads(
    ledger: Ledger, archive: Archive, moments: Mapping[str, datetime], left: Sequence[str], verdict: Verdict
) -> None:
    """Differences of the archive, and batches without rows in any table."""
    for finding in ledger.findings(archive):
        verdict.problems.append(str(finding))
        if finding.is_double:
            verdict.double.add(finding.name)
        elif not any(f"{finding.name} " in f"{one} " for one in left):
            verdict.lost.add(finding.name)
    verdict.problems += ledger.disorder(archive, moments)
    for batch in sorted(archive.keys() - moments.keys()):
        reading = read_batches([Batch(batch, datetime.max.replace(tzinfo=UTC), tuple(archive[batch]))], AS_OF)
        if reading.bronze or reading.rejected:
            names = [one.source_uri for one in archive[batch]]
            verdict.lost.update(f"{batch}: {name}" for name in names)
            verdict.problems.append(f"the archive has {names} of batch {batch}, which no table has")


def _received(contract: TableContract, found: Sequence[Row], wanted: Sequence[Row], verdict: Verdict) -> None:
    """Check the rows of a table that batches write."""
    verdict.problems += _differences(contract, found, wanted)
    columns = list(wanted[0]) if wanted else list(contract.key)
    there, due = (Counter((_upload(row), _shown(row, columns)) for row in rows) for rows in (found, wanted))
    verdict.lost.update(upload for upload, _ in due - there)
    verdict.double.update(upload for upload, _ in there - due)


def _upload(row: Row) -> str:
    return f"{row['batch_id']}: {row['source_uri']}"


def _derived(rows: Mapping[TableContract, list[Row]]) -> Iterator[str]:
    """Compare each derived table with the rows that follow from Bronze alone."""
    silver: list[Row] = silver_rows(rows[BRONZE])
    in_order = sorted(silver, key=lambda row: (row["car_chassis"], row["telemetry_timestamp"], row["event_id"]))
    cars = [list(events) for _, events in groupby(in_order, key=lambda row: row["car_chassis"])]
    yield from _differences(SILVER, rows[SILVER], silver)
    yield from _differences(CURRENT_STATE, rows[CURRENT_STATE], [current_state(events, AS_OF) for events in cars])
    fuel = [row for events in cars for row in fuel_rows(events)]
    yield from _differences(FUEL_EFFICIENCY, rows[FUEL_EFFICIENCY], fuel)
    yield from _differences(ALERTS, rows[ALERTS], [alert for event in silver for alert in alert_rows(event)])


def _taken_uploads(
    catalog: Catalog,
    archived: set[tuple[str, str]],
    halves: set[str],
    bronze: Sequence[Row],
    rejected: Sequence[Row],
    record: Record,
) -> Iterator[str]:
    """Check the ledger, if there is one: one row per archived upload, with correct figures."""
    taken = _rows(catalog, _TAKEN_UPLOADS)
    record.counts["rows of taken uploads"] += len(taken)
    if not taken:
        return
    keys = Counter((row["batch_id"], row["source_uri"]) for row in taken)
    for key in sorted(archived - keys.keys()):
        yield f"{_TAKEN_UPLOADS} has no row of {key}"
    for key, count in sorted(keys.items()):
        if count > 1 or (key not in archived and key[1] not in halves):
            yield f"{_TAKEN_UPLOADS} has {count} rows of {key}, which is {'' if key in archived else 'not '}archived"
    there = Counter((row["batch_id"], row["source_uri"]) for row in (*bronze, *rejected))
    for row in taken:
        key = row["batch_id"], row["source_uri"]
        sum_of_both = row["accepted"] + row["rejected"]
        if key in archived and not row["documents"] == sum_of_both == there[key]:
            yield f"{_TAKEN_UPLOADS} says {row} of {key}, of which the tables have {there[key]} rows"


def _differences(contract: TableContract, found: Sequence[Row], wanted: Sequence[Row]) -> Iterator[str]:
    """Additional and missing rows, in the columns of the expected rows."""
    columns = list(wanted[0]) if wanted else list(contract.key)
    there = Counter(_shown(row, columns) for row in found)
    due = Counter(_shown(row, columns) for row in wanted)
    for words, rows in (("too many", there - due), ("missing", due - there)):
        if rows:
            shown = "\n      ".join(list(rows)[:_SHOWN])
            yield f"{contract.full_name}: {rows.total()} rows {words}, such as\n      {shown}"


def _shown(row: Mapping[str, object], columns: Sequence[str]) -> str:
    return ", ".join(f"{name}={row[name]}" for name in sorted(columns))
