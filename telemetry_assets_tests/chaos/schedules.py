"""Draws schedules: a seed determines everything that happens in a schedule."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from random import Random
from typing import Literal, get_args

from telemetry_assets_tests.chaos.steps import (
    MAINTENANCE_KINDS,
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
    LockState,
    Maintain,
    Moment,
    OneFault,
    Pause,
    PutAgain,
    RandomFaults,
    Run,
    Schedule,
    Step,
    Together,
    Work,
)
from telemetry_assets_tests.chaos.uploads import DAYS, NAMES, drawn_half, drawn_upload
from telemetry_assets_tests.harness.aws.faults import FaultKind

PLACES = ("s3", "folder")
_WAYS = ("alone", "killed", "faults", "paused", "together", "locked", "disk", "maintained", "jumps")
_JUMPS = (-7200.0, -26 * 3600.0, -1.0, 3600.0, 26 * 3600.0)
FAULT_KINDS = tuple(kind for kind in FaultKind if kind not in (FaultKind.ACCESS_DENIED, FaultKind.PAUSED))
BY_HAND = (
    "a row is appended to Bronze",
    "a row is appended to Bronze",
    "silver.car_telemetry is rolled back",
    "gold.car_current_state is rolled back",
    "gold.performance_alerts is rolled back",
    "silver.car_telemetry loses a date, and is rebuilt at the end",
    "silver.car_telemetry is changed, and is rebuilt at the end",
    "gold.performance_alerts loses its rows, and is rebuilt at the end",
    "gold.fuel_efficiency_monthly is dropped",
    "gold.car_current_state is dropped",
)
_DERIVED = ("silver.car_telemetry", "gold.car_current_state", "gold.fuel_efficiency_monthly", "gold.performance_alerts")
_TABLES = ("bronze.car_telemetry", "bronze.rejected_documents", *_DERIVED)
_COMMITS = (
    *("the commit to bronze.car_telemetry", "appending to bronze.car_telemetry") * 2,
    *("the commit to bronze.rejected_documents", "the commit to silver", "the commit to gold"),
    *("ending the catalog's transaction",) * 2,
)
"""Names of a run's boundaries at which a lock of the catalog matters most."""
_AFTER_BRONZE = (
    "appending to bronze.car_telemetry",
    "archiving",
    "removing the journal",
    "moving the watermark",
    "replacing",
)
"""Names of boundaries at which a batch's rows are in Bronze and the run has not ended."""
_STEPS = (
    *(f"{step} {table}" for step in ("the commit to", "writing metadata of") for table in _TABLES),
    *(f"{step} {table}" for step in ("replacing rows of", "moving the watermark of") for table in _DERIVED),
    *("appending to bronze.car_telemetry", "appending to bronze.rejected_documents"),
    *("creating the journal", "linking", "replacing the journal", "removing the journal", "renaming to in_progress"),
    *("claiming", "reading", "archiving", "removing the claim folders", "renaming"),
    *("ending the catalog's transaction",) * 3,
)
_MAINTENANCE_STEPS = ("compacting", "the commit to", "expiring snapshots of", "deleting old files", "moving")
"""Names of boundaries of the product's maintenance."""
_LATER = 100 * 3600.0
"""How far the clock is ahead, in seconds, when everything is old enough to be removed."""
_STEPS_OF_FIRST_RUNS = tuple(f"creating {table}" for table in _TABLES)
_STEPS_BETWEEN_DISKS = ("copying",)
DISTURBED_STEPS = frozenset(
    {*_MAINTENANCE_STEPS, *_COMMITS, *_AFTER_BRONZE, *_STEPS, *_STEPS_OF_FIRST_RUNS, *_STEPS_BETWEEN_DISKS}
)
"""The beginnings of names of boundaries at which folder schedules disturb runs."""
_WITH_TABLES = 0.6
"""The share of schedules whose first disturbed run finds existing tables; in the others it creates them."""

_SHARES = (1, 3)
"""The weights of the places. A schedule in S3 takes twice as long because of its hundreds of requests."""

MOST_DOCUMENTS = 3
"""The maximum number of an upload's documents in schedules that replay with a higher one."""


def seeds(first: int, count: int) -> list[int]:
    """The seeds of ``count`` schedules, beginning with ``first``, so that each can be played again by itself."""
    later = (hashlib.sha256(f"{first}/{number}".encode()).digest() for number in range(1, count))
    return [first, *(int.from_bytes(digest[:5], "big") for digest in later)]


def drawn_schedule(seed: int, place: str | None = None, *, mounts: bool = False) -> Schedule:
    """The schedule of a seed, in the given place or one that the seed determines.

    :param mounts: whether disks can be mounted here; if not, the schedule has no disk of its own.
    """
    random = Random(seed)
    chosen = random.choices(PLACES, _SHARES)[0]
    return _Drawing(Random(seed + 1), place or chosen, mounts).schedule(seed)


class _Drawing:
    def __init__(self, random: Random, place: str, mounts: bool) -> None:
        self._random = random
        self._in_s3 = place == "s3"
        self._place = place
        self._uploads = 0
        self._has_tables = False
        self._replays = random.random() < 0.2
        self._disk = self._drawn_disk() if mounts and not self._in_s3 else ""
        self._hard_links = self._in_s3 or random.random() > 0.04
        self._watched = not self._in_s3 and random.random() < 0.33

    def _drawn_disk(self) -> Literal["", "both", "lakehouse", "landing"]:
        disks: tuple[Literal["", "both", "lakehouse", "landing"], ...] = ("", "both", "lakehouse", "landing")
        return self._random.choices(disks, (70, 16, 8, 6))[0]

    def schedule(self, seed: int) -> Schedule:
        random = self._random
        settings: dict[str, float] = {
            "batch_max_uploads": random.choice((2, 3, 4, 1000)),
            "read_threads": random.choice((1, 4, 8)),
        }
        if random.random() < 0.3:
            settings["batch_max_bytes"] = random.choice((300, 1000, 3000))
        if self._replays:
            settings["upload_max_documents"] = MOST_DOCUMENTS
        if random.random() < 0.6:
            # After each run, and in it as much as is due.
            settings |= {"commits_before_compaction": random.choice((1, 2, 4)), "maintenance_seconds": 60}
            settings["snapshots_min"] = random.choice((1, 2, 5))
        steps = self._burst()
        if random.random() < _WITH_TABLES:
            # Equally often before and after the first uploads, so that tables may be empty or not.
            steps.insert(random.choice((0, len(steps))), Run())
            self._has_tables = True
        turns = random.choice((1, 1, 2) if self._in_s3 else (1, 1, 2, 2))
        for _ in range(turns):
            steps += self._turn()
            self._has_tables = True
        versioned, watched = random.random() < 0.7, self._watched
        return Schedule(seed, self._place, versioned, settings, tuple(steps), "", self._disk, self._hard_links, watched)

    def _turn(self) -> list[Step]:
        """A step with runs, and the steps around it."""
        around = self._around()
        if self._random.random() < 0.25:
            around.append(self._maintenance_of_old_tables())
        if self._random.random() < 0.2:
            around.append(HandMade(self._random.choice(BY_HAND), self._random.randrange(1000)))
        drawn = self._random.random()
        if drawn < 0.16:
            return [
                *self._some_burst(),
                self._run(Kill(self._moment_after_bronze())),
                *self._maintenance(),
                self._run(None),
            ]
        if drawn < 0.26:
            return [*around, *self._maintenance(), self._at_work()]
        if drawn < 0.32 and self._disk in ("", "both") and not self._in_s3:
            return [*around, self._half(), self._at_work(), *self._growth()]
        return [*around, self._at_work()]

    def _around(self) -> list[Step]:
        """The steps before a run. A folder run without work reaches few of the points."""
        if not self._in_s3 and self._random.random() < 0.85:
            return self._some_burst()
        return self._burst() if self._random.random() < 0.75 else []

    def _some_burst(self) -> list[Step]:
        """Uploads that certainly exist."""
        self._uploads += 1
        return [drawn_upload(self._random, self._uploads), *self._burst()]

    def _half(self) -> Step:
        self._uploads += 1
        return drawn_half(self._random, self._uploads)

    def _growth(self) -> list[Step]:
        """Growth of an upload between two runs or during one."""
        if self._random.random() < 0.5:
            return [Grow()]
        return [Run(disturbance=Pause(self._moment(), (Grow(),)))]

    def _maintenance_of_old_tables(self) -> Step:
        """The product's maintenance between two runs, when all snapshots and unneeded files are old."""
        kill = (
            Kill(self._named_moment_of(_MAINTENANCE_STEPS)) if not self._in_s3 and self._random.random() < 0.5 else None
        )
        return Run("maintain", {}, _LATER, kill)

    def _maintenance(self) -> list[Step]:
        """Another tool's maintenance: mostly all kinds one after another, as a nightly job does."""
        random = self._random
        if random.random() < 0.5:
            kinds = [MAINTENANCE_KINDS[random.randrange(2)], random.choice(MAINTENANCE_KINDS[2:5])]
            kinds += [one for one in MAINTENANCE_KINDS[5:] if random.random() < 0.5]
            table = random.choice(("everything", "everything", *_TABLES))
            return [Maintain(kind, table) for kind in kinds]
        count = random.choice((1, 1, 2, 3))
        return [Maintain(random.choice(MAINTENANCE_KINDS), random.choice(_TABLES)) for _ in range(count)]

    def _burst(self) -> list[Step]:
        return [self._change() for _ in range(self._random.choice((1, 1, 1, 2, 3)))]

    def _change(self) -> Step:
        drawn = self._random.random()
        if drawn < 0.1:
            return Delete(self._random.choice(NAMES)[0])
        if drawn < 0.2:
            return PutAgain(self._random.choice(NAMES)[0])
        self._uploads += 1
        return drawn_upload(self._random, self._uploads)

    def _at_work(self) -> Step:
        drawn = self._random.choices(_WAYS, self._shares())[0]
        if drawn == "alone":
            return self._run(None)
        if drawn == "killed":
            return self._run(Kill(self._moment()))
        if drawn == "faults":
            return self._run(self._faults())
        if drawn == "paused":
            return self._run(Pause(self._moment(), self._meanwhile()))
        if drawn == "jumps":
            return self._run(ClockJump(self._moment(), self._random.choice(_JUMPS)))
        if drawn in ("locked", "disk", "maintained"):
            foreign = {"locked": self._locks, "disk": self._disk_trouble, "maintained": self._maintained}[drawn]()
            at = self._moment_of_commit() if drawn == "locked" and self._random.random() < 0.6 else self._moment()
            return self._run(Pause(at, tuple(foreign)))
        runs = [self._run(None) for _ in range(self._random.choice((2, 2, 2, 3)))]
        if self._random.random() < 0.5:
            runs[0] = self._run(self._faults() if self._in_s3 and self._random.random() < 0.5 else Kill(self._moment()))
        return Together(tuple(runs))

    def _shares(self) -> tuple[int, ...]:
        """The weights of disturbances; request faults occur in S3 only, and file and disk faults in folders only."""
        return (4, 26, 50, 12, 8, 0, 0, 6, 0) if self._in_s3 else (6, 28, 0, 14, 8, 26, 34 if self._disk else 0, 12, 12)

    def _locks(self) -> list[Foreign]:
        """A lock of the catalog, sometimes for longer than the product's timeout."""
        states: tuple[LockState, ...] = get_args(LockState)
        busy = self._random.choice((0.1, 0.4, 1.4, 1.4, 2.5))
        return [HoldLock(self._random.choice(states), busy)]

    def _disk_trouble(self) -> list[Foreign]:
        random = self._random
        seconds = random.choice((None, None, 0.1, 0.5))
        if random.random() < 0.6:
            return [DiskTrouble("full", random.choice((0, 0, 1, 2, 4, 8, 16, 32)), seconds)]
        return [DiskTrouble("read-only", 0, seconds)]

    def _maintained(self) -> list[Foreign]:
        """Maintenance that deletes no files."""
        random = self._random
        count = random.choice((1, 1, 2))
        return [Maintain(random.choice(MAINTENANCE_KINDS[:5]), random.choice(_TABLES)) for _ in range(count)]

    def _meanwhile(self) -> tuple[Step, ...]:
        """The steps during a pause: the producer's changes, a run that ends or dies, more changes."""
        random = self._random
        before = self._burst() if random.random() < 0.6 else []
        after = self._burst() if random.random() < 0.3 else []
        if random.random() < 0.25 and before:
            return tuple(before)
        run = self._run(Kill(self._moment()) if random.random() < 0.2 else None)
        return (*before, run, *after)

    def _run(self, disturbance: Disturbance | None) -> Run:
        random = self._random
        clock = random.choice((-7200.0, -60.0, 30.0)) if random.random() < 0.1 else 0.0
        work = self._work()
        settings: dict[str, float] = {"upload_max_documents": 1_000_000} if work == "replay" else {}
        return Run(work, settings, clock, disturbance)

    def _work(self) -> Work:
        drawn = self._random.random()
        if self._replays and drawn < 0.25:
            return "replay"
        if 0.84 < drawn < 0.92:
            return "maintain"
        if drawn > 0.92:
            dates = self._random.sample(DAYS, self._random.randint(1, 3))
            return Backfill(self._random.choice(_DERIVED), tuple(sorted(dates)))
        return "process"

    def _moment(self) -> Moment:
        random = self._random
        before = random.random() < 0.5
        if not self._in_s3 and random.random() < 0.85:
            return self._named_moment(before)
        if not self._in_s3:
            return Moment(random.randint(1, random.choice((6, 12, 45))), False, before)
        if random.random() < 0.75:
            return Moment(random.randint(1, random.choice((12, 30, 45))), True, before)
        return Moment(random.randint(1, random.choice((60, 350))), False, before)

    def _named_moment(self, before: bool) -> Moment:
        random = self._random
        steps = (*_STEPS, *(() if self._has_tables else _STEPS_OF_FIRST_RUNS))
        step = random.choice((*steps, *(_STEPS_BETWEEN_DISKS if self._disk in ("lakehouse", "landing") else ())))
        most = 12 if step.startswith("ending") else 2 if random.random() < 0.2 else 1
        return Moment(random.randint(1, most), False, before, step)

    def _named_moment_of(self, steps: Sequence[str]) -> Moment:
        return Moment(self._random.randint(1, 2), False, self._random.random() < 0.5, self._random.choice(steps))

    def _moment_of_commit(self) -> Moment:
        random = self._random
        step = random.choice(_COMMITS)
        most = 8 if step.startswith("ending") else 1
        return Moment(random.randint(1, most), False, random.random() < 0.7, step)

    def _moment_after_bronze(self) -> Moment:
        """Usually a moment at which a batch is in Bronze and its run has not ended."""
        random = self._random
        if self._in_s3:
            return Moment(random.randint(8, 20), True, random.random() < 0.5)
        step = random.choice(_AFTER_BRONZE)
        return Moment(1, False, step not in _AFTER_BRONZE[:1] and random.random() < 0.6, step)

    def _faults(self) -> Disturbance:
        random = self._random
        if random.random() < 0.75:
            return RandomFaults(random.randrange(1_000_000), random.choice((0.02, 0.05, 0.1, 0.2)))
        kind = random.choice(FAULT_KINDS)
        after = random.randint(0, 3 if kind in _RARE else random.choice((30, 90, 250)))
        return OneFault(kind, after, random.choice((1, 1, 2, 6)))


# These faults are possible for few requests only.
_RARE = (FaultKind.CONFLICT, FaultKind.LOST_LOCK)
