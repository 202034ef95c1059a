"""The steps of a schedule, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import Literal

from telemetry_assets_tests.harness.aws.faults import FaultKind


@dataclass(frozen=True)
class Put:
    """The producer writes an upload; it replaces a waiting one of the same name."""

    name: str
    content: bytes
    documents: int
    words: str

    def __str__(self) -> str:
        return f"upload {self.name} ({self.words})"


@dataclass(frozen=True)
class PutAgain:
    """The producer writes its last upload of this name again, with the same bytes."""

    name: str

    def __str__(self) -> str:
        return f"upload {self.name} again, with the same content"


@dataclass(frozen=True)
class Delete:
    """The producer deletes an upload if it still waits."""

    name: str

    def __str__(self) -> str:
        return f"delete {self.name}, if it waits"


@dataclass(frozen=True)
class HandMade:
    """A user changes tables manually while no run is active."""

    what: str
    seed: int

    def __str__(self) -> str:
        return f"by hand: {self.what} (seed {self.seed})"


@dataclass(frozen=True)
class PutHalf:
    """A writer begins an upload under its final name and keeps the file open, so that it grows later."""

    name: str
    content: bytes
    cut: int
    words: str

    def __str__(self) -> str:
        return f"begin upload {self.name} ({self.words}): {self.cut} of {len(self.content)} bytes"


@dataclass(frozen=True)
class Grow:
    """The writers of all partial uploads write the rest, wherever their files are now."""

    def __str__(self) -> str:
        return "partial uploads grow to their end"


LockState = Literal["shared", "reserved", "exclusive"]


@dataclass(frozen=True)
class HoldLock:
    """Another program holds the SQLite catalog in a lock state, at most until the run ends.

    In a WAL database, "shared" is a read mark, and "reserved" and "exclusive" are the write lock.

    :param busy_shares: the duration, as a multiple of the product's lock timeout.
    """

    state: LockState
    busy_shares: float

    @property
    def is_short(self) -> bool:
        """Whether the lock is short enough that the product must wait for it."""
        return self.busy_shares < 1

    @property
    def kind(self) -> str:
        """The kind of disturbance that points are counted by."""
        return f"{self.state} lock, {'short' if self.is_short else 'long'}"

    def __str__(self) -> str:
        return f"another program has a {self.kind} on the catalog ({self.busy_shares:g} of the busy time-out)"


@dataclass(frozen=True)
class DiskTrouble:
    """A disk is full or read-only until the run ends or for ``seconds``.

    :param pages: the free pages of 4 KiB on a full disk.
    :param seconds: the duration; None means until the run ends.
    """

    what: Literal["full", "read-only"]
    pages: int
    seconds: float | None

    @property
    def kind(self) -> str:
        """The kind of disturbance that points are counted by."""
        return f"{self.what} disk"

    def __str__(self) -> str:
        left = f", {self.pages} pages left" if self.what == "full" else ""
        return f"the disk is {self.what}{left}, for {'this run' if self.seconds is None else f'{self.seconds:g} s'}"


MAINTENANCE_KINDS = (
    "marked compaction",
    "unmarked compaction",
    "expiry to one snapshot",
    "expiry to a few snapshots",
    "expiry of a mark",
    "removal of orphans",
    "removal of old metadata",
)
AT_REST_ONLY = ("removal of orphans", "removal of old metadata")
"""Maintenance that deletes files, which other programs may do only while no run is active."""


@dataclass(frozen=True)
class Maintain:
    """Another tool maintains a table, with plain PyIceberg; ``everything`` stands for all tables."""

    kind: str
    table: str

    def __str__(self) -> str:
        return f"maintenance: {self.kind} of {self.table}"


@dataclass(frozen=True)
class Moment:
    """A point of a run: its n-th request or boundary, among all of them or those that write.

    :param before: whether the moment is before the effect of the request or boundary.
    :param step: in folders, the prefix of the counted boundaries' names; empty for all.
    """

    number: int
    writes_only: bool
    before: bool
    step: str = ""

    def __str__(self) -> str:
        kind = "writing request" if self.writes_only else self.step or "request"
        return f"{'before' if self.before else 'after'} {kind} {self.number}"


@dataclass(frozen=True)
class Kill:
    """The process dies at a moment."""

    at: Moment

    def __str__(self) -> str:
        return f"killed {self.at}"


@dataclass(frozen=True)
class Pause:
    """The process, or one of its requests, is paused at a moment while other steps happen."""

    at: Moment
    meanwhile: tuple[Step, ...]

    def __str__(self) -> str:
        return f"paused {self.at}; meanwhile [{'; '.join(map(str, self.meanwhile))}]"


@dataclass(frozen=True)
class ClockJump:
    """The wall clock of a run's machine jumps at a moment."""

    at: Moment
    seconds: float

    def __str__(self) -> str:
        return f"its clock jumps by {self.seconds:+.0f} s {self.at}"


@dataclass(frozen=True)
class RandomFaults:
    """A share of all requests to AWS fails."""

    seed: int
    rate: float

    def __str__(self) -> str:
        return f"with faults in {self.rate:.0%} of its requests (seed {self.seed})"


@dataclass(frozen=True)
class OneFault:
    """One request to AWS fails, perhaps so often in a row that the SDK's retries are exhausted."""

    kind: FaultKind
    after: int
    times: int

    def __str__(self) -> str:
        return f"with {self.kind} after {self.after} requests, {self.times} times"


Disturbance = Kill | Pause | ClockJump | RandomFaults | OneFault


@dataclass(frozen=True)
class Backfill:
    """A table is rebuilt for some event dates."""

    table: str
    dates: tuple[date, ...]

    def __str__(self) -> str:
        return f"backfill {self.table} {', '.join(map(str, self.dates))}"


Work = Literal["process", "replay", "maintain"] | Backfill


@dataclass(frozen=True)
class Run:
    """A process executes a run, perhaps with a disturbance.

    :param settings: settings that differ from the schedule's.
    :param clock: the error of its clock, in seconds.
    """

    work: Work = "process"
    settings: dict[str, float] = field(default_factory=dict)
    clock: float = 0
    disturbance: Disturbance | None = None

    def __str__(self) -> str:
        parts = [str(self.work) if self.work != "process" else "run", *(f"{k}={v}" for k, v in self.settings.items())]
        if self.clock:
            parts.append(f"clock {self.clock:+.0f} s")
        return " ".join([*parts, *([str(self.disturbance)] if self.disturbance else [])])


@dataclass(frozen=True)
class Together:
    """Several processes execute runs concurrently."""

    runs: tuple[Run, ...]

    def __str__(self) -> str:
        return f"at once: {' | '.join(map(str, self.runs))}"


Foreign = HoldLock | DiskTrouble | Maintain | Grow
"""Actions of other programs and the machine; except for some maintenance, they can happen during runs."""

Step = Put | PutAgain | PutHalf | Delete | HandMade | Foreign | Run | Together


@dataclass(frozen=True)
class Schedule:
    """The schedule of a deployment.

    :param settings: the settings of every run, unless the run overrides them.
    :param disk: the folders that are on a small disk of their own; empty for none. In folders only.
    :param hard_links: whether the file system has hard links.
    :param watched: whether a reader checks Silver and Gold during runs. In folders only.
    :param sabotage: the name of a deliberate defect of the product; empty for none.
    """

    seed: int
    place: str
    versioned: bool
    settings: dict[str, float]
    steps: tuple[Step, ...]
    sabotage: str = ""
    disk: Literal["", "both", "lakehouse", "landing"] = ""
    hard_links: bool = True
    watched: bool = False
