"""What runs by the clock."""

from __future__ import annotations

from dagster import DefaultScheduleStatus, ScheduleDefinition
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition


def insurance_schedule(refresh_insurance: UnresolvedAssetJobDefinition) -> ScheduleDefinition:
    """Daily after midnight UTC: insurances expire also for cars that do not report."""
    return ScheduleDefinition(
        name="daily_insurance",
        job=refresh_insurance,
        cron_schedule="5 0 * * *",
        execution_timezone="UTC",
        default_status=DefaultScheduleStatus.RUNNING,
        description="Refreshes every car's insurance status at 00:05 UTC.",
    )
