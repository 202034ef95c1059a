"""The steps at which schedules disturb runs exist."""

from __future__ import annotations

import pytest

from telemetry_assets_tests.chaos.schedules import DISTURBED_STEPS
from telemetry_assets_tests.harness.killed_process import BOUNDARIES


@pytest.mark.parametrize("step", sorted(DISTURBED_STEPS))
def test_disturbed_step_is_the_beginning_of_a_boundarys_name(step: str) -> None:
    names = [boundary.step.partition("{}")[0] for boundary in BOUNDARIES]
    assert any(step.startswith(name) or name.startswith(step) for name in names)
