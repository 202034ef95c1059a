"""The report of outcomes, as text and as a page of Markdown."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from telemetry_assets_tests.chaos.player import Outcome
from telemetry_assets_tests.chaos.points import Record
from telemetry_assets_tests.chaos.uploads import NAMES

_COUNTED = (
    *("runs", "runs killed", "runs paused", "runs with faults", "runs whose clock jumps", "runs that failed"),
    *("faults", "requests", "uploads", "documents"),
)
_READER_COUNTS = ("passes", "snapshots", "rows", "states", "undecided", "lock timeouts")
_COLUMNS = (
    *("killed before", "killed after", "paused before", "paused after"),
    *("locked", "disk", "maintained", "growth", "clock", "faults"),
)
_COLUMN_OF = (
    *(("lock,", "locked"), ("disk", "disk"), ("compaction", "maintained"), ("expiry", "maintained")),
    *(("removal", "maintained"), ("growing", "growth"), ("clock", "clock")),
)
_NO_MOUNTS = "cannot be mounted here, so no schedule has a full or a read-only one"
_MOUNTS = "tmpfs in a mount namespace, read-only by a bind mount"
_LINKS = "`os.link` fails with EOPNOTSUPP in the worker; no file system without hard links is mounted"
_TABLE = re.compile(r"\b(?:(?:bronze|silver|gold)\.\w+|car_telemetry)")
_UPLOAD = re.compile("|".join(re.escape(name.rpartition("/")[2]) + r"\b(?!\.)" for name, _ in NAMES))
_HOW_POINTS_ARE_COUNTED = (
    "Each cell has the number of distinct points and the number of disturbances, as in 6/15. A point in S3 and Glue "
    "has the name of an operation, and a point in a folder has the name of a step. A point counts once for each table "
    "or upload and each kind of disturbance."
)


def again(outcome: Outcome) -> str:
    """The command that plays a schedule again."""
    schedule = outcome.schedule
    return f"python -m telemetry_assets_tests.chaos --schedules 1 --seed {schedule.seed} --place {schedule.place}"


def describe_failure(outcome: Outcome) -> str:
    """The problems of an outcome and the steps that led to them."""
    schedule = outcome.schedule
    versioned = "" if schedule.place != "s3" else ", with versioning" if schedule.versioned else ", without versioning"
    lines = [f"Seed {schedule.seed} fails ({schedule.place}{versioned}, {schedule.settings}):"]
    lines += [f"  {number}. {words}" for number, words in enumerate(outcome.story, 1)]
    lines += [f"  - {problem}" for problem in outcome.problems]
    return "\n".join([*lines, f"  Again: {again(outcome)}"])


def disks_sentence(mounts: bool) -> str:
    """Whether schedules have disks of their own."""
    return f"Disks: {_MOUNTS if mounts else _NO_MOUNTS}."


def page(outcomes: Sequence[Outcome], command: str, seconds: float, mounts: bool = False) -> str:
    """The report without a heading: totals, and the disturbances by point.

    Its length does not depend on the number of schedules.

    :param mounts: whether schedules could have disks of their own.
    """
    record = Record()
    for outcome in outcomes:
        record.add(outcome.record)
    failed = [outcome for outcome in outcomes if outcome.problems]
    lines = _table(("", ""), _facts(outcomes, failed, record, command, seconds, mounts))
    steps = [(name.removeprefix("step: "), f"{n:,}") for name, n in sorted(record.counts.items()) if "step: " in name]
    lines += ["", "### Steps", "", *_table(("Step", "Times"), steps)]
    lines += ["", "### Points", "", _HOW_POINTS_ARE_COUNTED, ""]
    lines += _table(("Point", "Tables", *_COLUMNS), _point_rows(record))
    lines += ["", "### Kinds of disturbance", "", *_table(("Kind", "Points", "Times"), _kind_rows(record))]
    lines += [line for outcome in failed for line in ("", "```", describe_failure(outcome), "```")]
    return "\n".join([*lines, ""])


def _facts(
    outcomes: Sequence[Outcome],
    failed: Sequence[Outcome],
    record: Record,
    command: str,
    seconds: float,
    mounts: bool,
) -> list[tuple[str, ...]]:
    places = [outcome.schedule.place for outcome in outcomes]
    of_places = ", ".join(f"{places.count(one):,} in {one}" for one in sorted(set(places)))
    return [
        ("Command", f"`{command}`"),
        ("Schedules", f"{len(outcomes):,} ({of_places})"),
        *((name.capitalize(), f"{record.counts[name]:,}") for name in _COUNTED),
        ("Distinct points disturbed", f"{len(record.points):,}"),
        ("Uploads lost", f"{record.counts['lost']:,}"),
        ("Uploads duplicated", f"{record.counts['double']:,}"),
        ("Uploads not ingested in the end", f"{record.counts['not taken']:,}"),
        ("Uploads lost, duplicated or not ingested, and unreported", f"{record.counts['unreported']:,}"),
        ("Schedules that failed", f"{len(failed):,}"),
        *((f"The reader's {name}", f"{record.counts[f'reader: {name}']:,}") for name in _READER_COUNTS),
        ("Disks", _with_count(_MOUNTS, [one for one in outcomes if one.schedule.disk]) if mounts else _NO_MOUNTS),
        ("No hard links", _with_count(_LINKS, [one for one in outcomes if not one.schedule.hard_links])),
        ("Time taken", f"{seconds / 60:.1f} min"),
    ]


def _with_count(words: str, outcomes: Sequence[Outcome]) -> str:
    return f"{words} ({len(outcomes):,} schedules)"


def _column(kind: str) -> str:
    """The column of a kind of disturbance."""
    return kind if kind in _COLUMNS else next((column for part, column in _COLUMN_OF if part in kind), _COLUMNS[-1])


def _point_rows(record: Record) -> list[tuple[str, ...]]:
    """One row for all points that differ in their table only."""
    grouped: defaultdict[str, defaultdict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    tables: defaultdict[str, set[str]] = defaultdict(set)
    for (kind, point), times in record.points.items():
        group = _UPLOAD.sub("an upload", _TABLE.sub("a table", point)).replace("Table a table", "Table")
        tables[group].update(_TABLE.findall(point))
        grouped[group][_column(kind)].append(times)
    return [
        (group, f"{len(tables[group]) or ''}", *(_cell(grouped[group][column]) for column in _COLUMNS))
        for group in sorted(grouped, key=str.lower)
    ]


def _cell(times: Sequence[int]) -> str:
    return f"{len(times)}/{sum(times):,}" if times else ""


def _kind_rows(record: Record) -> list[tuple[str, ...]]:
    of_kind: defaultdict[str, list[int]] = defaultdict(list)
    for (kind, _), times in record.points.items():
        of_kind[kind].append(times)
    return [(kind, f"{len(times):,}", f"{sum(times):,}") for kind, times in sorted(of_kind.items())]


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    lines = [header, tuple("---" for _ in header), *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]
