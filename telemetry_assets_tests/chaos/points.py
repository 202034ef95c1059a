"""What a point of a run is called: by what is asked for and what it is about, whenever and of whichever batch."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from telemetry_assets.tables import BRONZE, SILVER, all_tables
from telemetry_assets_tests.harness.aws.api_requests import Request

# A fault in Glue is told with its table's name, without its database; one name is in two of them.
_FULL_NAMES = {one.full_name.partition(".")[2]: one.full_name for one in all_tables() if one not in (BRONZE, SILVER)}


def is_write(request: Request) -> bool:
    """Whether a request changes anything."""
    return not request.operation.startswith(("Get", "Head", "List"))


def point_of(operation: str, key: str, database: str = "") -> str:
    """An API operation with what it is about.

    :param database: of a request to Glue, where it is known.
    """
    return f"{operation} {_subject(key, database)}".strip()


def request_point(request: Request) -> str:
    """The point that a request is."""
    return point_of(request.operation, request.key, request.bucket if request.service != "s3" else "")


def _subject(key: str, database: str) -> str:
    place, _, rest = key.partition("/")
    if place == "landing":
        return "waiting uploads" if not rest else "waiting upload"
    if place != "lakehouse":
        return f"{database}.{key}".strip(".") if database else _FULL_NAMES.get(key, key)
    first, _, rest = rest.partition("/")
    if first == "archive":
        return "archived copy"
    if first == "ingestion":
        return "batch in progress" if rest == "in_progress.json" else "released uploads"
    table, _, file = rest.partition("/")
    return f"{_file(file)} of {first}.{table}"


def _file(file: str) -> str:
    folder, _, name = file.partition("/")
    if folder == "data":
        return "data file"
    if name.startswith("snap-"):
        return "manifest list"
    return "metadata" if name.endswith(".metadata.json") else "manifest" if name else "files"


@dataclass
class Record:
    """What a schedule, or many, did.

    :param points: how often each point was visited, by the kind of disturbance and its name.
    :param counts: steps, runs and uploads by what they were.
    """

    points: Counter[tuple[str, str]] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, other: Record) -> None:
        """Count what another has counted."""
        self.points.update(other.points)
        self.counts.update(other.counts)
