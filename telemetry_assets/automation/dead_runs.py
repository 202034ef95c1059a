"""Runs whose process is gone: they are marked as failed, and their pools become free.

Dagster keeps a run that was killed together with its code server as started for ever, and its pools with it.
"""

from __future__ import annotations

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, RunRecord, RunsFilter
from dagster._core.code_pointer import ModuleCodePointer

from telemetry_assets.automation.heartbeats import forget, is_alive, is_dead, is_silent

_MODULE = "telemetry_assets.definitions"
_AT_WORK = [DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]


def end_dead_runs(instance: DagsterInstance) -> None:
    """Mark this code location's runs whose process is gone as failed, and free their pools.

    It judges whatever shows the life signs of this project: jobs, backfills and materializations alike.
    """
    for record in instance.get_run_records(RunsFilter(statuses=_AT_WORK)):
        if _is_gone(instance, record):
            _end(instance, record.dagster_run.run_id)


def free_left_slots(instance: DagsterInstance, pool: str) -> None:
    """Free what finished or deleted runs have left of a pool: Dagster's daemon does so later, where there is one."""
    info = instance.event_log_storage.get_concurrency_info(pool)
    for run_id in info.active_run_ids | info.assigned_run_ids | info.pending_run_ids:
        run = instance.get_run_by_id(run_id)
        if (run is None or run.is_finished) and not is_alive(instance, run_id):
            instance.event_log_storage.free_concurrency_slots_for_run(run_id)


def users_of(instance: DagsterInstance, pool: str) -> list[str]:
    """The runs that have a pool now, each with its job and status, for a person."""
    run_ids = sorted(instance.event_log_storage.get_concurrency_info(pool).active_run_ids)
    runs = {run_id: instance.get_run_by_id(run_id) for run_id in run_ids}
    return [
        f"run {run_id} ({run.job_name}, {run.status.value})" if run else f"run {run_id} (deleted)"
        for run_id, run in runs.items()
    ]


def _is_gone(instance: DagsterInstance, record: RunRecord) -> bool:
    """Whether a run lost its process: on this machine by its file, on any other by the silence of its event log."""
    run_id = record.dagster_run.run_id
    if is_dead(instance, run_id):
        return True
    return _is_ours(record.dagster_run) and not is_alive(instance, run_id) and is_silent(instance, record)


def _is_ours(run: DagsterRun) -> bool:
    """Whether a run is of this project's code, which gives life signs: other code locations' runs may be silent.

    The module is what a run of a code server and one of `dagster job execute` have in common: only the first is of a
    named location.
    """
    pointer = run.job_code_origin.repository_origin.code_pointer if run.job_code_origin else None
    return isinstance(pointer, ModuleCodePointer) and pointer.module == _MODULE


def _end(instance: DagsterInstance, run_id: str) -> None:
    # It may have ended by itself since it was listed.
    run = instance.get_run_by_id(run_id)
    if run is not None and not run.is_finished:
        instance.report_run_failed(run, "The run's process is gone. The next run takes up what it left.")
    instance.event_log_storage.free_concurrency_slots_for_run(run_id)
    forget(instance, run_id)
