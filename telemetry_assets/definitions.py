"""The Dagster definitions. This module only combines what ``assets``, ``automation`` and ``monitoring`` define."""

from __future__ import annotations

import warnings

from dagster import BetaWarning, Definitions

from telemetry_assets.assets.checks import every_batch_conserved, well_kept_checks
from telemetry_assets.assets.lakehouse import asset_tables, lakehouse_assets
from telemetry_assets.assets.resources import TelemetryResource
from telemetry_assets.automation.executor import heartbeat_executor
from telemetry_assets.automation.jobs import ingest_job, refresh_insurance_job, replay_rejected_job
from telemetry_assets.automation.maintenance import maintain_job
from telemetry_assets.automation.remote_runs import remote_runs_sensor
from telemetry_assets.automation.schedules import insurance_schedule, maintenance_schedule
from telemetry_assets.automation.sensors import upload_sensor
from telemetry_assets.monitoring.sensor import metrics_sensor
from telemetry_assets.settings import Settings, load_settings, require_engine_settings


def definitions(settings: Settings) -> Definitions:
    """The definitions for the settings of a deployment.

    :raises SettingsError: if a setting that the engine requires is missing.
    """
    # Backfill policies, pools and owners are beta in Dagster 1.13. The version is pinned, so no warning is needed.
    warnings.simplefilter("ignore", BetaWarning)
    require_engine_settings(settings)
    ingest, refresh_insurance, maintain = ingest_job(), refresh_insurance_job(), maintain_job()
    return Definitions(
        assets=[lakehouse_assets(settings)],
        asset_checks=[every_batch_conserved(), *well_kept_checks(asset_tables())],
        jobs=[ingest, refresh_insurance, replay_rejected_job(), maintain],
        sensors=[
            upload_sensor(ingest, settings),
            *([remote_runs_sensor()] if settings.is_remote else []),
            *([metrics_sensor()] if settings.metrics_namespace else []),
        ],
        schedules=[insurance_schedule(refresh_insurance), maintenance_schedule(maintain)],
        resources={"telemetry": TelemetryResource()},
        # Steps run in one process: another process takes 3 s to start and would need its own embedded engine.
        executor=heartbeat_executor(),
    )


defs = definitions(load_settings())
