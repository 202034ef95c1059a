"""Dagster's history: removes old runs, without what the UI needs to show the state of the assets.

Dagster itself removes old ticks of sensors and schedules (``retention`` in ``dagster.yaml``), but no runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path

from dagster import (
    AssetCheckKey,
    AssetKey,
    AssetRecordsFilter,
    DagsterEventType,
    DagsterInstance,
    DagsterRun,
    RunsFilter,
)
from dagster._core.storage.dagster_run import FINISHED_STATUSES
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage

from telemetry_assets.automation.dead_runs import is_of_this_project

_RUNS_AT_A_TIME = 500


def remove_old_runs(
    instance: DagsterInstance,
    older_than: datetime,
    assets: Iterable[AssetKey],
    checks: Iterable[AssetCheckKey],
    is_own: Callable[[DagsterRun], bool] | None = None,
) -> int:
    """Remove this project's runs that were created before a time and have ended, with their events and logs.

    Runs remain that have the newest materialization or observation of an asset or of one of its partitions, or the
    newest evaluation of a check.

    :param is_own: whether a run is one of this project; by default, its code location decides.
    :returns: the number of removed runs.
    """
    needed = {*_newest_events(instance, assets), *_newest_evaluations(instance, checks)}
    # All are listed first, because a list cannot be continued after a run that was removed.
    old = [run.run_id for run in _ended_runs(instance, older_than) if (is_own or is_of_this_project)(run)]
    removed = [run_id for run_id in old if run_id not in needed]
    for run_id in removed:
        _remove(instance, run_id)
    return len(removed)


def _ended_runs(instance: DagsterInstance, created_before: datetime) -> Iterator[DagsterRun]:
    old = RunsFilter(statuses=FINISHED_STATUSES, created_before=created_before)
    cursor = None
    while records := instance.get_run_records(old, limit=_RUNS_AT_A_TIME, cursor=cursor):
        yield from (record.dagster_run for record in records)
        cursor = records[-1].dagster_run.run_id


def _newest_events(instance: DagsterInstance, assets: Iterable[AssetKey]) -> Iterator[str]:
    """The runs that have the newest materializations and observations of assets and their partitions."""
    kinds = (
        (DagsterEventType.ASSET_MATERIALIZATION, instance.fetch_materializations),
        (DagsterEventType.ASSET_OBSERVATION, instance.fetch_observations),
    )
    for key in assets:
        for event, fetch in kinds:
            yield from (record.run_id for record in fetch(key, limit=1).records)
            ids = list(instance.event_log_storage.get_latest_storage_id_by_partition(key, event).values())
            for start in range(0, len(ids), _RUNS_AT_A_TIME):
                some = ids[start : start + _RUNS_AT_A_TIME]
                found = fetch(AssetRecordsFilter(asset_key=key, storage_ids=some), limit=len(some))
                yield from (record.run_id for record in found.records)


def _newest_evaluations(instance: DagsterInstance, checks: Iterable[AssetCheckKey]) -> Iterator[str]:
    found = instance.event_log_storage.get_latest_asset_check_execution_by_key(list(checks))
    yield from (record.run_id for record in found.values())


def _remove(instance: DagsterInstance, run_id: str) -> None:
    instance.delete_run(run_id)
    instance.compute_log_manager.delete_logs(prefix=[run_id])
    storage = instance.event_log_storage
    if isinstance(storage, SqlEventLogStorage):
        # Dagster keeps the evaluations of checks of a run that was deleted.
        with storage.index_connection() as connection:
            connection.execute(AssetCheckExecutionsTable.delete().where(AssetCheckExecutionsTable.c.run_id == run_id))
    if isinstance(storage, SqliteEventLogStorage):
        # It also keeps the run's own database, which is empty now.
        for suffix in ("", "-wal", "-shm"):
            Path(os.fspath(storage.path_for_shard(run_id)) + suffix).unlink(missing_ok=True)
