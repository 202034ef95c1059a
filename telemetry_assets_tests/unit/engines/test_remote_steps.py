"""Which step of a job run has the effect of another one."""

from __future__ import annotations

from datetime import date

import pytest

from telemetry_assets.engines.remote.step import RemoteStep


def step(*, rebuild: bool, run_id: str = "a run", snapshot: int = 1) -> RemoteStep:
    return RemoteStep(
        settings={},
        table="silver.car_telemetry",
        event_dates=None,
        insurance_as_of=date(2025, 11, 4),
        rebuild=rebuild,
        rebuilds=True,
        run_id=run_id,
        upstream_snapshot_id=snapshot,
        package="a package",
    )


@pytest.mark.parametrize(
    ("done", "wanted", "is_same"),
    [
        (step(rebuild=False), step(rebuild=False, run_id="another run"), True),
        (step(rebuild=True), step(rebuild=False), True),
        (step(rebuild=False), step(rebuild=True), False),
        (step(rebuild=True), step(rebuild=True, snapshot=2), False),
    ],
)
def test_a_done_rebuild_is_also_the_work_of_a_step_that_has_nothing_left_to_rebuild(
    done: RemoteStep, wanted: RemoteStep, is_same: bool
) -> None:
    assert done.is_same_work(wanted) is is_same
