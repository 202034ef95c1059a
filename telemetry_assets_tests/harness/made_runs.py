"""Runs that an instance shows as started, whether or not they have a process."""

from __future__ import annotations

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._core.definitions.reconstruct import ReconstructableJob, ReconstructableRepository

from telemetry_assets.definitions import definitions
from telemetry_assets.settings import load_settings

MODULE = "telemetry_assets.definitions"
# The job of backfills and materializations in the UI.
ASSETS = "__ASSET_JOB"


def job_of(name: str, module: str = MODULE) -> ReconstructableJob:
    """A job as a code server loads it, from its module."""
    return ReconstructableRepository.for_module(module, "defs").get_reconstructable_job(name)


def started_run(instance: DagsterInstance, job: str = "ingest", module: str | None = MODULE) -> DagsterRun:
    """A started run of a module's job; without a module, of no code location."""
    defs = definitions(load_settings())
    return instance.create_run_for_job(
        defs.resolve_implicit_global_asset_job_def() if job == ASSETS else defs.resolve_job_def(job),
        status=DagsterRunStatus.STARTED,
        job_code_origin=job_of(job, module).get_python_origin() if module else None,
    )


def take(instance: DagsterInstance, run: DagsterRun, pool: str) -> None:
    """Claim a pool's slot for a step of the run, as the executor does."""
    instance.event_log_storage.initialize_concurrency_limit_to_default(pool)
    assert instance.event_log_storage.claim_concurrency_slot(pool, run.run_id, "step").is_claimed


def users(instance: DagsterInstance, pool: str) -> set[str]:
    return instance.event_log_storage.get_concurrency_info(pool).active_run_ids


def status(instance: DagsterInstance, run_id: str) -> DagsterRunStatus:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status
