"""What can happen in a deployment's life, as values: a schedule is a sequence of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import Literal

from telemetry_assets_tests.aws.faults import FaultKind


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
class Moment:
    """A point of a run: its n-th request or boundary, among all of them or those that write.

    :param before: whether what is asked for has not taken effect yet.
    """

    number: int
    writes_only: bool
    before: bool

    def __str__(self) -> str:
        kind = "writing request" if self.writes_only else "request"
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


Disturbance = Kill | Pause | RandomFaults | OneFault


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
    settings: dict[str, int] = field(default_factory=dict)
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


Step = Put | PutAgain | Delete | HandMade | Run | Together


@dataclass(frozen=True)
class Schedule:
    """A deployment's life.

    :param settings: of every run, but where a run has others.
    :param sabotage: how the product is broken on purpose; not at all where it is empty.
    """

    seed: int
    place: str
    versioned: bool
    settings: dict[str, int]
    steps: tuple[Step, ...]
    sabotage: str = ""
