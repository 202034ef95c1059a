"""What Dagster loads. Wiring only."""

from __future__ import annotations

import warnings

from dagster import BetaWarning, Definitions

from telemetry_assets.assets.checks import every_batch_conserved
from telemetry_assets.assets.lakehouse import lakehouse_assets
from telemetry_assets.assets.resources import TelemetryResource
from telemetry_assets.automation.executor import living_executor
from telemetry_assets.automation.jobs import ingest_job, refresh_insurance_job, replay_rejected_job
from telemetry_assets.automation.remote_runs import remote_runs_sensor
from telemetry_assets.automation.schedules import insurance_schedule
from telemetry_assets.automation.sensors import upload_sensor
from telemetry_assets.monitoring.sensor import metrics_sensor
from telemetry_assets.settings import Settings, load_settings, require_engine_settings


def definitions(settings: Settings) -> Definitions:
    """The asset graph and what starts it, for a deployment's settings.

    :raises SettingsError: where they lack what their engine needs.
    """
    # Backfill policies, pools and owners are beta in 1.13; the version is pinned, so a user need not be told each time.
    warnings.simplefilter("ignore", BetaWarning)
    require_engine_settings(settings)
    ingest, refresh_insurance = ingest_job(), refresh_insurance_job()
    return Definitions(
        assets=[lakehouse_assets(settings)],
        asset_checks=[every_batch_conserved()],
        jobs=[ingest, refresh_insurance, replay_rejected_job()],
        sensors=[
            upload_sensor(ingest, settings),
            *([remote_runs_sensor()] if settings.is_remote else []),
            *([metrics_sensor()] if settings.metrics_namespace else []),
        ],
        schedules=[insurance_schedule(refresh_insurance)],
        resources={"telemetry": TelemetryResource()},
        # A process per step costs 3 s each, and the embedded engine is one per process anyway.
        executor=living_executor(),
    )


defs = definitions(load_settings())
