"""Random schedules of deployments have correct results, and the checker finds deliberate defects."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from typing import get_args

import pytest

from telemetry_assets_tests.chaos.crew import Crew, Worker
from telemetry_assets_tests.chaos.disks import mounts_permitted
from telemetry_assets_tests.chaos.lanes import played
from telemetry_assets_tests.chaos.player import Outcome
from telemetry_assets_tests.chaos.points import Record
from telemetry_assets_tests.chaos.report import describe_failure, page
from telemetry_assets_tests.chaos.schedules import drawn_schedule, seeds
from telemetry_assets_tests.chaos.steps import (
    ClockJump,
    DiskTrouble,
    Foreign,
    Grow,
    HoldLock,
    Kill,
    LockState,
    Maintain,
    Moment,
    Pause,
    Put,
    PutHalf,
    Run,
    Schedule,
    Step,
)
from telemetry_assets_tests.harness.made_documents import event

# All schedules are played before the first test, which takes a minute, or several on a busy machine.
pytestmark = [pytest.mark.alone, pytest.mark.timeout(900)]

SEED = 20251108
SCHEDULES = 10


def upload(number: int, documents: int = 1) -> Put:
    text = json.dumps([event(sent=number, event_id=f"evt-{one}") for one in range(documents)])
    return Put("a.json", text.encode(), documents, f"number {number}")


def schedule(place: str, *steps: Step, **settings: float) -> Schedule:
    return Schedule(SEED, place, versioned=True, settings=settings, steps=(Run(), *steps))


def at_commit(*foreign: Foreign) -> Run:
    """A run with actions of other programs around its commit of a batch to Bronze."""
    return Run(disturbance=Pause(Moment(1, False, True, "the commit to bronze.car_telemetry"), foreign))


def grows() -> PutHalf:
    content = json.dumps([event(sent=1, event_id=f"evt-{one}") for one in range(3)]).encode()
    return PutHalf("a.json", content, 200, "3 documents")


IN_THE_NIGHT = tuple(
    Maintain(kind, "everything")
    for kind in ("marked compaction", "expiry to one snapshot", "removal of orphans", "removal of old metadata")
)
KILLED_AFTER_BRONZE = Run(disturbance=Kill(Moment(1, False, True, "archiving")))
SHORT_LOCKS = tuple(HoldLock(state, 0.3) for state in get_args(LockState))
MOUNTS = mounts_permitted()
RANDOM = [drawn_schedule(seed, mounts=MOUNTS) for seed in seeds(SEED, SCHEDULES)]
# Each must have the correct result, with a reader during its runs.
FOREIGN = {
    **{f"{one.kind} at a commit": schedule("folder", upload(1), at_commit(one)) for one in SHORT_LOCKS},
    "maintenance between runs": schedule("folder", upload(1), Run(), *IN_THE_NIGHT, upload(2)),
    "unmarked compaction between runs": schedule(
        "folder", upload(1), Run(), Maintain("unmarked compaction", "everything"), upload(2)
    ),
    "a clock that jumps": schedule(
        "folder", upload(1), Run(disturbance=ClockJump(Moment(3, False, True), -7200)), upload(2), Run()
    ),
    **{
        f"a {what} disk": replace(
            schedule("folder", upload(1), at_commit(DiskTrouble(what, 0, None)), upload(2)), disk="both"
        )
        for what in ("full", "read-only")
        if MOUNTS
    },
}
# Defects of the first version.
FOUND = {
    "a reader keeps the catalog": schedule("folder", upload(1), at_commit(HoldLock("shared", 4))),
    "a writer keeps the catalog": schedule("folder", upload(1), at_commit(HoldLock("reserved", 4))),
    "maintenance after a killed run": schedule("folder", upload(1), KILLED_AFTER_BRONZE, *IN_THE_NIGHT),
    "no hard links": replace(schedule("folder", upload(1)), hard_links=False),
    "an upload that grows after it was read": schedule("folder", grows(), Run(), Grow()),
}
BROKEN = {
    "a batch is appended twice": (schedule("folder", upload(1)), "bronze.car_telemetry: 1 rows too many"),
    "batches are archived without their rows": (schedule("folder", upload(1)), "which no table has"),
    "replayed documents stay rejected": (
        schedule("folder", upload(1, documents=4), upload_max_documents=3),
        "bronze.rejected_documents: 1 rows too many",
    ),
    "a commit in doubt is believed": (
        schedule("folder", upload(1), at_commit(HoldLock("reserved", 4))),
        "which no table has",
    ),
    "a compaction is rebased": (
        schedule(
            "folder",
            upload(1),
            Run(),
            upload(2),
            Run(),
            Run("maintain", disturbance=Pause(Moment(1, False, True, "compacting bronze"), (upload(3), Run()))),
        ),
        "which no table has",
    ),
    "a needed file is deleted": (
        schedule("folder", upload(1), Run(), upload(2), Run(), Run("maintain", {}, 360_000.0), snapshots_min=2),
        "No such file or directory",
    ),
    "the newest version is deleted": (
        schedule("s3", upload(1), Run(disturbance=Pause(Moment(4, True, True), (upload(2),)))),
        "had to be taken 1 times, and is in the archive 0 times",
    ),
}


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    """The outcomes of all schedules, played together because the start takes most of the time."""
    broken = [replace(one, sabotage=sabotage) for sabotage, (one, _) in BROKEN.items()]
    foreign = [replace(one, watched=True) for one in (*FOREIGN.values(), *FOUND.values())]
    return list(played([*broken, *foreign, *RANDOM]))


def outcome_of(outcomes: list[Outcome], wanted: Schedule) -> Outcome:
    return next(one for one in outcomes if one.schedule == replace(wanted, watched=True))


def test_random_schedules_have_correct_results(outcomes: list[Outcome]) -> None:
    whole = [outcome for outcome in outcomes if outcome.schedule in RANDOM]

    record = Record()
    for outcome in whole:
        record.add(outcome.record)
    assert {outcome.schedule.place for outcome in whole} == {"s3", "folder"}
    assert not [describe_failure(outcome) for outcome in whole if outcome.problems]
    assert min(record.counts[name] for name in ("runs killed", "runs paused", "runs with faults", "documents")) > 0
    assert "| Schedules that failed | 0 |" in page(whole, "pytest", 1)


@pytest.mark.parametrize("name", FOREIGN)
def test_other_programs_and_the_machine_break_nothing(outcomes: list[Outcome], name: str) -> None:
    outcome = outcome_of(outcomes, FOREIGN[name])

    assert not outcome.problems, describe_failure(outcome)
    assert outcome.record.counts["reader: snapshots"] > 0
    happened = [count for what, count in outcome.record.counts.items() if what.startswith("happened: ")]
    assert sum(happened) + outcome.record.counts["runs whose clock jumps"] > 0, outcome.story


@pytest.mark.parametrize("name", FOUND)
def test_defects_of_the_first_version_are_fixed(outcomes: list[Outcome], name: str) -> None:
    outcome = outcome_of(outcomes, FOUND[name])
    assert not outcome.problems, describe_failure(outcome)


def test_paused_run_ends_with_its_schedule() -> None:
    crew = Crew(lambda: Worker({}, None, ""), spare=0)
    one = crew.take()
    os.kill(one.process.pid, signal.SIGSTOP)
    crew.end_taken()
    assert not one.process.is_alive()
    crew.end()


def test_schedule_depends_on_its_seed_only() -> None:
    assert [drawn_schedule(one.seed, one.place, mounts=MOUNTS) for one in RANDOM] == RANDOM
    assert not [one for one in seeds(SEED, 50) if drawn_schedule(one, "folder").disk]


@pytest.mark.parametrize("sabotage", BROKEN)
def test_deliberate_defect_is_found(outcomes: list[Outcome], sabotage: str) -> None:
    [outcome] = [one for one in outcomes if one.schedule.sabotage == sabotage]
    broken, found = BROKEN[sabotage]

    description = describe_failure(outcome)
    assert outcome.problems, "the checker has not found the defect"
    assert found in description
    assert f"--schedules 1 --seed {SEED} --place {broken.place}" in description
