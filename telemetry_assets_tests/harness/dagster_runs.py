"""Dagster runs in this process, and the metadata that Dagster shows of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

from dagster import AssetKey, DagsterInstance, Definitions, ExecuteInProcessResult

from telemetry_assets.assets.metadata import asset_key
from telemetry_assets.tables.contract import TableContract


def run(
    defs: Definitions, instance: DagsterInstance, job: str, config: Mapping[str, Any] | None = None
) -> ExecuteInProcessResult:
    """Run a job as the sensor or the schedule does."""
    day = datetime.now(UTC).date().isoformat() if job == "refresh_insurance" else None
    return defs.resolve_job_def(job).execute_in_process(
        run_config=config, instance=instance, partition_key=day, raise_on_error=False
    )


def materialize(
    defs: Definitions,
    instance: DagsterInstance,
    first: date,
    last: date,
    selection: Sequence[AssetKey] | None = None,
) -> ExecuteInProcessResult:
    """Materialize the selected assets, or all, for a range of dates in one run, as Dagster's backfill does."""
    job = defs.resolve_implicit_global_asset_job_def()
    return job.execute_in_process(
        instance=instance,
        raise_on_error=False,
        tags={"dagster/asset_partition_range_start": str(first), "dagster/asset_partition_range_end": str(last)},
        asset_selection=selection,
    )


def metadata_by_date(instance: DagsterInstance, table: TableContract) -> dict[str, dict[str, Any]]:
    """The newest metadata by event date."""
    newest: dict[str, dict[str, Any]] = {}
    for record in instance.fetch_materializations(asset_key(table), limit=100).records:
        materialization = record.event_log_entry.asset_materialization
        assert materialization is not None
        newest.setdefault(
            str(materialization.partition), {name: value.value for name, value in materialization.metadata.items()}
        )
    return newest
