"""Plays a schedule on a stage, to its end, and has the deployment judged."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from telemetry_assets.lakehouse.catalog import open_lakehouse
from telemetry_assets.pipeline import open_pipeline
from telemetry_assets_tests.chaos.by_hand import change_by_hand
from telemetry_assets_tests.chaos.complaints import complains
from telemetry_assets_tests.chaos.crew import Crew, StuckError, Worker
from telemetry_assets_tests.chaos.judge import Verdict, judged, left_to_do
from telemetry_assets_tests.chaos.ledger import Ledger
from telemetry_assets_tests.chaos.maintenance import did_happen, maintain
from telemetry_assets_tests.chaos.points import Record
from telemetry_assets_tests.chaos.reader import Reader
from telemetry_assets_tests.chaos.stages import FolderStage, Stage
from telemetry_assets_tests.chaos.steps import (
    Backfill,
    ClockJump,
    Delete,
    DiskTrouble,
    Disturbance,
    Foreign,
    Grow,
    HandMade,
    HoldLock,
    Kill,
    Maintain,
    Pause,
    Put,
    PutAgain,
    PutHalf,
    Run,
    Schedule,
    Step,
    Together,
    Work,
)
from telemetry_assets_tests.chaos.worker import Order, Told
from telemetry_assets_tests.chaos.world import World, busy_settings

_ENDING_RUNS = 3
# What the product says on purpose when others keep it from its work, such as a paused run that has the catalog's lock;
# another run does it then.
_CONTENTION = ("ConcurrentWriteError", "CatalogBusyError")
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
        self._settings = {**stage.settings.model_dump(), **busy_settings(), **schedule.settings}
        self._world = World(None, None)
        self._reader: Reader | None = None
        self._depth = 0
        self._failed: list[tuple[Disturbance | None, Told, bool, bool]] = []
        self._last_point = ""
        self._messages: list[str] = []
        self._last_message = ""
        self.outcome = Outcome(schedule)

    def play(self) -> Outcome:
        """Everything, and the judgement."""
        self._stage.clear(self._schedule)
        self._world = World(self._stage.catalog_file(), self._stage.disk())
        self._reader = self._new_reader()
        try:
            for step in self._schedule.steps:
                self._step(step, at_rest=True)
            self._calm()
            self._end()
        except StuckError as error:
            self.outcome.problems.append(str(error))
        finally:
            self._world.calm()
            self._crew.end_taken()
            self._add_what_the_reader_saw()
        return self.outcome

    def _new_reader(self) -> Reader | None:
        if not isinstance(self._stage, FolderStage) or not self._schedule.watched:
            return None
        by_hand = [step for step in self._schedule.steps if isinstance(step, HandMade)]
        return Reader(
            self._stage.open_catalog,
            self._stage.catalog_file(),
            judges_states=all("Bronze" in step.what for step in by_hand),
        )

    def _add_what_the_reader_saw(self) -> None:
        if self._reader is not None:
            self.outcome.problems += self._reader.problems
            for name, count in self._reader.counts.items():
                self.outcome.record.counts[f"reader: {name}"] += count

    def _step(self, step: Step, *, at_rest: bool) -> None:
        counts = self.outcome.record.counts
        counts[f"step: {type(step).__name__}"] += 1
        if isinstance(step, Put | PutHalf | PutAgain | Delete):
            self._produce(step)
        elif isinstance(step, HandMade):
            words, backfill = change_by_hand(open_lakehouse(self._stage.settings), step)
            self._amends += [backfill] if backfill else []
            self._tell(step, words)
        elif isinstance(step, Foreign):
            self._happen(step, at_rest=at_rest)
        else:
            self._work(step.runs if isinstance(step, Together) else (step,), alone=at_rest and isinstance(step, Run))

    def _produce(self, step: Put | PutHalf | PutAgain | Delete) -> None:
        """A producer's step, which a disk in trouble can refuse."""
        is_new = not isinstance(step, Delete)
        try:
            if isinstance(step, Put):
                happened = self._ledger.put(step.name, step.content)
            elif isinstance(step, PutHalf):
                happened = self._ledger.put_half(step.name, step.content, step.cut)
            else:
                act = self._ledger.put_again if isinstance(step, PutAgain) else self._ledger.delete
                happened = act(step.name)
        except OSError as error:
            if not self._world.is_disk_in_trouble:
                raise
            self._tell(step, f"refused: {error.strerror}")
            return
        self.outcome.record.counts["uploads"] += is_new and happened
        self._tell(step, "" if happened else "nothing was there")

    def _happen(self, step: Foreign, *, at_rest: bool) -> None:
        """Something that another program or the machine does; it is noted at the point where the run stands."""
        record = self.outcome.record
        where = "between runs" if at_rest else self._last_point
        done: list[tuple[str, str]] = []
        if isinstance(step, Maintain):
            file = self._stage.catalog_file()
            is_there = file is None or file.exists()
            results = maintain(self._stage.open_catalog, step, at_rest=at_rest) if is_there else []
            words = "; ".join(f"{table}: {outcome}" for table, outcome in results) or "there are no tables"
            of = [table for table, outcome in results if did_happen(outcome)]
            # While a run stands still, its point says more than which table it was.
            done = [(step.kind, f"of {table}, {self._last_point or 'after a whole run'}") for table in of]
            done = done if at_rest else [(step.kind, where)] * bool(of)
        elif isinstance(step, Grow):
            count = self._ledger.grow()
            words = f"{count} of them"
            done = [("growing upload", where)] * bool(count)
        else:
            words = self._world.hold(step) if isinstance(step, HoldLock) else self._world.trouble(step)
            done = [(step.kind, where)] * did_happen(words)
            if self._reader is not None:
                self._reader.may_fail = self._reader.may_fail or isinstance(step, DiskTrouble)
        for point in done:
            record.points[point] += 1
            record.counts[f"happened: {point[0]}"] += 1
        self._tell(step, words)

    def _work(self, runs: Sequence[Run], *, alone: bool) -> None:
        """Let runs work at once; an undisturbed one that is alone has to succeed."""
        self._depth += 1
        if self._depth == 1 and self._reader is not None:
            self._reader.begin()
        try:
            self._work_on(runs, alone=alone)
        finally:
            self._depth -= 1
            if self._depth == 0:
                self._calm()
                if self._reader is not None:
                    self._reader.end()

    def _calm(self) -> None:
        """End what goes on around runs; what a failed run had for an excuse is known only then."""
        excuses = self._world.calm()
        failed, self._failed = self._failed, []
        for disturbance, told, alone, troubled in failed:
            self._hold(disturbance, told, alone=alone, excused=troubled and excuses)

    def _work_on(self, runs: Sequence[Run], *, alone: bool) -> None:
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
            # What happens around a run that never came to its point is left out, so that it is not noted elsewhere.
            if paused or not isinstance(step, Foreign) or isinstance(step, Grow):
                self._step(step, at_rest=not paused and self._depth == 1)
        if paused:
            self._go_on()
        is_alone = alone and all(isinstance(step, Foreign) for step in meanwhile)
        for one, run in paused:
            self._ended(one, run, alone=is_alone)

    def _go_on(self) -> None:
        """Let paused runs go on."""
        for one in self._paused:
            one.release()
            self._tell("the paused run goes on", "")
        self._paused = []

    def _order(self, run: Run) -> Order:
        settings = {**self._settings, **run.settings}
        return Order(settings, (run.work,), run.clock, None, self._schedule.hard_links)

    def _ended(self, one: Worker, run: Run, *, alone: bool) -> Told | None:
        """Wait for a run; what it told where it is paused only."""
        told = self._next_told(one)
        record = self.outcome.record
        if told.what == "jumped":
            assert isinstance(run.disturbance, ClockJump)
            record.points[f"clock {'ahead' if run.disturbance.seconds > 0 else 'back'}", told.about] += 1
            record.counts["runs whose clock jumps"] += 1
            told = self._next_told(one)
        if told.about and told.what in ("killed", "paused"):
            self._last_point = told.about
            if not _has_foreign(run.disturbance):
                moment, _, point = told.about.partition(" ")
                record.points[f"{told.what} {moment}", point] += 1
        if told.what == "paused":
            self._tell(run, f"paused {told.about}")
            record.counts["runs paused"] += 1
            return told
        self._last_point = told.about if told.what == "killed" else ""
        faults = record.counts["faults"]
        if told.what == "killed":
            one.process.join(10)
        one.end_order(record)
        self._crew.give_back(one)
        record.counts["runs"] += 1
        record.counts["runs killed"] += told.what == "killed"
        record.counts["runs with faults"] += record.counts["faults"] > faults
        self._tell(run, f"{told.what} {told.about}".strip())
        record.counts["replays"] += run.work == "replay"
        self._last_message = told.error if told.what == "failed" else ""
        self._failed.append((run.disturbance, told, alone, self._world.is_troubled))
        return None

    def _next_told(self, one: Worker) -> Told:
        """What a run tells next. One that stands still may hold a lock that others wait for."""
        if self._paused:
            try:
                return one.next_told(_LONGEST_LOCK)
            except StuckError:
                self._go_on()
        return one.next_told()

    def _hold(self, disturbance: Disturbance | None, told: Told, *, alone: bool, excused: bool) -> None:
        """What a run may end with.

        :param excused: whether a disk failed, or a lock of the catalog was there for too long.
        """
        if told.what == "killed" and not told.about:
            self.outcome.problems.append("a run's process died by itself")
        if told.what != "failed":
            return
        kind = told.about.partition(":")[0]
        self._messages.append(told.error)
        self.outcome.record.counts["runs that failed"] += 1
        undisturbed = (disturbance is None or isinstance(disturbance, Kill | Pause | ClockJump)) and not excused
        if kind in _DEFECTS or (undisturbed and (alone or kind not in _CONTENTION)):
            self.outcome.problems.append(f"a run failed with {told.about}\n{_tail(told.error)}")

    def _end(self) -> None:
        """Undisturbed runs, until nothing is left to do; then the judgement."""
        if self._ledger.has_growing:
            self._step(Grow(), at_rest=True)
        works: list[Work] = [*self._amends]
        if "upload_max_documents" in self._schedule.settings:
            works.append("process")
            works.append("replay")
        for work in works:
            settings: dict[str, float] = {"upload_max_documents": 1_000_000} if work == "replay" else {}
            self._work([Run(work, settings)], alone=True)
        for again in reversed(range(_ENDING_RUNS)):
            self._work([Run()], alone=True)
            with open_pipeline(self._stage.settings) as pipeline:
                left = left_to_do(pipeline, self._ledger)
            if not left or not again:
                self._judge(left)
                return

    def _judge(self, left: Sequence[str]) -> None:
        record = self.outcome.record
        limit = self._stage.settings.upload_max_bytes
        verdict = judged(self._stage.open_catalog(), limit, self._ledger, left, record)
        self.outcome.problems += verdict.problems
        record.counts["lost"] += len(verdict.lost)
        record.counts["double"] += len(verdict.double)
        record.counts["not taken"] += len(verdict.not_taken)
        unreported = self._unreported(verdict)
        record.counts["unreported"] += len(unreported)
        self.outcome.problems += [
            f"neither a run's error nor a command of the product names {one}" for one in unreported
        ]

    def _unreported(self, verdict: Verdict) -> list[str]:
        """What is lost, double or not taken without a word of the product.

        A run's error names it where it has the batch's identifier or the upload's name in it; a command that ends with
        a finding is enough, whatever it says.
        """
        messages = "\n".join(self._messages)
        # What is still to do is named by the last run's error, whatever it says.
        names = verdict.lost | verdict.double | (set() if self._last_message else verdict.not_taken)
        unnamed = [name for name in sorted(names) if not any(part in messages for part in name.split(": ", 1))]
        return [] if not unnamed or complains(self._stage.settings) else unnamed

    def _tell(self, step: object, outcome: str) -> None:
        words = re.sub(r"; meanwhile \[.*\]$", "", str(step))
        self.outcome.story.append(f"{words}{f' -> {outcome}' if outcome else ''}")


def _has_foreign(disturbance: Disturbance | None) -> bool:
    """Whether points are noted by what another program does there, and not by the pause."""
    return isinstance(disturbance, Pause) and any(isinstance(one, Foreign) for one in disturbance.meanwhile)


def _tail(error: str) -> str:
    return "\n".join(f"      {line}" for line in error.splitlines()[-14:])
