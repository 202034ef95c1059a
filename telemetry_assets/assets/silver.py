"""The Silver asset: typed events."""

from __future__ import annotations

from dagster import AssetsDefinition

from telemetry_assets.assets.derived import derived_asset
from telemetry_assets.settings import Settings
from telemetry_assets.tables import SILVER


def silver_asset(settings: Settings) -> AssetsDefinition:
    """``silver/car_telemetry``."""
    return derived_asset(SILVER, settings, "Materializing makes the chosen event dates anew from all of Bronze.")
