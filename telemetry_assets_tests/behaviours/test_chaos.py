"""Random lives of deployments end as they must; and the checker that says so can say otherwise."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace

import pytest

from telemetry_assets_tests.chaos.crew import Crew, Worker
from telemetry_assets_tests.chaos.lanes import played
from telemetry_assets_tests.chaos.player import Outcome
from telemetry_assets_tests.chaos.points import Record
from telemetry_assets_tests.chaos.report import failure_in_words, page
from telemetry_assets_tests.chaos.schedules import drawn_schedule, seeds
from telemetry_assets_tests.chaos.steps import Moment, Pause, Put, Run, Schedule, Step
from telemetry_assets_tests.made_documents import event

pytestmark = pytest.mark.alone

SEED = 20251108
SCHEDULES = 10


def upload(number: int, documents: int = 1) -> Put:
    text = json.dumps([event(sent=number, event_id=f"evt-{one}") for one in range(documents)])
    return Put("a.json", text.encode(), documents, f"number {number}")


def schedule(place: str, *steps: Step, **settings: float) -> Schedule:
    return Schedule(SEED, place, versioned=True, settings=settings, steps=(Run(), *steps))


RANDOM = [drawn_schedule(seed) for seed in seeds(SEED, SCHEDULES)]
BROKEN = {
    "a batch is appended twice": (schedule("folder", upload(1)), "is not conserved"),
    "batches are archived without their rows": (schedule("folder", upload(1)), "which no table has"),
    "replayed documents stay rejected": (
        schedule("folder", upload(1, documents=4), upload_max_documents=3),
        "bronze.rejected_documents: 1 rows too many",
    ),
    "the newest version is deleted": (
        schedule("s3", upload(1), Run(disturbance=Pause(Moment(4, True, True), (upload(2),)))),
        "had to be taken 1 times, and is in the archive 0 times",
    ),
}


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    """Of all schedules here, played together, as most of a short time goes by before the first one."""
    broken = [replace(one, sabotage=sabotage) for sabotage, (one, _) in BROKEN.items()]
    return list(played([*broken, *RANDOM]))


def test_random_lives_end_as_they_must(outcomes: list[Outcome]) -> None:
    whole = [outcome for outcome in outcomes if not outcome.schedule.sabotage]

    record = Record()
    for outcome in whole:
        record.add(outcome.record)
    assert {outcome.schedule.place for outcome in whole} == {"s3", "folder"}
    assert not [failure_in_words(outcome) for outcome in whole if outcome.problems]
    assert min(record.counts[name] for name in ("runs killed", "runs paused", "runs with faults", "documents")) > 0
    assert "| Schedules that failed | 0 |" in page(whole, "pytest", 1)


def test_a_run_that_stands_still_does_not_outlive_its_schedule() -> None:
    crew = Crew(lambda: Worker({}, None, ""), spare=0)
    one = crew.take()
    os.kill(one.process.pid, signal.SIGSTOP)
    crew.end_taken()
    assert not one.process.is_alive()
    crew.end()


def test_a_schedule_follows_from_its_seed_alone() -> None:
    assert [drawn_schedule(one.seed, one.place) for one in RANDOM] == RANDOM


@pytest.mark.parametrize("sabotage", BROKEN)
def test_a_product_that_is_broken_on_purpose_is_found_out(outcomes: list[Outcome], sabotage: str) -> None:
    [outcome] = [one for one in outcomes if one.schedule.sabotage == sabotage]
    broken, found = BROKEN[sabotage]

    told = failure_in_words(outcome)
    assert outcome.problems, "the checker has not noticed"
    assert found in told
    assert f"--schedules 1 --seed {SEED} --place {broken.place}" in told
