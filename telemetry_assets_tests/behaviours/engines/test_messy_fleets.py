"""Messy fleets of real devices: every table equals the independent reading of the contract, after each run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from telemetry_assets_tests.harness.deployment import Deployment, deployment
from telemetry_assets_tests.harness.messy_fleets import messy_schedule
from telemetry_assets_tests.harness.on_engines import deployed_on

FIRST_SEED = int(os.environ.get("TELEMETRY_FLEET_SEED", "0"))
SEEDS = range(FIRST_SEED, FIRST_SEED + int(os.environ.get("TELEMETRY_FLEETS", "1000")))


def play(deployed: Deployment, seed: int) -> None:
    for number, run in enumerate(messy_schedule(seed)):
        for name, content in run:
            deployed.upload(f"{number}/{name}", content)
        deployed.process()
    deployed.assert_equals_the_contract()


@pytest.mark.parametrize("seed", [0, 1, 2, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(3, 20))])
def test_gold_equals_the_contract_for_a_messy_fleet(tmp_path: Path, seed: int) -> None:
    with deployment(tmp_path) as deployed:
        play(deployed, seed)


@pytest.mark.exhaustive
@pytest.mark.timeout(60)
@pytest.mark.parametrize("seed", SEEDS)
def test_gold_equals_the_contract_for_many_messy_fleets(tmp_path: Path, seed: int) -> None:
    with deployment(tmp_path) as deployed:
        play(deployed, seed)


@pytest.mark.long
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.exhaustive) for seed in range(1, 50))])
def test_gold_equals_the_contract_for_a_messy_fleet_on_spark(java: None, tmp_path: Path, seed: int) -> None:
    with deployed_on("spark", tmp_path) as deployed:
        play(deployed, seed)
