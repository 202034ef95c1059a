"""The three Gold assets."""

from __future__ import annotations

from datetime import timedelta

from dagster import AssetsDefinition

from telemetry_assets.assets.derived import derived_asset
from telemetry_assets.settings import Settings
from telemetry_assets.tables import ALERTS, CURRENT_STATE, FUEL_EFFICIENCY

# The state is refreshed daily even when no car reports; two hours are for that run to come late.
_DAILY = timedelta(hours=26)
_QUIET_FLEET = timedelta(days=7)


def gold_assets(settings: Settings) -> list[AssetsDefinition]:
    """``gold/car_current_state``, ``gold/fuel_efficiency_monthly`` and ``gold/performance_alerts``."""
    return [
        derived_asset(
            CURRENT_STATE,
            settings,
            "Materializing takes the chosen event dates, and all others that changed since, into every car's row.",
            _DAILY,
        ),
        derived_asset(
            FUEL_EFFICIENCY,
            settings,
            "Materializing makes the months of the chosen event dates anew, and the months after them.",
            _QUIET_FLEET,
        ),
        derived_asset(ALERTS, settings, "Materializing replaces the alerts of the chosen event dates.", _QUIET_FLEET),
    ]
