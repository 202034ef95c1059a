"""Dead runs: runs whose process is gone. They are marked as failed, and their pool slots are freed.

If a run and its code server are killed together, Dagster keeps the run's status at STARTED and does not free its slots.
"""

from __future__ import annotations

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, RunRecord, RunsFilter
from dagster._core.code_pointer import ModuleCodePointer

from telemetry_assets.automation.heartbeats import has_missed_heartbeats, is_alive, is_dead, remove_lock_file

_MODULE = "telemetry_assets.definitions"
_EXECUTING = [DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]


def end_dead_runs(instance: DagsterInstance) -> None:
    """Mark this code location's dead runs as failed, and free their pool slots.

    This includes runs of jobs, backfills and materializations.
    """
    for record in instance.get_run_records(RunsFilter(statuses=_EXECUTING)):
        if _has_no_process(instance, record):
            _end(instance, record.dagster_run.run_id)


def free_stale_slots(instance: DagsterInstance, pool: str) -> None:
    """Free the slots of a pool that finished or deleted runs still claim.

    Dagster's daemon also does this, but later, and only if it is running.
    """
    info = instance.event_log_storage.get_concurrency_info(pool)
    for run_id in info.active_run_ids | info.assigned_run_ids | info.pending_run_ids:
        run = instance.get_run_by_id(run_id)
        if (run is None or run.is_finished) and not is_alive(instance, run_id):
            instance.event_log_storage.free_concurrency_slots_for_run(run_id)


def describe_occupants(instance: DagsterInstance, pool: str) -> list[str]:
    """Describe each run that occupies a slot of a pool, with its job and status."""
    run_ids = sorted(instance.event_log_storage.get_concurrency_info(pool).active_run_ids)
    runs = {run_id: instance.get_run_by_id(run_id) for run_id in run_ids}
    return [
        f"run {run_id} ({run.job_name}, {run.status.value})" if run else f"run {run_id} (deleted)"
        for run_id, run in runs.items()
    ]


def _has_no_process(instance: DagsterInstance, record: RunRecord) -> bool:
    """Whether a run's process is gone: by its lock file on this machine, or by missed heartbeats on another one."""
    run_id = record.dagster_run.run_id
    if is_dead(instance, run_id):
        return True
    return (
        is_of_this_project(record.dagster_run)
        and not is_alive(instance, run_id)
        and has_missed_heartbeats(instance, record)
    )


def is_of_this_project(run: DagsterRun) -> bool:
    """Whether a run executes this project's code, so that it sends heartbeats. Other code locations' runs send none.

    The module identifies the code. The name of the code location does not, because `dagster job execute` sets none.
    """
    pointer = run.job_code_origin.repository_origin.code_pointer if run.job_code_origin else None
    return isinstance(pointer, ModuleCodePointer) and pointer.module == _MODULE


def _end(instance: DagsterInstance, run_id: str) -> None:
    # The run may have finished since the runs were listed.
    run = instance.get_run_by_id(run_id)
    if run is not None and not run.is_finished:
        instance.report_run_failed(run, "The run's process is gone. The next run continues its work.")
    instance.event_log_storage.free_concurrency_slots_for_run(run_id)
    remove_lock_file(instance, run_id)
