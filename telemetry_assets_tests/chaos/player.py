"""Plays a schedule on a stage, to its end, and has the deployment judged."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from telemetry_assets.lakehouse.catalog import open_lakehouse
from telemetry_assets.pipeline import open_pipeline
from telemetry_assets_tests.chaos.by_hand import change_by_hand
from telemetry_assets_tests.chaos.crew import Crew, StuckError, Worker
from telemetry_assets_tests.chaos.judge import judged, left_to_do
from telemetry_assets_tests.chaos.ledger import Ledger
from telemetry_assets_tests.chaos.points import Record
from telemetry_assets_tests.chaos.stages import Stage
from telemetry_assets_tests.chaos.steps import (
    Backfill,
    Delete,
    Disturbance,
    HandMade,
    Kill,
    Pause,
    Put,
    PutAgain,
    Run,
    Schedule,
    Step,
    Together,
    Work,
)
from telemetry_assets_tests.chaos.worker import Order, Told

_ENDING_RUNS = 3
# What the product says on purpose when others keep it from its work; another run does it then.
_CONTENTION = "ConcurrentWriteError"
# SQLite lets a writer wait for five seconds only, and a paused one can hold its lock for longer.
_LOCKED = "database is locked"
_LONGEST_LOCK = 15.0
# What no fault of a service and no other run may lead to.
_DEFECTS = ("QualityError", "AttributeError", "TypeError", "IndexError", "AssertionError")


@dataclass
class Outcome:
    """What became of a schedule.

    :param story: its steps as they went, in words.
    :param problems: what is wrong; nothing where all is well.
    """

    schedule: Schedule
    story: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    record: Record = field(default_factory=Record)


class Player:
    """Plays one schedule."""

    def __init__(self, schedule: Schedule, stage: Stage, crew: Crew) -> None:
        self._schedule = schedule
        self._stage = stage
        self._crew = crew
        self._ledger = Ledger(stage)
        self._amends: list[Backfill] = []
        self._paused: list[Worker] = []
        self._settings = {**stage.settings.model_dump(), **schedule.settings}
        self.outcome = Outcome(schedule)

    def play(self) -> Outcome:
        """Everything, and the judgement."""
        self._stage.clear(versioned=self._schedule.versioned)
        try:
            for step in self._schedule.steps:
                self._step(step, at_rest=True)
            self._end()
        except StuckError as error:
            self.outcome.problems.append(str(error))
        finally:
            self._crew.end_taken()
        return self.outcome

    def _step(self, step: Step, *, at_rest: bool) -> None:
        counts = self.outcome.record.counts
        counts[f"step: {type(step).__name__}"] += 1
        if isinstance(step, Put):
            self._ledger.put(step.name, step.content)
            counts["uploads"] += 1
            self._tell(step, "")
        elif isinstance(step, PutAgain | Delete):
            act = self._ledger.put_again if isinstance(step, PutAgain) else self._ledger.delete
            happened = act(step.name)
            counts["uploads"] += isinstance(step, PutAgain) and happened
            self._tell(step, "" if happened else "nothing was there")
        elif isinstance(step, HandMade):
            words, backfill = change_by_hand(open_lakehouse(self._stage.settings), step)
            self._amends += [backfill] if backfill else []
            self._tell(step, words)
        else:
            self._work(step.runs if isinstance(step, Together) else (step,), alone=at_rest and isinstance(step, Run))

    def _work(self, runs: Sequence[Run], *, alone: bool) -> None:
        """Let runs work at once; an undisturbed one that is alone has to succeed."""
        working = [(self._crew.take(), run) for run in runs]
        for one, run in working:
            one.order(self._order(run), run.disturbance)
        meanwhile: list[Step] = []
        paused: list[tuple[Worker, Run]] = []
        for one, run in working:
            told = self._ended(one, run, alone=alone)
            if isinstance(run.disturbance, Pause):
                meanwhile += run.disturbance.meanwhile
                paused += [(one, run)] if told is not None else []
        self._paused += [one for one, _ in paused]
        for step in meanwhile:
            self._step(step, at_rest=False)
        if paused:
            self._go_on()
        for one, run in paused:
            self._ended(one, run, alone=False)

    def _go_on(self) -> None:
        """Let paused runs go on."""
        for one in self._paused:
            one.release()
            self._tell("the paused run goes on", "")
        self._paused = []

    def _order(self, run: Run) -> Order:
        return Order({**self._settings, **run.settings}, (run.work,), run.clock, None)

    def _ended(self, one: Worker, run: Run, *, alone: bool) -> Told | None:
        """Wait for a run; what it told where it is paused only."""
        told = self._next_told(one)
        record = self.outcome.record
        if told.about and told.what in ("killed", "paused"):
            moment, _, point = told.about.partition(" ")
            record.points[f"{told.what} {moment}", point] += 1
        if told.what == "paused":
            self._tell(run, f"paused {told.about}")
            record.counts["runs paused"] += 1
            return told
        faults = record.counts["faults"]
        if told.what == "killed":
            one.process.join(10)
        one.end_order(record)
        self._crew.give_back(one)
        record.counts["runs"] += 1
        record.counts["runs killed"] += told.what == "killed"
        record.counts["runs with faults"] += record.counts["faults"] > faults
        self._tell(run, f"{told.what} {told.about}".strip())
        self._hold(run.disturbance, told, alone=alone)
        return None

    def _next_told(self, one: Worker) -> Told:
        """What a run tells next. One that stands still may hold a lock that others wait for."""
        if self._paused:
            try:
                return one.next_told(_LONGEST_LOCK)
            except StuckError:
                self._go_on()
        return one.next_told()

    def _hold(self, disturbance: Disturbance | None, told: Told, *, alone: bool) -> None:
        """What a run may end with."""
        if told.what == "killed" and not told.about:
            self.outcome.problems.append("a run's process died by itself")
        if told.what != "failed":
            return
        kind = told.about.partition(":")[0]
        undisturbed = disturbance is None or isinstance(disturbance, Kill | Pause)
        contended = kind == _CONTENTION or _LOCKED in told.about
        if kind in _DEFECTS or (undisturbed and (alone or not contended)):
            self.outcome.problems.append(f"a run failed with {told.about}\n{_tail(told.error)}")

    def _end(self) -> None:
        """Undisturbed runs, until nothing is left to do; then the judgement."""
        works: list[Work] = [*self._amends]
        if "upload_max_documents" in self._schedule.settings:
            works.append("process")
            works.append("replay")
        for work in works:
            settings = {"upload_max_documents": 1_000_000} if work == "replay" else {}
            self._work([Run(work, settings)], alone=True)
        for again in reversed(range(_ENDING_RUNS)):
            self._work([Run()], alone=True)
            with open_pipeline(self._stage.settings) as pipeline:
                left = left_to_do(pipeline)
                if not left or not again:
                    self.outcome.problems += [*left, *judged(pipeline, self._ledger, self.outcome.record)]
                    return

    def _tell(self, step: object, outcome: str) -> None:
        words = re.sub(r"; meanwhile \[.*\]$", "", str(step))
        self.outcome.story.append(f"{words}{f' -> {outcome}' if outcome else ''}")


def _tail(error: str) -> str:
    return "\n".join(f"      {line}" for line in error.splitlines()[-14:])
