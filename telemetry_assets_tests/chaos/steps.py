"""What can happen in a deployment's life, as values: a schedule is a sequence of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import Literal

from telemetry_assets_tests.harness.aws.faults import FaultKind


@dataclass(frozen=True)
class Put:
    """The producer writes an upload, in the place of one of its name that still waits."""

    name: str
    content: bytes
    documents: int
    words: str

    def __str__(self) -> str:
        return f"upload {self.name} ({self.words})"


@dataclass(frozen=True)
class PutAgain:
    """The producer writes what it last wrote under this name, byte by byte."""

    name: str

    def __str__(self) -> str:
        return f"upload {self.name} again, with the same content"


@dataclass(frozen=True)
class Delete:
    """The producer takes an upload back, if it still waits."""

    name: str

    def __str__(self) -> str:
        return f"delete {self.name}, if it waits"


@dataclass(frozen=True)
class HandMade:
    """Somebody changes tables by hand, while no run is active."""

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
    """The writers of all half uploads write the rest, wherever their files are by now."""

    def __str__(self) -> str:
        return "half uploads grow to their end"


LockState = Literal["shared", "reserved", "exclusive"]


@dataclass(frozen=True)
class HoldLock:
    """Another program holds the SQLite catalog in a lock state, at most until the run ends.

    In a WAL database, "shared" is a read mark, and "reserved" and "exclusive" are the write lock.

    :param busy_shares: for how long, as a multiple of the time that the product waits for a lock.
    """

    state: LockState
    busy_shares: float

    @property
    def is_short(self) -> bool:
        """Whether the product has to outlast it."""
        return self.busy_shares < 1

    @property
    def kind(self) -> str:
        """The kind of disturbance that points are counted by."""
        return f"{self.state} lock, {'short' if self.is_short else 'long'}"

    def __str__(self) -> str:
        return f"another program has a {self.kind} on the catalog ({self.busy_shares:g} of the busy time-out)"


@dataclass(frozen=True)
class DiskTrouble:
    """A disk is full or read-only until the run ends, or for a time.

    :param pages: how many pages of 4 KiB a full disk has left.
    :param seconds: None until the run ends.
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
"""What deletes files, which other programs may only do while no run is active."""


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

    :param before: whether what is asked for has not taken effect yet.
    :param step: in folders, only boundaries whose name begins so are counted; all where it is empty.
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
    """The process, or one of its requests, stands still at a moment while other things happen."""

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
    """A share of all requests to AWS goes wrong."""

    seed: int
    rate: float

    def __str__(self) -> str:
        return f"with faults in {self.rate:.0%} of its requests (seed {self.seed})"


@dataclass(frozen=True)
class OneFault:
    """One request to AWS goes wrong, perhaps so often in a row that the SDK's retries run out."""

    kind: FaultKind
    after: int
    times: int

    def __str__(self) -> str:
        return f"with {self.kind} after {self.after} requests, {self.times} times"


Disturbance = Kill | Pause | ClockJump | RandomFaults | OneFault


@dataclass(frozen=True)
class Backfill:
    """A table is made anew for some event dates."""

    table: str
    dates: tuple[date, ...]

    def __str__(self) -> str:
        return f"backfill {self.table} {', '.join(map(str, self.dates))}"


Work = Literal["process", "replay"] | Backfill


@dataclass(frozen=True)
class Run:
    """A process works, perhaps disturbed.

    :param settings: those that differ from the schedule's.
    :param clock: by how many seconds its clock is wrong.
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
    """Several processes work at once."""

    runs: tuple[Run, ...]

    def __str__(self) -> str:
        return f"at once: {' | '.join(map(str, self.runs))}"


Foreign = HoldLock | DiskTrouble | Maintain | Grow
"""What other programs and the machine do; it needs no rest of the deployment, but for some maintenance."""

Step = Put | PutAgain | PutHalf | Delete | HandMade | Foreign | Run | Together


@dataclass(frozen=True)
class Schedule:
    """A deployment's life.

    :param settings: of every run, but where a run has others.
    :param disk: what lies on a small disk of its own, in folders only; nothing where it is empty.
    :param hard_links: whether the file system has hard links.
    :param watched: whether a reader looks at Silver and Gold while runs are at work, in folders only.
    :param sabotage: how the product is broken on purpose; not at all where it is empty.
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
