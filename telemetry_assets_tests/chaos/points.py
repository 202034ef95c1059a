"""The names of points in runs: an operation and its object, without times and batch ids."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from telemetry_assets.tables import BRONZE, SILVER, all_tables
from telemetry_assets_tests.harness.aws.api_requests import Request

# A fault in Glue has its table's name without its database; one table name occurs in two databases.
_FULL_NAMES = {one.full_name.partition(".")[2]: one.full_name for one in all_tables() if one not in (BRONZE, SILVER)}


def is_write(request: Request) -> bool:
    """Whether a request changes anything."""
    return not request.operation.startswith(("Get", "Head", "List"))


def point_of(operation: str, key: str, database: str = "") -> str:
    """The name of an API operation and its object.

    :param database: the database of a request to Glue, if known.
    """
    return f"{operation} {_subject(key, database)}".strip()


def request_point(request: Request) -> str:
    """The point of a request."""
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
    """The statistics of one or several schedules.

    :param points: the number of disturbances by kind and point.
    :param counts: the numbers of steps, runs and uploads by kind.
    """

    points: Counter[tuple[str, str]] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, other: Record) -> None:
        """Add another record's counts."""
        self.points.update(other.points)
        self.counts.update(other.counts)
