"""What was found, in words and as a page of Markdown."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from telemetry_assets_tests.chaos.player import Outcome
from telemetry_assets_tests.chaos.points import Record
from telemetry_assets_tests.chaos.uploads import NAMES

_COUNTED = ("runs", "runs killed", "runs paused", "runs with faults", "faults", "requests", "uploads", "documents")

_COLUMNS = ("killed before", "killed after", "paused before", "paused after", "faults")
_TABLE = re.compile(r"\b(?:(?:bronze|silver|gold)\.\w+|car_telemetry)")
_UPLOAD = re.compile("|".join(re.escape(name.rpartition("/")[2]) + r"\b(?!\.)" for name, _ in NAMES))
_HOW_POINTS_ARE_COUNTED = (
    "Distinct points and how often they were met, as in 6/15. Points of S3 and Glue bear an operation's name, those in "
    "folders a step's. A point counts once for each table or upload and for each kind of disturbance."
)


def again(outcome: Outcome) -> str:
    """The command that plays a schedule once more."""
    schedule = outcome.schedule
    return f"python -m telemetry_assets_tests.chaos --schedules 1 --seed {schedule.seed} --place {schedule.place}"


def failure_in_words(outcome: Outcome) -> str:
    """What is wrong with a deployment, and how it came there."""
    schedule = outcome.schedule
    versioned = "" if schedule.place != "s3" else ", with versioning" if schedule.versioned else ", without versioning"
    lines = [f"Seed {schedule.seed} fails ({schedule.place}{versioned}, {schedule.settings}):"]
    lines += [f"  {number}. {words}" for number, words in enumerate(outcome.story, 1)]
    lines += [f"  - {problem}" for problem in outcome.problems]
    return "\n".join([*lines, f"  Again: {again(outcome)}"])


def page(outcomes: Sequence[Outcome], command: str, seconds: float) -> str:
    """The report, to stand under a heading: totals, and what was disturbed where.

    It stays short however many schedules there are.
    """
    record = Record()
    for outcome in outcomes:
        record.add(outcome.record)
    failed = [outcome for outcome in outcomes if outcome.problems]
    lines = _table(("", ""), _facts(outcomes, failed, record, command, seconds))
    steps = [(name.removeprefix("step: "), f"{n:,}") for name, n in sorted(record.counts.items()) if "step: " in name]
    lines += ["", "### Steps", "", *_table(("Step", "Times"), steps)]
    lines += ["", "### Points", "", _HOW_POINTS_ARE_COUNTED, ""]
    lines += _table(("Point", "Tables", *_COLUMNS), _point_rows(record))
    lines += ["", "### Faults", "", *_table(("Fault", "Points", "Times"), _fault_rows(record))]
    lines += [line for outcome in failed for line in ("", "```", failure_in_words(outcome), "```")]
    return "\n".join([*lines, ""])


def _facts(
    outcomes: Sequence[Outcome], failed: Sequence[Outcome], record: Record, command: str, seconds: float
) -> list[tuple[str, ...]]:
    places = [outcome.schedule.place for outcome in outcomes]
    of_places = ", ".join(f"{places.count(one):,} in {one}" for one in sorted(set(places)))
    return [
        ("Command", f"`{command}`"),
        ("Schedules", f"{len(outcomes):,} ({of_places})"),
        *((name.capitalize(), f"{record.counts[name]:,}") for name in _COUNTED),
        ("Distinct points disturbed", f"{len(record.points):,}"),
        ("Uploads or documents lost", _verdict(failed)),
        ("Uploads or documents double", _verdict(failed)),
        ("Schedules that failed", f"{len(failed):,}"),
        ("Time taken", f"{seconds / 60:.1f} min"),
    ]


def _verdict(failed: Sequence[Outcome]) -> str:
    return "see the failures" if failed else "0"


def _column(kind: str) -> str:
    """The column that a kind of disturbance is counted in."""
    return kind if kind in _COLUMNS else _COLUMNS[-1]


def _point_rows(record: Record) -> list[tuple[str, ...]]:
    """A row for all points that differ in their table only."""
    grouped: defaultdict[str, defaultdict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    tables: defaultdict[str, set[str]] = defaultdict(set)
    for (kind, point), times in record.points.items():
        group = _UPLOAD.sub("an upload", _TABLE.sub("", point)).removesuffix(" of ").strip()
        tables[group].update(_TABLE.findall(point))
        grouped[group][_column(kind)].append(times)
    return [
        (group, f"{len(tables[group]) or ''}", *(_cell(grouped[group][column]) for column in _COLUMNS))
        for group in sorted(grouped, key=str.lower)
    ]


def _cell(times: Sequence[int]) -> str:
    return f"{len(times)}/{sum(times):,}" if times else ""


def _fault_rows(record: Record) -> list[tuple[str, ...]]:
    of_kind: defaultdict[str, list[int]] = defaultdict(list)
    for (kind, _), times in record.points.items():
        if _column(kind) != kind:
            of_kind[kind].append(times)
    return [(kind, f"{len(times):,}", f"{sum(times):,}") for kind, times in sorted(of_kind.items())]


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    lines = [header, tuple("---" for _ in header), *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]
