"""The steps at which schedules disturb runs exist."""

from __future__ import annotations

import pytest

from telemetry_assets.tables import all_tables
from telemetry_assets_tests.chaos.schedules import DISTURBED_STEPS
from telemetry_assets_tests.harness.killed_process import BOUNDARIES

NAMES = {
    boundary.step.format(subject)
    for boundary in BOUNDARIES
    for subject in ("in_progress.json", *(table.full_name for table in all_tables()))
}


@pytest.mark.parametrize("step", sorted(DISTURBED_STEPS))
def test_disturbed_step_is_the_beginning_of_a_boundarys_name(step: str) -> None:
    assert any(name.startswith(step) for name in NAMES)
