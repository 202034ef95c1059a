"""Plays a schedule on a stage to its end and checks the deployment."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from telemetry_assets.lakehouse.catalog import open_lakehouse
from telemetry_assets.pipeline import open_pipeline
from telemetry_assets_tests.chaos.by_hand import change_by_hand
from telemetry_assets_tests.chaos.complaints import complains
from telemetry_assets_tests.chaos.crew import Crew, StuckError, Worker
from telemetry_assets_tests.chaos.judge import Verdict, judge, left_to_do
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
from telemetry_assets_tests.chaos.worker import Message, Order
from telemetry_assets_tests.chaos.world import World, busy_settings

_ENDING_RUNS = 3
# Errors that the product raises deliberately if other processes block it, such as a paused run with the catalog's
# lock; another run then does the work.
_CONTENTION = ("ConcurrentWriteError", "CatalogBusyError")
_LONGEST_LOCK = 15.0
# Errors that neither a service's fault nor another run may cause.
_DEFECTS = ("QualityError", "AttributeError", "TypeError", "IndexError", "AssertionError")


@dataclass
class Outcome:
    """The outcome of a schedule.

    :param story: descriptions of its steps with their outcomes.
    :param problems: descriptions of all problems; empty if there are none.
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
        self._failed: list[tuple[Disturbance | None, Message, bool, bool]] = []
        self._last_point = ""
        self._messages: list[str] = []
        self._last_message = ""
        self.outcome = Outcome(schedule)

    def play(self) -> Outcome:
        """Play all steps and check the deployment."""
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
            self._note(step, words)
        elif isinstance(step, Foreign):
            self._happen(step, at_rest=at_rest)
        else:
            self._work(step.runs if isinstance(step, Together) else (step,), alone=at_rest and isinstance(step, Run))

    def _produce(self, step: Put | PutHalf | PutAgain | Delete) -> None:
        """Play a producer's step, which fails on a full or read-only disk."""
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
            self._note(step, f"refused: {error.strerror}")
            return
        self.outcome.record.counts["uploads"] += is_new and happened
        self._note(step, "" if happened else "nothing was there")

    def _happen(self, step: Foreign, *, at_rest: bool) -> None:
        """Play an action of another program or the machine; it is recorded at the run's current point."""
        record = self.outcome.record
        where = "between runs" if at_rest else self._last_point
        done: list[tuple[str, str]] = []
        if isinstance(step, Maintain):
            file = self._stage.catalog_file()
            is_there = file is None or file.exists()
            results = maintain(self._stage.open_catalog, step, at_rest=at_rest) if is_there else []
            words = "; ".join(f"{table}: {outcome}" for table, outcome in results) or "there are no tables"
            of = [table for table, outcome in results if did_happen(outcome)]
            # While a run is paused, its point says more than the table's name.
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
        self._note(step, words)

    def _work(self, runs: Sequence[Run], *, alone: bool) -> None:
        """Execute runs concurrently; an undisturbed run that is alone must succeed."""
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
        """End the disturbances around runs; only then it is known which failures they excuse."""
        excuses = self._world.calm()
        failed, self._failed = self._failed, []
        for disturbance, message, alone, troubled in failed:
            self._check_end(disturbance, message, alone=alone, excused=troubled and excuses)

    def _work_on(self, runs: Sequence[Run], *, alone: bool) -> None:
        working = [(self._crew.take(), run) for run in runs]
        for one, run in working:
            one.order(self._order(run), run.disturbance)
        meanwhile: list[Step] = []
        paused: list[tuple[Worker, Run]] = []
        for one, run in working:
            message = self._ended(one, run, alone=alone)
            if isinstance(run.disturbance, Pause):
                meanwhile += run.disturbance.meanwhile
                paused += [(one, run)] if message is not None else []
        self._paused += [one for one, _ in paused]
        for step in meanwhile:
            # Actions at a point that the run never reached are skipped, so that they are not recorded elsewhere.
            if paused or not isinstance(step, Foreign) or isinstance(step, Grow):
                self._step(step, at_rest=not paused and self._depth == 1)
        if paused:
            self._go_on()
        is_alone = alone and all(isinstance(step, Foreign) for step in meanwhile)
        for one, run in paused:
            self._ended(one, run, alone=is_alone)

    def _go_on(self) -> None:
        """Resume paused runs."""
        for one in self._paused:
            one.release()
            self._note("the paused run goes on", "")
        self._paused = []

    def _order(self, run: Run) -> Order:
        settings = {**self._settings, **run.settings}
        return Order(settings, (run.work,), run.clock, None, self._schedule.hard_links)

    def _ended(self, one: Worker, run: Run, *, alone: bool) -> Message | None:
        """Wait for a run; return its message if it is only paused."""
        message = self._next_message(one)
        record = self.outcome.record
        if message.what == "jumped":
            assert isinstance(run.disturbance, ClockJump)
            record.points[f"clock {'ahead' if run.disturbance.seconds > 0 else 'back'}", message.about] += 1
            record.counts["runs whose clock jumps"] += 1
            message = self._next_message(one)
        if message.about and message.what in ("killed", "paused"):
            self._last_point = message.about
            if not _has_foreign(run.disturbance):
                moment, _, point = message.about.partition(" ")
                record.points[f"{message.what} {moment}", point] += 1
        if message.what == "paused":
            self._note(run, f"paused {message.about}")
            record.counts["runs paused"] += 1
            return message
        self._last_point = message.about if message.what == "killed" else ""
        faults = record.counts["faults"]
        if message.what == "killed":
            one.process.join(10)
        one.end_order(record)
        self._crew.give_back(one)
        record.counts["runs"] += 1
        record.counts["runs killed"] += message.what == "killed"
        record.counts["runs with faults"] += record.counts["faults"] > faults
        self._note(run, f"{message.what} {message.about}".strip())
        record.counts["replays"] += run.work == "replay"
        self._last_message = message.error if message.what == "failed" else ""
        self._failed.append((run.disturbance, message, alone, self._world.is_troubled))
        return None

    def _next_message(self, one: Worker) -> Message:
        """A run's next message. A paused run may hold a lock for which others wait."""
        if self._paused:
            try:
                return one.next_message(_LONGEST_LOCK)
            except StuckError:
                self._go_on()
        return one.next_message()

    def _check_end(self, disturbance: Disturbance | None, message: Message, *, alone: bool, excused: bool) -> None:
        """Check the final message of a run.

        :param excused: whether a disk failed, or a lock of the catalog was held for too long.
        """
        if message.what == "killed" and not message.about:
            self.outcome.problems.append("a run's process died by itself")
        if message.what != "failed":
            return
        kind = message.about.partition(":")[0]
        self._messages.append(message.error)
        self.outcome.record.counts["runs that failed"] += 1
        undisturbed = (disturbance is None or isinstance(disturbance, Kill | Pause | ClockJump)) and not excused
        if kind in _DEFECTS or (undisturbed and (alone or kind not in _CONTENTION)):
            self.outcome.problems.append(f"a run failed with {message.about}\n{_tail(message.error)}")

    def _end(self) -> None:
        """Execute undisturbed runs until nothing is left to do; then check the deployment."""
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
        verdict = judge(self._stage.open_catalog(), limit, self._ledger, left, record)
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
        """What is lost, duplicated or not ingested without a report by the product.

        A run's error reports it if it contains the batch's identifier or the upload's name; for a command, any finding
        is sufficient.
        """
        messages = "\n".join(self._messages)
        # Any error of the last run counts as a report of the remaining work.
        names = verdict.lost | verdict.double | (set() if self._last_message else verdict.not_taken)
        unnamed = [name for name in sorted(names) if not any(part in messages for part in name.split(": ", 1))]
        return [] if not unnamed or complains(self._stage.settings) else unnamed

    def _note(self, step: object, outcome: str) -> None:
        words = re.sub(r"; meanwhile \[.*\]$", "", str(step))
        self.outcome.story.append(f"{words}{f' -> {outcome}' if outcome else ''}")


def _has_foreign(disturbance: Disturbance | None) -> bool:
    """Whether points are recorded for another program's action there and not for the pause."""
    return isinstance(disturbance, Pause) and any(isinstance(one, Foreign) for one in disturbance.meanwhile)


def _tail(error: str) -> str:
    return "\n".join(f"      {line}" for line in error.splitlines()[-14:])
