"""``python -m telemetry_assets_tests.chaos``: plays random schedules, and fails if one has a wrong result.

A schedule's seed determines its steps and the points at which runs are disturbed, but not the interleaving of
concurrent processes.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from random import SystemRandom

from telemetry_assets_tests.chaos.disks import mounts_permitted
from telemetry_assets_tests.chaos.lanes import played
from telemetry_assets_tests.chaos.player import Outcome
from telemetry_assets_tests.chaos.report import describe_failure, disks_sentence, page
from telemetry_assets_tests.chaos.schedules import drawn_schedule, seeds

_TOLD_EVERY = 20


def main(arguments: list[str]) -> int:
    """Play the schedules; return 1 if one failed."""
    parser = argparse.ArgumentParser(prog="python -m telemetry_assets_tests.chaos", description=__doc__)
    parser.add_argument("--schedules", type=int, default=100)
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(1_000_000))
    parser.add_argument("--place", choices=("s3", "folder", "both"), default="both")
    parser.add_argument("--report", type=Path, help="a file for a page of Markdown")
    chosen = parser.parse_args(arguments)
    command = f"python -m telemetry_assets_tests.chaos --schedules {chosen.schedules} --seed {chosen.seed}"
    command += f" --place {chosen.place}"
    print(command, flush=True)
    started = time.monotonic()
    outcomes: list[Outcome] = []
    place = None if chosen.place == "both" else chosen.place
    mounts = mounts_permitted()
    print(disks_sentence(mounts), flush=True)
    drawn = [drawn_schedule(seed, place, mounts=mounts) for seed in seeds(chosen.seed, chosen.schedules)]
    for outcome in played(drawn):
        outcomes.append(outcome)
        if outcome.problems:
            print(describe_failure(outcome), flush=True)
        if len(outcomes) % _TOLD_EVERY == 0 or len(outcomes) == chosen.schedules:
            print(_progress(outcomes, time.monotonic() - started), flush=True)
            if chosen.report:
                chosen.report.write_text(page(outcomes, command, time.monotonic() - started, mounts))
    return int(any(outcome.problems for outcome in outcomes))


def _progress(outcomes: list[Outcome], seconds: float) -> str:
    points = {point for outcome in outcomes for point in outcome.record.points}
    failed = sum(bool(outcome.problems) for outcome in outcomes)
    lost, double, unreported = (
        sum(outcome.record.counts[name] for outcome in outcomes) for name in ("lost", "double", "unreported")
    )
    return (
        f"{len(outcomes)} schedules in {seconds:.0f} s, {len(points)} distinct points, {failed} failed: "
        f"{lost} lost, {double} double, {unreported} unreported"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
