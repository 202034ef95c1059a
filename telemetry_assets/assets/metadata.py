"""The asset key of a table, and the metadata of its asset, materializations and observations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date
from typing import Any

from dagster import (
    AssetKey,
    MetadataValue,
    TableColumn,
    TableColumnConstraints,
    TableColumnDep,
    TableColumnLineage,
    TableRecord,
    TableSchema,
)

from telemetry_assets.engines.result import RefreshResult, RemoteRun
from telemetry_assets.ingestion.reconciliation import BatchReport, shown_counts
from telemetry_assets.lakehouse.maintenance import MaintenanceReport
from telemetry_assets.tables import BRONZE
from telemetry_assets.tables.alert_rules import AlertRules, shown, transform_edition
from telemetry_assets.tables.contract import DerivedTable, TableContract
from telemetry_assets.text.plain import plain_start

Metadata = dict[str, Any]

POOL = "lakehouse"
"""The pool of every step that writes tables. Its limit is 1, so one step writes at a time, across all runs."""

_MAX_CELL_LENGTH = 40
_MAX_PREVIEW_COLUMNS = 16
_DECIMALS = 3


def asset_key(contract: TableContract) -> AssetKey:
    """The asset key of a table: ``[layer, table]``."""
    return AssetKey(list(contract.identifier))


def table_metadata(contract: TableContract, rules: AlertRules) -> Metadata:
    """The metadata of a table's asset: its name, its columns and, for a derived table, its column lineage.

    If its transform depends on the alert rules, the metadata has the rules in force too.
    """
    columns = [
        TableColumn(
            column.name,
            column.type,
            column.description,
            TableColumnConstraints(nullable=not column.required),
        )
        for column in contract.columns
    ]
    metadata: Metadata = {
        "dagster/table_name": contract.full_name,
        "dagster/column_schema": MetadataValue.table_schema(TableSchema(columns)),
    }
    if isinstance(contract, DerivedTable):
        metadata["dagster/column_lineage"] = MetadataValue.column_lineage(_lineage(contract))
        if contract.uses_alert_rules:
            metadata["alert_rules"] = _table_of(rules)
    return metadata


def _table_of(rules: AlertRules) -> MetadataValue:
    return MetadataValue.table(
        [
            TableRecord(
                {
                    "rule": rule.name,
                    "column": rule.column,
                    **dict.fromkeys(("WARNING", "CRITICAL"), ""),
                    **{severity: f"{rule.direction} {shown(bound)}" for severity, bound in rule.most_severe_first()},
                    "cars": rule.cars_described(),
                }
            )
            for rule in rules.rules
        ]
    )


def _lineage(table: DerivedTable) -> TableColumnLineage:
    upstream = asset_key(table.upstream)
    return TableColumnLineage(
        {name: [TableColumnDep(upstream, source)] for name, source in table.column_sources().items()}
    )


def code_version(contract: TableContract, rules: AlertRules) -> str:
    """The editions of a table's contract and transform. Dagster shows partitions of another version as outdated."""
    if not isinstance(contract, DerivedTable):
        return contract.edition
    return f"{contract.edition}-{transform_edition(contract, rules)}"


def refresh_metadata(result: RefreshResult, day: date) -> Metadata:
    """The metadata of one event date of a refreshed Silver or Gold table.

    Entries whose names begin with ``run_`` are totals of all event dates of the run.
    """
    partition = result.of_event_date(day)
    return {
        **_table_figures(result.contract, result.snapshot_id, partition.rows),
        "rows_read": result.rows_read.get(day, 0),
        "rows_written": partition.written,
        # Only ingestion rejects documents.
        "rejected": 0,
        "changed": result.changed,
        "run_rows_read": sum(result.rows_read.values()),
        "run_rows_written": result.rows_written,
        "run_bytes_read": result.bytes_read,
        "run_bytes_written": result.bytes_written,
        "run_seconds": round(result.seconds, 3),
        **({"rebuild_reason": result.rebuild_reason} if result.rebuild_reason else {}),
        **{name: _number(figure) for name, figure in partition.figures.items()},
        **_remote_run(result.remote),
        "preview": preview(partition.preview),
    }


def _remote_run(remote: RemoteRun | None) -> Metadata:
    if remote is None:
        return {}
    return {
        "remote_service": remote.service,
        "remote_run_id": remote.run_id,
        "remote_run": MetadataValue.url(remote.link),
    }


def ingest_metadata(
    batch_reports: Sequence[BatchReport], day: date, snapshot_id: int | None, partition_rows: int, sample: Metadata
) -> Metadata:
    """The metadata of one event date of Bronze after some batches were ingested.

    Entries whose names begin with ``run_`` are totals of all event dates of the run. Names of fields are not included,
    because a run with 400 event dates would store them 400 times. The run's observation and checks contain them.

    :param snapshot_id: the table's current snapshot; None if it has none.
    :param partition_rows: number of rows of the event date in the table.
    :param sample: metadata with a preview of the event date's rows.
    """
    return {
        **_table_figures(BRONZE, snapshot_id, partition_rows),
        "rows_written": sum(one.event_dates.get(day.isoformat(), 0) for one in batch_reports),
        **{f"run_{name}": figure for name, figure in _figures(batch_reports).items()},
        # Rejected documents have no event date, so each event date shows the totals of the run.
        "rejected": sum(one.rejected for one in batch_reports),
        "rejected_by_reason": shown_counts(one.rejected_by_reason for one in batch_reports),
        "unknown_fields": sum(sum(one.unknown_fields.values()) for one in batch_reports),
        "wrong_typed_fields": sum(sum(one.wrong_typed_fields.values()) for one in batch_reports),
        "out_of_range_fields": sum(sum(one.out_of_range_fields.values()) for one in batch_reports),
        "ahead_of_clock": sum(one.ahead_of_clock.get(day.isoformat(), 0) for one in batch_reports),
        **sample,
    }


def batch_report_metadata(batch_reports: Sequence[BatchReport]) -> Metadata:
    """The metadata of a run's observation of Bronze: totals of its batches, and counts by name."""
    return {
        **_figures(batch_reports),
        "rejected": sum(one.rejected for one in batch_reports),
        "rejected_by_reason": shown_counts(one.rejected_by_reason for one in batch_reports),
        "unknown_fields": shown_counts(one.unknown_fields for one in batch_reports),
        "wrong_typed_fields": shown_counts(one.wrong_typed_fields for one in batch_reports),
        "out_of_range_fields": shown_counts(one.out_of_range_fields for one in batch_reports),
        "ahead_of_clock": sum(sum(one.ahead_of_clock.values()) for one in batch_reports),
        "batch_ids": MetadataValue.json([one.batch_id for one in batch_reports]),
    }


def maintenance_metadata(report: MaintenanceReport) -> Metadata:
    """The metadata of an observation of a table after its maintenance. Figures of what it was before end in `_before`.

    The numbers of all stored files and their bytes are only known after the job ``maintain``.
    """
    before = {f"{name}_before": value for name, value in asdict(report.before).items() if value is not None}
    after = {name: value for name, value in asdict(report.after).items() if value is not None}
    return {
        "dagster/table_name": report.contract.full_name,
        **before,
        **after,
        "data_files_compacted": report.compacted.removed,
        "snapshots_expired": report.expired,
        "files_deleted": report.deleted,
        "another_writer_was_faster": report.lost_race,
        "maintenance_seconds": round(report.seconds, 3),
    }


def _figures(batch_reports: Sequence[BatchReport]) -> dict[str, int]:
    return {
        "batches": len(batch_reports),
        "uploads": sum(one.uploads for one in batch_reports),
        "documents": sum(one.documents for one in batch_reports),
        "accepted": sum(one.accepted for one in batch_reports),
    }


def _table_figures(contract: TableContract, snapshot_id: int | None, partition_rows: int) -> Metadata:
    return {
        "dagster/table_name": contract.full_name,
        "dagster/partition_row_count": partition_rows,
        # A text, because browsers round integers of this size.
        "snapshot_id": str(snapshot_id) if snapshot_id is not None else "none",
    }


def preview(rows: Sequence[Mapping[str, Any]]) -> MetadataValue:
    """A table of a partition's first rows. The UI shows the values as text and renders no markup in them."""
    if not rows:
        return MetadataValue.text("no rows")
    names = list(rows[0])[:_MAX_PREVIEW_COLUMNS]
    return MetadataValue.table(
        [TableRecord({name: _cell(row[name]) for name in names}) for row in rows],
        TableSchema([TableColumn(name) for name in names]),
    )


def _cell(value: object) -> str | int | float | None:
    if isinstance(value, float):
        return _number(value)
    if value is None or isinstance(value, int):
        return value
    return plain_start(value, _MAX_CELL_LENGTH)


def _number(value: float) -> float | str:
    """A rounded number, or a text for infinities and NaN, which JSON does not support."""
    return round(value, _DECIMALS) if math.isfinite(value) else str(value)
