"""The schedules."""

from __future__ import annotations

from datetime import UTC

from dagster import (
    DefaultScheduleStatus,
    JobDefinition,
    RunRequest,
    ScheduleDefinition,
    ScheduleEvaluationContext,
    schedule,
)
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition


def insurance_schedule(refresh_insurance: UnresolvedAssetJobDefinition) -> ScheduleDefinition:
    """The schedule ``daily_insurance``. It starts the job every day for the new date.

    It is needed because an insurance can expire without a new upload.
    """

    @schedule(
        name="daily_insurance",
        job=refresh_insurance,
        cron_schedule="5 0 * * *",
        execution_timezone="UTC",
        default_status=DefaultScheduleStatus.RUNNING,
        description="Refreshes every car's insurance status at 00:05 UTC.",
    )
    def daily_insurance(context: ScheduleEvaluationContext) -> RunRequest:
        today = context.scheduled_execution_time.astimezone(UTC).date()
        return RunRequest(partition_key=today.isoformat())

    return daily_insurance


def maintenance_schedule(maintain: JobDefinition) -> ScheduleDefinition:
    """The schedule ``daily_maintenance``. It does what the short maintenance after each run leaves."""
    return ScheduleDefinition(
        name="daily_maintenance",
        job=maintain,
        cron_schedule="20 1 * * *",
        execution_timezone="UTC",
        default_status=DefaultScheduleStatus.RUNNING,
        description="Maintains all tables at 01:20 UTC.",
    )
