"""Dagster's definitions of a deployment."""

from __future__ import annotations

import pytest
from dagster import Definitions

from telemetry_assets.settings import load_settings
from telemetry_assets_tests.harness.deployment import Deployment


@pytest.fixture
def defs(deployed: Deployment, monkeypatch: pytest.MonkeyPatch) -> Definitions:
    """The definitions with the deployment's folders, set by environment variables as a user does."""
    # Imported here, because loading the definitions reads the settings and imports all of Dagster.
    from telemetry_assets.definitions import definitions

    monkeypatch.setenv("TELEMETRY_LANDING_URI", deployed.settings.landing_uri)
    monkeypatch.setenv("TELEMETRY_LAKEHOUSE_URI", deployed.settings.lakehouse_uri)
    monkeypatch.setenv("TELEMETRY_UPLOAD_MINIMUM_AGE_SECONDS", "0")
    monkeypatch.setenv("TELEMETRY_FIRST_EVENT_DATE", "2025-01-01")
    return definitions(load_settings())
