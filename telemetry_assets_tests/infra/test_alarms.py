"""The alarms of ``monitoring.tf`` are on metrics that the project sends. Needs Python only, not Terraform."""

from __future__ import annotations

import re
from pathlib import Path

import hcl2

from telemetry_assets.monitoring.measurements import UNITS
from telemetry_assets_tests.harness.terraform import INFRA

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "operating.md"


def alarms() -> dict[str, dict[str, str]]:
    with (INFRA / "monitoring.tf").open() as file:
        [found] = hcl2.load(file)["locals"]
    return {**found["alarms"], **found["remote_alarms"]}


def test_an_alarm_is_on_a_metric_that_the_project_sends() -> None:
    watched = {alarm["metric"].strip('"') for alarm in alarms().values()}
    assert watched == set(UNITS) - {"WaitingUploads", "AccountChecks"}


def test_every_metric_is_explained() -> None:
    [section] = re.findall(r"^## Metrics\n(.*?)^## ", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert re.findall(r"^\| `(\w+)`", section, re.MULTILINE) == list(UNITS)
